package node

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

// Explain tells another node, or this one, what is remembered here of what happened and, if the meta group is led here,
// what the plan thinks.
func (n *Node) Explain(ctx context.Context, r *kvdv1.ExplainRequest) (*kvdv1.ExplainResponse, error) {
	m, err := n.shards()
	if err != nil {
		return nil, err
	}
	limit := int(min(cmp.Or(r.GetLimit(), kv.EventsDefault), kv.EventsMax))
	resp := &kvdv1.ExplainResponse{Events: n.events.Of(r.GetShard(), r.GetGoal(), limit), MapVersion: m.Version()}
	if n.metaLeader() != n.self.Node {
		return resp, nil
	}
	resp.Leads, resp.NextGoal = true, m.State().GetNextGoal()
	i := slices.IndexFunc(m.State().GetGoals(), func(g *kvdv1.Goal) bool { return g.GetId() == r.GetGoal() })
	shard := r.GetShard()
	if i >= 0 {
		resp.Goal = m.State().GetGoals()[i]
		shard = resp.Goal.GetShard()
	} else if shard != 0 && r.GetGoal() == 0 {
		resp.Goal, _ = m.Goal(kv.ShardID(shard))
	}
	if shard == 0 {
		return resp, nil
	}
	err = n.inLoop(ctx, func(c *Core) { resp.Progress, resp.Verdicts = c.Explain(kv.ShardID(shard)) })
	return resp, err
}

// explainAll asks every node.
func (n *Node) explainAll(ctx context.Context, m *raftmeta.Map, r *kvdv1.ExplainRequest) (all []*kvdv1.ExplainResponse, silent []uint64) {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	nodes := m.Nodes()
	list := make([]*kvdv1.ExplainResponse, len(nodes))
	var wait sync.WaitGroup
	for i, x := range nodes {
		wait.Go(func() {
			if x.ID == n.self.Node {
				list[i], _ = n.Explain(ctx, r)
				return
			}
			own := &kvdv1.ExplainRequest{Shard: r.GetShard(), Goal: r.GetGoal(), Limit: r.GetLimit()}
			list[i], _ = n.network.Explain(ctx, x.ID, own)
		})
	}
	wait.Wait()
	for i, resp := range list {
		if resp == nil {
			silent = append(silent, uint64(nodes[i].ID))
		} else {
			all = append(all, resp)
		}
	}
	return all, silent
}

// plansOf gives the answer of the node that leads the meta group, nil if it did not answer, and the events of all.
func plansOf(all []*kvdv1.ExplainResponse, limit int) (leader *kvdv1.ExplainResponse, events []*kvdv1.Event) {
	lists := make([][]*kvdv1.Event, len(all))
	for i, resp := range all {
		lists[i] = resp.GetEvents()
		if resp.GetLeads() && resp.GetNextGoal() >= leader.GetNextGoal() {
			leader = resp
		}
	}
	return leader, mergeEvents(lists, limit)
}

// Why tells what was decided of a shard.
func (n *Node) Why(ctx context.Context, r *kvdv1.WhyRequest) (*kvdv1.WhyResponse, error) {
	m, err := n.freshShards(ctx)
	if err != nil {
		return nil, err
	}
	d, err := shardOf(m, r.GetShard(), r.GetKey())
	if err != nil {
		return nil, err
	}
	shards, _, err := n.Shards(ctx)
	if err != nil {
		return nil, err
	}
	all, _ := n.explainAll(ctx, m, &kvdv1.ExplainRequest{Shard: uint64(d.Shard)})
	leader, events := plansOf(all, kv.EventsDefault)
	resp := &kvdv1.WhyResponse{Events: events, Goal: leader.GetGoal(), Progress: leader.GetProgress(), Verdicts: leader.GetVerdicts()}
	if leader == nil {
		resp.Goal, _ = m.Goal(d.Shard)
		resp.Progress = n.planless(m)
	}
	for _, s := range shards {
		if s.GetDescriptor_().GetShard() == uint64(d.Shard) {
			resp.Shard = s
		}
	}
	return resp, nil
}

// planless says that the node that leads the meta group did not answer, and for whom that waits.
func (n *Node) planless(m *raftmeta.Map) string {
	return n.waiting(m, &kv.NotLeaderError{Shard: kv.MetaShard, Leader: n.metaLeader()}).Error()
}

// Events lists what was decided and has happened of late.
func (n *Node) Events(ctx context.Context, r *kvdv1.EventsRequest) (*kvdv1.EventsResponse, error) {
	m, err := n.shards()
	if err != nil {
		return nil, err
	}
	if r.GetLimit() > kv.EventsMax {
		return nil, &kv.InvalidError{Field: "limit", Bound: fmt.Sprintf("at most %d, is %d", kv.EventsMax, r.GetLimit())}
	}
	limit := cmp.Or(r.GetLimit(), kv.EventsDefault)
	all, silent := n.explainAll(ctx, m, &kvdv1.ExplainRequest{Shard: r.GetShard(), Limit: limit})
	_, events := plansOf(all, int(limit))
	return &kvdv1.EventsResponse{Events: events, SilentNodes: silent}, nil
}

// GoalStatus tells how far a goal is. Goals that are reached or given up are known from the events; this node's map may
// be older than the goal, then the leader of the meta group tells whether there is such a one.
func (n *Node) GoalStatus(ctx context.Context, r *kvdv1.GoalStatusRequest) (*kvdv1.GoalStatusResponse, error) {
	m, err := n.shards()
	if err != nil {
		return nil, err
	}
	if r.GetGoal() == 0 {
		return nil, &kv.InvalidError{Field: "goal", Bound: "the id of a goal, from 1"}
	}
	all, _ := n.explainAll(ctx, m, &kvdv1.ExplainRequest{Goal: r.GetGoal()})
	leader, events := plansOf(all, kv.EventsMax)
	resp := &kvdv1.GoalStatusResponse{Goal: leader.GetGoal(), Progress: leader.GetProgress()}
	if resp.Goal != nil {
		return resp, nil
	}
	for _, e := range events {
		switch e.GetState() {
		case raftmeta.Happened:
			resp.State, resp.Progress = kvdv1.GoalStatusResponse_DONE, e.GetText()
			return resp, nil
		case raftmeta.GivenUp:
			resp.State, resp.Progress = kvdv1.GoalStatusResponse_GIVEN_UP, e.GetText()
			return resp, nil
		}
	}
	i := slices.IndexFunc(m.State().GetGoals(), func(g *kvdv1.Goal) bool { return g.GetId() == r.GetGoal() })
	switch {
	case leader != nil && leader.GetNextGoal() > r.GetGoal(), leader == nil && i < 0 && m.State().GetNextGoal() > r.GetGoal():
		resp.State = kvdv1.GoalStatusResponse_UNKNOWN_GOAL
	case leader != nil:
		// The leader's map may still be on its way to what it shows.
		resp.Progress = "the meta group has not shown it yet"
	default:
		if i >= 0 {
			resp.Goal = m.State().GetGoals()[i]
		}
		resp.Progress = n.planless(m)
	}
	return resp, nil
}

// Hot lists the hottest shards.
func (n *Node) Hot(ctx context.Context, r *kvdv1.HotRequest) (*kvdv1.HotResponse, error) {
	m, err := n.shards()
	if err != nil {
		return nil, err
	}
	if r.GetLimit() > kv.HotMax {
		return nil, &kv.InvalidError{Field: "limit", Bound: fmt.Sprintf("at most %d, is %d", kv.HotMax, r.GetLimit())}
	}
	answers, silent := n.askAll(ctx, m.Nodes())
	resp := &kvdv1.HotResponse{}
	for _, id := range silent {
		resp.SilentNodes = append(resp.SilentNodes, uint64(id))
	}
	for id, r := range best(answers) {
		if r.GetRole() == roleLeader && id != uint64(kv.MetaShard) {
			keys := r.GetHotKeys()
			resp.Shards = append(resp.Shards, &kvdv1.HotShard{Shard: infoOf(r), Keys: keys[:min(len(keys), kv.HotKeysMax)]})
		}
	}
	slices.SortFunc(resp.Shards, func(a, b *kvdv1.HotShard) int {
		return cmp.Or(cmp.Compare(b.GetShard().GetLoad(), a.GetShard().GetLoad()), cmp.Compare(a.GetShard().GetDescriptor_().GetShard(), b.GetShard().GetDescriptor_().GetShard()))
	})
	limit := int(cmp.Or(r.GetLimit(), kv.HotDefault))
	resp.Shards = resp.Shards[:min(len(resp.Shards), limit)]
	return resp, nil
}

// Explain tells what is being done to reach the goal of a shard, and what the plan thinks of the shard: what it would do,
// and why it does not. Only where the meta group is led there is a plan that knows.
func (c *Core) Explain(shard kv.ShardID) (progress string, verdicts []string) {
	return c.why(shard)
}
