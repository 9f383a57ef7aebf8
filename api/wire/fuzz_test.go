package wire

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// FuzzToError: whatever another node says of an error, it is one, and that of a write is not done only if it says so.
func FuzzToError(f *testing.F) {
	for _, err := range []error{
		&kv.InvalidError{Field: "key", Bound: "short"}, &kv.NotLeaderError{Shard: 1, Leader: 2}, &kv.OverloadError{What: "it", RetryAfter: 5},
		&kv.StaleEpochError{Descriptors: []*kv.Descriptor{{Shard: 3, Replicas: []kv.Replica{{Node: 1, Replica: 2}}}}},
		&kv.CrossShardError{Shards: []kv.ShardID{1, 2}}, &kv.DiskFullError{Node: 1}, kv.ErrUnknown, kv.ErrStopping, context.DeadlineExceeded,
	} {
		b, merr := FromError(Write, err, nil).MarshalVT()
		require.NoError(f, merr)
		f.Add(b, true)
		f.Add(b, false)
	}
	f.Fuzz(func(t *testing.T, b []byte, write bool) {
		p := &kvdv1.PipelineError{}
		if p.UnmarshalVT(b) != nil {
			return
		}
		op := Read
		if write {
			op = Write
		}
		err := ToError(op, p)
		require.Error(t, err)
		_ = err.Error()
		said := p.GetDetail().GetOutcome() == kvdv1.ErrorDetail_NOT_DONE
		if write && !said {
			require.Equal(t, kv.Unknown, kv.OutcomeOf(err))
		}
		if !write {
			require.NotErrorIs(t, err, kv.ErrUnknown)
		}
		// Passed on, it stays what it is.
		again := ToError(op, FromError(op, err, nil))
		require.Equal(t, kv.OutcomeOf(err), kv.OutcomeOf(again))
		if codes.Code(p.Code) == codes.DeadlineExceeded {
			require.Equal(t, errors.Is(err, context.DeadlineExceeded), errors.Is(again, context.DeadlineExceeded))
		}
	})
}

// FuzzDescriptor: whatever descriptor travels, it comes out as it went in.
func FuzzDescriptor(f *testing.F) {
	b, err := FromDescriptor(&kv.Descriptor{
		Shard: 3, Span: kv.Span{Start: []byte("a"), End: []byte("b")}, Epoch: kv.Epoch{Version: 1, Config: 2}, Replicas: []kv.Replica{{Node: 1, Replica: 2, Learner: true}},
	}, 1).MarshalVT()
	require.NoError(f, err)
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &kvdv1.Descriptor{}
		if p.UnmarshalVT(b) != nil {
			return
		}
		d := ToDescriptor(p)
		if d != nil {
			require.Equal(t, d, ToDescriptor(FromDescriptor(d, kv.NodeID(p.Leader))))
		}
	})
}
