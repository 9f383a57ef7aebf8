package check

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
)

func lease(node kv.NodeID, term kv.Term, from, until int64) Lease {
	return Lease{Shard: 1, Node: node, Term: term, From: from, Until: until}
}

func TestLeases(t *testing.T) {
	in := func(shard kv.ShardID, start, end string, l Lease) Lease {
		l.Shard, l.Span = shard, kv.Span{Start: []byte(start), End: []byte(end)}
		return l
	}
	for _, c := range []struct {
		name   string
		leases []Lease
		rules  []Rule
	}{
		{"none", nil, nil},
		{"one after the other", []Lease{lease(1, 2, 0, 10), lease(2, 3, 10, 20), lease(1, 4, 25, 30)}, nil},
		{"renewals overlap", []Lease{lease(1, 2, 0, 10), lease(1, 2, 4, 14), lease(1, 2, 8, 18), lease(2, 3, 18, 19)}, nil},
		{"of another shard", []Lease{in(1, "", "m", lease(1, 2, 0, 10)), in(2, "m", "", lease(2, 3, 5, 15))}, nil},
		{"of the meta group", []Lease{lease(1, 2, 0, 10), in(kv.MetaShard, "", "", lease(2, 3, 5, 15))}, nil},
		{"a split", []Lease{in(1, "a", "z", lease(1, 5, 0, 10)), in(1, "a", "m", lease(1, 5, 10, 30)), in(2, "m", "z", lease(2, 2, 10, 20))}, nil},
		{"a child before its parent narrows", []Lease{in(1, "a", "z", lease(1, 5, 0, 11)), in(2, "m", "z", lease(2, 2, 10, 20))}, []Rule{LeasesOverlap}},
		{"two shards of one node", []Lease{in(1, "a", "z", lease(1, 5, 0, 11)), in(2, "m", "z", lease(1, 2, 10, 20))}, []Rule{LeasesOverlap}},
		{"an empty one inside another", []Lease{lease(1, 2, 0, 10), lease(2, 3, 5, 5)}, nil},
		{"two nodes at one moment", []Lease{lease(1, 2, 0, 11), lease(2, 3, 10, 20)}, []Rule{LeasesOverlap}},
		{"one inside another", []Lease{lease(1, 2, 0, 20), lease(2, 3, 5, 6)}, []Rule{LeasesOverlap}},
		{"two terms of one node", []Lease{lease(1, 2, 0, 11), lease(1, 4, 10, 20)}, []Rule{LeasesOverlap}},
		{"an early renewal is the one that overlaps", []Lease{lease(1, 2, 0, 30), lease(1, 2, 5, 15), lease(2, 3, 20, 40)}, []Rule{LeasesOverlap}},
		{"a renewal of a lease that another one has outlived", []Lease{lease(1, 2, 0, 10), lease(2, 3, 5, 40), lease(2, 3, 12, 20)}, []Rule{LeasesOverlap}},
		{"the third meets the first", []Lease{lease(1, 2, 0, 30), lease(2, 3, 5, 6), lease(3, 4, 20, 25)}, []Rule{LeasesOverlap, LeasesOverlap}},
		{"two nodes of one term", []Lease{lease(1, 2, 0, 10), lease(2, 2, 10, 20)}, []Rule{TermShared}},
		{"a deposed leader gets another", []Lease{lease(1, 2, 0, 10), lease(2, 3, 10, 20), lease(1, 2, 20, 30)}, []Rule{TermWentBack}},
		{"it ends before it begins", []Lease{lease(1, 2, 10, 9)}, []Rule{BadHistory}},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.rules, rulesOf(Leases(c.leases)))
			slices.Reverse(c.leases)
			require.Equal(t, c.rules, rulesOf(Leases(c.leases)))
		})
	}
}

func rulesOf(found []Violation) []Rule {
	var rules []Rule
	for _, v := range found {
		rules = append(rules, v.Rule)
	}
	return rules
}

// TestLeasesAgainstAllPairs compares with a look at every pair, over rows of terms of which some leases are moved.
func TestLeasesAgainstAllPairs(t *testing.T) {
	var right, wrong int
	for seed := range uint64(3000) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		var leases []Lease
		var moment int64
		for term := range kv.Term(6) {
			l := Lease{Shard: kv.ShardID(rnd.IntN(3)), Node: kv.NodeID(1 + rnd.IntN(3)), Term: term, From: moment}
			l.Span = [...]kv.Span{{}, {End: []byte("m")}, {Start: []byte("k")}}[l.Shard]
			for range 1 + rnd.IntN(3) {
				l.From += rnd.Int64N(8)
				l.Until = l.From + rnd.Int64N(12)
				moment = max(moment, l.Until)
				leases = append(leases, l)
			}
		}
		if rnd.IntN(3) != 0 {
			l := &leases[rnd.IntN(len(leases))]
			l.From -= rnd.Int64N(12)
			l.Until += rnd.Int64N(12)
		}
		rnd.Shuffle(len(leases), func(i, j int) { leases[i], leases[j] = leases[j], leases[i] })
		want := anyPair(leases)
		if want {
			wrong++
		} else {
			right++
		}
		require.Equal(t, want, len(Leases(leases)) > 0, "seed %d: %v", seed, leases)
	}
	require.Greater(t, right, 1000)
	require.Greater(t, wrong, 500)
}

// anyPair reports whether two leases do not go together. Those of shards 1 and 2 share keys.
func anyPair(leases []Lease) bool {
	for _, a := range leases {
		for _, b := range leases {
			if a.From == a.Until || b.From == b.Until || a.Shard == b.Shard && a.Term == b.Term && a.Node == b.Node {
				continue
			}
			apart := a.From >= b.Until || b.From >= a.Until
			if a.Shard != b.Shard {
				if a.Shard != 0 && b.Shard != 0 && !apart {
					return true
				}
				continue
			}
			if a.Term == b.Term || !apart || a.Term < b.Term && a.From > b.From {
				return true
			}
		}
	}
	return false
}
