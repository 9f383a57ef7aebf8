package turns

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

// shardsOf has a shard for each leader, from one key to the next, with replicas on some nodes.
func shardsOf(nodes int, leaders ...uint64) (list []*kvdv1.ShardInfo) {
	for i, leader := range leaders {
		d := &kvdv1.Descriptor{Shard: uint64(i + 1), Start: fmt.Appendf(nil, "%04d", i), End: fmt.Appendf(nil, "%04d", i+1), Leader: leader}
		for node := range nodes {
			d.Replicas = append(d.Replicas, &kvdv1.Replica{Node: uint64(node + 1)})
		}
		list = append(list, &kvdv1.ShardInfo{Descriptor_: d})
	}
	return list
}

// leadersAfter counts the shards that each node leads after some hand-overs.
func leadersAfter(t *testing.T, list []*kvdv1.ShardInfo, moves []handover) map[uint64]int {
	leads := map[uint64]int{}
	to := map[uint64]uint64{}
	for _, m := range moves {
		require.Zero(t, to[m.shard], "one hand-over a shard")
		to[m.shard] = m.to
	}
	for _, s := range list {
		leader := s.GetDescriptor_().GetLeader()
		if node := to[s.GetDescriptor_().GetShard()]; node != 0 {
			leader = node
		}
		leads[leader]++
	}
	return leads
}

// TestHandovers: no node leads more than one shard above another, or a twentieth of its share; what is even stays.
func TestHandovers(t *testing.T) {
	require.Empty(t, handovers(nil))
	require.Empty(t, handovers(shardsOf(3, 1)))
	require.Empty(t, handovers(shardsOf(3, 1, 2, 3, 1)))
	require.Empty(t, handovers(shardsOf(3, 0, 0, 0, 0)), "nobody is known to lead")
	require.Equal(t, []handover{{1, 2}, {2, 3}}, handovers(shardsOf(3, 1, 1, 1)))
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{5, 32, 1000} {
		leaders := make([]uint64, n)
		for i := range leaders {
			leaders[i] = 1 + uint64(rng.IntN(3)*rng.IntN(2)) // More than half on the first.
		}
		list := shardsOf(3, leaders...)
		leads := leadersAfter(t, list, handovers(list))
		for _, a := range leads {
			for _, b := range leads {
				require.LessOrEqual(t, a-b, max(n/3/20, 1), "%d: %v", n, leads)
			}
		}
		require.Len(t, leads, 3)
	}
}

// TestLearners: who has no vote leads nothing.
func TestLearners(t *testing.T) {
	list := shardsOf(2, 1, 1, 1, 1)
	for _, s := range list {
		s.Descriptor_.Replicas[1].Learner = true
	}
	require.Empty(t, handovers(list))
}

// TestHolding: of shards those with one of the keys.
func TestHolding(t *testing.T) {
	list := shardsOf(1, 1, 1, 1, 1)
	list[3].Descriptor_.End = nil
	require.Equal(t, []*kvdv1.ShardInfo{list[1], list[3]}, holding(list, [][]byte{[]byte("9"), []byte("0001"), []byte("00019")}))
}
