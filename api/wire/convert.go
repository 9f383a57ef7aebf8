package wire

import (
	"github.com/kvdstore/kvd/kv"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

// FromEpoch gives an epoch as it travels.
func FromEpoch(e kv.Epoch) *kvdv1.Epoch {
	return &kvdv1.Epoch{Version: e.Version, Config: e.Config}
}

// ToEpoch reads an epoch; a missing one is zero.
func ToEpoch(e *kvdv1.Epoch) kv.Epoch {
	return kv.Epoch{Version: e.GetVersion(), Config: e.GetConfig()}
}

// FromHeader gives a header as it travels.
func FromHeader(h kv.Header) *kvdv1.ResponseHeader {
	x := &struct {
		header kvdv1.ResponseHeader
		epoch  kvdv1.Epoch
	}{}
	FillHeader(&x.header, &x.epoch, h)
	return &x.header
}

// FillHeader writes h into an empty header, which then refers to epoch: both may lie within a larger object.
func FillHeader(dst *kvdv1.ResponseHeader, epoch *kvdv1.Epoch, h kv.Header) {
	epoch.Version, epoch.Config = h.Epoch.Version, h.Epoch.Config
	dst.Shard, dst.Epoch = uint64(h.Shard), epoch
	dst.Revision, dst.Node = uint64(h.Revision), uint64(h.Node)
}

// ToHeader reads a header; a missing one is zero.
func ToHeader(h *kvdv1.ResponseHeader) kv.Header {
	return kv.Header{
		Shard:    kv.ShardID(h.GetShard()),
		Epoch:    ToEpoch(h.GetEpoch()),
		Revision: kv.Revision(h.GetRevision()),
		Node:     kv.NodeID(h.GetNode()),
	}
}

// FromDescriptor gives a descriptor as it travels; leader is a hint, 0 when unknown. The keys are shared.
func FromDescriptor(d *kv.Descriptor, leader kv.NodeID) *kvdv1.Descriptor {
	x := &kvdv1.Descriptor{
		Shard: uint64(d.Shard), Start: d.Span.Start, End: d.Span.End, Epoch: FromEpoch(d.Epoch),
		Replicas: make([]*kvdv1.Replica, 0, len(d.Replicas)), Leader: uint64(leader),
	}
	for _, r := range d.Replicas {
		x.Replicas = append(x.Replicas, &kvdv1.Replica{
			Node: uint64(r.Node), Replica: uint64(r.Replica), Learner: r.Learner, Incoming: r.Incoming, Outgoing: r.Outgoing,
		})
	}
	return x
}

// ToDescriptor reads a descriptor; nil stays nil. The keys are shared.
func ToDescriptor(d *kvdv1.Descriptor) *kv.Descriptor {
	if d == nil {
		return nil
	}
	x := &kv.Descriptor{
		Shard: kv.ShardID(d.Shard), Span: kv.Span{Start: d.Start, End: d.End}, Epoch: ToEpoch(d.Epoch),
		Replicas: make([]kv.Replica, 0, len(d.Replicas)),
	}
	for _, r := range d.Replicas {
		x.Replicas = append(x.Replicas, kv.Replica{
			Node: kv.NodeID(r.GetNode()), Replica: kv.ReplicaID(r.GetReplica()), Learner: r.GetLearner(),
			Incoming: r.GetIncoming(), Outgoing: r.GetOutgoing(),
		})
	}
	return x
}
