package node

import (
	"context"
	"errors"
	"fmt"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/snapshot"
)

// Backup gives a shard that is led here to send, chunk by chunk, as of one moment after the call began. It goes to no
// other node: the caller goes through the map, since all of the data would pass here. An error of send ends it.
func (n *Node) Backup(ctx context.Context, r *kvdv1.BackupRequest, send func(*kvdv1.BackupChunk) error) error {
	m, err := n.shards()
	if err != nil {
		return err
	}
	id := kv.ShardID(r.GetShard())
	_, known := m.Shard(id)
	v := n.view(id) // It may know of a split before the map does.
	switch {
	case r.GetShard() == uint64(kv.MetaShard):
		return &kv.InvalidError{Field: "shard", Bound: "the id of a shard, from 1"}
	case len(r.GetStart()) > kv.KeyBytesMax:
		return &kv.InvalidError{Field: "start", Bound: fmt.Sprintf("at most %d bytes, has %d", kv.KeyBytesMax, len(r.GetStart()))}
	case v == nil && !known:
		return &kv.StaleEpochError{Descriptors: []*kv.Descriptor{m.Lookup(r.GetStart())}}
	case v == nil:
		return &kv.NotLeaderError{Shard: id, Leader: n.Leader(id)}
	}
	if err := n.readIndex(ctx, v); err != nil {
		return err
	}
	return n.backup(ctx, v, r, send)
}

// backup reads a view of a replica that is new enough.
func (n *Node) backup(ctx context.Context, v *View, r *kvdv1.BackupRequest, send func(*kvdv1.BackupChunk) error) (err error) {
	d := v.state.Load().descriptor
	span := kv.Span{Start: r.GetStart()}.Intersect(d.Span)
	if d.Epoch.Version != r.GetVersion() || span.Empty() {
		return &kv.StaleEpochError{Descriptors: []*kv.Descriptor{d}}
	}
	view, err := n.state.View(v.shard, span)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, view.Close()) }()
	st := view.State()
	// The view shows the shard as it is in the store, which may have changed meanwhile.
	switch {
	case st == nil:
		return &kv.NotLeaderError{Shard: v.shard}
	case st.GetDescriptor_().GetEpoch().GetVersion() != r.GetVersion():
		return &kv.StaleEpochError{Descriptors: []*kv.Descriptor{wire.ToDescriptor(st.GetDescriptor_())}}
	}
	info := &kvdv1.ShardInfo{
		Descriptor_: st.GetDescriptor_(), Keys: st.GetKeys(), Bytes: st.GetBytes(), Revision: st.GetRevision(), SinceMs: st.GetSinceMs(),
	}
	if err := send(&kvdv1.BackupChunk{Shard: info}); err != nil {
		return err
	}
	w, err := snapshot.NewWriter(view, span, kv.SnapshotChunkBytes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	for {
		part, _, err := w.Next()
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if end := part.GetTrailer(); end != nil {
			if span.Equal(d.Span) && end.GetKeys() != st.GetKeys() {
				return fmt.Errorf("shard %d counts %d keys, and %d were read: its data was replaced meanwhile: %w", v.shard, st.GetKeys(), end.GetKeys(), &kv.NotLeaderError{Shard: v.shard})
			}
			return send(&kvdv1.BackupChunk{Last: true, Keys: end.GetKeys(), Checksum: end.GetChecksum()})
		}
		if err := send(&kvdv1.BackupChunk{Pairs: part.GetData().GetPairs(), Checksum: part.GetData().GetChecksum()}); err != nil {
			return err
		}
	}
}
