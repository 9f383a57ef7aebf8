package plan

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// TestAnyInterleaving: orders and reports are lost, come late and twice, leaders of shards and of the meta group change, nodes
// crash and come back, goals are set and dropped by chance; no step breaks a rule of M3 (the model checks them), and when it
// is over every goal is reached or given up, and nothing is left of any: no learner, no joint configuration.
func TestAnyInterleaving(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := newCluster(t, 5, rapid.Uint64().Draw(rt, "seed"))
		c.store(c.zipf("k", 1000, 0, 5*kv.SplitBytes/4))
		c.ask(c.zipf("k", 1000, 0.9, 20_000))
		c.run(time.Duration(rapid.IntRange(5, 30).Draw(rt, "before")) * time.Second)
		c.lost = rapid.SampledFrom([]float64{0, 0.1, 0.5}).Draw(rt, "lost")
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			node := kv.NodeID(rapid.IntRange(1, 5).Draw(rt, "node"))
			switch rapid.IntRange(0, 6).Draw(rt, "what") {
			case 0:
				if down := c.dead(); down < 2 {
					c.kill(node)
				}
			case 1:
				c.nodes[node].alive = true
			case 2:
				c.lead(c.shards[kv.MetaShard].leader) // The same node, without its memory.
			case 3:
				c.randomGoal(rt, node)
			case 4:
				if list := c.state().Goals; len(list) > 0 {
					g := list[rapid.IntRange(0, len(list)-1).Draw(rt, "goal")]
					c.command(&kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_DropGoal{DropGoal: &kvdv1.DropGoal{Goal: g.Id}}})
				}
			}
			c.run(time.Duration(rapid.IntRange(1, 5).Draw(rt, "seconds")) * time.Second)
		}
		c.lost = 0
		for _, n := range c.nodes {
			n.alive = true
		}
		c.until(5*time.Minute, "all goals end", func() bool { return len(c.state().Goals) == 0 && c.tidy() })
	})
}

func (c *cluster) dead() (n int) {
	for _, x := range c.nodes {
		n += boolOf(!x.alive)
	}
	return n
}

// tidy tells that no shard is between two configurations or has learners, and all have three voters.
func (c *cluster) tidy() bool {
	for id, s := range c.shards {
		if n := len(s.d.Replicas); s.d.Joint() || s.d.Voters() != n || n != 3 && id != kv.MetaShard {
			return false
		}
	}
	return true
}

// randomGoal has an operator want something that may or may not be possible.
func (c *cluster) randomGoal(rt *rapid.T, node kv.NodeID) {
	ids := c.ids()
	d, ok := c.shardMap().Shard(ids[rapid.IntRange(0, len(ids)-1).Draw(rt, "shard")])
	if !ok {
		return
	}
	g := &kvdv1.Goal{Shard: uint64(d.Shard), Epoch: epochOf(d), ByOperator: true}
	switch rapid.IntRange(0, 2).Draw(rt, "kind") {
	case 0:
		g.Goal = &kvdv1.Goal_Split{Split: &kvdv1.SplitGoal{}}
	case 1:
		from := d.Replicas[rapid.IntRange(0, len(d.Replicas)-1).Draw(rt, "from")].Node
		g.Goal = &kvdv1.Goal_Replicas{Replicas: &kvdv1.ReplicasGoal{Add: []*kvdv1.Replica{{Node: uint64(node)}}, Remove: []uint64{uint64(from)}}}
	case 2:
		all := c.shardMap().Descriptors()
		i := slices.Index(all, d)
		if i < 0 || i+1 == len(all) {
			return
		}
		g.Goal = &kvdv1.Goal_Merge{Merge: &kvdv1.MergeGoal{Right: uint64(all[i+1].Shard)}}
	}
	c.command(&kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_SetGoal{SetGoal: g}}) // It may be refused.
}

// TestLateOrder: an order that was computed before a change is refused after it, and a new one is computed.
func TestLateOrder(t *testing.T) {
	c := newCluster(t, 4, 16)
	c.run(10 * time.Second)
	d := c.shardMap().Descriptors()[0]
	var spare kv.NodeID
	for n := kv.NodeID(1); n <= 4; n++ {
		if _, there := d.OnNode(n); !there {
			spare = n
		}
	}
	c.goal(&kvdv1.Goal{Shard: 1, Goal: &kvdv1.Goal_Replicas{Replicas: &kvdv1.ReplicasGoal{
		Add: []*kvdv1.Replica{{Node: uint64(spare)}}, Remove: []uint64{uint64(d.Replicas[1].Node)},
	}}})
	var seen []*kvdv1.Order
	for range 60 {
		c.tick()
		seen = append(seen, c.orders...)
		c.orders = append(c.orders, seen...) // All of them again, from the first on.
	}
	require.True(t, voters(3, d.Replicas[1].Node)(c.shards[1].d))
	require.Empty(t, c.state().Goals)
}
