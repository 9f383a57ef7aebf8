package node

import (
	"cmp"
	"slices"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// What a node reports to the leader of the meta group: itself, and the shards that it leads. A shard whose shape has
// changed is reported at once; the others every second if their figures have changed, and in turns else.

// told is what was last reported of a shard.
type told struct {
	to         kv.NodeID
	term       kv.Term // Of the meta group.
	descriptor *kv.Descriptor
	leading    kv.Term
	bytes      uint64
	load       int64
	asleep     bool
}

// presided takes that a node leads the meta group, and answers with a report.
func (c *Core) presided(from kv.NodeID, term kv.Term) {
	if term < c.president.term {
		return
	}
	c.president = president{from, term}
	c.report()
}

// president is the node that leads the meta group, as far as this one knows.
type president struct {
	node kv.NodeID
	term kv.Term
}

// report tells everything that the leader of the meta group has not heard yet, up to the bound of a report.
func (c *Core) report() {
	r := c.nodeReport()
	// Where more shards have news than go into a report, it goes on with the next where this one ends; those that are being
	// changed are in each.
	for _, g := range c.order {
		if len(r.Shards) < kv.ReportShardsMax/2 && g.leads() && g.changing() {
			g.tell(c.president)
			r.Shards = append(r.Shards, c.describe(g))
		}
	}
	from, _ := slices.BinarySearchFunc(c.order, c.reported+1, func(g *group, s kv.ShardID) int { return cmp.Compare(g.shard, s) })
	for i := range c.order {
		g := c.order[(from+i)%len(c.order)]
		if len(r.Shards) >= kv.ReportShardsMax {
			break
		}
		if g.leads() && !g.changing() && g.tell(c.president) {
			r.Shards, c.reported = append(r.Shards, c.describe(g)), g.shard
		}
	}
	c.againInTurns(r)
	r.Refusals, c.refusals = c.refusals, nil
	c.tell(c.president.node, &kvdv1.RaftMessage{Report: r})
}

// reportShape tells at once of a shard whose shape has changed, if it is led here.
func (c *Core) reportShape(g *group) {
	if _, leader := g.replica.Leading(); !leader || c.president.node == 0 {
		return
	}
	g.tell(c.president)
	r := c.nodeReport()
	r.Shards = append(r.Shards, c.describe(g))
	c.tell(c.president.node, &kvdv1.RaftMessage{Report: r})
}

func (c *Core) nodeReport() *kvdv1.NodeReport {
	r := &kvdv1.NodeReport{Term: uint64(c.president.term), DiskFreeBytes: c.disk.FreeBytes, DiskFull: c.disk.Full, Unfit: c.ticks < c.unfitUntil}
	for _, g := range c.order {
		r.Replicas++
		r.Bytes += g.bytesHeld()
	}
	return r
}

// againInTurns adds some of the shards that have nothing new, so that all are told again now and then.
func (c *Core) againInTurns(r *kvdv1.NodeReport) {
	for range min(len(c.order), 16) {
		c.turn = (c.turn + 1) % len(c.order)
		g := c.order[c.turn]
		known := slices.ContainsFunc(r.Shards, func(s *kvdv1.ShardReport) bool { return s.GetDescriptor_().GetShard() == uint64(g.shard) })
		if _, leader := g.replica.Leading(); leader && !known {
			r.Shards = append(r.Shards, c.describe(g))
		}
	}
}

// tell reports whether there is news of a shard for who presides, and notes that it is told.
func (g *group) tell(p president) bool {
	leading, _ := g.replica.Leading()
	reads, writes, _ := g.rates.perSecond()
	now := told{
		to: p.node, term: p.term, descriptor: g.machine.Descriptor(), leading: leading, bytes: g.bytesHeld() >> 16, load: int64(reads+writes) / 16, asleep: g.asleep,
	}
	changes := now != g.told || g.changing()
	g.told = now
	return changes
}

// changing reports that a shard's replicas or span are being changed: what comes next depends on how far that is.
func (g *group) changing() bool {
	return g.machine.Descriptor().Joint() || g.learns() || g.machine.Intent() != nil || g.machine.Frozen() != nil
}

func (g *group) learns() bool {
	return slices.ContainsFunc(g.machine.Descriptor().Replicas, func(r kv.Replica) bool { return r.Learner })
}

// describe tells of a shard that is led here.
func (c *Core) describe(g *group) *kvdv1.ShardReport {
	st := g.machine.State()
	term, _ := g.replica.Leading()
	d := g.machine.Descriptor()
	r := &kvdv1.ShardReport{
		Descriptor_: wire.FromDescriptor(d, c.Node), Term: uint64(term), Keys: st.Keys, Bytes: st.Bytes, Load: g.shardLoad(),
		Asleep: g.asleep, Intent: st.GetIntent().GetId(), Frozen: st.GetFrozen().GetId(),
	}
	if st.Birth != nil {
		if known, ok := c.shards().Shard(d.Shard); !ok || known.Epoch.Version < d.Epoch.Version {
			r.Birth = st.Birth
		}
	}
	for _, member := range d.Replicas {
		behind, active := g.replica.Behind(member.Replica)
		if active && !member.Learner {
			r.Active = append(r.Active, uint64(member.Replica))
		}
		if member.Replica != g.member.Replica && (g.learns() || d.Joint()) {
			r.Followers = append(r.Followers, &kvdv1.FollowerReport{Replica: uint64(member.Replica), Behind: behind, Active: active})
		}
	}
	return r
}

// refuse notes why an order is not followed, for the next report.
func (c *Core) refuse(o *kvdv1.Order, final bool, reason string) {
	if o.GetGoal() != 0 && len(c.refusals) < kv.OrdersMax {
		c.refusals = append(c.refusals, &kvdv1.Refusal{Goal: o.GetGoal(), Shard: o.GetShard(), Reason: reason, Final: final})
	}
}
