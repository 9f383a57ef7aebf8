package client

import (
	"context"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
)

// What an operator asks of a cluster goes to any node. The requests are described in package api/kvd/v1.

// SplitShard sets the goal that a shard is split, at a key or, without one, where kvd chooses, and answers with the goal at once;
// GoalStatus tells how far it is. With DryRun nothing is set.
func (c *Client) SplitShard(ctx context.Context, r *kvdv1.SplitShardRequest) (*kvdv1.GoalResponse, error) {
	return admin(ctx, c, wire.Write, r, func(api services, ctx context.Context, r *kvdv1.SplitShardRequest) (*kvdv1.GoalResponse, error) {
		return api.SplitShard(ctx, r)
	})
}

// MergeShard sets the goal that a shard absorbs its right neighbour.
func (c *Client) MergeShard(ctx context.Context, r *kvdv1.MergeShardRequest) (*kvdv1.GoalResponse, error) {
	return admin(ctx, c, wire.Write, r, func(api services, ctx context.Context, r *kvdv1.MergeShardRequest) (*kvdv1.GoalResponse, error) {
		return api.MergeShard(ctx, r)
	})
}

// MoveReplica sets the goal that a shard's replica moves from one node to another.
func (c *Client) MoveReplica(ctx context.Context, r *kvdv1.MoveReplicaRequest) (*kvdv1.GoalResponse, error) {
	return admin(ctx, c, wire.Write, r, func(api services, ctx context.Context, r *kvdv1.MoveReplicaRequest) (*kvdv1.GoalResponse, error) {
		return api.MoveReplica(ctx, r)
	})
}

// GoalStatus tells how far a goal is.
func (c *Client) GoalStatus(ctx context.Context, r *kvdv1.GoalStatusRequest) (*kvdv1.GoalStatusResponse, error) {
	return admin(ctx, c, wire.Read, r, func(api services, ctx context.Context, r *kvdv1.GoalStatusRequest) (*kvdv1.GoalStatusResponse, error) {
		return api.GoalStatus(ctx, r)
	})
}

// TransferLeader hands a shard's leadership to the replica on a node, and waits until it has it.
func (c *Client) TransferLeader(ctx context.Context, r *kvdv1.TransferLeaderRequest) (*kvdv1.TransferLeaderResponse, error) {
	return admin(ctx, c, wire.Write, r, func(api services, ctx context.Context, r *kvdv1.TransferLeaderRequest) (*kvdv1.TransferLeaderResponse, error) {
		return api.TransferLeader(ctx, r)
	})
}

// SetDraining begins or ends the draining of a node: everything is moved off it. It does not wait for that.
func (c *Client) SetDraining(ctx context.Context, r *kvdv1.SetDrainingRequest) (*kvdv1.SetDrainingResponse, error) {
	return admin(ctx, c, wire.Write, r, func(api services, ctx context.Context, r *kvdv1.SetDrainingRequest) (*kvdv1.SetDrainingResponse, error) {
		return api.SetDraining(ctx, r)
	})
}

// RemoveNode makes the cluster forget a node that holds no replicas.
func (c *Client) RemoveNode(ctx context.Context, r *kvdv1.RemoveNodeRequest) (*kvdv1.RemoveNodeResponse, error) {
	return admin(ctx, c, wire.Write, r, func(api services, ctx context.Context, r *kvdv1.RemoveNodeRequest) (*kvdv1.RemoveNodeResponse, error) {
		return api.RemoveNode(ctx, r)
	})
}

// SetRule sets the placement rule of a prefix or, without regions, removes it.
func (c *Client) SetRule(ctx context.Context, r *kvdv1.SetRuleRequest) (*kvdv1.SetRuleResponse, error) {
	return admin(ctx, c, wire.Write, r, func(api services, ctx context.Context, r *kvdv1.SetRuleRequest) (*kvdv1.SetRuleResponse, error) {
		return api.SetRule(ctx, r)
	})
}

// Why tells what was decided of a shard, given by its id or by a key, and what was not and for what reason.
func (c *Client) Why(ctx context.Context, r *kvdv1.WhyRequest) (*kvdv1.WhyResponse, error) {
	return admin(ctx, c, wire.Read, r, func(api services, ctx context.Context, r *kvdv1.WhyRequest) (*kvdv1.WhyResponse, error) {
		return api.Why(ctx, r)
	})
}

// Events lists what was decided and has happened of late, oldest first, as far as the nodes that answer remember.
func (c *Client) Events(ctx context.Context, r *kvdv1.EventsRequest) (*kvdv1.EventsResponse, error) {
	return admin(ctx, c, wire.Read, r, func(api services, ctx context.Context, r *kvdv1.EventsRequest) (*kvdv1.EventsResponse, error) {
		return api.Events(ctx, r)
	})
}

// Hot lists the hottest shards with their hottest keys.
func (c *Client) Hot(ctx context.Context, r *kvdv1.HotRequest) (*kvdv1.HotResponse, error) {
	return admin(ctx, c, wire.Read, r, func(api services, ctx context.Context, r *kvdv1.HotRequest) (*kvdv1.HotResponse, error) {
		return api.Hot(ctx, r)
	})
}

// Rules lists the placement rules.
func (c *Client) Rules(ctx context.Context) ([]*kvdv1.Rule, error) {
	resp, err := admin(ctx, c, wire.Read, &kvdv1.RulesRequest{}, func(api services, ctx context.Context, r *kvdv1.RulesRequest) (*kvdv1.RulesResponse, error) {
		return api.Rules(ctx, r)
	})
	return resp.GetRules(), err
}
