package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/geo"
	"github.com/kvdstore/kvd/internal/test"
)

// short runs a short trial with a cluster in this process, and gives what it told and what did not hold.
func short(t *testing.T, nodes int, args ...string) (*trial, string, error) {
	s, err := parse(append([]string{"--rate", "200", "--keys", "50", "--background", "1000", "--quiet", "0s", "--run", "2s", "--every", "1s"}, args...))
	require.NoError(t, err)
	c := test.New(t, nodes)
	c.StartAll()
	s.endpoints = c.Addresses()
	var told bytes.Buffer
	x, err := newTrial(s, &told)
	require.NoError(t, err)
	t.Cleanup(x.close)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err = x.run(ctx)
	return x, told.String(), err
}

// TestMoving: the load goes to each place in turn, and each answer is counted for the node that gave it.
func TestMoving(t *testing.T) {
	x, told, err := short(t, 3, "--phases", "2")
	require.Contains(t, told, "phase 2: 50 keys of the cell rbsm1 (Wellington)")
	require.NoError(t, x.load.failed())
	// Two seconds are too short to share anything out, and it says so.
	require.ErrorContains(t, err, "at Zürich the busiest node carried more than 1.3 times the mean")
	require.Len(t, x.nodes, 3)

	settings, err := x.admin.Settings(context.Background())
	require.NoError(t, err)
	for _, s := range settings {
		if s.GetName() == autoSplit {
			require.Equal(t, "true", s.GetValue(), "as it was before")
		}
	}
}

// TestOneKey: without a word of kvd that a split would not help the run has failed.
func TestOneKey(t *testing.T) {
	_, told, err := short(t, 1, "--onekey")
	require.Contains(t, told, "why shard 1, which node 1 leads")
	require.ErrorContains(t, err, "kvd does not say that a split would not help")
}

// TestCity: a cell that was not divided is told.
func TestCity(t *testing.T) {
	_, told, err := short(t, 1, "--city")
	require.Contains(t, told, "the cell u0qj6 lies in 1 shards")
	require.ErrorContains(t, err, "the cell u0qj6 was not divided")
}

// TestZipf: a map that stays as it is has settled.
func TestZipf(t *testing.T) {
	x, told, err := short(t, 1, "--zipf")
	require.NoError(t, err, told)
	require.Len(t, x.world, 1000)
	require.Contains(t, told, "0 splits, 0 merges, 0 moves")
}

// TestErrorsAreTold: a client that cannot reach anything is what a run fails of.
func TestErrorsAreTold(t *testing.T) {
	l, err := newLoad([]string{"127.0.0.1:1"}, 100, 1)
	require.NoError(t, err)
	defer l.close()
	l.done([]byte("k"), time.Second, nil)
	require.NoError(t, l.failed())
	l.done([]byte("k"), time.Second, context.DeadlineExceeded)
	require.ErrorContains(t, l.failed(), "1 errors reached clients")
	require.Len(t, l.take().served, 0)
}

func TestBounds(t *testing.T) {
	_, err := parse([]string{"--nodes", "0", "--rate", "1", "--every", "1ms", "--city", "--zipf", "more"})
	for _, text := range []string{"nodes", "rate", "every", "at most one", `"more"`} {
		require.ErrorContains(t, err, text)
	}
}

// TestKeysLieInTheCell: all keys of a hot cell are in it, and no two are the same; the next place is about a quarter of
// the way round the earth away or more.
func TestKeysLieInTheCell(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for i, at := range places {
		c := newCell(rng, at, 1000)
		require.Len(t, c.hash, cellChars)
		seen := map[string]bool{}
		for _, key := range c.keys {
			hash, _, err := geo.ParseKey(geo.Prefix, key)
			require.NoError(t, err)
			require.True(t, strings.HasPrefix(hash, c.hash), "%s is not in %s", hash, c.hash)
			seen[string(key)] = true
		}
		require.Len(t, seen, 1000)
		next := places[(i+1)%len(places)]
		require.Greater(t, geo.Distance(at.lat, at.lon, next.lat, next.lon), 9_500e3, "%s to %s", at.name, next.name)
	}
}

// TestZipfian: shares are 1/n^0.99 of their sum.
func TestZipfian(t *testing.T) {
	var keys [][]byte
	sum := 0.0
	for i := range 1000 {
		keys = append(keys, fmt.Appendf(nil, "%d", i))
	}
	z, rng, counts := newZipfian(keys), rand.New(rand.NewPCG(3, 4)), map[string]int{}
	const n = 200_000
	for range n {
		counts[string(z.choose(rng))]++
	}
	for _, share := range z.sums[999:] {
		sum = share
	}
	require.InDelta(t, 1, sum, 1e-9)
	require.InDelta(t, z.sums[0], float64(counts["0"])/n, 0.005)
	require.InDelta(t, 9.77, float64(counts["0"])/float64(counts["9"]), 1) // 10^0.99
	require.InDelta(t, z.sums[99], func() float64 {
		first := 0
		for i := range 100 {
			first += counts[fmt.Sprint(i)]
		}
		return float64(first) / n
	}(), 0.005)
}

// TestCityTraffic: 95 % of the writes are in the city, half of all requests are writes.
func TestCityTraffic(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	city := &cell{keys: [][]byte{[]byte("city")}}
	next, counts := cityTraffic(city, [][]byte{[]byte("world")}), map[string]int{}
	for range 10_000 {
		key, write := next(rng)
		counts[fmt.Sprint(string(key), write)]++
	}
	require.InDelta(t, 4750, counts["citytrue"], 200)
	require.InDelta(t, 250, counts["worldtrue"], 80)
	require.InDelta(t, 5000, counts["worldfalse"], 250)
	require.Zero(t, counts["cityfalse"])
}

// gaugeOf is what two nodes served, second by second.
func gaugeOf(counts ...[2]int) *gauge {
	g := &gauge{nodes: []uint64{1, 2}}
	for _, c := range counts {
		g.seconds = append(g.seconds, second{served: map[uint64]int{1: c[0], 2: c[1]}})
	}
	return g
}

func TestEven(t *testing.T) {
	one, both := [2]int{100, 0}, [2]int{50, 50}
	for name, test := range map[string]struct {
		seconds [][2]int
		after   time.Duration
		never   bool
	}{
		"always":               {seconds: [][2]int{both, both}},
		"at once, smoothed":    {seconds: [][2]int{one, both, both, both, both}, after: 3 * time.Second},
		"not at the end":       {seconds: [][2]int{both, both, both, one}, after: 4 * time.Second, never: true},
		"never":                {seconds: [][2]int{one, one}, after: 2 * time.Second, never: true},
		"a node that has none": {seconds: [][2]int{{0, 0}, both}},
		"once more in between": {seconds: [][2]int{one, both, both, both, both, one, both, both, both, both}, after: 8 * time.Second},
		"1.3 of the mean":      {seconds: [][2]int{{65, 35}, {65, 35}, {66, 34}, {64, 36}, {64, 36}}, after: 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			after, ok := gaugeOf(test.seconds...).even()
			require.Equal(t, test.after, after)
			require.Equal(t, !test.never, ok)
		})
	}
	require.InDelta(t, 2, gaugeOf(one, both, both, both).worst(0), 1e-9)
	require.InDelta(t, 1, gaugeOf(one, both, both, both).worst(3*time.Second), 1e-9)
	require.InDelta(t, 3, (&gauge{nodes: []uint64{1, 2, 3}, seconds: []second{{served: map[uint64]int{2: 7}}}}).ratio(0), 1e-9)
}

// shardAt is what kvd tells of a shard.
func shardAt(id, leader uint64, start string, nodes ...uint64) *kvdv1.ShardInfo {
	d := &kvdv1.Descriptor{Shard: id, Leader: leader, Start: []byte(start)}
	for _, n := range nodes {
		d.Replicas = append(d.Replicas, &kvdv1.Replica{Node: n})
	}
	return &kvdv1.ShardInfo{Descriptor_: d}
}

// TestReturns: a leadership or a replica that comes back is told, one that goes on is not, nor a leader that was not heard.
func TestReturns(t *testing.T) {
	at := func(s int) time.Duration { return time.Duration(s) * time.Second }
	c := &chart{}
	for i, leader := range []uint64{1, 2, 0, 2, 3} {
		c.take(at(i+1), []*kvdv1.ShardInfo{shardAt(1, leader, "", 1, 2, 3)})
	}
	require.Empty(t, c.returns(0))
	require.Equal(t, 2, c.moves)
	require.Equal(t, at(5), c.changed)
	c.take(at(6), []*kvdv1.ShardInfo{shardAt(1, 2, "", 1, 2, 3)})
	require.Equal(t, []string{"the leadership of shard 1 went from node 2 to 3 at 5s and back at 6s"}, c.returns(0))
	require.Empty(t, c.returns(at(7)))

	c = &chart{}
	c.take(at(1), []*kvdv1.ShardInfo{shardAt(1, 1, "", 1, 2)})
	c.take(at(2), []*kvdv1.ShardInfo{shardAt(1, 1, "", 1, 3)})
	c.take(at(3), []*kvdv1.ShardInfo{shardAt(1, 1, "", 1, 4)})
	require.Empty(t, c.returns(0))
	c.take(at(4), []*kvdv1.ShardInfo{shardAt(1, 1, "", 1, 3)})
	require.Equal(t, []string{"a replica of shard 1 came back to node 3 at 4s"}, c.returns(0))
}

// TestUndone: a merge after a split of the same shard is told, and a split after a merge.
func TestUndone(t *testing.T) {
	event := func(kind string, at int64, shard, other uint64) *kvdv1.Event {
		return &kvdv1.Event{Kind: kind, State: "done", TimeMs: at, Shard: shard, Other: other}
	}
	require.Empty(t, undone([]*kvdv1.Event{event("split", 1, 1, 2), event("split", 2, 2, 3), event("merge", 3, 4, 5)}))
	require.Equal(t, []string{"shard 2: a merge followed 1.998s after a split", "shard 3: a merge followed 1.998s after a split"},
		undone([]*kvdv1.Event{event("split", 1, 1, 2), event("split", 2, 2, 3), event("merge", 2000, 2, 3)}))
	require.Len(t, undone([]*kvdv1.Event{event("merge", 1, 1, 2), event("split", 2, 1, 3)}), 1)
	require.Empty(t, undone([]*kvdv1.Event{{Kind: "split", State: "wanted", Shard: 1}, event("merge", 3, 1, 2)}))
}

// TestCellShards: shards that a cell lies in, wholly or in part, are counted.
func TestCellShards(t *testing.T) {
	c := &chart{}
	list := []*kvdv1.ShardInfo{shardAt(1, 1, ""), shardAt(2, 1, "geo/u0qj6"), shardAt(3, 1, "geo/u0qj6k"), shardAt(4, 1, "geo/u0qk")}
	for i := range list[1:] {
		list[i].Descriptor_.End = list[i+1].Descriptor_.Start
	}
	c.take(0, list)
	require.Equal(t, 2, c.within("u0qj6"))
	require.Equal(t, 1, c.within("zzzzz"))
	require.Equal(t, "geo/u0qj6k", c.deepest("u0qj6"))
}
