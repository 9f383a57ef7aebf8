package plan

import (
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

const (
	// SuspectAfter is the silence past which a node is suspect: it gets no new replica, leadership or step to take.
	SuspectAfter = 3 * time.Second
	// FreshFor is how old a report may be that tells how far followers are. A shard with a learner, in a joint
	// configuration or with a goal must be in each report of its leader.
	FreshFor = 5 * time.Second
)

// NodeFigures is the last that a node told of itself.
type NodeFigures struct {
	Heard           time.Duration // When.
	DiskFree, Bytes uint64        // Bytes are of all keys and values here.
	DiskFull        bool
	Unfit           bool // It takes no leadership for now.
	Replicas        uint64
	Busy            float64 // Share of one core.
}

// ShardFigures is the last that the leader of a shard told of it.
type ShardFigures struct {
	Report *kvdv1.ShardReport // Read-only.
	From   kv.NodeID          // The leader.
	Heard  time.Duration      // When.
	Epoch  kv.Epoch           // Of the report.
}

// Reports is what the leader of the meta group has heard of nodes and shards since it leads. Times are those of one
// clock that only the caller reads.
type Reports struct {
	began  time.Duration
	nodes  map[kv.NodeID]*NodeFigures
	shards map[kv.ShardID]*ShardFigures
	kept   uint64 // The version of the map that Keep has seen.
}

// NewReports begins with nothing heard: silence counts from now on, since a new leader of the meta group knows nobody.
func NewReports(now time.Duration) *Reports {
	return &Reports{began: now, nodes: map[kv.NodeID]*NodeFigures{}, shards: map[kv.ShardID]*ShardFigures{}}
}

// Take takes a node's report, the own node's too. The report is shared and read-only from then on. What is told of a
// shard by a leader of an earlier term than the last one heard is left out: it was deposed and does not know yet.
func (r *Reports) Take(from kv.NodeID, report *kvdv1.NodeReport, now time.Duration) {
	n := r.nodes[from]
	if n == nil && len(r.nodes) >= kv.NodesMax {
		return
	}
	r.nodes[from] = &NodeFigures{
		Heard: now, DiskFree: report.GetDiskFreeBytes(), Bytes: report.GetBytes(), DiskFull: report.GetDiskFull(), Unfit: report.GetUnfit(),
		Replicas: report.GetReplicas(), Busy: report.GetBusy(),
	}
	for _, s := range report.GetShards() {
		shard := kv.ShardID(s.GetDescriptor_().GetShard())
		old := r.shards[shard]
		if old == nil && len(r.shards) > kv.ShardsMax || old != nil && old.Report.GetTerm() > s.GetTerm() {
			continue
		}
		r.shards[shard] = &ShardFigures{Report: s, From: from, Heard: now, Epoch: wire.ToEpoch(s.GetDescriptor_().GetEpoch())}
	}
}

// Heard notes that a node is alive, by whatever it sent.
func (r *Reports) Heard(from kv.NodeID, now time.Duration) {
	if n := r.nodes[from]; n != nil {
		n.Heard = now
	} else if len(r.nodes) < kv.NodesMax {
		r.nodes[from] = &NodeFigures{Heard: now}
	}
}

// Keep forgets nodes and shards that are not in the map. What is new there after a split is reported again.
func (r *Reports) Keep(m *raftmeta.Map) {
	if r.kept == m.Version() {
		return
	}
	r.kept = m.Version()
	for id := range r.nodes {
		if _, ok := m.Node(id); !ok {
			delete(r.nodes, id)
		}
	}
	for id := range r.shards {
		if _, ok := m.Shard(id); !ok {
			delete(r.shards, id)
		}
	}
}

// Silent is how long a node has not been heard of.
func (r *Reports) Silent(node kv.NodeID, now time.Duration) time.Duration {
	if n := r.nodes[node]; n != nil {
		return max(0, now-n.Heard)
	}
	return max(0, now-r.began)
}

// Node is the last that a node told of itself; zero if it was not heard.
func (r *Reports) Node(node kv.NodeID) NodeFigures {
	if n := r.nodes[node]; n != nil {
		return *n
	}
	return NodeFigures{}
}

// Shard is the last that the leader of a shard told of it.
func (r *Reports) Shard(shard kv.ShardID) (ShardFigures, bool) {
	if s := r.shards[shard]; s != nil {
		return *s, true
	}
	return ShardFigures{}, false
}

// Leader is the node that leads a shard as far as is known, 0 if it is not: where its orders go. The node may be silent.
func (r *Reports) Leader(shard kv.ShardID) kv.NodeID {
	if s := r.shards[shard]; s != nil {
		return s.From
	}
	return 0
}
