package node

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
	"github.com/kvdstore/kvd/replica"
	"github.com/kvdstore/kvd/shard"
	"github.com/kvdstore/kvd/storage"
)

const (
	// expireTicks is the number of ticks between two searches for keys that fell due.
	expireTicks = 2
	// expireFullTicks is the same while the disk is full.
	expireFullTicks = 10
	// expireScanMax bounds the expiries that one search looks at, and expireMax those that one entry purges.
	expireScanMax = 1024
	expireMax     = 256
)

// upkeep is what a group does at each tick beside raft.
func (c *Core) upkeep(g *group) {
	c.truncateLog(g)
	c.ask(g)
	c.driveMerge(g)
	if ticks := uint64(max(time.Second/c.Tick, 1)); (c.ticks+uint64(g.shard))%ticks == 0 {
		c.readMeter(g)
		c.rest(g)
	}
	if (c.ticks+uint64(g.shard))%uint64(c.ElectionTicks) == 0 {
		c.scheduleChecksum(g)
	}
}

// truncateLog decides where the log may begin, and cuts it once the state that replaces it is durable (T6).
func (c *Core) truncateLog(g *group) {
	if g.replica.Installing() {
		return
	}
	log := g.replica.Log()
	if t := g.truncate; t.index != 0 {
		if c.State.Durable() < t.cut && !mutantTruncatedPastApplied {
			c.syncState()
			return
		}
		g.truncate = truncation{}
		log.Truncate(t.index, t.term)
		g.marks.drop(t.index)
		c.writes = append(c.writes, storage.LogWrite{
			Group: g.replica.Group(), Truncate: &storage.Point{Index: t.index, Term: t.term},
		})
		return
	}
	first, _ := log.FirstIndex()
	goal := c.truncationGoal(g)
	if goal < kv.Index(first) || !c.worthTruncating(g, kv.Index(first), goal) {
		return
	}
	term, err := log.Term(uint64(goal))
	if err != nil {
		c.fail(fmt.Errorf("%v: term of entry %d: %w", g.replica.Group(), goal, err))
		return
	}
	g.truncate = truncation{index: goal, term: kv.Term(term), cut: c.cut}
}

// worthTruncating reports that enough of a log is not wanted any more: by itself, or with what there is of the others.
func (c *Core) worthTruncating(g *group, first, goal kv.Index) bool {
	surplus := g.marks.above(first) - g.marks.above(goal)
	c.surplus += surplus
	return goal >= first+c.keepEntries()/4 || g.marks.cutFor(kv.LogKeepBytes) > first || surplus > 0 && c.surplusBefore >= kv.LogSurplusBytesMax
}

func (c *Core) keepEntries() kv.Index { return kv.Index(c.settings.Int(raftmeta.LogKeep)) }

// truncationGoal is the index up to which the log is not wanted any more: applied here, as far as raft knows, and what every
// member has, or at least not wanted enough.
func (c *Core) truncationGoal(g *group) kv.Index {
	applied := g.replica.Digested()
	g.level = g.replica.Level()
	return max(min(g.level, applied), c.keepGoal(g, applied))
}

// keepGoal is the index up to which the log is not kept for those who have not all of it: not among the newest that are
// kept for a follower that is behind, known to every active follower, below the snapshots on their way, and after they have come what was written
// meanwhile (D4), and below the splits whose child has no leader yet (S7), the latter three within bounds.
func (c *Core) keepGoal(g *group, applied kv.Index) kv.Index {
	goal := max(applied, c.keepEntries()) - c.keepEntries()
	goal = min(max(goal, g.marks.cutFor(kv.LogKeepBytes)), applied)
	first, _ := g.replica.Log().FirstIndex()
	g.children = slices.DeleteFunc(g.children, func(c child) bool { return !c.group.newborn() || uint64(c.after)+1 < first })
	for _, child := range g.children {
		if child.after < goal && g.marks.above(child.after) < kv.LogWantedBytesMax {
			goal = child.after
		}
	}
	if _, leader := g.replica.Leading(); !leader {
		clear(g.pinned)
		return goal
	}
	if wanted := g.replica.Wanted(); wanted < goal && g.marks.above(wanted) < kv.LogWantedBytesMax {
		goal = wanted
	}
	for id, index := range g.pinned {
		match := g.replica.Match(id)
		from := max(index, match)
		switch {
		case g.machine.Descriptor().NodeOf(id) == 0, match >= index && g.marks.above(match) < kv.LogWantedBytesMax:
			delete(g.pinned, id)
		case from < goal && g.marks.above(from) < kv.SnapshotPinBytesMax:
			goal = from
		}
	}
	return goal
}

// syncState asks for the state store to be made durable, once at a time.
func (c *Core) syncState() {
	if !c.syncing {
		c.syncing = true
		c.Host.SyncState()
	}
}

// expire proposes, for the shards led here, their time and a bounded purge of what fell due (R4). The store's index of
// expiries is a hint; what an entry purges is checked when it is applied. While disks are full it is the time alone, and
// only if that hides something, and with a full one here more rarely: what is due is then stored on (R5).
func (c *Core) expire() {
	c.catchUp()
	every := uint64(expireTicks)
	if c.disk.Full {
		every = expireFullTicks
	}
	if c.ticks%every != 0 || !c.leadsExpiring() {
		return
	}
	due := map[*group][]kv.Due{}
	var strays []kv.Due
	last, all, err := c.State.Due(c.due, c.now.Wall, expireScanMax, func(d kv.Due) bool {
		if c.byKey.find(d.Key) == nil {
			strays = append(strays, kv.Due{ExpireAt: d.ExpireAt, Key: bytes.Clone(d.Key)})
		} else if g := c.leads(d.Key); g != nil && !g.expiring && len(due[g]) < expireMax {
			due[g] = append(due[g], kv.Due{ExpireAt: d.ExpireAt, Key: bytes.Clone(d.Key)})
		}
		return true
	})
	if err != nil {
		c.fail(fmt.Errorf("read the index of expiries: %w", err))
		return
	}
	c.due = last
	if all {
		c.due = kv.Due{}
	}
	c.forget(strays)
	for _, g := range c.order {
		if list := due[g]; len(list) > 0 {
			if c.roomFor(g) != nil {
				time := g.machine.Time()
				if !slices.ContainsFunc(list, func(d kv.Due) bool { return d.ExpireAt > time }) {
					continue // It is all hidden already.
				}
				list = nil
			}
			g.expiring = true
			c.own(g, &kv.Command{Op: kv.OpExpire, Due: list}, expired{g})
		}
	}
}

// forget deletes expiries of keys that lie in no replica of this node: those that a removed one has left in the index. What
// is being installed puts its own there before its replica is here, or has its new span: until then nothing is deleted.
func (c *Core) forget(strays []kv.Due) {
	if len(strays) == 0 || c.disk.Full || c.installing() {
		return
	}
	batch := c.State.NewBatch()
	for _, d := range strays {
		batch.DeleteDue(d)
	}
	cut, err := c.State.Commit(batch)
	if err != nil {
		c.fail(fmt.Errorf("write to the index of expiries: %w", err))
		return
	}
	c.cut = cut
}

// installing reports whether a snapshot is being installed.
func (c *Core) installing() bool {
	return len(c.arrivals) > 0 || slices.ContainsFunc(c.order, func(g *group) bool { return g.incoming != nil })
}

// catchUp proposes the time of the shards led here in which a reader found what should have expired (R5): the search may
// come to it only after very much else that is due, also of other shards.
func (c *Core) catchUp() {
	for _, g := range c.order {
		if _, leader := g.replica.Leading(); g.view.late.Load() && leader && !g.expiring && g.view.late.Swap(false) {
			g.expiring = true
			c.own(g, &kv.Command{Op: kv.OpExpire}, expired{g})
		}
	}
}

// expired ends the wait for an OpExpire.
type expired struct{ group *group }

func (e expired) Done(kv.Result, error) { e.group.expiring = false }

// own proposes a command of the node's own.
func (c *Core) own(g *group, command *kv.Command, w replica.Waiter) {
	encoded := shard.EncodeCommand(command)
	c.submissions([]Submission{{Shard: g.shard, Command: encoded, Bytes: command.Size(), Waiter: w}})
}

func (c *Core) leadsExpiring() bool {
	for _, g := range c.order {
		if _, leader := g.replica.Leading(); leader && g.machine.Expiring() > 0 {
			return true
		}
	}
	return false
}

// leads gives the group that holds a key, if its leader is here.
func (c *Core) leads(key []byte) *group {
	d := c.byKey.find(key)
	if d == nil {
		return nil
	}
	if _, leader := d.replica.Leading(); !leader {
		return nil
	}
	return d
}

// watchDisk hands leaderships over when a log write does not end, and stops the process when it takes too long. It
// counts ticks: a process that was stopped has not waited for its disk.
func (c *Core) watchDisk() {
	if len(c.outstanding) == 0 {
		c.stalled = false
		return
	}
	waited := time.Duration(c.ticks-c.outstanding[0].tick) * c.Tick
	if limit := c.settings.Duration(raftmeta.DiskStallExit); waited > limit {
		c.fail(fmt.Errorf("a write to the log has not ended for %v: the disk of the data directory is stuck; mend or replace it and start kvd again", waited))
		return
	}
	if waited <= c.settings.Duration(raftmeta.DiskStallHandover) {
		return
	}
	if !c.stalled {
		c.stalled = true
		c.Logger.Error("the disk of the data directory is slow: leaderships are handed over", "waited", waited)
	}
	c.leaveAll()
}

// unfitFor is for how long a node that has handed its leaderships over takes none: it is going down, or its disk is slow.
const unfitFor = 10 * time.Second

// leaveAll hands all leaderships over, and has the leader of the meta group give none to this node for a while.
func (c *Core) leaveAll() {
	c.unfitUntil = c.ticks + uint64(unfitFor/c.Tick)
	for _, g := range c.order {
		c.handOver(g)
	}
}
