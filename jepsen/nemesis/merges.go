package nemesis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

const (
	// rambleEntries of rambleBytes are more than a node applies in some turns when it starts anew; ramblers ask for them at once.
	rambleEntries, rambleBytes, ramblers = 2000, 3 << 10, 32
	// mergedFor is how long a merge may take to come to a node that is to end then.
	mergedFor = 8 * time.Second
)

// longMerge: the right shard's log gets long, and nobody makes its state durable; then it is merged, and the first node that has
// applied that ends, and starts again with its state as it was long before: of the right shard there is much to be applied again, and of
// the left one little.
func longMerge(_ context.Context, n *Nemesis, _ Step, rng *rand.Rand) (*act, error) {
	list := n.view.shardsIn(n.Span)
	if len(list) < 2 {
		return nil, errNobody
	}
	i := rng.IntN(len(list) - 1)
	left, right := list[i], list[i+1]
	return &act{details: map[string]any{"shard": left.GetShard(), "right": right.GetShard()}, over: func(ctx context.Context) (string, error) {
		if _, err := n.Operator.SetSetting(ctx, logKeep, fmt.Sprint(logKeepMost)); err != nil {
			return "", err
		}
		n.ramble(ctx, right)
		end, err := crash(ctx, n, Step{Fault: "crash:removal-unsynced", Lasts: mergedFor}, rng)
		if err != nil {
			return "", err
		}
		resp, err := n.Operator.MergeShard(ctx, &kvdv1.MergeShardRequest{Shard: left.GetShard()})
		n.own(resp.GetGoal().GetId())
		outcome, ended := end.over(ctx)
		if err := errors.Join(err, ended); err != nil {
			return outcome, err
		}
		return n.reached(ctx, resp.GetGoal().GetId())
	}}, nil
}

// ramble has a shard's log get longer by commands that change nothing: keys are deleted that are not there.
func (n *Nemesis) ramble(ctx context.Context, d *kvdv1.Descriptor) {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	key := slices.Concat(d.GetStart(), []byte("!"), bytes.Repeat([]byte("."), rambleBytes))
	var all sync.WaitGroup
	for range ramblers {
		all.Go(func() {
			for i := 0; i < rambleEntries/ramblers && ctx.Err() == nil; i++ {
				_, _ = n.Operator.Delete(ctx, key) // Whatever became of it.
			}
		})
	}
	all.Wait()
}
