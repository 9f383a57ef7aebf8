package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/bench/load"
	"github.com/kvdstore/kvd/bench/measure"
	"github.com/kvdstore/kvd/bench/report"
)

// TestSeriesRefused: everything that is wrong is told at once, with field and bound, before anything is started.
func TestSeriesRefused(t *testing.T) {
	for args, wants := range map[string][]string{
		"shards --shards 4,1 --busy 0 --nodes 10 --rounds 0 --ports 80 --idle 0s --loads a": {
			"shards: some of 1 to 16384, rising, is [4 1]", "busy: 1 to 16384, is 0", "nodes: 1 to 9, is 10", "rounds: 1 to 100, is 0", "ports: 1024 to 60000, is 80",
			"idle: 100ms to 1h0m0s, is 0s", `one is "a"`,
		},
		"shards --shards 1,1":                    {"shards: some of"},
		"shards --shards 20000":                  {"shards: some of 1 to 16384"},
		"shards --busy 32 --of 32":               {"of: more than busy, which is 32, is 32"},
		"shards --keys 31":                       {"keys: 32 to"},
		"shards x":                               {`it takes flags only, and "x" is none`},
		"keys --keys 0 --value 0 --heat 2h":      {"keys: some of 1 to", "heat: 0s to 1h0m0s, is 2h0m0s"},
		"keys --value -1 --distribution even":    {"value: 1 to", "distribution: uniform, zipfian, scrambled or latest"},
		"keys --time 0s --warm 2h --settle -1s":  {"time: 1ms to", "warm: 0s to 1h0m0s", "settle: 0s to"},
		"gc --entries 5,2 --read-percent 101":    {"entries: some of", "read-percent: 0 to 100, is 101"},
		"gc --rate -1 --clients 0 --nice 20":     {"rate: 0 (a closed loop) to", "clients: 1 to 10000, is 0", "nice: -20 to 19, is 20"},
		"keys --loads get-1k-256":                {`loads: some of [get-1 get-64`, `one is "get-1k-256"`},
		"keys --loads kill-leader --rounds 1000": {`one is "kill-leader"`, "rounds: 1 to 100"},
	} {
		err := bench(t.Context(), strings.Fields(args), &bytes.Buffer{})
		for _, want := range wants {
			require.ErrorContains(t, err, want, args)
		}
	}
}

// TestShardsSystems: each cluster is used as a whole, and one of them also as if it had fewer shards.
func TestShardsSystems(t *testing.T) {
	f, err := parseShards([]string{"--shards", "1,8,64", "--busy", "8", "--of", "64"})
	require.NoError(t, err)
	s := &series{seriesFlags: &f.seriesFlags, journal: &journal{data: t.TempDir()}}
	var list []string
	for _, n := range f.shards {
		require.NoError(t, f.systems(s, n))
	}
	for _, x := range s.systems {
		w := x.records
		w.Name, w.ReadPercent = "put", -1
		require.NoError(t, w.Prepare())
		list = append(list, x.name)
		keys := places(&w)
		if x.name == "8 of 64" {
			require.Same(t, s.systems[2].on, x.on)
			require.Len(t, keys, 8)
		} else {
			require.Empty(t, keys)
		}
	}
	require.Equal(t, []string{"1 shard", "8 shards", "64 shards", "8 of 64"}, list)
	var cuts []int
	for _, c := range s.clusters {
		cuts = append(cuts, len(c.config.Cuts))
	}
	require.Equal(t, []int{0, 7, 63}, cuts)
	require.Equal(t, []report.Goal{{System: "8 of 64", Base: "8 shards", Least: 0.9}, {System: "64 shards", Base: "8 shards", Least: 0.5}}, f.goals())
}

// TestPlaces: the places of a load that keeps to some shards lie in all of these, and its keys in no other.
func TestPlaces(t *testing.T) {
	w := load.Workload{Name: "put", Keys: 1000, ReadPercent: -1, Parts: 64, Used: 8}
	require.NoError(t, w.Prepare())
	partOf := func(key []byte) int {
		n := 0
		for _, cut := range w.Cuts(64) {
			if bytes.Compare(key, cut) >= 0 {
				n++
			}
		}
		return n
	}
	list := places(&w)
	places, keys := map[int]bool{}, map[int]bool{}
	for _, key := range list {
		places[partOf(key)] = true
	}
	g := w.Generator(0, 1)
	for i := range w.Keys {
		keys[partOf(w.Fill(g, i).Key)] = true
	}
	require.Len(t, places, 8)
	require.Equal(t, places, keys)
}

// TestPlainTrials: what can be asked for has the shape that compare gives it.
func TestPlainTrials(t *testing.T) {
	s := &seriesFlags{length: 1, warm: 1, seed: 7}
	x := &system{records: load.Workload{Keys: 10, Distribution: load.Scrambled}}
	for _, name := range plainLoads() {
		got, err := s.plainTrial(name, x)
		require.NoError(t, err, name)
		want, ok := comparisons[indexOf(name)].trial(&settings{keys: 10, length: 1, warm: 1, seed: 7}, "kvd-3", "kvd")
		require.True(t, ok)
		require.Equal(t, want.clients, got.clients, name)
		require.Equal(t, want.depth, got.depth, name)
		require.Equal(t, want.target, got.target, name)
		require.Equal(t, want.workload.Writes(), got.workload.Writes(), name)
		require.Equal(t, want.workload.Value, got.workload.Value, name)
		require.Equal(t, load.Scrambled, got.workload.Distribution)
	}
	require.Contains(t, plainLoads(), "packed-put")
}

func indexOf(name string) int {
	for i, n := range caseNames() {
		if n == name {
			return i
		}
	}
	return -1
}

// TestSizes: shards for keys as kvd would have them, memory for entries that all fit, and names for numbers.
func TestSizes(t *testing.T) {
	require.Equal(t, 1, shardsFor(1, 1))
	require.Equal(t, 1, shardsFor(1_000_000, 128))
	require.Equal(t, 14, shardsFor(20_000_000, 128))

	f, err := parseGC(nil)
	require.NoError(t, err)
	require.Equal(t, 332, f.entryBytes())
	require.Equal(t, "268435456", f.memoryFor(10_000))
	require.Equal(t, "13944000000", f.memoryFor(10_000_000))
	f.memory = "1GiB"
	require.Equal(t, "1GiB", f.memoryFor(10_000_000))

	for n, want := range map[int]string{1: "1", 999: "999", 1000: "1k", 1024: "1024", 10_000: "10k", 1_000_000: "1M", 2_500_000: "2.5M", 20_000_000: "20M", 1_234_567: "1234567"} {
		require.Equal(t, want, many(n))
	}
}

// series1 runs a series on a node, and gives its runs.
func series1(t *testing.T, args ...string) []*report.Run {
	dir := t.TempDir()
	args = append(args, "--rounds", "2", "--time", "200ms", "--warm", "0s", "--settle", "0s", "--idle", "100ms", "--out", dir)
	var told bytes.Buffer
	if err := bench(t.Context(), args, &told); err != nil {
		require.ErrorContains(t, err, "missed: ", told.String()) // So short a time says nothing.
		require.NotContains(t, err.Error(), "round", told.String())
	}
	runs, err := readRuns(filepath.Join(dir, args[0]+".jsonl"))
	require.NoError(t, err)
	for _, r := range runs {
		require.NotZero(t, r.Done, r.System)
		require.Zero(t, r.Missed, r.System)
		require.Empty(t, r.Errors, r.Shown)
		require.NotNil(t, r.Standing)
		require.Positive(t, r.Standing.Start)
		require.Positive(t, r.Standing.Resident)
		for _, p := range r.Processes {
			_, err := measure.UsageOf(p.PID)
			require.Error(t, err, "process %d is still there", p.PID)
		}
		require.Contains(t, told.String(), r.System)
	}
	found, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, found, 1, "the data is gone")
	return runs
}

// namesOf lists the runs in their order.
func namesOf(runs []*report.Run) (list []string) {
	for _, r := range runs {
		list = append(list, r.Case+" "+r.System)
	}
	return list
}

// TestShardsCommand: a cluster keeps its data from turn to turn, each round begins with another system, and nothing is left.
func TestShardsCommand(t *testing.T) {
	runs := series1(t, "shards", "--nodes", "1", "--shards", "1,6", "--busy", "1", "--of", "6", "--keys", "300", "--loads", "get-64", "--ports", "22100")
	require.Equal(t, []string{"get-64 1 shard", "get-64 6 shards", "get-64 1 of 6", "get-64 6 shards", "get-64 1 of 6", "get-64 1 shard"}, namesOf(runs))
	require.Equal(t, 6, runs[1].Standing.Shards)
	require.Equal(t, 6, runs[2].Standing.Shards)
	require.Equal(t, 1, runs[5].Standing.Shards)
}

// TestKeysCommand: records are put once, before all turns.
func TestKeysCommand(t *testing.T) {
	runs := series1(t, "keys", "--keys", "100,400", "--loads", "get-64,put-64", "--heat", "50ms", "--page-cache", "--memory", "64MiB", "--ports", "22200")
	require.Equal(t, []string{
		"get-64 100 keys", "put-64 100 keys", "get-64 400 keys", "put-64 400 keys", "get-64 400 keys", "put-64 400 keys", "get-64 100 keys", "put-64 100 keys",
	}, namesOf(runs))
	require.Equal(t, 400, runs[2].Keys)
	require.Positive(t, runs[2].Standing.Cached)
}

// TestGCCommand: what the collector did is told of each run.
func TestGCCommand(t *testing.T) {
	runs := series1(t, "gc", "--entries", "200", "--heat", "0s", "--rate", "200", "--ports", "22300")
	require.Equal(t, []string{"full 200 entries", "paced 200 entries", "full 200 entries", "paced 200 entries"}, namesOf(runs))
	for _, r := range runs {
		require.NotNil(t, r.GC)
		require.Positive(t, r.GC.GetP999)
		require.Positive(t, r.GC.PutP999)
		require.InDelta(t, 200*(16+128+188), r.Standing.Cached, 1000)
	}
	require.Zero(t, runs[0].Rate)
	require.EqualValues(t, 200, runs[1].Rate)
}
