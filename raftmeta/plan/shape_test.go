package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

func (c *cluster) why(key string) string {
	return strings.Join(c.planner.Why(c.shardMap().Lookup([]byte(key)).Shard), "\n")
}

// TestHotKey: where one key takes it all no split helps, and the reason can be read; the map stays as it is.
func TestHotKey(t *testing.T) {
	c := newCluster(t, 3, 8)
	c.noisy = true
	list := c.zipf("k", 500, 0, 700)
	c.ask(append(list, weighted{[]byte("k000100x"), 9300}))
	c.run(10 * time.Minute)
	require.Contains(t, c.why("k000100x"), "one key takes 93 % of the requests (k000100x): a split would not help")
	require.Empty(t, c.since(0, "split"))
}

// TestCity: with most of the load on the keys of one cell, these are divided again and again.
func TestCity(t *testing.T) {
	c := newCluster(t, 3, 9)
	c.noisy = true
	c.ask(append(c.zipf("geo/9q8yy", 5000, 0.9, 95_000), c.zipf("geo/", 20_000, 0.5, 5000)...))
	c.run(time.Minute)
	require.GreaterOrEqual(t, len(c.shardMap().Overlapping(kv.PrefixSpan([]byte("geo/9q8yy")))), 6)
	require.LessOrEqual(t, c.busiest(), 1.3)
}

// TestHandOversAreTold: each has its reason, when it is asked for and when it is done.
func TestHandOversAreTold(t *testing.T) {
	c := newCluster(t, 3, 22)
	c.noisy = true
	c.ask(c.zipf("k", 1000, 0.9, 5000))
	c.run(time.Minute)
	counts := map[string]int{}
	for _, e := range c.events {
		require.Equal(t, "transfer", e.Kind)
		require.Positive(t, e.TimeMs)
		require.Regexp(t, `^hand (shard \d+|the meta group) over from node \d to node \d: node \d leads \d\.\d\d times the mean \(\d+/s\)$`, e.Text)
		counts[e.State]++
	}
	handed := c.since(0, "lead")
	require.NotEmpty(t, handed)
	require.Equal(t, map[string]int{raftmeta.Wanted: len(handed), raftmeta.Happened: len(handed)}, counts)
}

// TestSplitBySize: data is split at the size, to halves; a single large key is not, and is not asked for all the time.
func TestSplitBySize(t *testing.T) {
	c := newCluster(t, 3, 10)
	c.store(append(c.zipf("a", 1000, 0, 8*kv.SplitBytes), weighted{[]byte("z"), 9 * kv.SplitBytes / 8}))
	c.run(3 * time.Minute)
	for _, s := range c.shards {
		if s.d.Shard != kv.MetaShard && !s.d.Span.Contains([]byte("z")) {
			require.LessOrEqual(t, c.bytesOf(s), float64(kv.SplitBytes))
		}
	}
	require.InDelta(t, 16, len(c.shards), 3)
	require.Contains(t, c.why("z"), "no key")
	at := c.state().NextGoal
	c.run(10 * time.Minute)
	require.LessOrEqual(t, c.state().NextGoal-at, uint64(6), "refusals back off")
}

// TestOnlyThoseThatMayLeadCount: where a rule has some nodes lead, load is shared out among these, and not split because the others lead
// nothing.
func TestOnlyThoseThatMayLeadCount(t *testing.T) {
	for _, west := range []int{1, 3} {
		c := newCluster(t, 1, 25)
		for i := range 7 {
			c.join(map[bool]string{true: "west", false: "east"}[i < west])
		}
		res := c.command(&kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_SetRule{SetRule: &kvdv1.Rule{Regions: []string{"east", "west"}, Leader: "west"}}})
		require.Equal(t, kv.Done, res.Status, res.Reason)
		c.run(2 * time.Minute)
		c.ask(c.zipf("k", 15_000, 0, 90_000))
		c.run(5 * time.Minute)
		if west == 1 {
			require.Len(t, c.shards, 2, "%s", c.dump())
			require.Contains(t, c.why("k"), "leads no more than its part: a split would make nothing faster")
		} else {
			require.Greater(t, len(c.shards), 3)
			require.Less(t, len(c.shards), 16, "%s", c.dump())
		}
	}
}

// TestNoSplitsWithoutHandOvers: what nobody may hand over is not split to be.
func TestNoSplitsWithoutHandOvers(t *testing.T) {
	c := newCluster(t, 3, 26, raftmeta.LeaderBalance, "false")
	c.ask(c.zipf("k", 15_000, 0, 90_000))
	c.run(2 * time.Minute)
	require.Len(t, c.shards, 2)
	require.Contains(t, c.why("k"), "the setting leader-balance is false: a split would share nothing out")
}

// TestSplitByBytes: a shard with a fifth of a node's load is not split for the number of its requests, and is for their bytes.
func TestSplitByBytes(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		c := newCluster(t, nodes, 23, raftmeta.SplitLoad, "1000")
		for i := 1000; i < 15_000; i += 1000 {
			c.cut(fmt.Sprintf("k%06d", i))
		}
		c.ask(c.zipf("k", 15_000, 0, 30_000))
		c.run(time.Minute)
		at := c.now
		c.run(3 * time.Minute)
		require.Empty(t, c.since(at, "split"))
		require.Regexp(t, "leads no more than its part: a split would make nothing faster|is little enough to be shared out", c.why("k"))
		c.requests = 20 << 10
		c.run(3 * time.Minute)
		require.Greater(t, len(c.since(at, "split")), 5)
	}
}

// TestColdNeighboursMerge: what is cold and small is merged, at leisure and within the budget, in whatever way the replicas
// lie; the next load splits anew, and nothing goes to and fro.
func TestColdNeighboursMerge(t *testing.T) {
	c := newCluster(t, 5, 11, raftmeta.MergeAge, "2m")
	c.noisy = true
	c.store(c.zipf("k", 10_000, 0, kv.SplitBytes/3))
	c.ask(c.zipf("k", 10_000, 0.9, 60_000))
	c.run(5 * time.Minute)
	busy := len(c.shards)
	require.Greater(t, busy, 12)
	require.Empty(t, c.since(0, "merge"))
	c.ask(nil)
	quiet := c.now
	c.run(90 * time.Minute)
	require.Less(t, len(c.shards), 10, "%s", c.dump())
	for _, h := range c.since(quiet) {
		require.NotEqual(t, "split", h.what)
	}
	rest := c.now
	c.run(30 * time.Minute)
	require.Empty(t, c.since(rest))
	require.Contains(t, c.why("k"), "not merged with shard")
}

// TestMergeBudget: merges move at most their part of the keys a minute, but for a first one.
func TestMergeBudget(t *testing.T) {
	c := newCluster(t, 1, 12, raftmeta.MergeAge, "1m")
	c.store(c.zipf("k", 10_000, 0, 1<<20))
	for i := 1; i < 40; i++ {
		c.cut(fmt.Sprintf("k%06d", i*250))
	}
	c.run(12 * time.Minute)
	first := c.since(0, "merge")
	require.NotEmpty(t, first)
	for i, h := range first[1:] {
		require.GreaterOrEqual(t, h.at-first[i].at, 50*time.Second, "each has 2.5 %% of the keys")
	}
}

// TestOperators: what operators have done is not undone at once, and their goals are pursued even against the plan's ideas.
func TestOperators(t *testing.T) {
	c := newCluster(t, 4, 13, raftmeta.MergeAge, "1m")
	c.store(c.zipf("k", 1000, 0, 1<<20))
	c.cut("k000300", "k000600")
	split := c.now
	c.run(9 * time.Minute)
	require.Empty(t, c.since(split, "merge"), "a manual split stays for a while")
	require.Contains(t, c.why("k000300"), "an operator has split it")
	c.until(20*time.Minute, "then they are merged", func() bool { return len(c.shards) == 2 })

	d := c.shardMap().Descriptors()[0]
	var spare kv.NodeID
	for n := kv.NodeID(1); n <= 4; n++ {
		if _, there := d.OnNode(n); !there {
			spare = n
		}
	}
	from := d.Replicas[0].Node
	id := c.goal(&kvdv1.Goal{Shard: uint64(d.Shard), Goal: &kvdv1.Goal_Replicas{Replicas: &kvdv1.ReplicasGoal{
		Add: []*kvdv1.Replica{{Node: uint64(spare)}}, Remove: []uint64{uint64(from)},
	}}})
	c.tick()
	require.Contains(t, c.planner.Progress(&kvdv1.Goal{Id: id}), "becomes a learner")
	c.until(time.Minute, "moved", func() bool { _, there := c.shards[d.Shard].d.OnNode(from); return !there && len(c.state().Goals) == 0 })
	moved := c.now
	c.run(5 * time.Second)
	require.Contains(t, c.why("k"), "an operator has moved its replicas")
	c.run(30 * time.Minute)
	require.Empty(t, c.since(moved, "move", "leave"))

	g := &kvdv1.Goal{Id: 99, Shard: uint64(d.Shard)}
	require.Equal(t, "the plan has not come to it yet", c.planner.Progress(g))
}

// TestRefusal: a final refusal drops the goal, with its reason, and the shard is left alone for a while.
func TestRefusal(t *testing.T) {
	c := newCluster(t, 1, 14)
	c.store([]weighted{{[]byte("k"), 400 << 20}})
	c.until(time.Minute, "asked", func() bool { return len(c.state().Goals) == 1 })
	c.until(time.Minute, "refused", func() bool { return len(c.state().Goals) == 0 })
	c.run(5 * time.Second)
	require.Empty(t, c.state().Goals)
	require.Contains(t, c.why("k"), "size 400 MiB of 256 MiB, load 0/s of 5000: no split for 5")
	require.Contains(t, c.why("k"), "refused: no key: there is but one key")
	c.planner.Refused([]*kvdv1.Refusal{{Goal: 777, Reason: "of long ago", Final: true}})
	require.Empty(t, c.planner.refused)
}

// TestManyShards: the rounds of a large map stay within their bounds.
func TestManyShards(t *testing.T) {
	state := metaOf(3)
	var reports []*kvdv1.ShardReport
	const n = 3000
	for i := range uint64(n) {
		d := &kvdv1.Descriptor{Shard: i + 1, Epoch: &kvdv1.Epoch{Version: 1, Config: 1}, Replicas: []*kvdv1.Replica{replica(1, 1000+i)}}
		if i > 0 {
			d.Start = fmt.Appendf(nil, "%06d", i)
			state.Descriptors[i-1].End = d.Start
		}
		state.Descriptors = append(state.Descriptors, d)
		d = &kvdv1.Descriptor{Shard: d.Shard, Epoch: d.Epoch, Replicas: d.Replicas, Start: d.Start}
		reports = append(reports, &kvdv1.ShardReport{Descriptor_: d, Term: 6, Bytes: 2 * kv.SplitBytes, Load: &kvdv1.ShardLoad{Reads: 10_000}})
	}
	state.NextShard, state.NextReplica = n+1, 10_000
	m, err := raftmeta.NewMap(state)
	require.NoError(t, err)
	r := NewReports(0)
	p := New(0)
	for i := range 30 {
		now := time.Duration(i) * time.Second
		r.Take(1, &kvdv1.NodeReport{Shards: reports}, now)
		r.Take(2, &kvdv1.NodeReport{}, now)
		r.Take(3, &kvdv1.NodeReport{}, now)
		actions := p.Step(now, 0, m, raftmeta.SettingsOf(state), r)
		require.LessOrEqual(t, len(actions.Commands), GoalsMax)
		require.LessOrEqual(t, len(actions.Orders), kv.OrdersMax)
		require.NotEmpty(t, actions.Commands)
	}
}

// TestSame: the same inputs give the same actions, whatever order maps are ranged in.
func TestSame(t *testing.T) {
	trace := func() string {
		c := newCluster(t, 4, 15)
		c.noisy, c.lost = true, 0.1
		c.ask(c.zipf("k", 2000, 0.99, 40_000))
		c.run(30 * time.Second)
		c.kill(2)
		c.run(30 * time.Second)
		return fmt.Sprint(c.log, c.state())
	}
	require.Equal(t, trace(), trace())
}
