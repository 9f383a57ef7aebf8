//go:build kvdtest

package node

import (
	"maps"
	"slices"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/internal/faults"
	"github.com/kvdstore/kvd/kv"
)

// assertEvery is the time between two looks of a test build at what must always hold.
const assertEvery = 50 * time.Millisecond

// asserts looks at the core after turns, and records the leases that readers see, and which leaderships begin: all nodes of a
// machine have one clock, and no lease must run on when another leads. It has the loop stand still when it is told to.
type asserts struct {
	stall  *time.Duration // The last that was obeyed.
	last   time.Duration
	leases map[kv.ShardID]*faults.Lease
	leads  map[kv.ShardID]faults.Lead
	buried int // Replicas whose removal was not durable when it looked last.
	// open are the replicas that it has seen.
	open map[kv.Group]bool
}

func (a *asserts) turned(c *Core, now time.Duration) error {
	if faults.Records() {
		a.record(c, now)
		a.births(c)
	}
	if len(c.buried) > a.buried {
		faults.Reached(faults.RemovalUnsynced)
	}
	a.buried = len(c.buried)
	if s := faults.Stall(); s != a.stall {
		a.stall = s
		time.Sleep(*s)
	}
	if now-a.last < assertEvery {
		return nil
	}
	a.last = now
	return c.Check()
}

// leaving looks at messages before they leave.
func leaving(c *Core, messages []*kvdv1.RaftMessage) error {
	return c.CheckLeaving(bootTime(), messages)
}

// record notes which leases have begun, go on for longer, or have ended since it looked last, and which leaderships have begun; a
// turn that began at now was the last one. What it took away counts from its begin, and what it gave from its end; but who was
// elected in it had the votes when it began.
func (a *asserts) record(c *Core, now time.Duration) {
	end := bootTime()
	if a.leases == nil {
		a.leases, a.leads = map[kv.ShardID]*faults.Lease{}, map[kv.ShardID]faults.Lead{}
		faults.Began(c.Node, end)
	}
	a.recordLeads(c, now)
	seen := map[kv.ShardID]bool{}
	for _, g := range c.order {
		lead, term, until := g.view.Lead()
		if lead != c.Node || until <= end {
			continue
		}
		seen[g.shard] = true
		d := g.machine.Descriptor()
		l := faults.Lease{Shard: g.shard, Span: d.Span, Version: d.Epoch.Version, Node: c.Node, Term: term, From: int64(end), Until: int64(until)}
		old := a.leases[g.shard]
		if old != nil && old.Term == l.Term && old.Span.Equal(l.Span) {
			if old.Until == l.Until {
				continue
			}
			l.From = old.From
		} else if old != nil {
			faults.Ended(c.Node, g.shard, now)
		}
		a.leases[g.shard] = &l
		faults.Leased(l)
	}
	for _, shard := range slices.Sorted(maps.Keys(a.leases)) {
		if !seen[shard] {
			delete(a.leases, shard)
			faults.Ended(c.Node, shard, now)
		}
	}
}

// recordLeads notes which leaderships have begun in a turn.
func (a *asserts) recordLeads(c *Core, now time.Duration) {
	for _, g := range c.order {
		term, leads := g.replica.Leading()
		d := g.machine.Descriptor()
		old, led := a.leads[g.shard]
		switch {
		case !leads:
			delete(a.leads, g.shard)
		case !led || old.Term != term || old.Version != d.Epoch.Version:
			l := faults.Lead{Shard: g.shard, Span: d.Span, Version: d.Epoch.Version, Node: c.Node, Term: term, At: int64(now)}
			a.leads[g.shard] = l
			faults.Led(l)
		}
	}
}

// births records with which votes the replicas go on that have come since it looked last.
func (a *asserts) births(c *Core) {
	first := a.open == nil
	if first {
		a.open = map[kv.Group]bool{}
	}
	for _, g := range c.order {
		if id := g.replica.Group(); !a.open[id] {
			a.open[id] = true
			if !first { // Of those at the start, the start has told.
				opened(c.Node, c.Log, id)
			}
		}
	}
}
