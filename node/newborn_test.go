package node

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
	"github.com/kvdstore/kvd/shard"
)

// newborn splits the trio's shard where the second node never hears of the child, and the third hears of nothing else: the
// child stays without a leader.
func newborn(t *testing.T) (w *trio, pass func(ticks int)) {
	w = newTrio(t)
	w.elected()
	first, second, third := w.nodes[0], w.nodes[1], w.nodes[2]
	w.orderSplit()
	pass = func(ticks int) {
		for range ticks {
			w.now += 50 * time.Millisecond
			for range 30 {
				for _, m := range w.nodes {
					second.withheld(trioChild)
					third.in.Envelopes = third.withheld(trioChild)
					m.turn()
				}
			}
		}
	}
	pass(1)
	child := first.core.groups[trioChild]
	require.NotNil(t, child)
	require.NotContains(t, third.core.groups, kv.ShardID(trioChild))
	return w, pass
}

// TestBirthStateIsGiven (S7): a member that has no replica of a child without a leader is sent the child as it was born, by
// who asks for its vote; not at once, since it may be about to apply the split.
func TestBirthStateIsGiven(t *testing.T) {
	w, pass := newborn(t)
	first := w.nodes[0]
	pass(w.nodes[0].core.ElectionTicks - 2)
	require.Zero(t, first.snapshots)
	pass(4 * first.core.ElectionTicks)
	require.Positive(t, first.snapshots)
	require.True(t, first.core.groups[trioChild].newborn())
	require.Contains(t, w.nodes[1].core.groups, kv.ShardID(trioChild))
	require.Zero(t, w.nodes[1].snapshots)
	for _, m := range w.nodes {
		require.NoError(t, m.fatal)
	}
}

// TestBirthStateIsRefused: what is born with it already is not given it, and raft does not hear of the giver as of a leader.
func TestBirthStateIsRefused(t *testing.T) {
	w, _ := newborn(t)
	first, second := w.nodes[0].core, w.nodes[1].core
	st := proto.CloneOf(first.groups[trioChild].machine.State())
	here := second.groups[trioChild]
	st.Replica = uint64(here.member.Replica)
	err := second.offer(&Received{From: 1, Life: 1, State: st, Message: &raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), From: new(uint64(first.groups[trioChild].member.Replica)), To: new(st.Replica), Term: new(uint64(99)),
	}})
	require.ErrorContains(t, err, "born")
	require.Zero(t, here.replica.Leader())
}

// TestLogIsKeptForNewborn (S7): the parent's log is kept from a split on until the child is led, and then no longer.
func TestLogIsKeptForNewborn(t *testing.T) {
	w, pass := newborn(t)
	first := w.nodes[0]
	m := proto.CloneOf(first.core.Meta)
	m.Version, m.Settings = m.Version+1, []*kvdv1.SettingValue{{Name: raftmeta.LogKeep, Value: "8"}}
	first.core.takeMeta(m)
	parent := first.core.groups[trioShard]
	split, _ := parent.machine.Applied()
	for range 30 {
		c := &kv.Command{Op: kv.OpPut, Key: []byte("a"), Value: []byte("v")}
		first.in.Submissions = append(first.in.Submissions, Submission{
			Shard: trioShard, Command: shard.EncodeCommand(c), Bytes: c.Size(), Waiter: &answer{},
		})
		pass(1)
	}
	applied, _ := parent.machine.Applied()
	require.Greater(t, applied, split+20)
	begin, err := parent.replica.Log().FirstIndex()
	require.NoError(t, err)
	require.LessOrEqual(t, kv.Index(begin), split)

	for range 6 * first.core.ElectionTicks { // The second node hears of the child at last.
		w.tick(w.nodes[:2]...)
		w.settle(w.nodes[:2]...)
	}
	begin, err = parent.replica.Log().FirstIndex()
	require.NoError(t, err)
	require.Greater(t, kv.Index(begin), split)
	require.Empty(t, parent.children)
}
