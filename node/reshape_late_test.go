package node

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/storage"
)

// TestReplayIsNotAbsorbed (T5): a snapshot that has absorbed a replica here waits until that one has applied again what
// was committed at its start. Children of it may be born only then, and their logs are there already: without the parent
// they would be taken for damage, at each start again.
func TestReplayIsNotAbsorbed(t *testing.T) {
	f := &follower{lone: &lone{t: t, log: storage.NewMemLog(), state: storage.NewMemState()}}
	meta := foundingOf(t, 3, []byte("m"))
	require.NoError(t, Found(meta, 2, f.log, f.state))
	require.NoError(t, f.open(meta))
	right := f.core.groups[2]
	last := uint64(kv.BirthIndex) + 1
	require.NoError(t, f.log.Write([]storage.LogWrite{{
		Group: right.replica.Group(), Entries: []*raftpb.Entry{{Index: &last, Term: new(uint64(kv.BirthTerm))}}, Hard: &storage.HardState{Term: kv.BirthTerm, Commit: kv.Index(last)},
	}}, true))
	require.NoError(t, f.open(meta))
	left, right := f.core.groups[1], f.core.groups[2]
	require.True(t, right.replica.Replaying())

	st := proto.CloneOf(left.machine.State())
	st.Descriptor_.End = nil
	st.Absorbed = []*kvdv1.Absorbed{{Shard: 2, Replicas: meta.Descriptors[1].Replicas}}
	_, err := f.core.room(&Received{From: 3, State: st}, left)
	require.Error(t, err)
	f.turn(Input{})
	require.False(t, right.replica.Replaying())
	absorbed, err := f.core.room(&Received{From: 3, State: st}, left)
	require.NoError(t, err)
	require.Equal(t, []*group{right}, absorbed)
}

// TestWordOfAnAbsorbedShard (M4, G3): a replica that had left its shard's configuration before that was absorbed goes on the
// meta group's word, also where the absorber has a replica, which does not need it. One that was a member stays: the
// absorber's merge, or its snapshot, takes it.
func TestWordOfAnAbsorbedShard(t *testing.T) {
	for name, member := range map[string]bool{"a member of the last": true, "removed before": false} {
		t.Run(name, func(t *testing.T) {
			w := newTrio(t)
			w.elected()
			w.orderSplit()
			w.settle(w.nodes[:]...)
			c := w.nodes[2].core
			g := c.groups[trioChild]
			d := wire.FromDescriptor(g.machine.Descriptor(), 0)
			d.Epoch.Config++
			if !member {
				d.Replicas = d.Replicas[:2]
			}
			c.word(&kvdv1.Word{Shard: trioChild, Replica: uint64(g.member.Replica), Absorber: trioShard, Descriptor_: d})
			require.NoError(t, w.nodes[2].fatal)
			require.Equal(t, member, c.groups[trioChild] == g)
		})
	}
}

// TestWordBeforeTheAbsorberIsBornAgain (G3): a crash has taken the state back to before the split that the absorber came of. Its
// log is here, and may hold the merge: until it has applied that, the absorbed replica stays, or it could never be applied.
func TestWordBeforeTheAbsorberIsBornAgain(t *testing.T) {
	w := newTrio(t)
	w.elected()
	w.orderSplit()
	w.settle(w.nodes[:]...)
	c := w.nodes[2].core
	g := c.groups[trioChild]
	word := &kvdv1.Word{Shard: trioChild, Replica: uint64(g.member.Replica), Absorber: 60, Descriptor_: wire.FromDescriptor(g.machine.Descriptor(), 0)}
	c.orphans[kv.Group{Shard: 60, Replica: 7}] = true
	c.word(word)
	require.Same(t, g, c.groups[trioChild])
	clear(c.orphans)
	c.word(word)
	require.NotContains(t, c.groups, kv.ShardID(trioChild))
}

// TestSettledFromElsewhere (G2): a merge that was given up is settled, and the right shard thawed, also if the left one has
// been moved since, and is led where no replica of the right one is. That the map lacks a shard tells nothing of it (M4).
func TestSettledFromElsewhere(t *testing.T) {
	w := newTrio(t)
	w.elected()
	w.orderSplit()
	all := w.nodes[:]
	for range 30 {
		w.tick(all...)
	}
	first, second := w.nodes[0].core, w.nodes[1].core
	require.True(t, first.groups[trioChild].replica.HandOver(2, nil))
	w.tick(all...)
	left, right := first.groups[trioShard], second.groups[trioChild]
	require.True(t, left.leads())
	require.True(t, right.leads())
	first.remove(first.groups[trioChild])
	epoch := wire.FromEpoch(right.machine.Descriptor().Epoch)
	second.proposeShape(right, epoch, &kvdv1.Shape{Shape: &kvdv1.Shape_Freeze{Freeze: &kvdv1.Freeze{Id: 77, Left: trioShard}}}, nil)
	d := wire.FromDescriptor(right.machine.Descriptor(), 0)
	first.proposeShape(left, nil, &kvdv1.Shape{Shape: &kvdv1.Shape_Intent{Intent: &kvdv1.Intent{Id: 77, Right: d}}}, nil)
	for range 3 {
		w.tick(all...)
	}
	require.NotNil(t, right.machine.Frozen())
	in := left.machine.Intent()
	require.NotNil(t, in)
	in = proto.CloneOf(in)
	in.Right.Shard = 999
	require.False(t, first.thawed(nil, in))
	for range 12 * first.ElectionTicks {
		w.tick(all...)
	}
	require.Nil(t, right.machine.Frozen())
	require.Nil(t, left.machine.Intent())
}

// TestParkedVotesAreSmall: only what can be a vote waits for a child to be born, whatever else it carries.
func TestParkedVotesAreSmall(t *testing.T) {
	w := newTrio(t)
	vote := func(more func(*kvdv1.RaftMessage)) *kvdv1.RaftMessage {
		m := &kvdv1.RaftMessage{Shard: trioChild, From: 100, To: 101, Type: uint32(raftpb.MsgVote), Term: 6}
		more(m)
		return m
	}
	c := w.nodes[1].core
	c.message(1, vote(func(m *kvdv1.RaftMessage) { m.Entries = []*kvdv1.RaftEntry{{Data: make([]byte, 1<<20)}} }))
	c.message(1, vote(func(m *kvdv1.RaftMessage) { m.Context = make([]byte, 1<<20) }))
	require.Empty(t, c.parked)
	c.message(1, vote(func(*kvdv1.RaftMessage) {}))
	require.Len(t, c.parked, 1)
}

// TestReportsReachAll: where more shards have news than a report holds, later reports tell of the others, and those that
// are being changed are in each.
func TestReportsReachAll(t *testing.T) {
	var cuts [][]byte
	for i := range 2 * kv.ReportShardsMax {
		cuts = append(cuts, fmt.Appendf(nil, "%05d", i))
	}
	l := newLone(t, cuts...)
	l.core.president.node = 2
	told := map[uint64]int{}
	for range 3 {
		for _, g := range l.core.order {
			g.told.load-- // As if it were used more and more.
		}
		l.core.early = nil
		l.core.report()
		for _, m := range l.core.early {
			for _, s := range m.message.GetReport().GetShards() {
				told[s.GetDescriptor_().GetShard()]++
			}
		}
	}
	require.Len(t, told, len(l.core.order))
}

// TestPinsOfTheRemoved: the log is not kept for a learner that was removed before it had its snapshot.
func TestPinsOfTheRemoved(t *testing.T) {
	l := newLone(t)
	g := l.core.groups[1]
	g.pinned[999] = 1
	l.core.truncationGoal(g)
	require.Empty(t, g.pinned)
}

// TestReportsAreForgotten: shards come and go, and who leads the meta group for long remembers only what it has proposed of
// late.
func TestReportsAreForgotten(t *testing.T) {
	l := newLone(t)
	for l.core.conduct == nil {
		l.tick()
	}
	d := l.core.groups[1].machine.Descriptor()
	l.core.proposeReport(d, d)
	require.NotEmpty(t, l.core.conduct.proposed)
	for range 60 {
		l.tick()
	}
	require.Empty(t, l.core.conduct.proposed)
}

// TestSplitWithAnIdInUse: a child whose id is another shard's here is not proposed. In the log it would stop every replica.
func TestSplitWithAnIdInUse(t *testing.T) {
	w := newTrio(t)
	w.elected()
	all := w.nodes[:]
	w.orderSplit()
	w.settle(all...)
	goal := &kvdv1.SplitGoal{Key: []byte("k0"), Child: trioChild}
	for i := range w.nodes {
		goal.Replicas = append(goal.Replicas, &kvdv1.Replica{Node: uint64(i + 1), Replica: uint64(200 + i)})
	}
	w.order(&kvdv1.Order{Goal: 11, Step: &kvdv1.Order_Split{Split: goal}})
	w.settle(all...)
	for _, m := range all {
		require.NoError(t, m.fatal)
	}
	refusals := w.nodes[0].core.refusals
	require.Len(t, refusals, 1)
	require.True(t, refusals[0].Final)
}

// TestRemovedWhilePresiding: a report that comes in the turn in which the meta group's leader is removed here finds nobody.
func TestRemovedWhilePresiding(t *testing.T) {
	l := newLone(t)
	for l.core.conduct == nil {
		l.tick()
	}
	d := wire.FromDescriptor(l.core.groups[1].machine.Descriptor(), 0)
	d.Epoch.Config++
	report := &kvdv1.NodeReport{Term: uint64(l.core.conduct.term), Shards: []*kvdv1.ShardReport{{Descriptor_: d}}}
	l.core.remove(l.core.groups[kv.MetaShard])
	l.core.hear(1, report)
	require.Nil(t, l.core.conduct)
}
