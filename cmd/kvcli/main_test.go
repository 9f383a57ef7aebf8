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

// TestScripts runs every command against three nodes.
func TestScripts(t *testing.T) {
	cluster := test.New(t, 3, "geo/d", "geo/s", "m")
	cluster.StartAll()
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("KVCLI_ENDPOINTS", strings.Join(cluster.Addresses(), ","))
			return nil
		},
	})
}
