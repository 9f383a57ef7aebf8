package node

import (
	"slices"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

// Shards that nobody uses sleep: no ticks, no heartbeats (M6).
//
// The leader puts a shard to sleep that had no request for a while, when every replica has applied all of its log. It tells
// the followers up to where, and each sleeps that is there. Nothing is forgotten: the leader stays the leader. Whoever has
// something for the shard wakes it: a request, an order, a message of a member, the loss of the leader's node, or its process
// coming back. Waking starts the ticks and no election; a leader that wakes asks its followers at once, which wakes them.
// What sleeps makes no promise and holds no lease: it had none when it went to sleep.

// sleepRetry is after how long a leader tries again to put a shard to sleep, when a follower did not.
const sleepRetry = 10 * time.Second

// setAwake lists a group among those that tick.
func (c *Core) setAwake(g *group) {
	i, known := slices.BinarySearchFunc(c.awake, g.shard, func(g *group, s kv.ShardID) int { return int(g.shard) - int(s) })
	if !known {
		c.awake = slices.Insert(c.awake, i, g)
	}
}

// wake wakes a shard, if it sleeps.
func (c *Core) wake(g *group) {
	if !g.asleep {
		return
	}
	g.asleep, g.usedAt = false, c.now.Boot
	c.setAwake(g)
	c.mark(g)
	if mutantWakingCampaigns {
		c.fail(g.replica.Stand())
	}
	c.fail(g.replica.Woken(c.now.Boot))
}

// rest puts a shard to sleep that is led here and not used.
func (c *Core) rest(g *group) {
	after := c.settings.Duration(raftmeta.SleepAfter)
	if used := g.view.meter.totals(); used != g.used || g.view.wanted.Load() {
		g.used, g.usedAt = used, c.now.Boot
	}
	if after == 0 || c.now.Boot-g.usedAt < after || g.shard == kv.MetaShard || !c.restful(g) {
		return
	}
	// If a follower stays awake it will wake this one, and this is tried again.
	g.usedAt = c.now.Boot + max(sleepRetry, after) - after
	term, _ := g.replica.Leading()
	last, _ := g.replica.Log().LastIndex()
	for _, member := range g.machine.Descriptor().Replicas {
		if member.Replica != g.member.Replica {
			c.tell(member.Node, &kvdv1.RaftMessage{
				Shard: uint64(g.shard), From: uint64(g.member.Replica), To: uint64(member.Replica), Term: uint64(term), Index: last, Sleep: true,
				DiskFull: c.disk.Full,
			})
		}
	}
	c.sleep(g)
}

// restful reports that nothing is going on with a shard that is led here: every replica is level and was heard of, and nothing
// waits to be purged until others have room, of which only messages tell.
func (c *Core) restful(g *group) bool {
	last, _ := g.replica.Log().LastIndex()
	if g.machine.Expiring() > 0 && c.othersFull(g) || !g.presides() || !c.still(g, kv.Index(last)) || g.machine.Descriptor().Joint() || g.splitting != nil {
		return false
	}
	return g.replica.AllApplied(kv.Index(last)) && g.allActive()
}

// still reports that a replica has applied everything up to an index that is the end of its log, and nothing waits.
func (c *Core) still(g *group, last kv.Index) bool {
	end, _ := g.replica.Log().LastIndex()
	applied, _ := g.machine.Applied()
	return kv.Index(end) == last && applied == last && g.replica.Pending() == 0 && !g.replica.Installing() && g.incoming == nil && g.outgoing == nil &&
		!g.expiring && len(g.held) == 0 && g.truncate.index == 0 && !g.suspicious && g.machine.Intent() == nil && g.machine.Frozen() == nil
}

// putToSleep takes that the leader has put the shard to sleep. A replica that has not heard a leader since the start of the
// process, or is not where the leader says, stays awake.
func (c *Core) putToSleep(g *group, from kv.NodeID, m *kvdv1.RaftMessage) {
	term, _ := g.replica.Leading()
	leads := g.replica.Leader() == from && g.replica.NodeOf(kv.ReplicaID(m.GetFrom())) == from && kv.ReplicaID(m.GetTo()) == g.member.Replica
	if leads && uint64(term) == m.GetTerm() && g.replica.Heard() && c.still(g, kv.Index(m.GetIndex())) {
		c.sleep(g)
	}
}

// sleep takes a group out of those that tick. The lease has run out, or is given up.
func (c *Core) sleep(g *group) {
	g.asleep = true
	c.awake = slices.DeleteFunc(c.awake, func(x *group) bool { return x == g })
	g.replica.Sleep()
	g.publish()
}

// wakeLedBy wakes what is led by a node that was lost, or has started anew.
func (c *Core) wakeLedBy(node kv.NodeID) {
	for _, g := range c.order {
		if g.asleep && g.replica.Leader() == node {
			c.wake(g)
		}
	}
}

// Asleep counts the shards here that sleep.
func (c *Core) Asleep() int { return len(c.order) - len(c.awake) }

// readSleepers lets the load of the shards that sleep fade, once a second.
func (c *Core) readSleepers() {
	if len(c.awake) == len(c.order) || !c.every(time.Second, 3) {
		return
	}
	for _, g := range c.order {
		if g.asleep {
			c.readMeter(g)
		}
	}
}
