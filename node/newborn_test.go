package node

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
	"github.com/kvdstore/kvd/shard"
	"github.com/kvdstore/kvd/storage"
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

// TestUnledIsSupplied (S7): a member that has no replica of a shard without a leader is sent what another has applied; not at once,
// since it may be about to apply the split, and one at a time.
func TestUnledIsSupplied(t *testing.T) {
	w, pass := newborn(t)
	first := w.nodes[0]
	var sent []*Outgoing
	first.carry = func(o *Outgoing) { sent = append(sent, o) }
	pass(doubtTimeouts * first.core.ElectionTicks)
	require.Empty(t, sent)
	pass(10 * first.core.ElectionTicks)
	require.Len(t, sent, 1)
	require.Equal(t, kv.NodeID(3), sent[0].To.Node)
	require.True(t, sent[0].Message.GetUnled())
	require.Equal(t, uint64(kv.BirthIndex), sent[0].State.GetBaseIndex())
	first.in.Sent = append(first.in.Sent, SnapshotSent{Snapshot: sent[0], Err: errors.New("lost")})
	require.NoError(t, sent[0].View.Close())
	pass(4 * first.core.ElectionTicks)
	require.Len(t, sent, 2)
	for _, m := range w.nodes {
		require.NoError(t, m.fatal)
	}
}

// TestSuppliesTakeTurns: of two members that both ask, the one that refuses what it is sent does not keep the other from it.
func TestSuppliesTakeTurns(t *testing.T) {
	w, _ := newborn(t)
	first := w.nodes[0]
	sent := map[kv.NodeID]int{}
	first.carry = func(o *Outgoing) {
		sent[o.To.Node]++
		require.NoError(t, o.View.Close())
		first.in.Sent = append(first.in.Sent, SnapshotSent{Snapshot: o, Err: errors.New("no room")})
	}
	for range 20 {
		for range first.core.ElectionTicks {
			w.tick(first)
		}
		for _, id := range []uint64{2, 3} {
			first.in.Envelopes = append(first.in.Envelopes, &kvdv1.Envelope{ClusterId: 7, FromNode: id, ToNode: 1, FromLife: 1, Messages: []*kvdv1.RaftMessage{
				{Shard: trioChild, From: 99 + id, To: 100, Term: 6, Absent: true},
			}})
		}
		w.settle(first)
	}
	require.InDelta(t, sent[2], sent[3], 1)
	require.Greater(t, sent[2], 5)
}

// TestSupplyIsRefused: where there is a replica none is taken from who does not lead, by its header and by itself, and raft does
// not hear of the sender as of a leader.
func TestSupplyIsRefused(t *testing.T) {
	w, _ := newborn(t)
	first, second := w.nodes[0].core, w.nodes[1].core
	st := proto.CloneOf(first.groups[trioChild].machine.State())
	here := second.groups[trioChild]
	st.Replica = uint64(here.member.Replica)
	message := &kvdv1.RaftMessage{Shard: trioChild, From: uint64(first.groups[trioChild].member.Replica), To: st.Replica, Term: 99, Unled: true}
	require.ErrorIs(t, second.expects(&kvdv1.SnapshotHeader{FromNode: 1, ToNode: 2, FromLife: 1, State: st, Message: message}), errSupplied)
	require.ErrorIs(t, second.offer(&Received{From: 1, Life: 1, State: st, Message: SnapshotMessage(message, st), Unled: true}), errSupplied)
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
	after, had := parent.children[0].after, parent.marks
	kept := func(above uint64) kv.Index {
		parent.marks = marks{total: above, list: []mark{{index: after}, {index: after + 2, total: markBytes}}}
		defer func() { parent.marks = had }()
		return first.core.keepGoal(parent, applied)
	}
	require.Equal(t, after, kept(kv.LogWantedBytesMax-1))
	require.Greater(t, kept(kv.LogWantedBytesMax), after)

	for range 6 * first.core.ElectionTicks { // The second node hears of the child at last.
		w.tick(w.nodes[:2]...)
		w.settle(w.nodes[:2]...)
	}
	begin, err = parent.replica.Log().FirstIndex()
	require.NoError(t, err)
	require.Greater(t, kv.Index(begin), split)
	require.Empty(t, parent.children)
}

// carries has snapshots arrive at those that are up.
func (w *trio) carries(up ...*third) {
	for _, m := range w.nodes {
		m.carry = func(o *Outgoing) {
			to, st := w.nodes[o.To.Node-1], proto.CloneOf(o.State)
			err := errors.New("it is down")
			if slices.Contains(up, to) {
				err = to.core.expects(&kvdv1.SnapshotHeader{FromNode: uint64(m.id), FromLife: 1, Message: o.Message, State: st})
			}
			if err == nil {
				to.in.Received = append(to.in.Received, &Received{
					From: m.id, Life: 1, Message: SnapshotMessage(o.Message, st), State: st, Unled: o.Message.GetUnled(), Ingest: m.copied(o, to),
				})
			}
			require.NoError(m.t, o.View.Close())
			m.in.Sent = append(m.in.Sent, SnapshotSent{Snapshot: o, Err: err})
		}
	}
}

// copied is an ingest with the data of a snapshot.
func (m *third) copied(o *Outgoing, to *third) storage.Ingest {
	in, err := to.core.State.NewIngest(kv.ShardID(o.State.GetDescriptor_().GetShard()), o.Span)
	require.NoError(m.t, err)
	it, err := o.View.Iter(o.Span)
	require.NoError(m.t, err)
	for it.Next() {
		rec, err := it.Record()
		require.NoError(m.t, err)
		rec.Value = bytes.Clone(rec.Value)
		require.NoError(m.t, in.Put(bytes.Clone(it.Key()), rec))
	}
	require.NoError(m.t, it.Close())
	return in
}

// TestChildWhoseLeaderIsLost (S7): the third node is down when the shard splits, and comes back past the split when the leader of
// parent and child is lost for good. The two that are left are a majority, and have both shards led.
func TestChildWhoseLeaderIsLost(t *testing.T) {
	w := newTrio(t)
	w.elected()
	first, second, third := w.nodes[0], w.nodes[1], w.nodes[2]
	for _, m := range w.nodes[:2] {
		meta := proto.CloneOf(m.core.Meta)
		meta.Version, meta.Settings = meta.Version+1, []*kvdv1.SettingValue{{Name: raftmeta.LogKeep, Value: "8"}}
		m.core.takeMeta(meta)
	}
	w.carries()
	w.orderSplit()
	w.settle(first, second)
	split, _ := first.core.groups[trioShard].machine.Applied()
	for range 60 {
		c := &kv.Command{Op: kv.OpPut, Key: []byte("a"), Value: []byte("v")}
		first.in.Submissions = append(first.in.Submissions, Submission{Shard: trioShard, Command: shard.EncodeCommand(c), Bytes: c.Size(), Waiter: &answer{}})
		w.tick(first, second)
	}
	child := second.core.groups[trioChild].replica
	require.Greater(t, child.Committed(), kv.BirthIndex)
	begin, err := second.core.groups[trioShard].replica.Log().FirstIndex()
	require.NoError(t, err)
	require.Greater(t, kv.Index(begin), split)

	third.in = Input{}
	w.carries(second, third)
	for range 20 * second.core.ElectionTicks {
		w.tick(second, third)
	}
	require.Contains(t, third.core.groups, kv.ShardID(trioChild))
	require.NotZero(t, child.Leader())
	for _, m := range w.nodes[1:] {
		require.NoError(t, m.fatal)
		require.NoError(t, m.core.Check())
	}
}
