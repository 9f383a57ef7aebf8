package plan

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

// TestSteadyLoad: from one shard under a full zipfian load the map settles within a minute, and then an hour brings no
// change at all. With more nodes than replicas these are moved at leisure afterwards, none of them back.
func TestSteadyLoad(t *testing.T) {
	for _, nodes := range []int{1, 3, 5} {
		c := newCluster(t, nodes, uint64(nodes))
		c.noisy, c.swift = true, nodes == 3
		c.ask(c.zipf("k", 10_000, 0.99, 60_000))
		c.run(time.Minute)
		require.LessOrEqual(t, c.busiest(), 1.3, "%s", c.dump())
		if nodes == 1 {
			require.Len(t, c.shards, 2, "the meta group and all keys: there is nobody to share out to")
		} else {
			require.Greater(t, len(c.shards), nodes+2)
		}
		settled := c.now
		if nodes > 3 {
			c.run(10 * time.Minute)
			require.Empty(t, c.pairs(0))
			require.Empty(t, c.since(settled, "split", "merge"))
			settled = c.now
		}
		c.run(time.Hour)
		require.Empty(t, c.since(settled))
		require.LessOrEqual(t, c.busiest(), 1.3)
	}
}

// TestEvenLoadIsNotSplit: as many busy shards as nodes are handed over whole until each node leads one of them, and stay whole:
// more groups would make no node faster. When a node joins, they are split for it.
func TestEvenLoadIsNotSplit(t *testing.T) {
	c := newCluster(t, 3, 24)
	c.noisy = true
	c.cut("k003333", "k006666")
	c.run(10 * time.Second)
	require.Len(t, c.shards, 4)
	c.ask(c.zipf("k", 10_000, 0, 90_000))
	c.run(10 * time.Minute)
	require.LessOrEqual(t, c.busiest(), 1.2, "%s", c.dump())
	require.Len(t, c.shards, 4, "%s", c.dump())
	require.NotEmpty(t, c.since(0, "lead"))
	require.Contains(t, c.why("k003333"), "leads no more than its part: a split would make nothing faster")

	c.nodes[3].alive = false
	c.run(8 * time.Second)
	c.nodes[3].alive = true
	c.run(2 * time.Minute)
	require.Len(t, c.shards, 4, "a node that comes back: %s", c.dump())
	require.LessOrEqual(t, c.busiest(), 1.2, "%s", c.dump())

	load := c.zipf("k", 10_000, 0, 90_000)
	for range 20 {
		c.ask(nil)
		c.run(13 * time.Second)
		c.ask(load)
		c.run(7 * time.Second)
	}
	require.Len(t, c.shards, 4, "load that comes and goes: %s", c.dump())

	c.run(time.Minute)
	c.join("")
	c.run(10 * time.Minute)
	require.LessOrEqual(t, c.busiest(), 1.3, "%s", c.dump())
	require.Greater(t, len(c.shards), 5)
}

// TestPassingLoad: a shard is not split for a little more than its part that passes by itself, and is when it stays.
func TestPassingLoad(t *testing.T) {
	c := newCluster(t, 3, 31)
	c.cut("k003333", "k006666")
	even := c.zipf("k", 10_000, 0, 90_000)
	uneven := c.zipf("k", 10_000, 0, 90_000)
	for i := range uneven {
		if string(uneven[i].key) < "k003333" {
			uneven[i].weight *= 1.28
		} else {
			uneven[i].weight *= 0.86
		}
	}
	c.ask(even)
	c.run(5 * time.Minute)
	rest := c.now
	for range 10 {
		c.ask(uneven)
		c.run(10 * time.Second)
		c.ask(even)
		c.run(time.Minute)
	}
	require.Empty(t, c.since(rest, "split"), "%s", c.dump())
	c.ask(uneven)
	c.run(time.Minute)
	require.NotEmpty(t, c.since(rest, "split"), "%s", c.dump())
}

// TestManySmallShards: a node that comes back gets its part of the load also where each shard has but a little of it.
func TestManySmallShards(t *testing.T) {
	c := newCluster(t, 3, 27)
	c.noisy = true
	for i := range 89 {
		c.cut(fmt.Sprintf("k%06d", (i+1)*111))
	}
	c.ask(c.zipf("k", 10_000, 0, 30_000))
	c.run(2 * time.Minute)
	c.nodes[2].alive = false
	c.run(10 * time.Second)
	c.nodes[2].alive = true
	c.run(5 * time.Minute)
	require.LessOrEqual(t, c.busiest(), 1.2, "%v", c.loads())
	rest := c.now
	c.run(20 * time.Minute)
	require.Empty(t, c.since(rest, "lead"))
}

// TestMovingHotSpot: all traffic, zipfian over 1,000 keys of one cell, then of another half a world away, every minute. Half
// a minute after each move the busiest node carries at most 1.3 times the mean.
func TestMovingHotSpot(t *testing.T) {
	for _, nodes := range []int{3, 4, 5} {
		c := newCluster(t, nodes, uint64(nodes))
		c.noisy, c.swift = true, nodes != 4
		var cells [][]weighted
		all := c.zipf("geo/", 50_000, 0, 50_000*200)
		for _, cell := range []string{"geo/9q8yy", "geo/wecnv", "geo/6gycf", "geo/u09tv"} {
			cells = append(cells, c.zipf(cell, 1000, 0.99, 30_000))
			all = append(all, c.zipf(cell, 1000, 0, 1000*200)...)
		}
		c.store(all)
		for i := range 15 {
			c.ask(cells[i%len(cells)])
			c.run(30 * time.Second)
			require.LessOrEqual(t, c.busiest(), 1.3, "move %d, %s", i, c.dump())
			c.run(30 * time.Second)
		}
	}
}

// TestSteadyLowLoad: what is split to be shared out, below all that the settings say, is not cold enough to be merged.
func TestSteadyLowLoad(t *testing.T) {
	c := newCluster(t, 3, 19, raftmeta.MergeAge, "1m")
	c.noisy = true
	c.ask(c.zipf("k", 1000, 0.9, 2000))
	c.run(time.Minute)
	require.LessOrEqual(t, c.busiest(), 1.3)
	require.Greater(t, len(c.shards), 5)
	settled := c.now
	c.run(30 * time.Minute)
	require.Empty(t, c.since(settled), "%s", c.dump())
}

// TestOneLargeShard: to move it would but have another node be the fuller one.
func TestOneLargeShard(t *testing.T) {
	c := newCluster(t, 1, 20)
	c.store(c.zipf("k", 1000, 0, 15*kv.SplitBytes/16))
	c.join("")
	c.run(10 * time.Minute)
	require.Empty(t, c.log)
}

// TestSwiftSplits: of a split whose goal was set and reached between two steps the plan believes what it does of others: both
// halves have their part of the load until they report, and what an operator has split stays.
func TestSwiftSplits(t *testing.T) {
	c := newCluster(t, 3, 21, raftmeta.MergeAge, "1m")
	c.noisy, c.swift = true, true
	c.ask(c.zipf("k", 1000, 0.9, 5000))
	c.run(3 * time.Second)
	for range 40 {
		c.tick()
		require.InDelta(t, 5000, c.planner.last.total, 500, "%s", c.dump())
	}
	require.Greater(t, len(c.shards), 5)
	require.LessOrEqual(t, c.busiest(), 1.3)
	d := c.shardMap().Descriptors()[0]
	require.NotContains(t, c.why(""), "an operator has split it")

	c.ask(nil)
	c.goal(&kvdv1.Goal{Shard: uint64(d.Shard), Goal: &kvdv1.Goal_Split{Split: &kvdv1.SplitGoal{Key: []byte("j")}}})
	c.run(90 * time.Second)
	require.Contains(t, c.why(""), "an operator has split it")
}
