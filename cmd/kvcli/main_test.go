package main

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/internal/test"
	"github.com/kvdstore/kvd/node"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kvcli": func() { os.Exit(run(os.Args[1:])) }})
}

// TestScripts runs every command against three nodes; the other cluster is of one node. What the scripts load together must not
// split the shards that some of them name.
func TestScripts(t *testing.T) {
	cluster, other := test.New(t, 3, "geo/d", "geo/s", "m"), test.New(t, 1)
	cluster.StartAll()
	other.StartAll()
	require.Zero(t, run([]string{"settings", "set", "auto-split", "false", "--endpoints", strings.Join(cluster.Addresses(), ",")}))
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("KVCLI_ENDPOINTS", strings.Join(cluster.Addresses(), ","))
			e.Setenv("OTHER", other.Addresses()[0])
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"until": until},
	})
}

// TestElasticScripts runs what changes the shards and the nodes, each script against four nodes of its own: n1 to n3 in the
// west, n4 in the east.
func TestElasticScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/elastic",
		Setup: func(e *testscript.Env) error {
			cluster := test.New(e.T().(testing.TB), 4, "g", "p")
			cluster.Regions = []string{"west", "west", "west", "east"}
			cluster.Configure = func(c *node.Config) {
				c.Fatal = func(err error) {
					if !errors.Is(err, node.ErrRemoved) {
						panic(err)
					}
				}
			}
			cluster.StartAll()
			e.Setenv("KVCLI_ENDPOINTS", strings.Join(cluster.Addresses(), ","))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"until": until},
	})
}

// until runs a command again and again until its output matches a pattern.
func until(s *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		s.Fatalf("usage: until PATTERN COMMAND...")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	s.Check(err)
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		err := s.Exec(args[1], args[2:]...)
		out := s.ReadFile("stdout")
		if err == nil && pattern.MatchString(out) {
			return
		}
		if time.Since(began) > time.Minute {
			s.Fatalf("no match for %s after a minute in: %v\n%s", args[0], err, out)
		}
	}
}
