package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/bench/measure"
	"github.com/kvdstore/kvd/bench/peers"
)

// TestCompareRefused: everything that is wrong is told at once, with field and bound, before anything is started.
func TestCompareRefused(t *testing.T) {
	err := bench(t.Context(), strings.Fields("compare --only kvd-4 --rounds 0 --time 0s --warm -1s --keys 0 --shards 2000"), &bytes.Buffer{})
	for _, want := range []string{`one is "kvd-4"`, "rounds: 1 to 100, is 0", "time: above 0 to", "warm: 0s to", "keys: as many as shards", "shards: 1 to 1000, is 2000"} {
		require.ErrorContains(t, err, want)
	}
}

// TestCases: each is for somebody; stores without a pipeline do the same one by one, and Redis as deep as it is compared.
func TestCases(t *testing.T) {
	s, err := parseCompare(nil)
	require.NoError(t, err)
	require.Subset(t, peers.Names(), s.stores())
	require.Len(t, s.stores(), len(peers.Names())-2)
	require.NotContains(t, s.stores(), "etcd36-3")
	old, err := parseCompare([]string{"--only", "etcd36-1,kvd-1"})
	require.NoError(t, err)
	require.Equal(t, []string{"kvd-1", "etcd36-1"}, old.stores())
	every, err := parseCompare([]string{"--only", strings.Join(peers.Names(), ",")})
	require.NoError(t, err)
	require.Equal(t, peers.Names(), every.stores())
	for i := range comparisons {
		c := &comparisons[i]
		var list []string
		for _, store := range peers.Names() {
			x, ok := c.trial(s, store, peers.KindOf(store))
			if !ok {
				continue
			}
			list = append(list, store)
			require.Equal(t, c.pipelined && !strings.HasPrefix(store, "etcd"), x.target.Pipelined, "%s of %s", c.name, store)
			require.Equal(t, x.depth > 1, c.depth > 1 && x.target.Pipelined)
			if peers.KindOf(store) == "redis" && c.pipelined {
				require.Equal(t, 16, x.depth)
				require.Equal(t, 50, x.clients)
			}
		}
		require.Contains(t, list, "kvd-3", c.name)
		require.Greater(t, len(list), 1, c.name)
		require.Equal(t, c.name == killCase, !slices.Contains(list, "kvd-1"))
		if c.name == "e" {
			require.NotContains(t, list, "memcached")
			require.NotContains(t, list, "echo-3")
		}
	}
}

// TestOnly: --only takes stores and cases.
func TestOnly(t *testing.T) {
	s, err := parseCompare([]string{"--only", "get-1,echo-1,kvd-3"})
	require.NoError(t, err)
	require.Equal(t, []string{"kvd-3", "echo-1"}, s.stores())
	require.Equal(t, []string{"get-1"}, s.chosen(caseNames(), caseNames()))
	cuts, err := s.cuts()
	require.NoError(t, err)
	require.Len(t, cuts, 6)
}

// TestFilledOnce: a store gets the records of a key space once.
func TestFilledOnce(t *testing.T) {
	s, err := parseCompare(nil)
	require.NoError(t, err)
	c := &contest{settings: s, filled: map[string]bool{}}
	fills := func(name, store string) bool {
		x, ok := comparisons[slices.Index(caseNames(), name)].trial(s, store, peers.KindOf(store))
		require.True(t, ok)
		return c.toFill(store, x)
	}
	require.True(t, fills("get-1", "kvd-3"))
	require.False(t, fills("put-256", "kvd-3"))
	require.True(t, fills("get-1k-256", "kvd-3"), "other values")
	require.True(t, fills("get-1", "kvd-1"))
	require.True(t, fills("a", "kvd-3"))
	require.False(t, fills("f", "kvd-3"))
	require.True(t, fills("e", "redis"), "with an index")
	require.True(t, fills("geo", "redis"))
}

// TestMain lets the test's program be the server that compare starts of itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "echo" {
		if err := bench(context.Background(), os.Args[1:], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// TestCompareProcesses: a store of three processes is started, their figures are taken, and none is left.
func TestCompareProcesses(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, bench(t.Context(), []string{
		"compare", "--only", "echo-3,packed-get", "--rounds", "1", "--time", "300ms", "--warm", "0s", "--keys", "100", "--out", dir,
	}, &bytes.Buffer{}))
	runs, err := readRuns(filepath.Join(dir, runsFile))
	require.NoError(t, err)
	require.Len(t, runs, 1)
	require.NotZero(t, runs[0].Done)
	require.Len(t, runs[0].Processes, 3)
	for _, p := range runs[0].Processes {
		require.NotEqual(t, os.Getpid(), p.PID)
		_, err := measure.UsageOf(p.PID)
		require.Error(t, err, "process %d is still there", p.PID)
	}
}

// TestCompare: Pebble needs no server: it is started, measured in every round, and reported; a program that is not there
// is left out with what would bring it.
func TestCompare(t *testing.T) {
	t.Setenv("PATH", "")
	dir := t.TempDir()
	var told bytes.Buffer
	require.NoError(t, bench(t.Context(), []string{
		"compare", "--only", "pebble,redis,memcached,put-64,e", "--rounds", "2", "--time", "200ms", "--warm", "0s", "--keys", "100", "--out", dir,
	}, &told))
	require.Contains(t, told.String(), "left out redis: redis-server is not installed; on Debian: apt-get install redis-server")
	require.Contains(t, told.String(), "left out memcached")
	runs, err := readRuns(filepath.Join(dir, runsFile))
	require.NoError(t, err)
	var list []string
	for _, r := range runs {
		require.NotZero(t, r.Done)
		require.Zero(t, r.Missed)
		list = append(list, r.Case+" "+r.System)
	}
	require.Equal(t, []string{"put-64 pebble", "put-64 pebble", "e pebble", "e pebble"}, list)
	require.Equal(t, []int{1, 2}, []int{runs[0].Round, runs[1].Round})
	page, err := os.ReadFile(filepath.Join(dir, pageFile))
	require.NoError(t, err)
	require.Contains(t, string(page), `<h2 id="e">`)
	found, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, found, 2, "the data is gone")

	told.Reset()
	again := filepath.Join(dir, "again.html")
	require.NoError(t, bench(t.Context(), []string{"report", "--from", filepath.Join(dir, runsFile), "--page", again}, &told))
	require.Contains(t, told.String(), "put-64")
	require.FileExists(t, again)
}
