package shard

import (
	"slices"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// Split makes the part of a shard at and above a key a shard of its own (S1, S2).
//
// The leader proposes it in the log of the parent, with the ids that the meta group gave, and with what the right part
// held at the index of the measure in force. Apply narrows the parent and gives the owner the child's state, which goes
// into the same step. No key is copied: what the step has written before goes to the same store, whose part at and above
// the key is the child's from here on. The parent's start key never changes.
//
// Both get the parent's next version, so that whoever knows the parent's earlier span is refused by both; and the child
// begins with the parent's configuration half, so that its epoch is above the one that it replaces in the map. Revision
// and time are the parent's: a key's revision never goes back, and no key comes back to life (R1, R4). An open merge and
// the list of absorbed shards stay with the parent, which owns them until they are settled.

func (m *Machine) admitSplit(x *kvdv1.Split) error {
	if err := m.admitStill(); err != nil {
		return err
	}
	if err := m.admitSplitKey("split.key", x.GetKey()); err != nil {
		return err
	}
	d := m.descriptor
	switch ms := m.measure; {
	case x.GetChild() == uint64(kv.MetaShard) || kv.ShardID(x.GetChild()) == d.Shard:
		return invalid("split.child", "the id of a new shard, is %d", x.GetChild())
	case ms == nil || ms.id != x.GetMeasure() || uint64(ms.index) != x.GetIndex() || string(ms.key) != string(x.GetKey()):
		return invalid("split.measure", "the one in force, with its key and index, is %d of index %d", x.GetMeasure(), x.GetIndex())
	}
	if err := admitTwins(d.Replicas, x.GetReplicas(), kv.NodeID(x.GetHeir())); err != nil {
		return err
	}
	_, _, err := m.halves(x)
	return err
}

// admitTwins takes a child's replicas: one beside each of the parent's, and an heir that votes.
func admitTwins(parent []kv.Replica, child []*kvdv1.Replica, heir kv.NodeID) error {
	if len(child) != len(parent) {
		return invalid("split.replicas", "one on each node of the parent's, has %d", len(child))
	}
	ids, inherits := map[uint64]bool{}, false
	for _, p := range parent {
		i := slices.IndexFunc(child, func(r *kvdv1.Replica) bool { return kv.NodeID(r.GetNode()) == p.Node })
		if i < 0 {
			return invalid("split.replicas", "one on each node of the parent's, node %d has none", p.Node)
		}
		r := child[i]
		if r.GetReplica() == 0 || r.GetReplica() > kv.ReplicaIDMax || ids[r.GetReplica()] || r.GetLearner() != p.Learner || r.GetIncoming() || r.GetOutgoing() {
			return invalid("split.replicas", "with ids of their own, voting where the parent's do, is %d on node %d", r.GetReplica(), p.Node)
		}
		ids[r.GetReplica()] = true
		inherits = inherits || p.Node == heir && !p.Learner
	}
	if !inherits {
		return invalid("split.heir", "a node with a voter, is %d", heir)
	}
	return nil
}

// halves gives the counts of both parts: what the leader counted in the right one and what has changed since, and what
// is left of the whole.
func (m *Machine) halves(x *kvdv1.Split) (left, right counters, err error) {
	left, right = m.counters, m.counters
	ms := m.measure
	// What is below zero wraps to more than a shard can hold.
	right.keys, right.bytes, right.expiring = x.GetKeys()+uint64(ms.keys), x.GetBytes()+uint64(ms.bytes), x.GetExpiring()+uint64(ms.expiring)
	left.keys, left.bytes, left.expiring = m.keys-right.keys, m.bytes-right.bytes, m.expiring-right.expiring
	if !consistent(left.keys, left.bytes, left.expiring) || !consistent(right.keys, right.bytes, right.expiring) {
		return left, right, invalid("split.keys, split.bytes, split.expiring",
			"a part of %d, %d and %d, come to %d, %d and %d",
			m.keys, m.bytes, m.expiring, right.keys, right.bytes, right.expiring)
	}
	return left, right, nil
}

func (m *Machine) split(x *kvdv1.Split) {
	left, right, _ := m.halves(x)
	parent, child := *m.descriptor, *m.descriptor
	parent.Epoch.Version++
	parent.Span.End = x.GetKey()
	child.Epoch = parent.Epoch
	child.Span.Start = x.GetKey()
	child.Shard = kv.ShardID(x.GetChild())
	child.Replicas = wire.ToDescriptor(&kvdv1.Descriptor{Replicas: x.GetReplicas()}).Replicas
	m.describe(&parent)
	m.counters = left
	m.measure = nil
	m.since = m.time
	m.birth = &kvdv1.SplitPair{Left: m.described, Right: wire.FromDescriptor(&child, 0)}
	m.child = born(m.birth, right)
	m.child.SinceMs = m.since
}

// born is the state of a child at its birth.
func born(pair *kvdv1.SplitPair, c counters) *kvdv1.ShardState {
	st := &kvdv1.ShardState{
		Descriptor_: pair.Right, Birth: pair,
		AppliedIndex: uint64(kv.BirthIndex), AppliedTerm: uint64(kv.BirthTerm),
		BaseIndex: uint64(kv.BirthIndex), BaseTerm: uint64(kv.BirthTerm),
	}
	c.put(st)
	for _, r := range pair.Right.Replicas {
		if r.Learner {
			st.Learners = append(st.Learners, r.Replica)
		} else {
			st.Voters = append(st.Voters, r.Replica)
		}
	}
	return st
}
