package check

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/kvdstore/kvd/kv"
)

// Replica is what one node's replica of a shard held once it had applied an entry.
type Replica struct {
	Shard kv.ShardID
	Node  kv.NodeID
	// Index is the last entry that it had applied.
	Index    kv.Index
	Revision kv.Revision
	// Time is the shard's, in Unix milliseconds.
	Time int64
	// Sum is a checksum of the shard's keys and records, as snapshot.Checksum computes it.
	Sum uint64
}

func (r Replica) String() string {
	return fmt.Sprintf("node %d at index %d holds revision %d at time %d with checksum %016x", r.Node, r.Index, r.Revision, r.Time, r.Sum)
}

// Replicas compares what replicas held: at equal indexes all replicas of a shard hold the same state, and neither
// its revision nor its time falls from one index to a later one. At equal revisions but different indexes states may well differ: a purge
// is no write. The order is of no concern; a replica that fell back after a crash may be there twice.
func Replicas(states []Replica) []Violation {
	sorted := slices.SortedFunc(slices.Values(states), func(a, b Replica) int {
		return cmp.Or(cmp.Compare(a.Shard, b.Shard), cmp.Compare(a.Index, b.Index), cmp.Compare(a.Node, b.Node),
			cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Time, b.Time), cmp.Compare(a.Sum, b.Sum))
	})
	var found []Violation
	var first Replica // Of those at the index.
	for i, r := range sorted {
		switch {
		case i == 0 || r.Shard != first.Shard:
			first = r
		case r.Index != first.Index:
			if r.Revision < first.Revision {
				found = append(found, twoReplicas(RevisionWentBack, first, r))
			}
			if r.Time < first.Time {
				found = append(found, twoReplicas(TimeWentBack, first, r))
			}
			first = r
		case r.Revision != first.Revision || r.Time != first.Time || r.Sum != first.Sum:
			found = append(found, twoReplicas(ReplicasDiffer, first, r))
		}
	}
	return found
}

func twoReplicas(rule Rule, a, b Replica) Violation {
	return Violation{Rule: rule, Text: fmt.Sprintf("shard %d: %v, and %v", a.Shard, a, b)}
}

// Level asks whether the newest states of a shard's replicas are at one index, as they are when a cluster has healed
// and nobody writes. Replicas tells whether they are then equal.
func Level(states []Replica) []Violation {
	type place struct {
		shard kv.ShardID
		node  kv.NodeID
	}
	newest := map[place]Replica{}
	var places []place
	for _, r := range states {
		p := place{r.Shard, r.Node}
		last, ok := newest[p]
		if !ok {
			places = append(places, p)
		}
		if !ok || r.Index > last.Index {
			newest[p] = r
		}
	}
	slices.SortFunc(places, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.shard, b.shard), cmp.Compare(a.node, b.node))
	})
	var found []Violation
	for i := 1; i < len(places); i++ {
		a, b := newest[places[i-1]], newest[places[i]]
		if a.Shard == b.Shard && a.Index != b.Index {
			found = append(found, twoReplicas(ReplicaBehind, a, b))
		}
	}
	return found
}
