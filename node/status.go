package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/cache"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
	"github.com/kvdstore/kvd/storage"
)

const (
	// askMax is how long other nodes are waited for when the cluster is described.
	askMax = time.Second
	// suspectAfter is after how much silence a node is suspect.
	suspectAfter = 3 * time.Second
)

// Describe describes the replicas, for operators.
func (c *Core) Describe() []*kvdv1.ReplicaInfo {
	var list []*kvdv1.ReplicaInfo
	for _, g := range c.order {
		term, _ := g.replica.Leading()
		st := g.machine.State()
		log := g.replica.Log()
		first, _ := log.FirstIndex()
		reads, writes, _ := g.rates.perSecond()
		last, _ := log.LastIndex()
		list = append(list, &kvdv1.ReplicaInfo{
			Shard: uint64(g.shard), Replica: uint64(g.member.Replica), Role: g.role(), LeaderNode: uint64(g.replica.Leader()),
			Asleep: g.asleep, Term: uint64(term), Last: last, Committed: uint64(g.replica.Committed()), Applied: st.AppliedIndex,
			Truncated: first - 1, Revision: st.Revision, Keys: st.Keys, Bytes: st.Bytes,
			Load: reads + writes, Reads: reads, Writes: writes, HotKeys: g.view.hotKeys(g.machine.Descriptor().Span), SinceMs: st.GetSinceMs(),
			Descriptor_: wire.FromDescriptor(g.machine.Descriptor(), g.replica.Leader()),
		})
	}
	return list
}

// role is what operators are told of a replica's part in its group.
func (g *group) role() string {
	here, _ := g.machine.Descriptor().OnNode(g.member.Node)
	switch _, leader := g.replica.Leading(); {
	case leader:
		return roleLeader
	case here.Learner:
		return "learner"
	case g.replica.Leader() == 0:
		return "candidate"
	}
	return "follower"
}

// inLoop calls f in a turn and waits for it.
func (n *Node) inLoop(ctx context.Context, f func(*Core)) error {
	done, fits := make(chan struct{}), false
	n.inbox.add(func(in *Input) {
		if fits = len(in.Calls) < kv.LoopCallsMax; fits {
			in.Calls = append(in.Calls, func(c *Core) { f(c); close(done) })
		}
	})
	if !fits {
		return &kv.OverloadError{What: "the queue of looks at the replicas", RetryAfter: kv.RetryAfter}
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-n.ctx.Done():
		return kv.ErrStopping
	}
}

// Local describes this node.
func (n *Node) Local(ctx context.Context) (*kvdv1.StatusResponse, error) {
	p := n.meta.Load()
	if p == nil || !n.serving.Load() {
		return nil, n.notServing()
	}
	var local []*kvdv1.ReplicaInfo
	if err := n.inLoop(ctx, func(c *Core) { local = c.Describe() }); err != nil {
		return nil, err
	}
	self, _ := p.shards.Node(n.self.Node)
	m := n.guard.Metrics()
	st := &kvdv1.StatusResponse{
		Node: nodeToProto(self), Version: n.Version, ClusterId: uint64(n.self.Cluster), StoreId: n.record.StoreId,
		Life: uint64(n.self.Life), UptimeMs: time.Since(n.began).Milliseconds(), MetaLeader: uint64(n.metaLeader()),
		MapVersion: p.shards.Version(), DiskFreeBytes: n.disk.free.Load(), DiskFull: n.disk.full.Load(),
		MemoryBudgetBytes: uint64(n.MemoryBytes), CacheBytes: uint64(m.Store.Bytes), CacheHits: m.Hits, CacheMisses: m.Misses,
		Local: local,
	}
	for _, r := range local {
		st.Replicas++
		st.Keys, st.Bytes = st.Keys+r.Keys, st.Bytes+r.Bytes
		if r.Role == roleLeader {
			st.Leaders++
		}
	}
	return st, nil
}

func nodeToProto(x raftmeta.Node) *kvdv1.Node {
	return &kvdv1.Node{Node: uint64(x.ID), Name: x.Name, Address: x.Address, Region: x.Region}
}

func (n *Node) metaLeader() kv.NodeID { return n.Leader(kv.MetaShard) }

// Shards describes all shards: each node that answers tells of its replicas. Nodes that do not are named.
func (n *Node) Shards(ctx context.Context) (shards []*kvdv1.ShardInfo, silent []kv.NodeID, err error) {
	if _, err := n.freshShards(ctx); err != nil {
		return nil, nil, err
	}
	p := n.meta.Load()
	statuses, silent := n.askAll(ctx, p.shards.Nodes())
	known := best(statuses)
	for _, d := range p.shards.Descriptors() {
		info := &kvdv1.ShardInfo{Descriptor_: wire.FromDescriptor(d, n.Leader(d.Shard))}
		if r := known[uint64(d.Shard)]; r != nil {
			of := info.Descriptor_
			if info = infoOf(r); info.Descriptor_.GetEpoch().GetVersion() < of.GetEpoch().GetVersion() {
				info.Descriptor_ = of // The replica lags.
			}
		}
		shards = append(shards, info)
	}
	return whole(shards, known), silent, nil
}

// whole mends a list of shards in key order where replicas know of splits and merges that the map does not have yet: what was split off
// comes into the gap, if a replica tells of it, and what was absorbed goes.
func whole(list []*kvdv1.ShardInfo, known map[uint64]*kvdv1.ReplicaInfo) (shards []*kvdv1.ShardInfo) {
	byStart := map[string]*kvdv1.ReplicaInfo{}
	for _, r := range known {
		if start := string(r.GetDescriptor_().GetStart()); start != "" && (byStart[start] == nil || byStart[start].Shard < r.Shard) {
			byStart[start] = r
		}
	}
	var end []byte // Of the last; empty is the end of all keys.
	fill := func(next []byte) {
		for len(end) > 0 && (len(next) == 0 || bytes.Compare(end, next) < 0) && byStart[string(end)] != nil {
			child := infoOf(byStart[string(end)])
			delete(byStart, string(end))
			shards, end = append(shards, child), child.GetDescriptor_().GetEnd()
		}
	}
	for i, s := range list {
		d := s.GetDescriptor_()
		if i > 0 {
			fill(d.GetStart())
			if len(end) == 0 || bytes.Compare(d.GetStart(), end) < 0 {
				continue
			}
		}
		shards, end = append(shards, s), d.GetEnd()
	}
	fill(nil)
	return shards
}

// roleLeader is the role of a replica that leads.
const roleLeader = "leader"

// best gives of each shard the replica that knows most of it: the leader of the newest term, else the one that is
// furthest.
func best(answers []*kvdv1.StatusResponse) map[uint64]*kvdv1.ReplicaInfo {
	best := map[uint64]*kvdv1.ReplicaInfo{}
	for _, st := range answers {
		for _, r := range st.GetLocal() {
			if d := r.GetDescriptor_(); d == nil || len(d.GetEnd()) > 0 && bytes.Compare(d.GetEnd(), d.GetStart()) <= 0 {
				continue // No replica's.
			}
			if old := best[r.Shard]; old == nil || r.Role == roleLeader && (old.Role != roleLeader || r.Term > old.Term) || old.Role != roleLeader && r.Revision > old.Revision {
				best[r.Shard] = r
			}
		}
	}
	return best
}

// infoOf describes a shard as one of its replicas knows it.
func infoOf(r *kvdv1.ReplicaInfo) *kvdv1.ShardInfo {
	info := &kvdv1.ShardInfo{
		Descriptor_: r.Descriptor_, Keys: r.Keys, Bytes: r.Bytes, Load: r.Load, Revision: r.Revision, Term: r.Term,
		SinceMs: r.SinceMs, Asleep: r.Asleep, Reads: r.Reads, Writes: r.Writes,
	}
	if r.Role != roleLeader {
		info.Descriptor_.Leader = 0
	}
	return info
}

// askAll asks every node to describe itself.
func (n *Node) askAll(ctx context.Context, nodes []raftmeta.Node) (answers []*kvdv1.StatusResponse, silent []kv.NodeID) {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	list := make([]*kvdv1.StatusResponse, len(nodes))
	var wait sync.WaitGroup
	for i, x := range nodes {
		wait.Go(func() {
			if x.ID == n.self.Node {
				list[i], _ = n.Local(ctx)
				return
			}
			list[i], _ = n.network.Local(ctx, x.ID)
		})
	}
	wait.Wait()
	for i, st := range list {
		if st == nil {
			silent = append(silent, nodes[i].ID)
		} else {
			answers = append(answers, st)
		}
	}
	return answers, silent
}

// Nodes describes the members.
func (n *Node) Nodes(ctx context.Context) ([]*kvdv1.NodeInfo, error) {
	if _, err := n.freshShards(ctx); err != nil {
		return nil, err
	}
	p := n.meta.Load()
	held := replicasOn(p.shards)
	var list []*kvdv1.NodeInfo
	for _, x := range p.shards.Nodes() {
		info := &kvdv1.NodeInfo{
			Node: nodeToProto(x), State: n.stateOf(p, x), MetaLeader: x.ID == n.metaLeader(), Replicas: uint32(held[x.ID]),
		}
		_, info.MetaVoter = p.shards.Meta().OnNode(x.ID)
		list = append(list, info)
	}
	return list, nil
}

// stateOf tells how a node is, as far as this one can see.
func (n *Node) stateOf(p *published, x raftmeta.Node) string {
	silent := time.Since(n.heard(x.ID))
	switch {
	case x.ID != n.self.Node && silent > p.setting.Duration(raftmeta.DeadAfter):
		return "down"
	case x.ID != n.self.Node && silent > suspectAfter:
		return "suspect"
	case x.Draining:
		return "draining"
	}
	return "up"
}

// Settings lists all settings with their values.
func (n *Node) Settings(context.Context) ([]*kvdv1.Setting, error) {
	p := n.meta.Load()
	if p == nil {
		return nil, n.notServing()
	}
	var list []*kvdv1.Setting
	for _, d := range raftmeta.Definitions {
		list = append(list, &kvdv1.Setting{
			Name: d.Name, Value: p.setting.Value(d.Name), DefaultValue: d.Default, Bound: d.Bound, Help: d.Doc,
		})
	}
	slices.SortFunc(list, func(a, b *kvdv1.Setting) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// SetSetting changes a setting of the cluster; empty sets the default.
func (n *Node) SetSetting(ctx context.Context, name, value string) error {
	if err := raftmeta.CheckSetting(name, value); err != nil {
		return err
	}
	_, err := n.writeMeta(ctx, &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_SetSetting{
		SetSetting: &kvdv1.SettingValue{Name: name, Value: value},
	}})
	return err
}

// Ready is nil when the node serves, has the map from a member of the cluster, and every shard that has a replica here has
// a leader.
func (n *Node) Ready() error {
	if !n.serving.Load() || n.stopping.Load() {
		return n.notServing()
	}
	if n.view(kv.MetaShard) == nil && !n.confirmed.Load() {
		return errors.New("no member of the cluster has given the newest map yet")
	}
	for id, v := range n.locals.Load().shards() {
		if v.state.Load().lead == 0 {
			return fmt.Errorf("shard %d has no leader now", id)
		}
	}
	return nil
}

// Metrics are counts for operators.
type Metrics struct {
	Cache        cache.Metrics
	Log, State   storage.Metrics
	Queued       int64 // Commands accepted and not answered.
	QueuedBytes  int64
	Leaders      int
	Replicas     int
	DiskFree     uint64
	DiskFull     bool
	MemoryBudget int64
}

// Metrics describes the node for operators.
func (n *Node) Metrics() Metrics {
	if !n.serving.Load() {
		return Metrics{}
	}
	return Metrics{
		Cache: n.guard.Metrics(), Log: n.log.Metrics(), State: n.state.Metrics(), Queued: n.budget.writes.waiting.Load(),
		QueuedBytes: n.budget.bytes.Load(), Leaders: n.leads(), Replicas: len(n.locals.Load().shards()), DiskFree: n.disk.free.Load(),
		DiskFull: n.disk.full.Load(), MemoryBudget: n.MemoryBytes,
	}
}

// Stale gives the right descriptor when a request was routed by an old map, else nil.
func (n *Node) Stale(route kv.Route, key []byte) []*kv.Descriptor {
	p := n.meta.Load()
	if p == nil || route.Version == 0 {
		return nil
	}
	d := n.locate(p, key)
	if d.Shard == route.Shard && d.Epoch.Version == route.Version {
		return nil
	}
	list := []*kv.Descriptor{d}
	if d.Shard != route.Shard {
		// What is left of the shard that the key was split off from: else the caller would know nothing of that.
		if rest := n.newest(p, route.Shard); rest != nil && rest.Epoch.Version > route.Version {
			list = append(list, rest)
		}
	}
	return list
}

// newest gives the newest descriptor of a shard that this node knows, nil for none.
func (n *Node) newest(p *published, id kv.ShardID) *kv.Descriptor {
	d, _ := p.shards.Shard(id)
	if v := n.view(id); v != nil {
		if here := v.state.Load().descriptor; d == nil || here.Epoch.Newer(d.Epoch) {
			return here
		}
	}
	return d
}

// Self tells who the node is.
func (n *Node) Self() Self { return n.self }
