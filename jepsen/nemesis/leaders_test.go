package nemesis

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// TestVoters: with a leader they are a majority, and without one of them none.
func TestVoters(t *testing.T) {
	for nodes := 3; nodes <= 9; nodes++ {
		some, rest := voters(make([]string, nodes-1))
		require.Equal(t, nodes-1, len(some)+len(rest))
		require.Greater(t, 2*(len(some)+1), nodes)
		require.LessOrEqual(t, 2*len(some), nodes)
		require.NotEmpty(t, rest)
	}
}

// TestHeir: a leadership goes to another voter.
func TestHeir(t *testing.T) {
	d := &kvdv1.Descriptor{Leader: 1, Replicas: []*kvdv1.Replica{{Node: 1}, {Node: 2, Learner: true}}}
	require.Zero(t, heir(d))
	d.Replicas = append(d.Replicas, &kvdv1.Replica{Node: 3})
	require.EqualValues(t, 3, heir(d))
}

// TestHolder: a key beyond those of a workload has a shard too.
func TestHolder(t *testing.T) {
	n := New(Config{Span: kv.PrefixSpan([]byte("jepsen/"))})
	require.Nil(t, n.holder([]byte("jepsen1")))
	n.view.shards = []*kvdv1.ShardInfo{{Descriptor_: &kvdv1.Descriptor{Shard: 4, Start: []byte("jepsen/c0"), End: []byte("jepsen1")}, Asleep: true}}
	require.EqualValues(t, 4, n.holder([]byte("jepsen0")).GetShard())
	require.Nil(t, n.holder([]byte("jepsen1")))
	all, asleep := n.view.sleepers(n.Span)
	require.Equal(t, []int{1, 1}, []int{all, asleep})
}

// TestInTurn: nothing is done after what failed.
func TestInTurn(t *testing.T) {
	done, fails := 0, errors.New("no")
	step := func(err error) func(context.Context) error {
		return func(context.Context) error { done++; return err }
	}
	require.ErrorIs(t, inTurn(t.Context(), step(nil), step(fails), step(nil)), fails)
	require.Equal(t, 2, done)
}
