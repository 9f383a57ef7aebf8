package node

import (
	"bytes"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/replica"
	"github.com/kvdstore/kvd/storage"
)

// A merge: the left shard absorbs its right neighbour (G1 to G3). The leader of the left shard drives it, whoever that
// becomes, from what both shards' logs hold; nothing else is remembered.
//
//	left:   Intent ─────────────────────> Merge (or Abort ─────────────────────> Settle)
//	right:           Freeze, on all nodes ─┘           └─> Unfreeze, confirmed ──┘
//
// Both shards have replicas on the same nodes. What right holds at its Freeze is read from the replica on the node of
// left's leader, which leads right too: it knows how far the others have applied.

const (
	// mergeTimeouts is after how many election timeouts a merge that does not come to its end is given up.
	mergeTimeouts = 6
	// mergeRetryTicks is the time between two attempts at a step.
	mergeRetryTicks = 4
)

// beginMerge follows the order to absorb the right neighbour: it starts only if all replicas of both are active.
func (c *Core) beginMerge(g *group, o *kvdv1.Order, right *kvdv1.Descriptor) {
	r := c.groups[kv.ShardID(right.GetShard())]
	switch {
	case g.machine.Intent() != nil:
	case r == nil || !r.leads():
		c.refuse(o, false, "the right neighbour is led by another node")
	case !g.allActive() || !r.allActive():
		c.refuse(o, false, "a replica is not active")
	default:
		c.proposeShape(g, o.GetEpoch(), &kvdv1.Shape{Shape: &kvdv1.Shape_Intent{
			Intent: &kvdv1.Intent{Id: o.GetGoal(), Right: right, Forget: g.forgettable()},
		}}, nil)
	}
}

// forgettable are the absorbed shards that are gone everywhere: every replica has applied their merges.
func (g *group) forgettable() (list []uint64) {
	for _, a := range g.machine.State().GetAbsorbed() {
		if g.replica.AllApplied(kv.Index(a.GetMerged())) {
			list = append(list, a.GetShard())
		}
	}
	return list
}

func (g *group) leads() bool {
	_, leader := g.replica.Leading()
	return leader
}

// allActive reports that every replica was heard of in the last election timeout.
func (g *group) allActive() bool {
	for _, member := range g.machine.Descriptor().Replicas {
		if _, active := g.replica.Behind(member.Replica); !active {
			return false
		}
	}
	return true
}

// driveMerge does the next step of an open merge, or of one that was given up, at the left shard's leader.
func (c *Core) driveMerge(g *group) {
	in := g.machine.Intent()
	if in == nil || !g.leads() || g.replica.Replaying() {
		g.merging = 0
		return
	}
	g.merging++
	if in.GetAborted() {
		c.settleMerge(g, in)
		return
	}
	if g.merging > mergeTimeouts*c.ElectionTicks {
		g.merging = 0
		c.proposeShape(g, nil, &kvdv1.Shape{Shape: &kvdv1.Shape_Abort{Abort: &kvdv1.Abort{Id: in.GetId()}}}, nil)
		return
	}
	c.pushMerge(g, in)
}

// pushMerge freezes the right shard, and merges when all its replicas are frozen.
func (c *Core) pushMerge(g *group, in *kvdv1.IntentState) {
	right := c.groups[kv.ShardID(in.GetRight().GetShard())]
	retry := g.merging%mergeRetryTicks == 1
	if right == nil {
		return
	}
	frozen := right.machine.Frozen()
	if mutantUnfreezeBeforeAbort && frozen.GetId() == in.GetId() {
		c.unfreeze(in)
	}
	switch {
	case !right.leads():
		if retry {
			c.tellLeader(right, &kvdv1.Order{Shard: uint64(right.shard), Epoch: wire.FromEpoch(right.machine.Descriptor().Epoch),
				Step: &kvdv1.Order_Transfer{Transfer: uint64(c.Node)}})
		}
	case frozen == nil && retry:
		c.proposeShape(right, in.GetRight().GetEpoch(), &kvdv1.Shape{Shape: &kvdv1.Shape_Freeze{
			Freeze: &kvdv1.Freeze{Id: in.GetId(), Left: uint64(g.shard)},
		}}, nil)
	case frozen.GetId() == in.GetId() && right.replica.AllApplied(kv.Index(frozen.GetIndex())) && !g.replica.Shaping():
		st := right.machine.State()
		st.AppliedIndex, st.Replica = frozen.GetIndex(), 0
		c.proposeShape(g, nil, &kvdv1.Shape{Shape: &kvdv1.Shape_Merge{Merge: &kvdv1.Merge{Id: in.GetId(), Right: st}}}, nil)
	}
}

// advanceMerge does what a step that is visible makes possible, so that the right shard is frozen for a few round trips and not
// for some ticks: left's leader goes on when its Intent is applied, and right's other replicas tell its leader at once
// that they are frozen.
func (c *Core) advanceMerge(g *group) {
	if g.machine.Intent() != nil && g.merging == 0 {
		c.driveMerge(g)
	}
	frozen := g.machine.Frozen()
	if applied, _ := g.machine.Applied(); frozen == nil || kv.Index(frozen.GetIndex()) != applied || g.replica.Replaying() {
		return
	}
	if m := g.replica.Acknowledgement(); m != nil {
		c.hold(g, held{messages: c.address(nil, g, []*raftpb.Message{m})})
		c.more = true
	}
}

// mergeFrozen has left's leader merge when the last of right's replicas has told that it is frozen.
func (c *Core) mergeFrozen(right *group) {
	left := c.groups[kv.ShardID(right.machine.Frozen().GetLeft())]
	if left == nil || left.merging == 0 || !left.leads() || !right.leads() {
		return
	}
	if in := left.machine.Intent(); in.GetId() == right.machine.Frozen().GetId() && !in.GetAborted() {
		c.pushMerge(left, in)
	}
}

// settleMerge ends the freeze of a merge that was given up, and notes when the right shard has confirmed it (G2).
func (c *Core) settleMerge(g *group, in *kvdv1.IntentState) {
	right := c.groups[kv.ShardID(in.GetRight().GetShard())]
	if c.thawed(right, in) {
		if !g.replica.Shaping() {
			c.proposeShape(g, nil, &kvdv1.Shape{Shape: &kvdv1.Shape_Settle{Settle: &kvdv1.Settle{Id: in.GetId()}}}, nil)
		}
		return
	}
	if g.merging%mergeRetryTicks != 1 {
		return
	}
	c.unfreeze(in)
}

// unfreeze has right's leader end the freeze of a merge. Frozen, or to be frozen late, it is where it was when the merge
// began; left may have been moved since.
func (c *Core) unfreeze(in *kvdv1.IntentState) {
	for _, r := range in.GetRight().GetReplicas() {
		c.tell(kv.NodeID(r.GetNode()), &kvdv1.RaftMessage{Order: &kvdv1.Order{Shard: in.GetRight().GetShard(), Epoch: in.GetRight().GetEpoch(),
			Step: &kvdv1.Order_Unfreeze{Unfreeze: &kvdv1.Unfreeze{Id: in.GetId()}}}})
	}
}

// thawed reports that the right shard can not be frozen by a merge any more: an Unfreeze of it is applied, or the shard has
// another epoch than the Freeze would need.
func (c *Core) thawed(right *group, in *kvdv1.IntentState) bool {
	if right == nil {
		d, ok := c.shards().Shard(kv.ShardID(in.GetRight().GetShard()))
		return ok && d.Epoch.Newer(wire.ToEpoch(in.GetRight().GetEpoch()))
	}
	frozen := right.machine.Frozen()
	return frozen.GetId() != in.GetId() && right.machine.Descriptor().Epoch.Newer(wire.ToEpoch(in.GetRight().GetEpoch()))
}

// tellLeader gives an order to the node that leads a shard which has a replica here.
func (c *Core) tellLeader(g *group, o *kvdv1.Order) {
	if to := g.replica.Leader(); to != 0 {
		c.tell(to, &kvdv1.RaftMessage{Order: o})
	}
}

// proposeShape proposes a command that changes the shape of a shard led here; without an epoch it is the present one.
func (c *Core) proposeShape(g *group, epoch *kvdv1.Epoch, s *kvdv1.Shape, done func(kv.Result, error)) {
	if g.replica.Shaping() {
		return
	}
	if s.Epoch = epoch; epoch == nil {
		s.Epoch = wire.FromEpoch(g.machine.Descriptor().Epoch)
	}
	c.wake(g)
	c.propose(g)
	c.fail(g.replica.Propose(c.now.Wall, []*kvdv1.Command{{Op: uint32(kv.OpShape), Shape: s}}, []replica.Waiter{waiter(done)}))
	c.mark(g)
}

// waiter calls a function when a proposal ends.
type waiter func(kv.Result, error)

func (w waiter) Done(r kv.Result, err error) {
	if w != nil {
		w(r, err)
	}
}

// holdsBack reports that a merge must not be applied yet: the right replica here has not applied its own log up to its end
// (G3), which a crash may have taken it back from.
func (c *Core) holdsBack(g *group, b *kvdv1.Batch) bool {
	for _, command := range b.GetCommands() {
		m := command.GetShape().GetMerge()
		if m == nil {
			continue
		}
		in := g.machine.Intent()
		if in.GetId() != m.GetId() || in.GetAborted() {
			continue // It will be refused.
		}
		right := c.groups[kv.ShardID(m.GetRight().GetDescriptor_().GetShard())]
		if right == nil {
			c.fail(fmt.Errorf("shard %d absorbs shard %d, of which no replica is here", g.shard, m.GetRight().GetDescriptor_().GetShard()))
			return true
		}
		if applied, _ := right.machine.Applied(); uint64(applied) < m.GetRight().GetAppliedIndex() || right.replica.Installing() || right.incoming != nil {
			return !mutantMergeBeforeFreeze
		}
	}
	return false
}

// absorb adds the removal of the absorbed replica to the step of the merge: its data is left's from now on.
func (c *Core) absorb(g *group, gone *kvdv1.Absorbed, batch storage.Batch) {
	right := c.groups[kv.ShardID(gone.GetShard())]
	if right == nil {
		return
	}
	right.absorbed = true
	c.tombstone(batch, right)
	c.absorbed = append(c.absorbed, absorption{g, right})
}

// absorption is a merge of the turn's step.
type absorption struct{ left, right *group }

// buryAbsorbed ends the replicas that the visible step has absorbed. What the cache holds under left's incarnation may be
// older than the time in which right was a shard of its own, so left gets a new one (C4).
func (c *Core) buryAbsorbed() {
	list := c.absorbed
	c.absorbed = nil
	for _, a := range list {
		a.right.replica.Absorbed(&kv.NotLeaderError{Shard: a.left.shard, Leader: a.left.replica.Leader()})
		c.drop(a.right)
		c.bury(a.right)
		if !mutantIncarnationThroughMerge {
			c.renew(a.left)
		}
	}
}

// renew publishes a new incarnation of a replica's data.
func (c *Core) renew(g *group) {
	c.incarnations++
	next := *g.view.state.Load()
	next.incarnation = c.incarnations
	g.view.state.Store(&next)
}

// unblock looks again at the left neighbour of a shard that is frozen: a merge may have waited for what it has applied.
func (c *Core) unblock(g *group) {
	if g.machine.Frozen() == nil {
		return // Also one that was frozen and is not any more: left looks again at the next tick, and refuses the merge.
	}
	start := g.machine.Descriptor().Span.Start
	i, ok := slices.BinarySearchFunc(c.byKey, start, func(g *group, key []byte) int {
		return bytes.Compare(g.machine.Descriptor().Span.Start, key)
	})
	if ok && i > 0 && c.byKey[i-1].replica.Blocked() {
		c.mark(c.byKey[i-1])
	}
}
