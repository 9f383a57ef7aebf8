// Package server is the gRPC services of a node for clients and operators, and HTTP for metrics and health.
package server

import (
	"context"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
)

// Backend is the node that a server answers for. Routing, passing on to the leader and trying again within the
// deadline are the backend's.
type Backend interface {
	// Moment is the time since the machine's boot, with the time that it slept: a system call.
	Moment() time.Duration
	// TryGet answers a linearizable read from memory at once, if this node may; at is a Moment after the request for it has come.
	// The value is shared and read-only.
	TryGet(at time.Duration, key []byte) (rec kv.Record, found bool, h kv.Header, ok bool)
	// TryGets is TryGet for several keys, some tens: it takes less than as many calls. The values are shared and read-only.
	TryGets(at time.Duration, reads []node.Read)
	// Get reads a key. Of a linearizable read TryGet or TryGets was asked before.
	Get(ctx context.Context, route kv.Route, key []byte, level kv.Level) (kv.Record, bool, kv.Header, error)
	Write(ctx context.Context, route kv.Route, c *kv.Command) (kv.Result, kv.Header, error)
	// Submit is Write without waiting, for at most until a deadline. done is called once, perhaps before Submit returns, from
	// any goroutine, and must not block.
	Submit(ctx context.Context, deadline time.Time, route kv.Route, c *kv.Command, done func(kv.Result, kv.Header, error))
	// Busy reports whether a write would be refused now for want of room, whichever it is.
	Busy() bool
	// BusyHere is Busy, for a write that this node would carry out itself.
	BusyHere() bool
	// Lag is how long the turn of the event loop has taken that is under way, or the one before if that took longer.
	Lag() time.Duration
	ScanChunk(ctx context.Context, route kv.Route, r kv.ScanRequest) (kv.Chunk, error)
	// Stale gives the right descriptors when a request was routed by an old map, else nil.
	Stale(route kv.Route, key []byte) []*kv.Descriptor
	// Meta gives the newest metadata, nil when none is known.
	Meta() (*kvdv1.MetaState, <-chan struct{})
	// Leader is the node that leads a shard as far as this one knows, 0 when unknown.
	Leader(shard kv.ShardID) kv.NodeID
	NodeAddress(kv.NodeID) string
	Shards(ctx context.Context) (shards []*kvdv1.ShardInfo, silent []kv.NodeID, err error)
	Nodes(ctx context.Context) ([]*kvdv1.NodeInfo, error)
	Local(ctx context.Context) (*kvdv1.StatusResponse, error)
	Settings(ctx context.Context) ([]*kvdv1.Setting, error)
	SetSetting(ctx context.Context, name, value string) error
	Operator
	// Ready is nil when the node serves.
	Ready() error
	Metrics() node.Metrics
}

// Operator is what an operator asks of the cluster, as package api/kvd/v1 describes each call. The node that is asked sees
// to the rest: what changes the metadata is carried out by the meta group, what only others know is asked of them.
type Operator interface {
	SplitShard(ctx context.Context, r *kvdv1.SplitShardRequest) (*kvdv1.GoalResponse, error)
	MergeShard(ctx context.Context, r *kvdv1.MergeShardRequest) (*kvdv1.GoalResponse, error)
	MoveReplica(ctx context.Context, r *kvdv1.MoveReplicaRequest) (*kvdv1.GoalResponse, error)
	GoalStatus(ctx context.Context, r *kvdv1.GoalStatusRequest) (*kvdv1.GoalStatusResponse, error)
	TransferLeader(ctx context.Context, r *kvdv1.TransferLeaderRequest) (*kvdv1.TransferLeaderResponse, error)
	SetDraining(ctx context.Context, r *kvdv1.SetDrainingRequest) (*kvdv1.SetDrainingResponse, error)
	RemoveNode(ctx context.Context, r *kvdv1.RemoveNodeRequest) (*kvdv1.RemoveNodeResponse, error)
	Rules(ctx context.Context, r *kvdv1.RulesRequest) (*kvdv1.RulesResponse, error)
	SetRule(ctx context.Context, r *kvdv1.SetRuleRequest) (*kvdv1.SetRuleResponse, error)
	Why(ctx context.Context, r *kvdv1.WhyRequest) (*kvdv1.WhyResponse, error)
	Events(ctx context.Context, r *kvdv1.EventsRequest) (*kvdv1.EventsResponse, error)
	Hot(ctx context.Context, r *kvdv1.HotRequest) (*kvdv1.HotResponse, error)
	// Backup gives a shard that is led here to send, chunk by chunk, until send fails.
	Backup(ctx context.Context, r *kvdv1.BackupRequest, send func(*kvdv1.BackupChunk) error) error
}

var _ Backend = (*node.Node)(nil)
