package nemesis

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/kvdstore/kvd/internal/wait"
	"github.com/kvdstore/kvd/jepsen/cluster"
)

const (
	// tailEntries is how many writes a leader that is cut off is asked for, one each tailEvery, and tailMax bounds each.
	tailEntries, tailEvery, tailMax = 250, 2 * time.Millisecond, time.Second
	// nextEntries is how many its successor does, each within nextMax.
	nextEntries, nextMax = 40, 300 * time.Millisecond
	// truncatesIn is the time in which the successor's log is cut to what clusters of hasty runs keep of it.
	truncatesIn = 300 * time.Millisecond
)

// longTail cuts a leader off, has it propose what cannot be committed, and lets it come back when its successor has done less than
// that, and has nothing of it in its log any more: it gets a snapshot that ends below its own log's end. What is proposed
// changes nothing: deletions of a key that nobody has written.
func longTail(_ context.Context, n *Nemesis, _ Step, rng *rand.Rand) (*act, error) {
	d, err := n.shard(rng)
	if err != nil {
		return nil, err
	}
	leader, names := n.view.name(d.GetLeader()), n.running(rng)
	others := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == leader })
	if len(others) < 2 || len(others) == len(names) {
		return nil, errNobody
	}
	if err := n.Cluster.Cut(cluster.Apart([]string{leader}, others)); err != nil {
		return nil, err
	}
	key := append(bytes.Clone(d.GetStart()), '!')
	return &act{nodes: []string{leader}, details: map[string]any{"shape": "tail", "shard": d.GetShard()}, over: func(ctx context.Context) (string, error) {
		n.propose(ctx, key)
		for done := 0; done < nextEntries && ctx.Err() == nil; {
			if n.deletes(ctx, key, nextMax) == nil {
				done++
			}
		}
		err := wait.For(ctx, truncatesIn)
		if again := n.Cluster.Cut(nil); err == nil {
			err = again
		}
		return "done", err
	}}, nil
}

// propose asks for many writes, and waits for their ends.
func (n *Nemesis) propose(ctx context.Context, key []byte) {
	var all sync.WaitGroup
	defer all.Wait()
	for range tailEntries {
		all.Go(func() { _ = n.deletes(ctx, key, tailMax) }) // They are not to be done.
		if wait.For(ctx, tailEvery) != nil {
			return
		}
	}
}

func (n *Nemesis) deletes(ctx context.Context, key []byte, most time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	_, err := n.Operator.Delete(ctx, key)
	return err
}
