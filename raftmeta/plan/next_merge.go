package plan

import (
	"bytes"
	"fmt"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// A merge needs both shards' replicas on the same nodes, all of them active (G2), and both leaders on one node, so that
// what is frozen is not frozen for long. The right one's replicas are moved as the goal says, its leadership is handed over,
// and the left one's leader is asked; it does the rest.

// mergeEnded tells of merges that are done or cannot be done any more.
func mergeEnded(v *View, left *kv.Descriptor, id kv.ShardID) (Step, bool) {
	right, ok := v.Map.Shard(id)
	if a, gone := v.Map.Absorbed(id); gone && kv.ShardID(a.GetAbsorber()) == left.Shard {
		return Step{Reached: true, Why: fmt.Sprintf("shard %d was absorbed", id)}, true
	}
	if !ok {
		return givingUp("shard %d is gone", id), true
	}
	if id == kv.MetaShard || left.Shard == kv.MetaShard || len(left.Span.End) == 0 || !bytes.Equal(left.Span.End, right.Span.Start) {
		return givingUp("shard %d is not the right neighbour any more", id), true
	}
	if a, b := v.rule(left), v.rule(right); a != b {
		if a == nil {
			a = b
		}
		return givingUp("the rule for %q holds for one of the two shards only", kv.FormatKey(a.GetPrefix())), true
	}
	return Step{}, false
}

func (c *change) merge(g *kvdv1.MergeGoal) Step {
	right, _ := c.Map.Shard(kv.ShardID(g.GetRight()))
	if c.figures.Report.GetIntent() != 0 {
		return waiting("the merge with shard %d is under way", right.Shard)
	}
	if r, ok := stray(c.d, nil); ok {
		return c.remove(r)
	}
	other, wait := c.leader(right)
	if wait != "" {
		return waiting("shard %d: %s", right.Shard, wait)
	}
	if other.Report.GetFrozen() != 0 || other.Report.GetIntent() != 0 {
		return waiting("shard %d is in another merge", right.Shard)
	}
	r := &change{View: c.View, d: right, goal: c.goal, figures: other}
	if right.Joint() {
		return r.leave()
	}
	if step := r.replicas(g.GetAlign()); !step.Reached {
		return step
	}
	if !sameNodes(c.d, right) {
		return givingUp("the replicas of shard %d are on nodes %s, and must be on %s",
			right.Shard, list(nodesOf(right.Replicas)), list(nodesOf(c.d.Replicas)))
	}
	for _, side := range []*change{c, r} {
		for _, replica := range side.d.Replicas {
			if !side.active(replica) {
				return waiting("the replica of shard %d on node %d is not active", side.d.Shard, replica.Node)
			}
		}
	}
	if other.From != c.figures.From {
		if bar := c.barred(c.figures.From); bar != "" {
			return waiting("shard %d cannot be led where shard %d is: %s", right.Shard, c.d.Shard, bar)
		}
		return transfer(right, c.goal, c.figures.From, "node %d, which leads shard %d, is to lead shard %d too", c.figures.From, c.d.Shard, right.Shard)
	}
	o := order(c.d, c.goal)
	o.Step = &kvdv1.Order_Merge{Merge: wire.FromDescriptor(right, other.From)}
	return Step{Order: o, Why: fmt.Sprintf("node %d is asked to merge shard %d into it", c.figures.From, right.Shard)}
}
