package plan

import (
	"fmt"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// Step is what is to be done next for a goal. Orders go to the node that leads the order's shard; without one there is
// nothing to do but wait, or the goal is reached.
type Step struct {
	Order *kvdv1.Order
	// Why is what the order does, what is waited for, or why the goal is given up.
	Why string
	// Reached: nothing is left to do. The meta group drops the goal when its map shows that.
	Reached bool
	// GiveUp: no later step can reach the goal.
	GiveUp bool
}

// Next computes the next step of a goal of the shard from what is. Nil is a shard without a goal: what a goal that was
// given up has left, a joint configuration or learners, is cleared away. The descriptor is the map's, so a shard whose
// last change the map does not know yet gets no order, and an order from an older map is refused by its epoch (M2).
func Next(v *View, d *kv.Descriptor, goal *kvdv1.Goal) Step {
	figures, wait := v.leader(d)
	if step, ended := ended(v, d, goal); ended {
		return step
	}
	if wait != "" {
		return waiting("%s", wait)
	}
	c := &change{View: v, d: d, goal: goal, figures: figures}
	if id := figures.Report.GetFrozen(); id != 0 {
		return waiting("the shard is frozen for merge %d", id)
	}
	if d.Joint() {
		return c.leave()
	}
	switch g := goal.GetGoal().(type) {
	case *kvdv1.Goal_Split:
		return c.split(g.Split)
	case *kvdv1.Goal_Merge:
		return c.merge(g.Merge)
	case *kvdv1.Goal_Replicas:
		return c.replicas(g.Replicas)
	}
	return c.replicas(nil)
}

// ended tells of goals that need no leader to be seen reached, or out of reach.
func ended(v *View, d *kv.Descriptor, goal *kvdv1.Goal) (Step, bool) {
	switch g := goal.GetGoal().(type) {
	case *kvdv1.Goal_Split:
		if child, ok := v.Map.Shard(kv.ShardID(g.Split.GetChild())); ok && child.Shard != kv.MetaShard {
			return Step{Reached: true, Why: fmt.Sprintf("shard %d was split off", child.Shard)}, true
		}
		if key := g.Split.GetKey(); len(key) > 0 && (!d.Span.Contains(key) || string(key) == string(d.Span.Start)) {
			return givingUp("the key %s is not inside the shard any more", kv.FormatKey(key)), true
		}
	case *kvdv1.Goal_Merge:
		return mergeEnded(v, d, kv.ShardID(g.Merge.GetRight()))
	}
	return Step{}, false
}

// change is one computation of a step.
type change struct {
	*View
	d       *kv.Descriptor
	goal    *kvdv1.Goal
	figures ShardFigures
}

// leader gives what the leader of a shard reported, or why no order can go to it.
func (v *View) leader(d *kv.Descriptor) (f ShardFigures, wait string) {
	f, ok := v.Reports.Shard(d.Shard)
	switch silent := v.Reports.Silent(f.From, v.Now); {
	case !ok:
		return f, "no leader of the shard has reported yet" + v.missing(d)
	case silent > SuspectAfter:
		return f, fmt.Sprintf("no leader: node %d, which led the shard, is silent for %s%s", f.From, seconds(silent), v.missing(d))
	case v.missing(d) != "": // A leader that steps down does not say so.
		return f, "no majority" + v.missing(d)
	case d.Epoch.Newer(f.Epoch):
		return f, "the leader has not reported since the shard's last change"
	case d.Epoch != f.Epoch:
		return f, "the map does not have the shard's last change yet"
	}
	return f, ""
}

// missing names who a shard without a majority waits for.
func (v *View) missing(d *kv.Descriptor) string {
	var silent []kv.NodeID
	for _, r := range d.Replicas {
		if !r.Learner && v.suspect(r.Node) {
			silent = append(silent, r.Node)
		}
	}
	if len(silent)*2 < d.Voters() {
		return ""
	}
	return fmt.Sprintf("; %d of its %d voters are silent (nodes %s)", len(silent), d.Voters(), list(silent))
}

func waiting(format string, args ...any) Step { return Step{Why: fmt.Sprintf(format, args...)} }

func givingUp(format string, args ...any) Step {
	return Step{GiveUp: true, Why: fmt.Sprintf(format, args...)}
}

// order begins an order for a shard's leader.
func order(d *kv.Descriptor, goal *kvdv1.Goal) *kvdv1.Order {
	return &kvdv1.Order{Shard: uint64(d.Shard), Epoch: wire.FromEpoch(d.Epoch), Goal: goal.GetId()}
}

// conf orders a configuration change.
func (c *change) conf(change *kvdv1.ConfChange, format string, args ...any) Step {
	o := order(c.d, c.goal)
	change.Epoch = o.Epoch
	o.Step = &kvdv1.Order_Conf{Conf: change}
	return Step{Order: o, Why: fmt.Sprintf(format, args...)}
}

// transfer orders a hand-over.
func transfer(d *kv.Descriptor, goal *kvdv1.Goal, to kv.NodeID, format string, args ...any) Step {
	o := order(d, goal)
	o.Step = &kvdv1.Order_Transfer{Transfer: uint64(to)}
	return Step{Order: o, Why: fmt.Sprintf(format, args...)}
}

// split orders the split. The child inherits the learners that there are.
func (c *change) split(g *kvdv1.SplitGoal) Step {
	if c.figures.Report.GetIntent() != 0 {
		return waiting("a merge of the shard is open")
	}
	if !onSameNodes(c.d, g.GetReplicas()) {
		return givingUp("the shard's replicas have moved since the goal was set")
	}
	o := order(c.d, c.goal)
	o.Step = &kvdv1.Order_Split{Split: g}
	why := "node %d is asked to split the shard where it chooses"
	if len(g.GetKey()) > 0 {
		why = "node %d is asked to split the shard at " + kv.FormatKey(g.GetKey())
	}
	return Step{Order: o, Why: fmt.Sprintf(why, c.figures.From)}
}

// onSameNodes tells that a child's replicas match the shard's one to one (S1).
func onSameNodes(d *kv.Descriptor, replicas []*kvdv1.Replica) bool {
	child := &kv.Descriptor{}
	for _, r := range replicas {
		child.Replicas = append(child.Replicas, kv.Replica{Node: kv.NodeID(r.GetNode())})
	}
	return sameNodes(d, child)
}
