package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/bench/echo"
	"github.com/kvdstore/kvd/bench/report"
	"github.com/kvdstore/kvd/internal/test"
)

// short runs a short trial, and gives what it told and its line.
func short(t *testing.T, args ...string) (string, *report.Run) {
	t.Helper()
	var told bytes.Buffer
	file := filepath.Join(t.TempDir(), "runs.jsonl")
	args = append([]string{"run", "--time", "300ms", "--warm", "50ms", "--keys", "200", "--clients", "8", "--json", file}, args...)
	require.NoError(t, bench(t.Context(), args, &told))
	f, err := os.Open(file)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	list, err := report.Read(f)
	require.NoError(t, err)
	require.Len(t, list, 1)
	r := list[0]
	require.NotZero(t, r.Done)
	require.Empty(t, r.Errors)
	sum := uint64(0)
	for _, s := range r.Timeline {
		sum += s.Done
	}
	require.Equal(t, r.Done, sum, "the timeline has each operation once")
	require.Equal(t, r.Done, r.Latency.Count)
	return told.String(), r
}

// TestRunKVD: each workload finds in kvd what it has put there.
func TestRunKVD(t *testing.T) {
	c := test.New(t, 1)
	c.StartAll()
	for _, args := range []string{
		"--workload a", "--workload d", "--workload e", "--workload f", "--workload get", "--workload put --value 1024", "--workload geo",
		"--workload pipeline-get", "--workload pipeline-put --depth 16", "--workload get --rate 300 --read-percent 50",
	} {
		t.Run(args, func(t *testing.T) {
			args := append(strings.Fields(args), "--endpoints", c.Addresses()[0], "--pids", strconv.Itoa(os.Getpid()))
			told, r := short(t, args...)
			require.Contains(t, told, "operations/s")
			require.Len(t, r.Processes, 1)
			if r.Workload != "geo" { // There the cell of a thing that another has just left may be empty.
				require.Zero(t, r.Missed)
			}
		})
	}
}

// TestTargetAddress: an address is one of kvd.
func TestTargetAddress(t *testing.T) {
	x, _, err := parseRun([]string{"--target", "127.0.0.1:1,127.0.0.1:2"})
	require.NoError(t, err)
	require.Equal(t, "kvd", x.target.Kind)
	require.Equal(t, []string{"127.0.0.1:1", "127.0.0.1:2"}, x.target.Endpoints)
}

// TestRunEcho: the ceiling has the same ways to be asked.
func TestRunEcho(t *testing.T) {
	var list []string
	for range 2 {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		s := echo.New()
		go func() { _ = s.Serve(lis) }()
		t.Cleanup(s.Stop)
		list = append(list, lis.Addr().String())
	}
	for _, args := range []string{"--workload get", "--workload put", "--workload pipeline-get", "--workload pipeline-put --depth 64"} {
		t.Run(args, func(t *testing.T) {
			_, r := short(t, append(strings.Fields(args), "--target", "echo", "--endpoints", strings.Join(list, ","))...)
			require.Equal(t, 2, r.Servers)
		})
	}
}

// TestRunPebble: so has the store beneath, which needs no server.
func TestRunPebble(t *testing.T) {
	for _, args := range []string{"--workload a", "--workload e", "--workload pipeline-put --depth 8"} {
		_, r := short(t, append(strings.Fields(args), "--target", "pebble", "--endpoints", t.TempDir())...)
		require.Zero(t, r.Missed)
	}
}

// TestRefused: what does not fit together is refused before anything is sent, with field and bound.
func TestRefused(t *testing.T) {
	for args, want := range map[string]string{
		"":                               "one of these is needed",
		"jump":                           "one of these is needed",
		"run x":                          `it takes flags only, and "x" is none`,
		"run --workload z":               "workload: one of [a b",
		"run --target tape":              "target: one of [",
		"run --clients 0 --time 0s":      "clients: 1 to 10000, is 0",
		"run --endpoints here":           `endpoints: HOST:PORT, one is "here"`,
		"run --depth 8":                  "depth: 1 without a pipeline, is 8",
		"run --warm -1s":                 "warm: 0s to 1h, is -1s",
		"run --target echo --workload e": "workload: one that echo can do: it has no scans",
		"echo --gogc 1":                  "gogc: 10 to 10000, is 1",
	} {
		if want != "" {
			require.ErrorContains(t, bench(t.Context(), strings.Fields(args), &bytes.Buffer{}), want, args)
		}
	}
}
