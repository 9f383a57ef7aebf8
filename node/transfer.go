package node

import (
	"context"
	"fmt"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// transferPause is between two looks whether a leadership has gone over.
const transferPause = 100 * time.Millisecond

// stillError tells that a leadership has not gone over in time. It is not done: what a leader hands over it has until then.
type stillError struct {
	to  string
	err *kv.NotLeaderError
}

func (e *stillError) Error() string {
	return fmt.Sprintf("%v still: %s has not taken it over; it may be behind, or not be heard of", e.err, e.to)
}
func (e *stillError) Unwrap() error { return e.err }

// TransferLeader asks the leader of a shard, again and again, to hand the leadership to a node, until that one leads or
// the deadline comes.
func (n *Node) TransferLeader(ctx context.Context, r *kvdv1.TransferLeaderRequest) (*kvdv1.TransferLeaderResponse, error) {
	to := kv.NodeID(r.GetToNode())
	if _, err := n.freshShards(ctx); err != nil {
		return nil, err
	}
	for a := (attempts{n: n, until: patience(kv.Route{})}); ; {
		m, err := n.shards()
		if err != nil {
			return nil, err
		}
		d, err := shardOf(m, r.GetShard(), nil)
		if err != nil {
			return nil, err
		}
		if _, err := voterOn(m, d, "to_node", r.GetToNode()); err != nil {
			return nil, err
		}
		if r.GetDryRun() {
			return &kvdv1.TransferLeaderResponse{Leader: uint64(n.Leader(d.Shard))}, nil
		}
		leader := a.next(d)
		order := &kvdv1.Order{Shard: uint64(d.Shard), Epoch: wire.FromEpoch(d.Epoch), Step: &kvdv1.Order_Transfer{Transfer: r.GetToNode()}}
		err = n.orderTo(ctx, d, leader, order)
		switch {
		case err == nil && (leader == to || r.GetNoWait()):
			return &kvdv1.TransferLeaderResponse{Leader: uint64(leader)}, nil
		case err == nil:
			// It is asked for: the next attempt sees what came of it.
			a.until = patience(kv.Route{})
			if !n.sleep(ctx, transferPause) {
				return nil, &stillError{nodeName(m, to), &kv.NotLeaderError{Shard: d.Shard, Leader: leader}}
			}
		case !a.again(ctx, err):
			return nil, err
		}
	}
}

// sleep waits; it is false when the context would end first, with no time left for an answer.
func (n *Node) sleep(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < d+answerReserve {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return !n.stopping.Load()
	}
}

// orderTo gives an order to a node, or to this one.
func (n *Node) orderTo(ctx context.Context, d *kv.Descriptor, to kv.NodeID, o *kvdv1.Order) error {
	if to == n.self.Node {
		_, _, err := n.forwardedOrder(o)
		return err
	}
	_, err := n.forwardRead(ctx, d, &kvdv1.ForwardRequest{Request: &kvdv1.ForwardRequest_Order{Order: o}}, to)
	return err
}

// forwardedOrder takes an order if its shard is led here: only that of a transfer, everything else is the plan's. Asked
// to hand the leadership to itself, a leader has nothing to do.
func (n *Node) forwardedOrder(o *kvdv1.Order) (*kvdv1.ForwardResponse, wire.Op, error) {
	if o.GetTransfer() == 0 {
		return nil, wire.Read, &kv.InvalidError{Field: "order", Bound: "the transfer of a leadership"}
	}
	id := kv.ShardID(o.GetShard())
	v := n.view(id)
	if v == nil {
		return nil, wire.Read, &kv.NotLeaderError{Shard: id}
	}
	s := v.state.Load()
	switch {
	case !s.leader:
		return nil, wire.Read, &kv.NotLeaderError{Shard: id, Leader: s.lead}
	case s.descriptor.Epoch != wire.ToEpoch(o.GetEpoch()):
		return nil, wire.Read, &kv.StaleEpochError{Descriptors: []*kv.Descriptor{s.descriptor}}
	case kv.NodeID(o.GetTransfer()) != n.self.Node:
		n.order(o)
	}
	return &kvdv1.ForwardResponse{Header: wire.FromHeader(kv.Header{Shard: id, Epoch: s.descriptor.Epoch, Node: n.self.Node})}, wire.Read, nil
}

// order has the loop follow an order.
func (n *Node) order(o *kvdv1.Order) {
	n.inbox.add(func(in *Input) {
		if len(in.Calls) < kv.LoopCallsMax {
			in.Calls = append(in.Calls, func(c *Core) { c.obey(o) })
		}
	})
}
