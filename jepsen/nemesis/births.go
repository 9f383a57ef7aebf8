package nemesis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/jepsen/cluster"
	"github.com/kvdstore/kvd/kv"
)

// Faults that befall the leader of a shard which is split: its replica of the new shard is the heir, which is elected in spite of the
// promises that the others have just made.

// splitSlowly splits a shard whose leader's disk is slow: the others have applied the split long before it has.
func splitSlowly(ctx context.Context, n *Nemesis, _ Step, rng *rand.Rand) (*act, error) {
	d, key, leader, err := n.parent(ctx, rng)
	if err != nil {
		return nil, err
	}
	disk, err := n.disk([]string{leader}, map[string]any{"slow": between(rng, 20*time.Millisecond, 80*time.Millisecond).String()})
	if err != nil {
		return nil, err
	}
	disk.details["shard"], disk.details["at"] = d.GetShard(), kv.FormatKey(key)
	return &act{nodes: disk.nodes, details: disk.details, over: func(ctx context.Context) (string, error) {
		outcome, err := n.splitAt(ctx, d, key)
		return outcome, errors.Join(err, disk.undo(context.WithoutCancel(ctx)))
	}}, nil
}

// splitAndTransfer splits off keys that are not those of the workload, and has the heir hand the new shard over. Then the two do not hear
// each other any more, until the heir has stood for election again. Its log must be no shorter than that of the others, so nobody writes
// there; but somebody reads, and who leads has a lease.
func splitAndTransfer(ctx context.Context, n *Nemesis, s Step, rng *rand.Rand) (*act, error) {
	n.look(ctx)
	key := fmt.Append(bytes.Clone(n.Idle.Start), rng.Uint64())
	d := n.holder(key)
	leader, next := n.view.name(d.GetLeader()), heir(d)
	if leader == "" || next == 0 {
		return nil, errNobody
	}
	details := map[string]any{"shard": d.GetShard(), "at": kv.FormatKey(key), "to": n.view.name(next)}
	return &act{nodes: []string{leader}, details: details, over: func(ctx context.Context) (string, error) {
		if outcome, err := n.splitAt(ctx, d, key); err != nil || outcome != "done" {
			return outcome, err
		}
		n.look(ctx)
		r := &kvdv1.TransferLeaderRequest{Shard: n.holder(key).GetShard(), ToNode: next}
		if _, err := n.Operator.TransferLeader(ctx, r); err != nil {
			return "not handed over", err
		}
		return "done", n.rejoin(inTurn(ctx,
			func(context.Context) error {
				return n.Cluster.Cut(cluster.Apart([]string{leader}, []string{n.view.name(next)}))
			},
			func(ctx context.Context) error {
				reading, stop := context.WithTimeout(ctx, lonelyFor+s.Lasts)
				defer stop()
				n.read(reading, key)
				return ctx.Err()
			},
		))
	}}, nil
}

// holder is the shard that holds a key, as far as is known; nil if none is.
func (n *Nemesis) holder(key []byte) *kvdv1.Descriptor {
	list := n.view.shardsIn(kv.Span{Start: key, End: append(bytes.Clone(key), 0)})
	if len(list) == 0 {
		return nil
	}
	return list[0]
}

// parent draws a shard that has a leader, and a key to split it at.
func (n *Nemesis) parent(ctx context.Context, rng *rand.Rand) (d *kvdv1.Descriptor, key []byte, leader string, err error) {
	if d, err = n.shard(rng); err != nil {
		return nil, nil, "", err
	}
	if leader = n.view.name(d.GetLeader()); leader == "" {
		return nil, nil, "", errNobody
	}
	key, err = n.key(ctx, spanOf(d), rng)
	return d, key, leader, err
}

// splitAt splits a shard and waits for the end of that.
func (n *Nemesis) splitAt(ctx context.Context, d *kvdv1.Descriptor, key []byte) (outcome string, err error) {
	resp, err := n.Operator.SplitShard(ctx, &kvdv1.SplitShardRequest{Shard: d.GetShard(), Key: key})
	if err != nil {
		return "", err
	}
	return n.reached(ctx, resp.GetGoal().GetId())
}
