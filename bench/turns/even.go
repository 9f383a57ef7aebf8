package turns

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// atOnce is how many leaderships are handed over at the same time.
const atOnce = 16

// Even spreads the leaderships of the shards that hold some keys over the nodes, of all shards without keys: after a start
// they lie where they came to lie.
func (c *Cluster) Even(ctx context.Context, keys [][]byte) error {
	list, err := c.list(ctx)
	if err != nil {
		return err
	}
	if len(keys) > 0 {
		list = holding(list, keys)
	}
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(atOnce)
	for _, h := range handovers(list) {
		all.Go(func() error { return c.handOver(ctx, h) })
	}
	return all.Wait()
}

// handOver carries a hand-over out.
func (c *Cluster) handOver(ctx context.Context, h handover) error {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	if _, err := c.admin.TransferLeader(ctx, &kvdv1.TransferLeaderRequest{Shard: h.shard, ToNode: h.to}); err != nil {
		return fmt.Errorf("hand shard %d over to node %d: %w", h.shard, h.to, err)
	}
	return nil
}

// holding are the shards that hold some keys, in their order.
func holding(list []*kvdv1.ShardInfo, keys [][]byte) (some []*kvdv1.ShardInfo) {
	for _, s := range list {
		d := s.GetDescriptor_()
		span := kv.Span{Start: d.GetStart(), End: d.GetEnd()}
		if slices.ContainsFunc(keys, span.Contains) {
			some = append(some, s)
		}
	}
	return some
}

// handover is a leadership that is to go to a node.
type handover struct{ shard, to uint64 }

// handovers are those after which no node leads more than one shard, or a twentieth of its share, above another, as far as the
// replicas allow.
func handovers(list []*kvdv1.ShardInfo) (moves []handover) {
	leads := map[uint64]int{}
	for _, s := range list {
		for _, r := range s.GetDescriptor_().GetReplicas() {
			leads[r.GetNode()] += 0
		}
		if leader := s.GetDescriptor_().GetLeader(); leader != 0 {
			leads[leader]++
		}
	}
	close := max(len(list)/max(len(leads), 1)/20, 1)
	for _, s := range list {
		from, to := s.GetDescriptor_().GetLeader(), uint64(0)
		for _, r := range s.GetDescriptor_().GetReplicas() {
			if n := r.GetNode(); !r.GetLearner() && (to == 0 || cmp.Or(cmp.Compare(leads[n], leads[to]), cmp.Compare(n, to)) < 0) {
				to = n
			}
		}
		if to != 0 && leads[from]-leads[to] > close {
			leads[from]--
			leads[to]++
			moves = append(moves, handover{s.GetDescriptor_().GetShard(), to})
		}
	}
	return moves
}
