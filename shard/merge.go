package shard

import (
	"bytes"
	"math"
	"slices"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// Merge makes a shard absorb its right neighbour; the left log decides (G1).
//
//	left   Intent ────────────────┬─ Merge, when every replica of right has applied the Freeze
//	right      └─▶ Freeze (at f) ─┘ or Abort ──▶ Unfreeze (right) ──▶ Settle
//
// Under an open Intent the left shard takes no split, no configuration change and no Freeze, so that what the Intent was
// compared with stays true. Merge and Abort end it, whichever the log has first. Merge carries the right shard's state
// at f: no replica of left may have to look at its own replica of right for it. No key is copied; the owner removes the
// replica of right in the same step. Abort raises left's version: a leader that has not applied it may have proposed a
// Merge, which must not fit into a merge that the same goal begins anew. After an Abort the right one may be frozen, or
// become so, until its Unfreeze is applied: only Settle, which says that, lets the left one begin another merge, or be
// frozen (G2).
//
// Left's version goes above both, its configuration half stays. Revision and time are the larger (R1, R4), counters the
// sums. The absorbed shard is remembered until no node holds it any more, as the next Intent tells, for snapshots of
// left (G3). Those that right had absorbed are not taken over: every replica of right has applied its log up to f, and
// with it their removal.

func (m *Machine) admitIntent(x *kvdv1.Intent) error {
	if err := m.admitStill(); err != nil {
		return err
	}
	right := wire.ToDescriptor(x.GetRight())
	switch d := m.descriptor; {
	case x.GetId() == 0:
		return invalid("intent.id", "above 0")
	case m.intent != nil:
		return invalid("intent", "not before merge %d, which was given up, is settled", m.intent.Id)
	case right == nil || right.Shard == kv.MetaShard || right.Shard == d.Shard || right.Span.Empty() ||
		len(d.Span.End) == 0 || !bytes.Equal(right.Span.Start, d.Span.End):
		return invalid("intent.right", "the right neighbour of %v", d.Span)
	case right.Joint() && !mutantShapeWhileJoint:
		return invalid("intent.right", "not while its configuration is joint")
	case !slices.Equal(nodesOf(d), nodesOf(right)):
		return invalid("intent.right", "on nodes %v, is on %v", nodesOf(d), nodesOf(right))
	case len(m.remembered(x.GetForget())) >= kv.AbsorbedMax:
		return invalid("intent", "at most %d absorbed shards that some node still holds", kv.AbsorbedMax)
	}
	return nil
}

// nodesOf gives the nodes of a shard's replicas in order.
func nodesOf(d *kv.Descriptor) []kv.NodeID {
	var nodes []kv.NodeID
	for _, r := range d.Replicas {
		nodes = append(nodes, r.Node)
	}
	slices.Sort(nodes)
	return nodes
}

// remembered gives the absorbed shards but for some.
func (m *Machine) remembered(but []uint64) []*kvdv1.Absorbed {
	var list []*kvdv1.Absorbed
	for _, a := range m.absorbed {
		if !slices.Contains(but, a.GetShard()) {
			list = append(list, a)
		}
	}
	return list
}

func (m *Machine) begin(x *kvdv1.Intent) {
	m.absorbed = m.remembered(x.GetForget())
	m.intent = &kvdv1.IntentState{Id: x.GetId(), Right: x.GetRight(), Index: uint64(m.applied.index)}
}

// admitOpen takes the end of a merge that is under way.
func (m *Machine) admitOpen(field string, id uint64) error {
	switch {
	case m.intent == nil || m.intent.Id != id:
		return invalid(field, "that of the merge under way, is %d", id)
	case m.intent.Aborted && !mutantMergeAfterAbort:
		return invalid(field, "that of an open merge, %d was given up", id)
	}
	return nil
}

func (m *Machine) admitMerge(x *kvdv1.Merge) error {
	if err := m.admitOpen("merge.id", x.GetId()); err != nil {
		return err
	}
	st := x.GetRight()
	right, want := wire.ToDescriptor(st.GetDescriptor_()), wire.ToDescriptor(m.intent.Right)
	switch {
	case right == nil || right.Shard != want.Shard || !right.Span.Equal(want.Span) || !slices.Equal(nodesOf(right), nodesOf(want)):
		return invalid("merge.right", "shard %d, %v, as it was when the merge began", want.Shard, want.Span)
	case right.Epoch != want.Epoch && !mutantEpochUnchecked:
		return invalid("merge.right.epoch", "%d/%d, is %d/%d", want.Epoch.Version, want.Epoch.Config, right.Epoch.Version, right.Epoch.Config)
	case st.GetFrozen().GetId() != x.GetId() || st.Frozen.Left != uint64(m.descriptor.Shard) || st.AppliedIndex < st.Frozen.Index:
		return invalid("merge.right.frozen", "by merge %d of shard %d, is by %d", x.GetId(), m.descriptor.Shard, st.GetFrozen().GetId())
	case st.TimeMs < 0 || !consistent(st.Keys, st.Bytes, st.Expiring) || !consistent(m.keys+st.Keys, m.bytes+st.Bytes, m.expiring+st.Expiring):
		return invalid("merge.right", "with counts of keys, of at most %d bytes together", int64(math.MaxInt64))
	}
	return nil
}

func (m *Machine) merge(x *kvdv1.Merge) {
	right := x.GetRight()
	d := *m.descriptor
	d.Span.End = right.Descriptor_.End
	d.Epoch.Version = max(d.Epoch.Version, right.Descriptor_.GetEpoch().GetVersion()) + 1
	m.describe(&d)
	if !mutantMergeGoesBack {
		m.revision = max(m.revision, kv.Revision(right.Revision))
		m.time = max(m.time, right.TimeMs)
	}
	m.keys += right.Keys
	m.bytes += right.Bytes
	m.expiring += right.Expiring
	m.gone = &kvdv1.Absorbed{
		Shard: right.Descriptor_.Shard, Index: right.Frozen.Index, Replicas: right.Descriptor_.Replicas,
		Merged: uint64(m.applied.index),
	}
	m.absorbed = append(slices.Clip(m.absorbed), m.gone)
	// The map has had the last split for long: it gave the epoch that the merge began from.
	m.intent, m.measure, m.birth = nil, nil, nil
	m.since = m.time
}

func (m *Machine) admitAbort(x *kvdv1.Abort) error { return m.admitOpen("abort.id", x.GetId()) }

func (m *Machine) abort() {
	if !mutantMergeAfterAbort {
		d := *m.descriptor
		d.Epoch.Version++
		m.describe(&d)
	}
	m.intent = &kvdv1.IntentState{Id: m.intent.Id, Right: m.intent.Right, Index: m.intent.Index, Aborted: true}
}

func (m *Machine) admitSettle(x *kvdv1.Settle) error {
	if m.intent == nil || m.intent.Id != x.GetId() || !m.intent.Aborted {
		return invalid("settle.id", "that of a merge that was given up, is %d", x.GetId())
	}
	return nil
}
