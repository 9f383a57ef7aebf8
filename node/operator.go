package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

// What an operator wants changed is a goal in the metadata, like what the plan decides. It is looked at here, where the
// caller hears what is wrong with it, and once more by the meta group, which alone knows the newest map.

const (
	// goalPause is before a goal whose end is not known is tried again.
	goalPause = 50 * time.Millisecond
	// byOperator is why an operator's goals are there.
	byOperator = "an operator asked for it"
)

// shards gives the map that this node has.
func (n *Node) shards() (*raftmeta.Map, error) {
	p := n.meta.Load()
	if p == nil || !n.serving.Load() {
		return nil, n.notServing()
	}
	return p.shards, nil
}

// freshShards gives the map, at least as new as the node that leads the meta group has it when the call begins: what was
// done a moment ago through another node is in it. A node that was deposed and does not know it yet may tell of an older one;
// what is to be changed the meta group judges again. While none of the group's nodes answers, it is the map that this node has.
func (n *Node) freshShards(ctx context.Context) (*raftmeta.Map, error) {
	m, err := n.shards()
	if err != nil {
		return nil, err
	}
	wait := askMax
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)/3) // The rest is for what is asked.
	}
	newest := n.newestVersion(ctx, m, wait)
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for ctx.Err() == nil {
		p := n.meta.Load()
		if p.shards.Version() >= newest {
			break
		}
		select {
		case <-p.newer:
		case <-ctx.Done():
		}
	}
	return n.meta.Load().shards, nil
}

// newestVersion gives the newest version of the map that the nodes of the meta group tell of in time: all that are not silent
// are asked, since who leads may not be known here, or wrongly, and the answer of the one that does is enough.
func (n *Node) newestVersion(ctx context.Context, m *raftmeta.Map, wait time.Duration) uint64 {
	newest := m.Version()
	if n.metaLeader() == n.self.Node {
		return newest
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	var under sync.WaitGroup
	defer under.Wait()
	defer cancel()
	answers, asked := make(chan *kvdv1.ExplainResponse), 0
	for _, r := range m.Meta().Replicas {
		if r.Node == n.self.Node || n.silent(r.Node) {
			continue
		}
		asked++
		under.Go(func() {
			resp, _ := n.network.Explain(ctx, r.Node, &kvdv1.ExplainRequest{Limit: 1})
			select {
			case answers <- resp:
			case <-ctx.Done():
			}
		})
	}
	for range asked {
		select {
		case resp := <-answers:
			if newest = max(newest, resp.GetMapVersion()); resp.GetLeads() && resp.GetMapVersion() == newest {
				return newest
			}
		case <-ctx.Done():
			return newest
		}
	}
	return newest
}

// shardOf finds a shard by its id, or with 0 by a key; field names the id.
func shardOf(m *raftmeta.Map, id uint64, key []byte) (*kv.Descriptor, error) {
	if id == 0 && len(key) == 0 {
		return nil, &kv.InvalidError{Field: "shard", Bound: "the id of a shard, or 0 and a key"}
	}
	if len(key) > 0 {
		if err := kv.CheckKey("key", key); err != nil {
			return nil, err
		}
	}
	if id == 0 {
		return m.Lookup(key), nil
	}
	d, ok := m.Shard(kv.ShardID(id))
	if !ok {
		return nil, &kv.InvalidError{Field: "shard", Bound: fmt.Sprintf("the id of a shard; there is no shard %d", id)}
	}
	return d, nil
}

// free refuses a shard that takes part in a goal already.
func free(m *raftmeta.Map, shard kv.ShardID) error {
	if g, ok := m.Goal(shard); ok {
		return &kv.InvalidError{Field: "shard", Bound: fmt.Sprintf("one without a goal; shard %d has goal %d, %s", shard, g.GetId(), describeGoal(m, g))}
	}
	return nil
}

// SplitShard sets the goal of a split.
func (n *Node) SplitShard(ctx context.Context, r *kvdv1.SplitShardRequest) (*kvdv1.GoalResponse, error) {
	m, err := n.freshShards(ctx)
	if err != nil {
		return nil, err
	}
	d, err := shardOf(m, r.GetShard(), r.GetKey())
	if err != nil {
		return nil, err
	}
	if key := r.GetKey(); len(key) > 0 {
		switch {
		case !d.Span.Contains(key):
			return nil, &kv.InvalidError{Field: "key", Bound: fmt.Sprintf("in shard %d, which is %v", d.Shard, d.Span)}
		case bytes.Equal(key, d.Span.Start):
			return nil, &kv.InvalidError{Field: "key", Bound: fmt.Sprintf("after the first of its shard; shard %d begins there", d.Shard)}
		}
	}
	if len(m.Descriptors()) >= kv.ShardsMax {
		return nil, &kv.InvalidError{Field: "shard", Bound: fmt.Sprintf("one of at most %d", kv.ShardsMax)}
	}
	return n.setGoal(ctx, m, d, r.GetDryRun(), &kvdv1.Goal{Goal: &kvdv1.Goal_Split{Split: &kvdv1.SplitGoal{Key: r.GetKey()}}})
}

// MergeShard sets the goal of a merge with the right neighbour.
func (n *Node) MergeShard(ctx context.Context, r *kvdv1.MergeShardRequest) (*kvdv1.GoalResponse, error) {
	m, err := n.freshShards(ctx)
	if err != nil {
		return nil, err
	}
	d, err := shardOf(m, r.GetShard(), nil)
	if err != nil {
		return nil, err
	}
	if len(d.Span.End) == 0 {
		return nil, &kv.InvalidError{Field: "shard", Bound: fmt.Sprintf("one with a right neighbour; shard %d is the last", d.Shard)}
	}
	right := m.Lookup(d.Span.End)
	if err := free(m, right.Shard); err != nil {
		return nil, err
	}
	return n.setGoal(ctx, m, d, r.GetDryRun(), &kvdv1.Goal{Goal: &kvdv1.Goal_Merge{Merge: &kvdv1.MergeGoal{Right: uint64(right.Shard)}}})
}

// MoveReplica sets the goal of a move.
func (n *Node) MoveReplica(ctx context.Context, r *kvdv1.MoveReplicaRequest) (*kvdv1.GoalResponse, error) {
	m, err := n.freshShards(ctx)
	if err != nil {
		return nil, err
	}
	d, err := shardOf(m, r.GetShard(), nil)
	if err != nil {
		return nil, err
	}
	if _, err := voterOn(m, d, "from_node", r.GetFromNode()); err != nil {
		return nil, err
	}
	to, err := memberOf(m, "to_node", r.GetToNode())
	if err != nil {
		return nil, err
	}
	if _, holds := d.OnNode(to.ID); holds {
		return nil, &kv.InvalidError{Field: "to_node", Bound: fmt.Sprintf("a node without a replica of shard %d; %s has one", d.Shard, nodeName(m, to.ID))}
	}
	if to.Draining {
		return nil, &kv.InvalidError{Field: "to_node", Bound: fmt.Sprintf("a node that is not draining; %s is", nodeName(m, to.ID))}
	}
	return n.setGoal(ctx, m, d, r.GetDryRun(), &kvdv1.Goal{Goal: &kvdv1.Goal_Replicas{Replicas: &kvdv1.ReplicasGoal{
		Add: []*kvdv1.Replica{{Node: r.GetToNode()}}, Remove: []uint64{r.GetFromNode()},
	}}})
}

// voterOn gives the replica of a shard that votes on a node.
func voterOn(m *raftmeta.Map, d *kv.Descriptor, field string, node uint64) (kv.Replica, error) {
	if _, err := memberOf(m, field, node); err != nil {
		return kv.Replica{}, err
	}
	r, holds := d.OnNode(kv.NodeID(node))
	if !holds || r.Learner || r.Outgoing {
		var voters []string
		for _, r := range d.Replicas {
			if !r.Learner && !r.Outgoing {
				voters = append(voters, nodeName(m, r.Node))
			}
		}
		return kv.Replica{}, &kv.InvalidError{Field: field, Bound: fmt.Sprintf("a node with a voting replica of shard %d; %s", d.Shard, listed(voters, "has one", "have one"))}
	}
	return r, nil
}

// memberOf finds a node by its id.
func memberOf(m *raftmeta.Map, field string, id uint64) (raftmeta.Node, error) {
	x, ok := m.Node(kv.NodeID(id))
	if !ok {
		return raftmeta.Node{}, &kv.InvalidError{Field: field, Bound: fmt.Sprintf("the id of a node; there is no node %d", id)}
	}
	return x, nil
}

// setGoal has the meta group set a goal, unless it is a dry run. A goal whose end is not known is tried again: a shard
// has one goal at a time, so it is not set twice.
func (n *Node) setGoal(ctx context.Context, m *raftmeta.Map, d *kv.Descriptor, dryRun bool, g *kvdv1.Goal) (*kvdv1.GoalResponse, error) {
	if err := free(m, d.Shard); err != nil {
		return nil, err
	}
	g.Shard, g.Epoch, g.ByOperator, g.Reason = uint64(d.Shard), wire.FromEpoch(d.Epoch), true, byOperator
	resp := &kvdv1.GoalResponse{Goal: g, Steps: steps(m, d, g, n.Leader(d.Shard))}
	if dryRun {
		return resp, nil
	}
	next := m.State().GetNextGoal()
	for tried := false; ; tried = true {
		result, err := n.writeMeta(ctx, &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_SetGoal{SetGoal: g}})
		if err == nil {
			resp.Goal = proto.CloneOf(g)
			resp.Goal.Id = uint64(result.GetCounter())
			return resp, nil
		}
		if tried && errors.As(err, new(*kv.InvalidError)) {
			// The first attempt may be what is in the way.
			if set := n.sameGoal(g, next); set != nil {
				resp.Goal = set
				return resp, nil
			}
		}
		deadline, ok := ctx.Deadline()
		if !errors.Is(err, kv.ErrUnknown) || !ok || time.Until(deadline) < goalPause+answerReserve {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(goalPause):
		}
	}
}

// sameGoal finds a goal in the metadata that asks for the same, and is none of those before next.
func (n *Node) sameGoal(g *kvdv1.Goal, next uint64) *kvdv1.Goal {
	m := n.meta.Load().shards
	set, ok := m.Goal(kv.ShardID(g.GetShard()))
	if !ok || set.GetId() < next || !set.GetByOperator() || set.GetShard() != g.GetShard() || describeGoal(m, set) != describeGoal(m, g) {
		return nil
	}
	return set
}

// SetDraining begins or ends the draining of a node.
func (n *Node) SetDraining(ctx context.Context, r *kvdv1.SetDrainingRequest) (*kvdv1.SetDrainingResponse, error) {
	m, err := n.freshShards(ctx)
	if err != nil {
		return nil, err
	}
	x, err := memberOf(m, "node", r.GetNode())
	if err != nil {
		return nil, err
	}
	others := slices.ContainsFunc(m.Nodes(), func(o raftmeta.Node) bool { return o.ID != x.ID && !o.Draining })
	if r.GetDraining() && !others {
		return nil, &kv.InvalidError{Field: "node", Bound: "one beside which another stays that is not draining"}
	}
	resp := &kvdv1.SetDrainingResponse{Replicas: uint32(replicasOn(m)[x.ID])}
	if x.Draining == r.GetDraining() {
		return resp, nil
	}
	_, err = n.writeMeta(ctx, &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_SetDraining{
		SetDraining: &kvdv1.SetDraining{Node: r.GetNode(), Draining: r.GetDraining()},
	}})
	return resp, err
}

// RemoveNode forgets a node that holds no replicas.
func (n *Node) RemoveNode(ctx context.Context, r *kvdv1.RemoveNodeRequest) (*kvdv1.RemoveNodeResponse, error) {
	m, err := n.freshShards(ctx)
	if err != nil {
		return nil, err
	}
	x, err := memberOf(m, "node", r.GetNode())
	if err != nil {
		return nil, err
	}
	if held := replicasOn(m)[x.ID]; held > 0 {
		return nil, &kv.InvalidError{Field: "node", Bound: fmt.Sprintf("one without replicas, drained before; %s holds %d", nodeName(m, x.ID), held)}
	}
	_, err = n.writeMeta(ctx, &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_RemoveNode{RemoveNode: &kvdv1.RemoveNode{Node: r.GetNode()}}})
	return &kvdv1.RemoveNodeResponse{}, err
}

// replicasOn counts the replicas of each node by the map, those of the meta group too.
func replicasOn(m *raftmeta.Map) map[kv.NodeID]int {
	count := map[kv.NodeID]int{}
	for _, d := range append([]*kv.Descriptor{m.Meta()}, m.Descriptors()...) {
		for _, r := range d.Replicas {
			count[r.Node]++
		}
	}
	return count
}

// Rules lists the placement rules.
func (n *Node) Rules(ctx context.Context, _ *kvdv1.RulesRequest) (*kvdv1.RulesResponse, error) {
	m, err := n.freshShards(ctx)
	if err != nil {
		return nil, err
	}
	return &kvdv1.RulesResponse{Rules: m.State().GetRules()}, nil
}

// SetRule sets the rule of a prefix or, without regions, removes it.
func (n *Node) SetRule(ctx context.Context, r *kvdv1.SetRuleRequest) (*kvdv1.SetRuleResponse, error) {
	m, err := n.freshShards(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkRule(m, r.GetRule()); err != nil {
		return nil, err
	}
	_, err = n.writeMeta(ctx, &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_SetRule{SetRule: r.GetRule()}})
	return &kvdv1.SetRuleResponse{}, err
}

// checkRule refuses a rule that breaks a bound, or that is to be removed and is not there. Its regions need have no node
// yet.
func checkRule(m *raftmeta.Map, r *kvdv1.Rule) error {
	known := slices.ContainsFunc(m.Rules(), func(x *kvdv1.Rule) bool { return bytes.Equal(x.GetPrefix(), r.GetPrefix()) })
	switch {
	case len(r.GetPrefix()) > kv.KeyBytesMax:
		return &kv.InvalidError{Field: "prefix", Bound: fmt.Sprintf("at most %d bytes, has %d", kv.KeyBytesMax, len(r.GetPrefix()))}
	case len(r.GetRegions()) == 0 && !known:
		return &kv.InvalidError{Field: "prefix", Bound: fmt.Sprintf("that of a rule; there is none of %s", kv.FormatKey(r.GetPrefix()))}
	case len(r.GetRegions()) > raftmeta.RuleRegionsMax:
		return &kv.InvalidError{Field: "regions", Bound: fmt.Sprintf("at most %d, are %d", raftmeta.RuleRegionsMax, len(r.GetRegions()))}
	case !known && len(m.Rules()) >= kv.RulesMax:
		return &kv.InvalidError{Field: "rules", Bound: fmt.Sprintf("at most %d", kv.RulesMax)}
	case r.GetLeader() != "" && !slices.Contains(r.GetRegions(), r.GetLeader()):
		return &kv.InvalidError{Field: "leader", Bound: fmt.Sprintf("one of the rule's regions, is %q", r.GetLeader())}
	}
	for i, region := range r.GetRegions() {
		if region == "" || len(region) > raftmeta.NameBytesMax || slices.Contains(r.Regions[:i], region) {
			return &kv.InvalidError{Field: "regions", Bound: fmt.Sprintf("names of 1 to %d bytes, each once, one is %q", raftmeta.NameBytesMax, region)}
		}
	}
	return nil
}
