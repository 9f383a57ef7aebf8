package server

import (
	"context"
	"io"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// operator answers what an operator asks, and remembers the request.
type operator struct {
	refuse error
	asked  any
	// deadline tells whether the last call had one.
	deadline bool
	backup   func(ctx context.Context, send func(*kvdv1.BackupChunk) error) error
}

func (o *operator) take(ctx context.Context, r any) error {
	o.asked = r
	_, o.deadline = ctx.Deadline()
	return o.refuse
}

func (m *memory) SplitShard(ctx context.Context, r *kvdv1.SplitShardRequest) (*kvdv1.GoalResponse, error) {
	return &kvdv1.GoalResponse{}, m.take(ctx, r)
}

func (m *memory) MergeShard(ctx context.Context, r *kvdv1.MergeShardRequest) (*kvdv1.GoalResponse, error) {
	return &kvdv1.GoalResponse{}, m.take(ctx, r)
}

func (m *memory) MoveReplica(ctx context.Context, r *kvdv1.MoveReplicaRequest) (*kvdv1.GoalResponse, error) {
	return &kvdv1.GoalResponse{}, m.take(ctx, r)
}

func (m *memory) GoalStatus(ctx context.Context, r *kvdv1.GoalStatusRequest) (*kvdv1.GoalStatusResponse, error) {
	return &kvdv1.GoalStatusResponse{}, m.take(ctx, r)
}

func (m *memory) TransferLeader(ctx context.Context, r *kvdv1.TransferLeaderRequest) (*kvdv1.TransferLeaderResponse, error) {
	return &kvdv1.TransferLeaderResponse{}, m.take(ctx, r)
}

func (m *memory) SetDraining(ctx context.Context, r *kvdv1.SetDrainingRequest) (*kvdv1.SetDrainingResponse, error) {
	return &kvdv1.SetDrainingResponse{}, m.take(ctx, r)
}

func (m *memory) RemoveNode(ctx context.Context, r *kvdv1.RemoveNodeRequest) (*kvdv1.RemoveNodeResponse, error) {
	return &kvdv1.RemoveNodeResponse{}, m.take(ctx, r)
}

func (m *memory) Rules(ctx context.Context, r *kvdv1.RulesRequest) (*kvdv1.RulesResponse, error) {
	return &kvdv1.RulesResponse{}, m.take(ctx, r)
}

func (m *memory) SetRule(ctx context.Context, r *kvdv1.SetRuleRequest) (*kvdv1.SetRuleResponse, error) {
	return &kvdv1.SetRuleResponse{}, m.take(ctx, r)
}

func (m *memory) Why(ctx context.Context, r *kvdv1.WhyRequest) (*kvdv1.WhyResponse, error) {
	return &kvdv1.WhyResponse{}, m.take(ctx, r)
}

func (m *memory) Events(ctx context.Context, r *kvdv1.EventsRequest) (*kvdv1.EventsResponse, error) {
	return &kvdv1.EventsResponse{}, m.take(ctx, r)
}

func (m *memory) Hot(ctx context.Context, r *kvdv1.HotRequest) (*kvdv1.HotResponse, error) {
	return &kvdv1.HotResponse{}, m.take(ctx, r)
}

func (m *memory) Backup(ctx context.Context, r *kvdv1.BackupRequest, send func(*kvdv1.BackupChunk) error) error {
	if err := m.take(ctx, r); err != nil || m.backup == nil {
		return err
	}
	return m.backup(ctx, send)
}

// operatorCalls makes each call of an operator once.
func operatorCalls(ctx context.Context, api kvdv1.AdminClient) map[string]func() (any, error) {
	return map[string]func() (any, error){
		"SplitShard": func() (any, error) { return api.SplitShard(ctx, &kvdv1.SplitShardRequest{Shard: 3, Key: []byte("k")}) },
		"MergeShard": func() (any, error) { return api.MergeShard(ctx, &kvdv1.MergeShardRequest{Shard: 3}) },
		"MoveReplica": func() (any, error) {
			return api.MoveReplica(ctx, &kvdv1.MoveReplicaRequest{Shard: 3, FromNode: 1, ToNode: 4})
		},
		"GoalStatus":     func() (any, error) { return api.GoalStatus(ctx, &kvdv1.GoalStatusRequest{Goal: 9}) },
		"TransferLeader": func() (any, error) { return api.TransferLeader(ctx, &kvdv1.TransferLeaderRequest{Shard: 3, ToNode: 2}) },
		"SetDraining":    func() (any, error) { return api.SetDraining(ctx, &kvdv1.SetDrainingRequest{Node: 2, Draining: true}) },
		"RemoveNode":     func() (any, error) { return api.RemoveNode(ctx, &kvdv1.RemoveNodeRequest{Node: 2}) },
		"Rules":          func() (any, error) { return api.Rules(ctx, &kvdv1.RulesRequest{}) },
		"SetRule": func() (any, error) {
			return api.SetRule(ctx, &kvdv1.SetRuleRequest{Rule: &kvdv1.Rule{Prefix: []byte("eu/")}})
		},
		"Why":    func() (any, error) { return api.Why(ctx, &kvdv1.WhyRequest{Shard: 3}) },
		"Events": func() (any, error) { return api.Events(ctx, &kvdv1.EventsRequest{Limit: 5}) },
		"Hot":    func() (any, error) { return api.Hot(ctx, &kvdv1.HotRequest{Limit: 5}) },
	}
}

// TestOperator: each call comes to the backend as it was made, with a deadline, and its error says what it means.
func TestOperator(t *testing.T) {
	m := newMemory()
	api := kvdv1.NewAdminClient(conn(t, m))
	reads := []string{"GoalStatus", "Rules", "Why", "Events", "Hot"}
	for name, call := range operatorCalls(t.Context(), api) {
		m.refuse, m.asked, m.deadline = nil, nil, false
		resp, err := call()
		require.NoError(t, err, name)
		require.NotNil(t, resp, name)
		require.Equal(t, "*kvdv1."+name+"Request", reflect.TypeOf(m.asked).String())
		require.True(t, m.deadline, name)

		m.refuse = &kv.InvalidError{Field: "shard", Bound: "another"}
		_, err = call()
		require.Equal(t, codes.InvalidArgument, status.Code(err), name)
		require.Equal(t, "shard", wire.DetailOf(err).GetField(), name)

		m.refuse = kv.ErrUnknown
		want := kvdv1.ErrorDetail_UNKNOWN
		for _, read := range reads {
			if read == name {
				want = kvdv1.ErrorDetail_NOT_DONE
			}
		}
		_, err = call()
		require.Equal(t, want, wire.DetailOf(err).GetOutcome(), name)
	}
	m.refuse = nil
	_, err := api.SplitShard(t.Context(), &kvdv1.SplitShardRequest{Shard: 3, Key: []byte("k"), DryRun: true})
	require.NoError(t, err)
	require.Equal(t, "k", string(m.asked.(*kvdv1.SplitShardRequest).Key))
	require.True(t, m.asked.(*kvdv1.SplitShardRequest).DryRun)
}

// TestBackupStreams: the chunks come in their order, an error ends the stream with what it means, and no more than
// kv.BackupsMax run at a time.
func TestBackupStreams(t *testing.T) {
	m := newMemory()
	api := kvdv1.NewAdminClient(conn(t, m))
	began, leave := make(chan struct{}), make(chan error)
	m.backup = func(_ context.Context, send func(*kvdv1.BackupChunk) error) error {
		if err := send(&kvdv1.BackupChunk{Pairs: []byte("p")}); err != nil {
			return err
		}
		began <- struct{}{}
		return <-leave
	}
	open := func() kvdv1.Admin_BackupClient {
		stream, err := api.Backup(t.Context(), &kvdv1.BackupRequest{Shard: 1})
		require.NoError(t, err)
		chunk, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, "p", string(chunk.GetPairs()))
		<-began
		return stream
	}
	var streams []kvdv1.Admin_BackupClient
	for range kv.BackupsMax {
		streams = append(streams, open())
	}
	stream, err := api.Backup(t.Context(), &kvdv1.BackupRequest{Shard: 1})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	for range streams {
		leave <- kv.ErrStopping
	}
	for _, stream := range streams {
		_, err = stream.Recv()
		require.Equal(t, kvdv1.ErrorDetail_STOPPING, wire.DetailOf(err).GetReason())
	}
	stream = open()
	leave <- nil
	_, err = stream.Recv()
	require.ErrorIs(t, err, io.EOF)
}
