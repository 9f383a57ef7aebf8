package plan

import (
	"bytes"
	"fmt"
	"slices"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// A merge needs both shards' replicas on the same nodes, all of them active (G2), and both leaders on one node, so that
// what is frozen is not frozen for long. The plan brings this about and asks; the left shard's leader does the rest.

// mergeEnded tells of merges that are done or cannot be done any more.
func mergeEnded(v *View, left *kv.Descriptor, id kv.ShardID) (Step, bool) {
	right, ok := v.Map.Shard(id)
	if !ok {
		if i := slices.IndexFunc(v.Map.State().GetAbsorbed(), func(a *kvdv1.AbsorbedShard) bool {
			return kv.ShardID(a.GetDescriptor_().GetShard()) == id
		}); i >= 0 && kv.ShardID(v.Map.State().Absorbed[i].GetAbsorber()) == left.Shard {
			return Step{Reached: true, Why: fmt.Sprintf("shard %d was absorbed", id)}, true
		}
		return givingUp("shard %d is gone", id), true
	}
	if id == kv.MetaShard || left.Shard == kv.MetaShard || len(left.Span.End) == 0 || !bytes.Equal(left.Span.End, right.Span.Start) {
		return givingUp("shard %d is not the right neighbour any more", id), true
	}
	if a, b := v.ruleOf(left.Span), v.ruleOf(right.Span); a != b {
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
	if !sameNodes(c.d, right) {
		return waiting("the replicas of shard %d are on nodes %s, and must be on %s",
			right.Shard, list(nodesOf(right.Replicas)), list(nodesOf(c.d.Replicas)))
	}
	if open := c.goalOf(right.Shard); open != nil {
		return waiting("shard %d has a goal of its own (%d)", right.Shard, open.GetId())
	}
	r := &change{View: c.View, d: right, figures: other}
	if right.Joint() {
		return waiting("shard %d is between two configurations", right.Shard)
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

// goalOf is the open goal of a shard, or nil.
func (v *View) goalOf(shard kv.ShardID) *kvdv1.Goal {
	for _, g := range v.Map.State().GetGoals() {
		if kv.ShardID(g.GetShard()) == shard {
			return g
		}
	}
	return nil
}
