package node

import (
	"testing"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/shard"
)

const trioChild = 50

// order gives the first node an order for the shard, with its present epoch.
func (w *trio) order(o *kvdv1.Order) {
	first := w.nodes[0]
	o.Shard, o.Epoch = trioShard, wire.FromEpoch(first.core.groups[trioShard].machine.Descriptor().Epoch)
	first.in.Calls = append(first.in.Calls, func(c *Core) { c.obey(o) })
}

func (w *trio) orderSplit() {
	goal := &kvdv1.SplitGoal{Key: []byte("k1"), Child: trioChild}
	for i := range w.nodes {
		goal.Replicas = append(goal.Replicas, &kvdv1.Replica{Node: uint64(i + 1), Replica: uint64(100 + i)})
	}
	w.order(&kvdv1.Order{Goal: 9, Step: &kvdv1.Order_Split{Split: goal}})
}

func (w *trio) orderMerge() {
	right := wire.FromDescriptor(w.nodes[0].core.groups[trioChild].machine.Descriptor(), 0)
	w.order(&kvdv1.Order{Goal: 10, Step: &kvdv1.Order_Merge{Merge: right}})
}

// withheld takes from a node what was sent to it of a shard.
func (m *third) withheld(id kv.ShardID) (list []*kvdv1.Envelope) {
	var rest []*kvdv1.Envelope
	for _, e := range m.in.Envelopes {
		of := &kvdv1.Envelope{ClusterId: e.ClusterId, FromNode: e.FromNode, ToNode: e.ToNode, FromLife: e.FromLife}
		others := &kvdv1.Envelope{ClusterId: e.ClusterId, FromNode: e.FromNode, ToNode: e.ToNode, FromLife: e.FromLife}
		for _, r := range e.Messages {
			if kv.ShardID(r.Shard) == id {
				of.Messages = append(of.Messages, r)
			} else {
				others.Messages = append(others.Messages, r)
			}
		}
		list, rest = append(list, of), append(rest, others)
	}
	m.in.Envelopes = rest
	return list
}

// TestShapesChangeWithoutTicks: a split, up to the heir's lead, and a merge take a few round trips and no tick: keys pause no
// longer than that.
func TestShapesChangeWithoutTicks(t *testing.T) {
	w := newTrio(t)
	w.elected()
	all, first := w.nodes[:], w.nodes[0].core
	w.orderSplit()
	w.settle(all...)
	for _, m := range all {
		require.Contains(t, m.core.groups, kv.ShardID(trioChild))
		require.NoError(t, m.fatal)
	}
	term, leads := first.groups[trioChild].replica.Leading()
	require.True(t, leads)
	_, applied := first.groups[trioChild].machine.Applied()
	require.Equal(t, term, applied)

	w.tick(all...) // All are heard of.
	w.tick(all...)
	w.tick(all...)
	w.orderMerge()
	w.settle(all...)
	for _, m := range all {
		require.NotContains(t, m.core.groups, kv.ShardID(trioChild))
		require.Empty(t, m.core.groups[trioShard].machine.Descriptor().Span.End)
		require.NoError(t, m.fatal)
		require.Zero(t, m.snapshots)
	}
}

// TestFrozenTakesNothing: from the moment in which a shard is frozen it refuses commands and reads before they are in its
// log, and says that they are not done; and its replicas that were slow are waited for.
func TestFrozenTakesNothing(t *testing.T) {
	w := newTrio(t)
	w.elected()
	all, first := w.nodes[:], w.nodes[0]
	w.orderSplit()
	for range 5 {
		w.tick(all...)
	}
	right := first.core.groups[trioChild]
	changes := right.view.changes.Load()
	w.orderMerge()
	w.settle(all[:2]...)
	require.NotNil(t, right.machine.Frozen())
	require.Greater(t, right.view.changes.Load(), changes)
	last, _ := right.replica.Log().LastIndex()
	c := &kv.Command{Op: kv.OpPut, Key: []byte("k2"), Value: []byte("v")}
	put, get := &answer{}, &answer{}
	first.in.Submissions = append(first.in.Submissions,
		Submission{Shard: trioChild, Command: shard.EncodeCommand(c), Bytes: c.Size(), Waiter: put}, Submission{Shard: trioChild, Waiter: get})
	w.settle(all[:2]...)
	require.ErrorAs(t, put.err, new(*kv.NotLeaderError))
	require.ErrorAs(t, get.err, new(*kv.NotLeaderError))
	now, _ := right.replica.Log().LastIndex()
	require.Equal(t, last, now)
	require.Contains(t, first.core.groups, kv.ShardID(trioChild))

	w.settle(all...)
	require.NotContains(t, first.core.groups, kv.ShardID(trioChild))
}

// TestLateParentNeedsNoSnapshot: a node that hears of a child before its own parent is there is not sent the child's data
// for an election timeout; one that is later still is.
func TestLateParentNeedsNoSnapshot(t *testing.T) {
	w := newTrio(t)
	w.elected()
	all, two, slow := w.nodes[:], w.nodes[:2], w.nodes[2]
	var parents []*kvdv1.Envelope
	onlyChild := func() {
		child := slow.withheld(trioChild)
		parents = append(parents, slow.in.Envelopes...)
		slow.in.Envelopes = child
	}
	w.orderSplit()
	w.settle(two...)
	for range 9 {
		w.tick(two...)
		onlyChild()
		w.settle(all...)
		onlyChild()
	}
	require.NotContains(t, slow.core.groups, kv.ShardID(trioChild))
	require.Zero(t, w.nodes[0].snapshots)
	for range 6 {
		w.tick(two...)
		onlyChild()
		w.settle(all...)
		onlyChild()
	}
	require.Positive(t, w.nodes[0].snapshots)
}

// TestAbsorbedReplicaRests: a replica that goes with a snapshot which is being installed does nothing meanwhile, and not that
// again and again.
func TestAbsorbedReplicaRests(t *testing.T) {
	w := newTrio(t)
	w.elected()
	all, first, second := w.nodes[:], w.nodes[0], w.nodes[1]
	w.orderSplit()
	w.settle(all...)
	g := second.core.groups[trioChild]
	before, _ := g.machine.Applied()
	g.absorbed = true
	c := &kv.Command{Op: kv.OpPut, Key: []byte("k2"), Value: []byte("v")}
	first.in.Submissions = append(first.in.Submissions, Submission{Shard: trioChild, Command: shard.EncodeCommand(c), Bytes: c.Size(), Waiter: &answer{}})
	for range 4 {
		w.tick(all...)
	}
	require.True(t, g.replica.Applies())
	now, _ := g.machine.Applied()
	require.Equal(t, before, now)
}

// TestSnapshotTellsOfANewLife (M6): shards that sleep are woken when their leader's process has come back, by whatever is
// heard of it first.
func TestSnapshotTellsOfANewLife(t *testing.T) {
	w := newTrio(t)
	w.elected()
	all, second := w.nodes[:], w.nodes[1]
	w.orderSplit()
	w.settle(all...)
	c, child := second.core, second.core.groups[trioChild]
	require.Equal(t, kv.NodeID(1), child.replica.Leader())
	c.sleep(child)
	g := c.groups[trioShard]
	st := g.machine.State()
	st.BaseIndex, st.BaseTerm = st.AppliedIndex, st.AppliedTerm
	ingest, err := c.State.NewIngest(trioShard, g.machine.Descriptor().Span)
	require.NoError(t, err)
	term, _ := g.replica.Leading()
	leader, _ := g.machine.Descriptor().OnNode(1)
	message := &kvdv1.RaftMessage{From: uint64(leader.Replica), To: st.Replica, Term: uint64(term)}
	require.NoError(t, c.offer(&Received{From: 1, Life: 2, State: st, Ingest: ingest, Message: SnapshotMessage(message, st)}))
	require.False(t, child.asleep)
}
