//go:build kvdtest

package node

import (
	"maps"
	"slices"
	"time"

	"github.com/kvdstore/kvd/internal/faults"
	"github.com/kvdstore/kvd/kv"
)

// assertEvery is the time between two looks of a test build at what must always hold.
const assertEvery = 50 * time.Millisecond

// asserts looks at the core after turns, and records the leases that readers see: those of all nodes of a machine have one
// clock, and must not overlap.
type asserts struct {
	last   time.Duration
	leases map[kv.ShardID]*faults.Lease
}

func (a *asserts) turned(c *Core, now time.Duration) error {
	if faults.Records() {
		a.record(c, now)
	}
	if now-a.last < assertEvery {
		return nil
	}
	a.last = now
	return c.Check()
}

// record notes which leases have begun, go on for longer, or have ended since it looked last; a turn that began at now was the
// last one.
func (a *asserts) record(c *Core, now time.Duration) {
	if a.leases == nil {
		a.leases = map[kv.ShardID]*faults.Lease{}
		faults.Began(c.Node, bootTime())
	}
	seen := map[kv.ShardID]bool{}
	for _, g := range c.order {
		lead, term, until := g.view.Lead()
		if lead != c.Node || until <= now {
			continue
		}
		seen[g.shard] = true
		l := faults.Lease{Shard: g.shard, Span: g.machine.Descriptor().Span, Node: c.Node, Term: term, From: int64(bootTime()), Until: int64(until)}
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
