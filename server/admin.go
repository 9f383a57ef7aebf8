package server

import (
	"context"

	"google.golang.org/grpc"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// operate gives a call of an operator to the backend, with a deadline.
func operate[Q, P any](ctx context.Context, s *service, op wire.Op, r Q, f func(context.Context, Q) (P, error)) (P, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	resp, err := f(ctx, r)
	if err != nil {
		var none P
		return none, s.fail(op, err)
	}
	return resp, nil
}

// SplitShard sets the goal of a split.
func (s *service) SplitShard(ctx context.Context, r *kvdv1.SplitShardRequest) (*kvdv1.GoalResponse, error) {
	return operate(ctx, s, wire.Write, r, s.backend.SplitShard)
}

// MergeShard sets the goal of a merge.
func (s *service) MergeShard(ctx context.Context, r *kvdv1.MergeShardRequest) (*kvdv1.GoalResponse, error) {
	return operate(ctx, s, wire.Write, r, s.backend.MergeShard)
}

// MoveReplica sets the goal of a move.
func (s *service) MoveReplica(ctx context.Context, r *kvdv1.MoveReplicaRequest) (*kvdv1.GoalResponse, error) {
	return operate(ctx, s, wire.Write, r, s.backend.MoveReplica)
}

// GoalStatus tells how far a goal is.
func (s *service) GoalStatus(ctx context.Context, r *kvdv1.GoalStatusRequest) (*kvdv1.GoalStatusResponse, error) {
	return operate(ctx, s, wire.Read, r, s.backend.GoalStatus)
}

// TransferLeader hands a shard's leadership over.
func (s *service) TransferLeader(ctx context.Context, r *kvdv1.TransferLeaderRequest) (*kvdv1.TransferLeaderResponse, error) {
	return operate(ctx, s, wire.Write, r, s.backend.TransferLeader)
}

// SetDraining begins or ends the draining of a node.
func (s *service) SetDraining(ctx context.Context, r *kvdv1.SetDrainingRequest) (*kvdv1.SetDrainingResponse, error) {
	return operate(ctx, s, wire.Write, r, s.backend.SetDraining)
}

// RemoveNode forgets a node.
func (s *service) RemoveNode(ctx context.Context, r *kvdv1.RemoveNodeRequest) (*kvdv1.RemoveNodeResponse, error) {
	return operate(ctx, s, wire.Write, r, s.backend.RemoveNode)
}

// Rules lists the placement rules.
func (s *service) Rules(ctx context.Context, r *kvdv1.RulesRequest) (*kvdv1.RulesResponse, error) {
	return operate(ctx, s, wire.Read, r, s.backend.Rules)
}

// SetRule sets or removes a placement rule.
func (s *service) SetRule(ctx context.Context, r *kvdv1.SetRuleRequest) (*kvdv1.SetRuleResponse, error) {
	return operate(ctx, s, wire.Write, r, s.backend.SetRule)
}

// Why tells what was decided of a shard.
func (s *service) Why(ctx context.Context, r *kvdv1.WhyRequest) (*kvdv1.WhyResponse, error) {
	return operate(ctx, s, wire.Read, r, s.backend.Why)
}

// Events lists what has happened of late.
func (s *service) Events(ctx context.Context, r *kvdv1.EventsRequest) (*kvdv1.EventsResponse, error) {
	return operate(ctx, s, wire.Read, r, s.backend.Events)
}

// Hot lists the hottest shards.
func (s *service) Hot(ctx context.Context, r *kvdv1.HotRequest) (*kvdv1.HotResponse, error) {
	return operate(ctx, s, wire.Read, r, s.backend.Hot)
}

// Backup streams a shard's data.
func (s *service) Backup(r *kvdv1.BackupRequest, stream grpc.ServerStreamingServer[kvdv1.BackupChunk]) error {
	defer s.backups.Add(-1)
	if s.backups.Add(1) > kv.BackupsMax {
		return s.fail(wire.Read, &kv.OverloadError{What: "the number of backups", RetryAfter: kv.RetryAfter})
	}
	if err := s.backend.Backup(stream.Context(), r, stream.Send); err != nil {
		return s.fail(wire.Read, err)
	}
	return nil
}
