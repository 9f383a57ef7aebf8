package check

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/kvdstore/kvd/kv"
)

// Lease is a time in which a node could answer linearizable reads of a shard by itself. A renewal is another one of
// the same term, which may overlap. A shard whose span changes has one lease before and another one after.
type Lease struct {
	Shard kv.ShardID
	// Span is what the shard held in that time, and Version that of its epoch, which Leases does not ask for.
	Span    kv.Span
	Version uint64
	Node    kv.NodeID
	Term    kv.Term
	// From and Until are moments of one clock that all nodes' leases are measured by. Until is not part of the lease;
	// it is when the lease ran out, or when it was taken back if that came first.
	From, Until int64
}

func (l Lease) String() string {
	return fmt.Sprintf("[%d, %d) node %d in term %d over %v", l.From, l.Until, l.Node, l.Term, l.Span)
}

// Leases looks for two leases over a key at one moment: of two nodes, of two shards, or of two terms of one node, between
// which another may have led. A term of a shard belongs to one node, and a lease never begins after one of a later term of
// its shard. The meta group has a key space of its own. Empty leases count for nothing. The order is of no concern.
func Leases(leases []Lease) []Violation {
	var sorted []Lease
	for _, l := range leases {
		if l.Until < l.From {
			err := &kv.InvalidError{Field: "until", Bound: fmt.Sprintf("not before from (%d), is %d", l.From, l.Until)}
			return []Violation{{Rule: BadHistory, Text: fmt.Sprintf("lease %v of shard %d: %v", l, l.Shard, err)}}
		}
		if l.From < l.Until {
			sorted = append(sorted, l)
		}
	}
	slices.SortFunc(sorted, func(a, b Lease) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.Shard, b.Shard), cmp.Compare(a.Term, b.Term),
			cmp.Compare(a.Node, b.Node), cmp.Compare(a.Until, b.Until))
	})
	found := overlaps(sorted)
	slices.SortStableFunc(sorted, func(a, b Lease) int { return cmp.Compare(a.Shard, b.Shard) })
	for len(sorted) > 0 {
		shard := sorted[0].Shard
		n := slices.IndexFunc(sorted, func(l Lease) bool { return l.Shard != shard })
		if n < 0 {
			n = len(sorted)
		}
		found = append(found, termOrder(sorted[:n])...)
		sorted = sorted[n:]
	}
	return found
}

// termOrder looks at the terms of one shard's leases, in the order in which they began.
func termOrder(leases []Lease) []Violation {
	var found []Violation
	owner := map[kv.Term]Lease{}
	newest := leases[0]
	for _, l := range leases {
		switch first, ok := owner[l.Term]; {
		case !ok:
			owner[l.Term] = l
		case first.Node != l.Node:
			found = append(found, twoLeases(TermShared, first, l))
		}
		if l.Term < newest.Term {
			found = append(found, twoLeases(TermWentBack, newest, l))
		} else {
			newest = l
		}
	}
	return found
}

// overlaps looks at the times of leases, in the order in which they began.
func overlaps(leases []Lease) []Violation {
	var found []Violation
	var running []Lease // When the next one begins.
	for _, l := range leases {
		running = slices.DeleteFunc(running, func(r Lease) bool { return r.Until <= l.From })
		if i := slices.IndexFunc(running, l.excludes); i >= 0 {
			found = append(found, twoLeases(LeasesOverlap, running[i], l))
		}
		running = append(running, l)
	}
	return found
}

func twoLeases(rule Rule, a, b Lease) Violation {
	if a.Shard != b.Shard {
		return Violation{Rule: rule, Text: fmt.Sprintf("shard %d: %v, and shard %d: %v", a.Shard, a, b.Shard, b)}
	}
	return Violation{Rule: rule, Text: fmt.Sprintf("shard %d: %v, and %v", a.Shard, a, b)}
}

// excludes reports whether two leases must not run at one moment.
func (l Lease) excludes(m Lease) bool {
	if l.Shard == m.Shard {
		return l.Node != m.Node || l.Term != m.Term // Else it is one that was renewed.
	}
	return l.Shard != kv.MetaShard && m.Shard != kv.MetaShard && l.Span.Overlaps(m.Span)
}
