package plan

import (
	"fmt"
	"slices"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// A move, step by step (M3): learners are added, get a snapshot and catch up; a joint configuration in which they vote and
// those that are to go do not; if the leader is one of those, it hands over; the joint configuration is left; learners are
// removed. One voter becomes three by one joint change of two learners that have caught up, so the number of voters is
// always odd. A leader never demotes or removes itself, and only learners are removed.

// CaughtUpEntries is what a learner may lack of the committed log when it becomes a voter: what a busy shard commits in
// a round trip or two.
const CaughtUpEntries = 256

// replicas computes the next step of a goal outside of a joint configuration; nil removes what no goal wants.
func (c *change) replicas(g *kvdv1.ReplicasGoal) Step {
	if c.figures.Report.GetIntent() != 0 {
		return waiting("a merge of the shard is open")
	}
	if step, ok := c.add(g); ok {
		return step
	}
	promote, demote := c.swap(g)
	if len(promote)+len(demote) > 0 {
		return c.join(promote, demote)
	}
	if r, ok := stray(c.d, g); ok {
		return c.remove(r)
	}
	return Step{Reached: true, Why: "its replicas are on nodes " + list(nodesOf(c.d.Replicas))}
}

// add orders the first learner that is missing. One that is on the node already will do, whoever wanted it.
func (c *change) add(g *kvdv1.ReplicasGoal) (Step, bool) {
	for _, r := range g.GetAdd() {
		node := kv.NodeID(r.GetNode())
		if _, there := c.d.OnNode(node); there {
			continue
		}
		switch bar := c.barred(node); {
		case bar != "" && (c.down(node) || c.draining(node)):
			return givingUp("a replica was to go to node %d: %s", node, bar), true
		case bar != "":
			return waiting("a replica is to go to node %d: %s", node, bar), true
		}
		learner := &kvdv1.Replica{Node: r.GetNode(), Replica: r.GetReplica(), Learner: true}
		return c.conf(&kvdv1.ConfChange{Add: []*kvdv1.Replica{learner}}, "node %d becomes a learner", node), true
	}
	return Step{}, false
}

// swap gives the learners that the goal wants to vote, and the voters that it wants to go.
func (c *change) swap(g *kvdv1.ReplicasGoal) (promote, demote []kv.Replica) {
	for _, r := range c.d.Replicas {
		if r.Learner && wanted(g, r.Node) {
			promote = append(promote, r)
		}
		if !r.Learner && slices.Contains(g.GetRemove(), uint64(r.Node)) {
			demote = append(demote, r)
		}
	}
	return promote, demote
}

// wanted tells that the goal wants a voter on a node.
func wanted(g *kvdv1.ReplicasGoal, node kv.NodeID) bool {
	return slices.ContainsFunc(g.GetAdd(), func(r *kvdv1.Replica) bool { return kv.NodeID(r.GetNode()) == node }) &&
		!slices.Contains(g.GetRemove(), uint64(node))
}

// stray gives a learner that the goal does not want.
func stray(d *kv.Descriptor, g *kvdv1.ReplicasGoal) (kv.Replica, bool) {
	i := slices.IndexFunc(d.Replicas, func(r kv.Replica) bool { return r.Learner && !wanted(g, r.Node) })
	if i < 0 {
		return kv.Replica{}, false
	}
	return d.Replicas[i], true
}

func (c *change) remove(r kv.Replica) Step {
	return c.conf(&kvdv1.ConfChange{Remove: []uint64{uint64(r.Replica)}}, "the learner on node %d is removed", r.Node)
}

// join orders the joint configuration when nothing can get stuck in it: the learners have caught up, majorities of both
// configurations are active, and if the leader is to go there is somebody to take over.
func (c *change) join(promote, demote []kv.Replica) Step {
	if n := c.d.Voters() + len(promote) - len(demote); n < 1 || n%2 == 0 {
		return givingUp("%d voters would be left; the number must be odd", n)
	}
	if age := c.Now - c.figures.Heard; age > FreshFor {
		return waiting("the leader's last report of the shard is %s old", seconds(age))
	}
	for _, r := range promote {
		if wait := c.lagging(r); wait != "" {
			return waiting("%s", wait)
		}
	}
	stay := slices.DeleteFunc(c.voters(), func(r kv.Replica) bool { return slices.Contains(demote, r) })
	if wait := c.minority(c.voters(), "the shard has no majority"); wait != "" {
		return waiting("%s", wait)
	}
	if wait := c.minority(append(slices.Clone(stay), promote...), "the new voters would have no majority"); wait != "" {
		return waiting("%s", wait)
	}
	if slices.ContainsFunc(demote, func(r kv.Replica) bool { return r.Node == c.figures.From }) {
		to, wait := c.heir(append(slices.Clone(promote), stay...))
		if wait != "" {
			return waiting("%s", wait)
		}
		if len(promote) == 0 { // Nobody is waited for: the leader may as well go first.
			return transfer(c.d, c.goal, to.Node, "the leader on node %d is to go: node %d leads next", c.figures.From, to.Node)
		}
	}
	return c.conf(&kvdv1.ConfChange{Promote: idsOf(promote), Demote: idsOf(demote)},
		"voters change: nodes %s come, %s go", list(nodesOf(promote)), list(nodesOf(demote)))
}

// leave orders the end of the joint configuration, again and again; before that, an outgoing leader hands over.
func (c *change) leave() Step {
	if self, _ := c.d.OnNode(c.figures.From); !self.Outgoing && !self.Learner {
		return c.conf(&kvdv1.ConfChange{Leave: true}, "the joint configuration is left")
	}
	var next []kv.Replica
	for _, incoming := range []bool{true, false} { // The incoming first: they were chosen to relieve this one.
		for _, r := range c.d.Replicas {
			if !r.Learner && !r.Outgoing && r.Incoming == incoming {
				next = append(next, r)
			}
		}
	}
	to, wait := c.heir(next)
	if wait != "" {
		return waiting("%s", wait)
	}
	return transfer(c.d, c.goal, to.Node, "the leader on node %d is to go: node %d leads next", c.figures.From, to.Node)
}

// heir gives the first of several replicas that may lead; one that no rule speaks against goes before.
func (c *change) heir(list []kv.Replica) (to kv.Replica, wait string) {
	bar := "there is no other voter"
	rule := c.rule(c.d)
	for _, lawful := range []bool{true, false} {
		for _, r := range list {
			if lawful != (rule.GetLeader() == "" || c.region(r.Node) == rule.GetLeader()) {
				continue
			}
			switch b := c.barred(r.Node); {
			case b != "":
				bar = b
			case !c.active(r):
				bar = fmt.Sprintf("the replica on node %d is not active", r.Node)
			default:
				return r, ""
			}
		}
	}
	return kv.Replica{}, fmt.Sprintf("nobody can take over from the leader on node %d: %s", c.figures.From, bar)
}

// lagging tells why a learner must not vote yet.
func (c *change) lagging(r kv.Replica) string {
	f, ok := c.follower(r)
	switch {
	case !ok:
		return fmt.Sprintf("the leader has not told yet how far the learner on node %d is", r.Node)
	case !f.GetActive() || c.suspect(r.Node):
		return fmt.Sprintf("the learner on node %d is not active", r.Node)
	case f.GetBehind() > CaughtUpEntries:
		return fmt.Sprintf("the learner on node %d lacks %d entries; at most %d may be missing", r.Node, f.GetBehind(), CaughtUpEntries)
	}
	return ""
}

func (c *change) follower(r kv.Replica) (*kvdv1.FollowerReport, bool) {
	list := c.figures.Report.GetFollowers()
	i := slices.IndexFunc(list, func(f *kvdv1.FollowerReport) bool { return f.GetReplica() == uint64(r.Replica) })
	if i < 0 {
		return nil, false
	}
	return list[i], true
}

// active tells that the leader heard of a replica in the last election timeout, and we of its node. A sleeping leader
// hears of nobody; when it fell asleep all had everything (M6).
func (c *change) active(r kv.Replica) bool {
	report := c.figures.Report
	f, ok := c.follower(r)
	return !c.suspect(r.Node) && (ok && f.GetActive() || slices.Contains(report.GetActive(), uint64(r.Replica)) ||
		r.Node == c.figures.From || report.GetAsleep())
}

// minority tells that fewer than a majority of some replicas are active, and who is not.
func (c *change) minority(voters []kv.Replica, what string) string {
	var away []kv.NodeID
	for _, r := range voters {
		if !c.active(r) {
			away = append(away, r.Node)
		}
	}
	if (len(voters)-len(away))*2 > len(voters) {
		return ""
	}
	return fmt.Sprintf("%s: %d of %d are not active (nodes %s)", what, len(away), len(voters), list(away))
}

// voters are those of a configuration that is not joint.
func (c *change) voters() []kv.Replica {
	return slices.DeleteFunc(slices.Clone(c.d.Replicas), func(r kv.Replica) bool { return r.Learner })
}

func idsOf(replicas []kv.Replica) []uint64 {
	ids := make([]uint64, len(replicas))
	for i, r := range replicas {
		ids[i] = uint64(r.Replica)
	}
	return ids
}
