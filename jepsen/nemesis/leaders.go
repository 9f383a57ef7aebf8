package nemesis

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/internal/wait"
	"github.com/kvdstore/kvd/jepsen/cluster"
)

// Faults that befall a leader which does not notice in time: what others say to it comes late.

const (
	// lateMin and lateMax are how late, less than the promises of followers run.
	lateMin, lateMax = 200 * time.Millisecond, 700 * time.Millisecond
	// answersAfter is how long it is so before the next thing happens.
	answersAfter = time.Second
	// transfersMost bounds the hand-overs at a time.
	transfersMost = 8
)

// late makes what the others say to a leader late, and gives it and them.
func (n *Nemesis) late(rng *rand.Rand) (leader string, others []string, how cluster.Slowness, err error) {
	leaders := n.view.leaders(n.Span)
	names := n.running(rng)
	if len(leaders) == 0 || len(names) < 2 {
		return "", nil, how, errNobody
	}
	leader = leaders[rng.IntN(len(leaders))]
	others = slices.DeleteFunc(names, func(name string) bool { return name == leader })
	how.Delay = lateMin + time.Duration(rng.Int64N(int64(lateMax-lateMin)))
	all := map[cluster.Link]cluster.Slowness{}
	for _, k := range cluster.Between(others, []string{leader}) {
		all[k] = how
	}
	n.Cluster.Slow(all)
	return leader, others, how, nil
}

// lateAnswers: what others answer to a leader comes late, and then they do not hear it any more.
func lateAnswers(_ context.Context, n *Nemesis, s Step, rng *rand.Rand) (*act, error) {
	leader, others, how, err := n.late(rng)
	if err != nil {
		return nil, err
	}
	return &act{nodes: []string{leader}, details: map[string]any{"delay_ms": how.Delay.Milliseconds()}, over: func(ctx context.Context) (string, error) {
		defer n.Cluster.Slow(nil)
		err := wait.For(ctx, answersAfter)
		if err == nil {
			err = n.Cluster.Cut(cluster.Between([]string{leader}, others))
		}
		if err == nil {
			err = wait.For(ctx, answersAfter+s.Lasts)
		}
		if again := n.Cluster.Cut(nil); err == nil {
			err = again
		}
		return "done", err
	}}, nil
}

// lateTransfers: a leader hands over what it leads while it hears late of those that lead next.
func lateTransfers(_ context.Context, n *Nemesis, s Step, rng *rand.Rand) (*act, error) {
	leader, _, how, err := n.late(rng)
	if err != nil {
		return nil, err
	}
	var requests []*kvdv1.TransferLeaderRequest
	for _, d := range n.view.shardsIn(n.Span) {
		for _, r := range d.GetReplicas() {
			if n.view.name(d.GetLeader()) == leader && r.GetNode() != d.GetLeader() && !r.GetLearner() && len(requests) < transfersMost {
				requests = append(requests, &kvdv1.TransferLeaderRequest{Shard: d.GetShard(), ToNode: r.GetNode()})
				break
			}
		}
	}
	details := map[string]any{"delay_ms": how.Delay.Milliseconds(), "shards": len(requests)}
	return &act{nodes: []string{leader}, details: details, over: func(ctx context.Context) (string, error) {
		defer n.Cluster.Slow(nil)
		if err := wait.For(ctx, answersAfter); err != nil {
			return "", err
		}
		ctx, cancel := context.WithTimeout(ctx, askMax)
		defer cancel()
		var all sync.WaitGroup
		for _, r := range requests {
			all.Go(func() { _, _ = n.Operator.TransferLeader(ctx, r) }) // What became of it, the cluster's events tell.
		}
		all.Wait()
		return "done", wait.For(ctx, s.Lasts)
	}}, nil
}
