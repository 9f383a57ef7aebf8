package nemesis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/internal/wait"
	"github.com/kvdstore/kvd/kv"
)

const (
	// askMax bounds an operator's request.
	askMax = 5 * time.Second
	// keysMost is how many keys a split chooses among.
	keysMost = 200
)

// goal gives the act of a goal that an operator has set.
func (n *Nemesis) goal(details map[string]any, ask func(ctx context.Context) (*kvdv1.GoalResponse, error)) (*act, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askMax)
	defer cancel()
	resp, err := ask(ctx)
	if err != nil && !errors.Is(err, client.ErrUnknown) {
		return nil, err
	}
	id := resp.GetGoal().GetId()
	details["goal"] = id
	n.mu.Lock()
	n.goals[id] = true
	n.mu.Unlock()
	return &act{details: details, over: func(ctx context.Context) (string, error) {
		if err != nil {
			return "unknown", err
		}
		return n.reached(ctx, id)
	}}, nil
}

// reached waits for the end of a goal.
func (n *Nemesis) reached(ctx context.Context, id uint64) (string, error) {
	outcome := "open"
	for wait.For(ctx, lookEvery) == nil {
		asking, cancel := context.WithTimeout(ctx, askMax)
		st, err := n.Operator.GoalStatus(asking, &kvdv1.GoalStatusRequest{Goal: id})
		cancel()
		if err != nil {
			outcome = "open: " + err.Error()
			continue
		}
		switch st.GetState() {
		case kvdv1.GoalStatusResponse_DONE:
			return "done", nil
		case kvdv1.GoalStatusResponse_GIVEN_UP:
			return "given up: " + st.GetProgress(), nil
		case kvdv1.GoalStatusResponse_UNKNOWN_GOAL:
			return "unknown", nil
		}
		outcome = "open: " + st.GetProgress()
	}
	return outcome, nil
}

// split splits a shard, where kvd chooses or at a key of the workload.
func split(ctx context.Context, n *Nemesis, _ Step, rng *rand.Rand) (*act, error) {
	d, err := n.shard(rng)
	if err != nil {
		return nil, err
	}
	r := &kvdv1.SplitShardRequest{Shard: d.GetShard()}
	if rng.IntN(3) > 0 {
		if r.Key, err = n.key(ctx, spanOf(d), rng); err != nil {
			return nil, err
		}
	}
	return n.goal(map[string]any{"shard": d.GetShard(), "at": kv.FormatKey(r.Key)}, func(ctx context.Context) (*kvdv1.GoalResponse, error) {
		return n.Operator.SplitShard(ctx, r)
	})
}

// key draws one of a shard's keys of the workload, but not its first.
func (n *Nemesis) key(ctx context.Context, of kv.Span, rng *rand.Rand) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	span := n.Span
	if bytes.Compare(of.Start, span.Start) > 0 {
		span.Start = of.Start
	}
	if len(of.End) > 0 && (len(span.End) == 0 || bytes.Compare(of.End, span.End) < 0) {
		span.End = of.End
	}
	var keys [][]byte
	for item, err := range n.Operator.Scan(ctx, client.ScanOptions{Span: span, Limit: keysMost, KeysOnly: true}) {
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(item.Key, of.Start) {
			keys = append(keys, item.Key)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("a key to split at: %w", errNobody)
	}
	return keys[rng.IntN(len(keys))], nil
}

// merge has a shard absorb its right neighbour.
func merge(_ context.Context, n *Nemesis, _ Step, rng *rand.Rand) (*act, error) {
	list := n.view.shardsIn(n.Span)
	if len(list) < 2 {
		return nil, errNobody
	}
	left := list[rng.IntN(len(list)-1)]
	return n.goal(map[string]any{"shard": left.GetShard()}, func(ctx context.Context) (*kvdv1.GoalResponse, error) {
		return n.Operator.MergeShard(ctx, &kvdv1.MergeShardRequest{Shard: left.GetShard()})
	})
}

// move moves a replica to a node that has none of the shard.
func move(_ context.Context, n *Nemesis, _ Step, rng *rand.Rand) (*act, error) {
	d, err := n.shard(rng)
	if err != nil {
		return nil, err
	}
	to := n.stranger(d, rng)
	if to == 0 || len(d.GetReplicas()) == 0 {
		return nil, errNobody
	}
	r := &kvdv1.MoveReplicaRequest{
		Shard: d.GetShard(), FromNode: d.GetReplicas()[rng.IntN(len(d.GetReplicas()))].GetNode(), ToNode: to,
	}
	return n.goal(map[string]any{"shard": r.Shard, "from": n.view.name(r.FromNode), "to": n.view.name(r.ToNode)}, func(ctx context.Context) (*kvdv1.GoalResponse, error) {
		return n.Operator.MoveReplica(ctx, r)
	})
}

func holds(d *kvdv1.Descriptor, node uint64) bool {
	for _, r := range d.GetReplicas() {
		if r.GetNode() == node {
			return true
		}
	}
	return false
}

// transfer hands a shard's leadership to another of its replicas.
func transfer(_ context.Context, n *Nemesis, _ Step, rng *rand.Rand) (*act, error) {
	d, err := n.shard(rng)
	if err != nil {
		return nil, err
	}
	var others []uint64
	for _, r := range d.GetReplicas() {
		if r.GetNode() != d.GetLeader() && !r.GetLearner() {
			others = append(others, r.GetNode())
		}
	}
	if len(others) == 0 {
		return nil, errNobody
	}
	r := &kvdv1.TransferLeaderRequest{Shard: d.GetShard(), ToNode: others[rng.IntN(len(others))]}
	return &act{
		details: map[string]any{"shard": r.Shard, "from": n.view.name(d.GetLeader()), "to": n.view.name(r.ToNode)},
		over: func(ctx context.Context) (string, error) {
			ctx, cancel := context.WithTimeout(ctx, askMax)
			defer cancel()
			_, err := n.Operator.TransferLeader(ctx, r)
			if err != nil {
				return "not done, or unknown", err
			}
			return "done", nil
		},
	}, nil
}

// comeBack splits a shard, moves the new part away from the node that leads both, lets it be written to there, and merges
// the two, which brings the part back to that node.
func comeBack(ctx context.Context, n *Nemesis, s Step, rng *rand.Rand) (*act, error) {
	d, err := n.shard(rng)
	if err != nil {
		return nil, err
	}
	key, err := n.key(ctx, spanOf(d), rng)
	if err != nil {
		return nil, err
	}
	to := n.stranger(d, rng)
	if to == 0 || d.GetLeader() == 0 {
		return nil, errNobody
	}
	details := map[string]any{"shard": d.GetShard(), "at": kv.FormatKey(key), "from": n.view.name(d.GetLeader()), "to": n.view.name(to)}
	return &act{details: details, over: func(ctx context.Context) (string, error) {
		outcome := ""
		for _, step := range []func(ctx context.Context) (*kvdv1.GoalResponse, error){
			func(ctx context.Context) (*kvdv1.GoalResponse, error) {
				return n.Operator.SplitShard(ctx, &kvdv1.SplitShardRequest{Shard: d.GetShard(), Key: key})
			},
			func(ctx context.Context) (*kvdv1.GoalResponse, error) {
				n.look(ctx)
				child := n.at(key)
				return n.Operator.MoveReplica(ctx, &kvdv1.MoveReplicaRequest{Shard: child.GetShard(), FromNode: d.GetLeader(), ToNode: to})
			},
			func(ctx context.Context) (*kvdv1.GoalResponse, error) {
				if err := wait.For(ctx, s.Lasts); err != nil {
					return nil, err
				}
				return n.Operator.MergeShard(ctx, &kvdv1.MergeShardRequest{Shard: d.GetShard()})
			},
		} {
			resp, err := step(ctx)
			if err != nil {
				return outcome, err
			}
			if outcome, err = n.reached(ctx, resp.GetGoal().GetId()); err != nil || outcome != "done" {
				return outcome, err
			}
		}
		return outcome, nil
	}}, nil
}

// at is the shard that begins at a key, as far as is known; nil if there is none.
func (n *Nemesis) at(key []byte) *kvdv1.Descriptor {
	for _, d := range n.view.shardsIn(n.Span) {
		if bytes.Equal(d.GetStart(), key) {
			return d
		}
	}
	return nil
}

// stranger draws a node that runs and has no replica of a shard, but for some; 0 if there is none.
func (n *Nemesis) stranger(d *kvdv1.Descriptor, rng *rand.Rand, but ...string) uint64 {
	var others []uint64
	for _, name := range n.running(rng) {
		if id := n.view.id(name); id != 0 && !holds(d, id) && !slices.Contains(but, name) {
			others = append(others, id)
		}
	}
	if len(others) == 0 {
		return 0
	}
	return others[rng.IntN(len(others))]
}
