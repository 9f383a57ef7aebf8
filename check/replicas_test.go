package check

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
)

func held(node kv.NodeID, index kv.Index, revision kv.Revision, sum uint64) Replica {
	return Replica{Shard: 1, Node: node, Index: index, Revision: revision, Sum: sum}
}

func TestReplicas(t *testing.T) {
	elsewhere := held(2, 20, 1, 0xb)
	elsewhere.Shard = 2
	at := func(r Replica, time int64) Replica {
		r.Time = time
		return r
	}
	for _, c := range []struct {
		name   string
		states []Replica
		rules  []Rule
	}{
		{"none", nil, nil},
		{"equal", []Replica{held(1, 20, 3, 0xa), held(2, 20, 3, 0xa), held(3, 20, 3, 0xa)}, nil},
		{"equal again after a crash", []Replica{held(1, 20, 3, 0xa), held(1, 21, 4, 0xb), held(1, 20, 3, 0xa), held(1, 21, 4, 0xb)}, nil},
		{"one behind", []Replica{held(1, 20, 3, 0xa), held(2, 25, 5, 0xb)}, nil},
		{"a purge is no write", []Replica{held(1, 20, 3, 0xa), held(2, 21, 3, 0xb)}, nil},
		{"another shard", []Replica{held(1, 20, 3, 0xa), elsewhere}, nil},
		{"different data", []Replica{held(1, 20, 3, 0xa), held(2, 20, 3, 0xb), held(3, 20, 3, 0xa)}, []Rule{ReplicasDiffer}},
		{"different revisions", []Replica{held(1, 20, 3, 0xa), held(2, 20, 4, 0xa)}, []Rule{ReplicasDiffer}},
		{"one replica differs from itself after a crash", []Replica{held(1, 20, 3, 0xa), held(1, 20, 3, 0xb)}, []Rule{ReplicasDiffer}},
		{"a revision falls", []Replica{held(1, 20, 3, 0xa), held(2, 21, 2, 0xb)}, []Rule{RevisionWentBack}},
		{"time passes", []Replica{at(held(1, 20, 3, 0xa), 5), at(held(2, 21, 4, 0xb), 5), at(held(1, 22, 4, 0xb), 6)}, nil},
		{"time goes back", []Replica{at(held(1, 20, 3, 0xa), 6), at(held(2, 21, 4, 0xb), 5)}, []Rule{TimeWentBack}},
		{"different times", []Replica{at(held(1, 20, 3, 0xa), 6), at(held(2, 20, 3, 0xa), 5)}, []Rule{ReplicasDiffer}},
		{"a revision falls below one that was long ago", []Replica{held(1, 20, 9, 0xa), held(2, 21, 9, 0xb), held(2, 22, 8, 0xb)}, []Rule{RevisionWentBack}},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.rules, rulesOf(Replicas(c.states)))
			slices.Reverse(c.states)
			require.Equal(t, c.rules, rulesOf(Replicas(c.states)))
		})
	}
}

func TestLevel(t *testing.T) {
	elsewhere := held(3, 50, 9, 0xc)
	elsewhere.Shard = 2
	require.Empty(t, Level([]Replica{held(1, 20, 3, 0xa), held(2, 21, 4, 0xb), held(1, 21, 4, 0xb), elsewhere}))
	require.Equal(t, []Rule{ReplicaBehind}, rulesOf(Level([]Replica{held(2, 21, 4, 0xb), held(1, 20, 3, 0xa), elsewhere})))
}

// TestReplicasOfOneLog: replicas that apply one log never differ, wherever they stop, fall back and go on; once one has
// applied an entry otherwise, they do.
func TestReplicasOfOneLog(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		log := []Replica{held(0, 10, 0, rnd.Uint64())}
		for i := range kv.Index(40) {
			next := log[i]
			next.Index++
			if rnd.IntN(4) != 0 {
				next.Revision += kv.Revision(1 + rnd.IntN(3))
				next.Sum = rnd.Uint64()
			}
			log = append(log, next)
		}
		var states []Replica
		for node := range kv.NodeID(3) {
			at := 0
			for range 30 {
				r := log[at]
				r.Node = node + 1
				states = append(states, r)
				if at = min(at+rnd.IntN(4), len(log)-1); rnd.IntN(10) == 0 {
					at = rnd.IntN(at + 1)
				}
			}
		}
		require.Empty(t, Replicas(states), "seed %d", seed)
		// A second copy of any state, with one thing changed, is noticed.
		wrong := states[rnd.IntN(len(states))]
		if rnd.IntN(2) == 0 {
			wrong.Sum ^= 1 << rnd.IntN(64)
		} else {
			wrong.Revision++
		}
		wrong.Node = 4
		require.NotEmpty(t, Replicas(append(states, wrong)), "seed %d: %v", seed, wrong)
	}
}
