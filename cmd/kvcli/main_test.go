package main

import (
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kvdstore/kvd/internal/test"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kvcli": func() { os.Exit(run(os.Args[1:])) }})
}

// TestScripts runs every command against three nodes; the other cluster is of one node.
func TestScripts(t *testing.T) {
	cluster, other := test.New(t, 3, "geo/d", "geo/s", "m"), test.New(t, 1)
	cluster.StartAll()
	other.StartAll()
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("KVCLI_ENDPOINTS", strings.Join(cluster.Addresses(), ","))
			e.Setenv("OTHER", other.Addresses()[0])
			return nil
		},
	})
}

// TestElasticScripts runs what changes the shards and the nodes, each script against four nodes of its own.
func TestElasticScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/elastic",
		Setup: func(e *testscript.Env) error {
			cluster := test.New(e.T().(testing.TB), 4, "g", "p")
			cluster.StartAll()
			e.Setenv("KVCLI_ENDPOINTS", strings.Join(cluster.Addresses(), ","))
			return nil
		},
	})
}
