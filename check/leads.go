package check

import (
	"fmt"
	"slices"

	"github.com/kvdstore/kvd/kv"
)

// Lead is the beginning of a leadership: a node was elected in a term, or the shard that it leads has another version, and so
// perhaps other keys.
type Lead struct {
	Shard kv.ShardID
	// Span is what the shard held from then on, and Version that of its epoch: of the shards that hold a key one after the other
	// the versions rise, whichever they are.
	Span    kv.Span
	Version uint64
	Node    kv.NodeID
	Term    kv.Term
	// At is a moment of the clock that leases are measured by: not after the beginning.
	At int64
}

func (d Lead) String() string {
	return fmt.Sprintf("node %d leads shard %d from %d on, in term %d, version %d, over %v", d.Node, d.Shard, d.At, d.Term, d.Version, d.Span)
}

// Ends reports whether another node's lease must be over when the leadership begins: it is of an earlier term of the shard, or
// of a shard that held some of the keys before. Else the votes were given before the promises had ended, on which the lease stands.
func (d Lead) Ends(l Lease) bool {
	switch {
	case l.Node == d.Node:
		return false
	case l.Shard == d.Shard:
		return l.Term < d.Term
	}
	return l.Shard != kv.MetaShard && d.Shard != kv.MetaShard && l.Version < d.Version && l.Span.Overlaps(d.Span)
}

// Leads looks for leases that still ran when another leadership over their keys had begun, or began only then, and for two nodes that led
// a shard in one term. This is more than Leases sees: whoever was just elected has no lease yet. The order is of no concern.
func Leads(leads []Lead, leases []Lease) (found []Violation) {
	type leadership struct {
		shard kv.ShardID
		term  kv.Term
	}
	first := map[leadership]Lead{}
	for _, d := range leads {
		key := leadership{d.Shard, d.Term}
		if f, ok := first[key]; !ok {
			first[key] = d
		} else if f.Node != d.Node {
			found = append(found, Violation{Rule: TermShared, Text: fmt.Sprintf("%v, and %v", f, d)})
		}
		i := slices.IndexFunc(leases, func(l Lease) bool { return d.Ends(l) && l.From < l.Until && d.At < l.Until })
		if i >= 0 {
			found = append(found, Violation{Rule: LeaseOutlived, Text: fmt.Sprintf("%v, and shard %d has the lease %v", d, leases[i].Shard, leases[i])})
		}
	}
	return found
}
