package plan

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

// until lets time pass until something holds.
func (c *cluster) until(most time.Duration, what string, holds func() bool) {
	c.t.Helper()
	for end := c.now + most; !holds(); {
		if c.now >= end {
			c.t.Fatalf("%s, not in %v\n%s", what, most, c.dump())
		}
		c.tick()
	}
}

// all tells that something holds for all shards, the meta group too.
func (c *cluster) all(holds func(d *kv.Descriptor) bool) func() bool {
	return func() bool {
		for _, s := range c.shards {
			if !holds(s.d) {
				return false
			}
		}
		return len(c.state().Goals) == 0
	}
}

// voters tells that a shard has so many voters, and nothing else, none of them on some nodes.
func voters(n int, off ...kv.NodeID) func(d *kv.Descriptor) bool {
	return func(d *kv.Descriptor) bool {
		return len(d.Replicas) == n && d.Voters() == n && !d.Joint() &&
			!slices.ContainsFunc(d.Replicas, func(r kv.Replica) bool { return slices.Contains(off, r.Node) })
	}
}

func (c *cluster) leaders() map[kv.NodeID]int {
	counts := map[kv.NodeID]int{}
	for id, s := range c.shards {
		if id != kv.MetaShard {
			counts[s.leader]++
		}
	}
	return counts
}

// cut splits a cluster's only shard at keys, as an operator does.
func (c *cluster) cut(keys ...string) {
	for _, key := range keys {
		d := c.shardMap().Lookup([]byte(key))
		c.goal(&kvdv1.Goal{Shard: uint64(d.Shard), Goal: &kvdv1.Goal_Split{Split: &kvdv1.SplitGoal{Key: []byte(key)}}})
		c.until(20*time.Second, "split at "+key, func() bool { return string(c.shardMap().Lookup([]byte(key)).Span.Start) == key })
	}
}

// TestGrowShrinkAndMend: one node, then three, then four; one leaves, one dies for good; replicas rise to three, leaders and
// replicas even out, and nothing goes to and fro.
func TestGrowShrinkAndMend(t *testing.T) {
	c := newCluster(t, 1, 3)
	c.store(c.zipf("k", 20_000, 0, 3*kv.SplitBytes/2))
	c.cut("k002", "k004", "k006", "k008", "k010", "k012", "k014", "k016", "k018", "k019")
	c.run(10 * time.Second)
	require.True(t, c.all(voters(1))())

	c.join("")
	c.run(time.Minute)
	require.True(t, c.all(func(d *kv.Descriptor) bool { return d.Voters() == 1 })(), "two nodes are no reason for two voters")
	c.join("")
	c.until(3*time.Minute, "three replicas", c.all(voters(3)))
	c.until(2*time.Minute, "leaders even out", func() bool {
		l := c.leaders()
		return max(l[1], l[2], l[3])-min(l[1], l[2], l[3]) <= 1
	})
	grown := c.now
	c.run(10 * time.Minute)
	require.Empty(t, c.since(grown, "lead", "move"), "at rest")

	four := c.join("")
	c.until(20*time.Minute, "the fourth gets its part", func() bool {
		n := 0
		for _, s := range c.shards {
			if _, there := s.d.OnNode(four); there && s.d.Shard != kv.MetaShard {
				n++
			}
		}
		return n >= 6 && len(c.state().Goals) == 0 && c.leaders()[four] >= 2
	})
	require.Empty(t, c.pairs(grown), "%s", c.dump())

	c.drain(2)
	require.False(t, c.all(voters(3, 2))())
	c.until(3*time.Minute, "drained", c.all(voters(3, 2)))
	res := c.command(&kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_RemoveNode{RemoveNode: &kvdv1.RemoveNode{Node: 2}}})
	require.Equal(t, kv.Done, res.Status, res.Reason)
	five := c.join("")
	c.run(20 * time.Minute)

	c.kill(3)
	killed := c.now
	c.until(20*time.Second, "others lead", func() bool { return c.leaders()[3] == 0 })
	c.run(killed + 4*time.Minute + 55*time.Second - c.now)
	require.Empty(t, c.since(killed, "leave"), "before dead-after nothing is made again elsewhere")
	c.until(4*time.Minute, "mended", c.all(voters(3, 3)))
	require.True(t, c.alive(five))
	c.run(20 * time.Minute)
	quiet := c.now
	c.run(10 * time.Minute)
	require.Empty(t, c.since(quiet), "at rest again: %s", c.dump())
}

// TestMendWithoutSpare: without a node for it a lost replica stays lost, with the reason, and the number of voters stays.
func TestMendWithoutSpare(t *testing.T) {
	c := newCluster(t, 3, 4)
	c.run(10 * time.Second)
	c.kill(3)
	c.run(10 * time.Minute)
	require.True(t, c.all(voters(3))())
	require.Contains(t, strings.Join(c.planner.Why(1), "\n"), "node 3 is down, silent for 10m")
	require.Contains(t, strings.Join(c.planner.Why(1), "\n"), "there is no other node for a replica")

	c.kill(2) // Without a majority nothing can be done at all.
	c.join("")
	c.run(20 * time.Second)
	require.Contains(t, strings.Join(c.planner.Why(1), "\n"), "no majority; 2 of its 3 voters are silent (nodes 2 and 3)")
	require.Equal(t, 3, c.shards[1].d.Voters())
}

// TestDrainWithoutSpare: draining does not take the third replica away.
func TestDrainWithoutSpare(t *testing.T) {
	c := newCluster(t, 3, 5)
	c.cut("b", "d", "f")
	c.run(30 * time.Second)
	c.drain(1)
	c.run(2 * time.Minute)
	require.True(t, c.all(voters(3))())
	require.Zero(t, c.leaders()[1], "but the leaderships leave")
	require.NotEqual(t, kv.NodeID(1), c.shards[kv.MetaShard].leader)
	require.Contains(t, strings.Join(c.planner.Why(1), "\n"), "node 1 is draining: there is no other node for a replica")
	c.join("")
	c.until(time.Minute, "drained", c.all(voters(3, 1)))
}

// TestVotersOfTheMetaGroup are as many as the setting wants and the nodes allow, and are replaced.
func TestVotersOfTheMetaGroup(t *testing.T) {
	c := newCluster(t, 1, 6)
	meta := func(n int, off ...kv.NodeID) func() bool {
		return func() bool { return voters(n, off...)(c.shards[kv.MetaShard].d) && len(c.state().Goals) == 0 }
	}
	c.join("")
	c.run(time.Minute)
	require.True(t, meta(1)())
	c.join("")
	c.until(time.Minute, "three", meta(3))
	c.join("")
	c.run(time.Minute)
	require.True(t, meta(3)())
	c.join("")
	c.until(time.Minute, "five", meta(5))
	c.join("")
	c.kill(2)
	c.until(7*time.Minute, "replaced", meta(5, 2))
	c.command(&kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_SetSetting{SetSetting: &kvdv1.SettingValue{Name: raftmeta.MetaVoters, Value: "3"}}})
	c.until(time.Minute, "fewer are wanted", meta(3, 2))
	c.kill(c.metaLeader)
	c.run(6 * time.Minute)
	require.True(t, meta(3, 2)(), "the leader of the meta group died: %s", c.dump())
}

// TestRules: what begins with a prefix is split off, has its replicas in the region and its leader too, after every change,
// and why names the rule.
func TestRules(t *testing.T) {
	c := newCluster(t, 1, 7)
	for range 2 {
		c.join("east")
	}
	for range 3 {
		c.join("west")
	}
	c.ask(c.zipf("geo/9", 1000, 0.9, 20_000))
	c.run(2 * time.Minute)
	c.rule("geo/9", "west")
	held := func() bool {
		m := c.shardMap()
		for _, d := range m.Descriptors() {
			if !kv.PrefixSpan([]byte("geo/9")).ContainsSpan(d.Span) {
				continue
			}
			for _, r := range d.Replicas {
				if n, _ := m.Node(r.Node); n.Region != "west" {
					return false
				}
			}
			if n, _ := m.Node(c.shards[d.Shard].leader); n.Region != "west" {
				return false
			}
		}
		return len(m.RuleCuts(kv.Span{})) == 2 && string(m.Lookup([]byte("geo/9")).Span.Start) == "geo/9" &&
			string(m.Lookup([]byte("geo/:")).Span.Start) == "geo/:"
	}
	c.until(3*time.Minute, "the rule holds", held)
	inside := c.shardMap().Lookup([]byte("geo/9zz"))
	require.Contains(t, strings.Join(c.planner.Why(inside.Shard), "\n"), `the rule for "geo/9": replicas in ["west"], the leader in "west"`)
	for range 20 * 60 {
		c.tick()
		require.True(t, held(), "a change broke the rule: %s", c.dump())
	}
	c.kill(4)
	c.run(20 * time.Second)
	require.True(t, held(), "another leads in the region")
	c.run(10 * time.Minute)
	require.True(t, held())
	require.Contains(t, strings.Join(c.planner.Why(inside.Shard), "\n"), `there is no other node for a replica in ["west"]`)

	c.rule("zoo", "north") // Where there is no node.
	c.run(2 * time.Minute)
	d := c.shardMap().Lookup([]byte("zoo"))
	require.Equal(t, "zoo", string(d.Span.Start))
	require.Contains(t, strings.Join(c.planner.Why(d.Shard), "\n"), `there is no other node for a replica in ["north"]`)
	require.Equal(t, 3, d.Voters())
}

// TestLeaderRule: replicas in both regions, the leader in one, wherever it was elected.
func TestLeaderRule(t *testing.T) {
	c := newCluster(t, 1, 17)
	for _, region := range []string{"east", "east", "west", "west"} {
		c.join(region)
	}
	c.run(time.Minute)
	res := c.command(&kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_SetRule{SetRule: &kvdv1.Rule{Regions: []string{"east", "west"}, Leader: "west"}}})
	require.Equal(t, kv.Done, res.Status, res.Reason)
	west := func() bool {
		n, _ := c.shardMap().Node(c.shards[1].leader)
		return n.Region == "west"
	}
	c.until(time.Minute, "led in the west", func() bool { return west() && c.all(voters(3, 1))() || west() && voters(3, 1)(c.shards[1].d) })
	regions := map[string]bool{}
	for _, r := range c.shards[1].d.Replicas {
		n, _ := c.shardMap().Node(r.Node)
		regions[n.Region] = true
	}
	require.Len(t, regions, 2, "replicas are spread over the regions")
	for _, r := range c.shards[1].d.Replicas {
		if n, _ := c.shardMap().Node(r.Node); n.Region == "east" {
			c.shards[1].leader = r.Node
			c.shards[1].term++
		}
	}
	require.False(t, west())
	c.tick()
	require.Contains(t, strings.Join(c.planner.Why(1), "\n"), `the rule for "" wants the leader in "west"`)
	c.until(20*time.Second, "led in the west again", west)
}

// TestOneOfTwo: one learner alone would make an even number of voters; the shard waits for the other.
func TestOneOfTwo(t *testing.T) {
	c := newCluster(t, 1, 18)
	c.join("")
	third := c.join("")
	c.nodes[third].full = true
	c.run(time.Minute)
	require.True(t, c.all(func(d *kv.Descriptor) bool { return len(d.Replicas) == 1 })())
	require.Contains(t, strings.Join(c.planner.Why(1), "\n"), "it has 1 replicas, and 3 are wanted: there is no other node for a replica (the disk of node 3 is full)")
	c.nodes[third].full = false
	c.until(time.Minute, "three", c.all(voters(3)))
}

// TestTargetDies: a node that was to get replicas dies meanwhile; another gets them before that one is down.
func TestTargetDies(t *testing.T) {
	c := newCluster(t, 3, 21)
	c.store(c.zipf("k", 1000, 0, 15*kv.SplitBytes/16))
	c.join("")
	c.join("")
	c.run(time.Minute)
	var lost kv.NodeID
	for _, r := range c.shards[1].d.Replicas {
		if r.Node != c.shards[1].leader && r.Node != c.metaLeader {
			lost = r.Node
		}
	}
	c.kill(lost)
	onItsWay := func() kv.NodeID {
		for _, g := range c.state().Goals {
			for _, r := range g.GetReplicas().GetAdd() {
				if g.GetShard() == 1 {
					return kv.NodeID(r.Node)
				}
			}
		}
		return 0
	}
	c.until(6*time.Minute, "repair", func() bool { return onItsWay() != 0 })
	target := onItsWay()
	c.kill(target)
	c.until(90*time.Second, "repair elsewhere", func() bool { return voters(3, lost, target)(c.shards[1].d) })
}

// TestComingBytes: four shards of the size at which they are split may come to a node at a time, and one that is larger alone.
func TestComingBytes(t *testing.T) {
	accepts := func(bytes float64, n nodeState) bool {
		return (&round{}).accept(&shardState{bytes: bytes}, []*nodeState{{}, &n})
	}
	require.True(t, accepts(kv.SplitBytes, nodeState{coming: 3, incoming: 3 * kv.SplitBytes}))
	require.False(t, accepts(kv.SplitBytes+1, nodeState{coming: 3, incoming: 3 * kv.SplitBytes}))
	require.True(t, accepts(9*kv.SplitBytes, nodeState{}))
	require.False(t, accepts(1, nodeState{coming: comingMax}))
}
