package node

import (
	"fmt"
	"slices"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/storage"
)

// The end of a replica on a node.
//
// A replica goes when the meta group has said, to a question of its own, that it was removed (M4), or in the step of the
// merge that absorbs it (G3). Its state, its data and a tombstone are one step; the log goes when that is durable (T6, M5).
// Before, no later replica of the shard starts here.

// burial is a log that goes when the step that removed its replica is durable.
type burial struct {
	group kv.Group
	cut   storage.Cut
}

// remove ends a replica that is a member no more. While a snapshot is being installed it stays.
func (c *Core) remove(g *group) {
	if g.gone || g.absorbed || g.replica.Installing() || g.incoming != nil {
		return
	}
	c.Logger.Info("a replica that was moved away is removed", "shard", g.shard, "replica", g.member.Replica)
	batch := c.State.NewBatch()
	c.tombstone(batch, g)
	if g.shard != kv.MetaShard {
		batch.DeleteSpan(g.machine.Descriptor().Span)
	}
	c.drop(g)
	cut, err := c.State.Commit(batch)
	if err != nil {
		c.fail(fmt.Errorf("remove shard %d: %w", g.shard, err))
		return
	}
	c.cut = cut
	c.bury(g)
}

// tombstone adds to a step that a replica is gone.
func (c *Core) tombstone(batch storage.Batch, g *group) {
	batch.RemoveShard(g.shard)
	if !mutantNoTombstone {
		batch.PutTombstone(g.shard, g.member.Replica)
		c.tombstones[g.shard] = max(c.tombstones[g.shard], g.member.Replica)
	}
}

// bury has the log of a dropped replica removed once the last step is durable.
func (c *Core) bury(g *group) {
	c.buried = append(c.buried, burial{g.replica.Group(), c.cut})
}

// drop takes a replica out of the loop: whoever waits for it is told, and readers find nothing any more.
func (c *Core) drop(g *group) {
	g.gone = true
	state := *g.view.state.Load()
	state.leader, state.lead, state.leaseUntil, state.installing = false, 0, 0, true
	g.view.state.Store(&state)
	g.replica.Close()
	c.take(g.replica.Answers())
	same := func(x *group) bool { return x == g }
	delete(c.groups, g.shard)
	c.order, c.byKey, c.awake = slices.DeleteFunc(c.order, same), slices.DeleteFunc(c.byKey, same), slices.DeleteFunc(c.awake, same)
	c.waiting, c.outgoing = slices.DeleteFunc(c.waiting, same), slices.DeleteFunc(c.outgoing, same)
	g.held = nil
	if g.shard == kv.MetaShard {
		c.conduct = nil // Reports of this turn find nobody who presides.
	}
	c.viewsChanged = true
}

// digGraves removes the logs whose replicas' removal is durable.
func (c *Core) digGraves() {
	if len(c.buried) == 0 {
		return
	}
	durable := c.State.Durable()
	c.buried = slices.DeleteFunc(c.buried, func(b burial) bool {
		if b.cut > durable && !mutantEarlyGrave {
			return false
		}
		c.writes = append(c.writes, storage.LogWrite{Group: b.group, Remove: true})
		return true
	})
	if len(c.buried) > 0 {
		c.syncState()
	}
}

// leaving reports that the removal of a replica of a shard is not durable yet.
func (c *Core) leaving(shard kv.ShardID) bool {
	return slices.ContainsFunc(c.buried, func(b burial) bool { return b.group.Shard == shard })
}

// suspect notes that a replica may have been removed: it asks when it is its turn.
func (c *Core) suspect(g *group) {
	g.suspicious = true
	c.wake(g)
}

// doubtTicks is after how many election timeouts without a leader a replica asks whether it is still a member.
const doubtTimeouts = 3

// ask asks the meta group, now and then, about replicas that may have been removed: that have not heard of a leader for
// long, that the map lacks, or that stand in the way of another.
func (c *Core) ask(g *group) {
	if g.machine.Descriptor().NodeOf(g.member.Replica) == 0 && !g.replica.Replaying() {
		c.remove(g) // Its own log says so.
		return
	}
	if g.replica.Heard() {
		c.lose(g, false)
		g.leaderless = 0
	} else {
		g.leaderless++
	}
	if g.leaderless > doubtTimeouts*c.ElectionTicks {
		c.lose(g, true)
		g.leaderless = 0
		c.suspect(g)
	}
	if !g.suspicious || c.ticks < g.askAgain {
		return
	}
	g.suspicious, g.askAgain = false, c.ticks+uint64(c.ElectionTicks)
	question := &kvdv1.Question{Shard: uint64(g.shard), Replica: uint64(g.member.Replica)}
	listed := false
	for _, r := range c.Meta.GetMeta().GetReplicas() {
		listed = listed || kv.NodeID(r.GetNode()) == c.president.node
		c.tell(kv.NodeID(r.GetNode()), &kvdv1.RaftMessage{Question: question})
	}
	if c.president.node != 0 && !listed { // The meta group has moved since this node heard of its replicas.
		c.tell(c.president.node, &kvdv1.RaftMessage{Question: question})
	}
}

// lose notes whether a replica has lost its leader. If it is one of the meta group, metadata comes from other nodes then.
func (c *Core) lose(g *group, lost bool) {
	if g.lost != lost {
		g.lost = lost
		g.publish()
	}
}

// question answers a replica after a linearizable read of the meta group, if that is led here.
func (c *Core) question(from kv.NodeID, q *kvdv1.Question) {
	g := c.groups[kv.MetaShard]
	if g == nil || !g.presides() {
		return
	}
	c.mark(g)
	g.replica.Read(answerer{c, from, q})
}

// answerer answers a question when the meta group's read is confirmed.
type answerer struct {
	core *Core
	to   kv.NodeID
	q    *kvdv1.Question
}

func (a answerer) Done(_ kv.Result, err error) {
	if err != nil {
		return
	}
	w := &kvdv1.Word{Shard: a.q.GetShard(), Replica: a.q.GetReplica()}
	if d, absorber := a.core.lookUp(kv.ShardID(w.Shard)); d != nil {
		w.Descriptor_, w.Absorber = d, uint64(absorber)
	}
	a.core.tell(a.to, &kvdv1.RaftMessage{Word: w})
}

// lookUp finds a shard in the metadata as applied here: in the map, or among the absorbed.
func (c *Core) lookUp(shard kv.ShardID) (d *kvdv1.Descriptor, absorber kv.ShardID) {
	if shard == kv.MetaShard {
		return c.Meta.GetMeta(), 0
	}
	for _, d := range c.Meta.GetDescriptors() {
		if kv.ShardID(d.GetShard()) == shard {
			return d, 0
		}
	}
	for _, a := range c.Meta.GetAbsorbed() {
		if kv.ShardID(a.GetDescriptor_().GetShard()) == shard {
			return a.GetDescriptor_(), kv.ShardID(a.GetAbsorber())
		}
	}
	return nil, 0
}

// word takes an answer of the meta group. It is believed only if it speaks of a later configuration than the one applied
// here, without this replica, which for an absorbed shard is its last; or if the shard was absorbed, and no replica of the
// absorber is here (M4, G3), nor is to be born again of what its parent has yet to apply: its log may need this one.
func (c *Core) word(w *kvdv1.Word) {
	g := c.groups[kv.ShardID(w.GetShard())]
	if g == nil || uint64(g.member.Replica) != w.GetReplica() || w.GetDescriptor_() == nil || g.replica.Replaying() {
		return
	}
	later := w.GetDescriptor_().GetEpoch().GetConfig() > g.machine.Descriptor().Epoch.Config
	member := slices.ContainsFunc(w.GetDescriptor_().GetReplicas(), func(r *kvdv1.Replica) bool { return r.GetReplica() == w.GetReplica() })
	absorber := kv.ShardID(w.GetAbsorber())
	switch {
	case !member && (later || mutantWordWithoutEpoch):
		c.remove(g)
	case absorber != 0 && c.groups[absorber] == nil && c.arrivals[absorber] == nil && !c.orphaned(absorber):
		c.remove(g)
	}
}
