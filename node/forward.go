package node

import (
	"context"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
	"github.com/kvdstore/kvd/shard"
)

// Forward answers a request of another node, and never passes it on.
func (n *Node) Forward(ctx context.Context, r *kvdv1.ForwardRequest) *kvdv1.ForwardResponse {
	resp, op, err := n.forwarded(ctx, r)
	if err != nil {
		return &kvdv1.ForwardResponse{Error: wire.FromError(op, err, n.NodeAddress)}
	}
	return resp
}

func (n *Node) forwarded(ctx context.Context, r *kvdv1.ForwardRequest) (*kvdv1.ForwardResponse, wire.Op, error) {
	p := n.meta.Load()
	if p == nil || !n.serving.Load() {
		return nil, wire.Read, n.notServing()
	}
	switch r := r.Request.(type) {
	case *kvdv1.ForwardRequest_Get:
		g, err := n.getHere(ctx, n.locate(p, r.Get.GetKey()).Shard, r.Get.GetKey(), n.reader.Look)
		resp := &kvdv1.ForwardResponse{Header: wire.FromHeader(g.Header)}
		if g.Found {
			resp.Response = &kvdv1.ForwardResponse_Found{Found: &kvdv1.KeyValue{
				Key: r.Get.GetKey(), Value: g.Record.Value, Revision: uint64(g.Record.Revision), ExpireAtMs: g.Record.ExpireAt,
			}}
		}
		return resp, wire.Read, err
	case *kvdv1.ForwardRequest_Scan:
		return n.forwardedScan(ctx, p, r.Scan)
	case *kvdv1.ForwardRequest_Write:
		return n.forwardedWrite(ctx, r.Write)
	case *kvdv1.ForwardRequest_Meta:
		return n.forwardedMeta(ctx, r.Meta)
	case *kvdv1.ForwardRequest_Order:
		return n.forwardedOrder(r.Order)
	}
	return nil, wire.Read, kv.ErrUnsupported
}

func (n *Node) forwardedScan(ctx context.Context, p *published, s *kvdv1.ForwardScan) (*kvdv1.ForwardResponse, wire.Op, error) {
	id := n.locate(p, s.GetStart()).Shard
	v := n.view(id)
	if v == nil {
		return nil, wire.Read, &kv.NotLeaderError{Shard: id}
	}
	chunk, err := n.scanHere(ctx, v, kv.ScanRequest{
		Span: kv.Span{Start: s.GetStart(), End: s.GetEnd()}, Limit: int(s.GetLimit()), KeysOnly: s.GetKeysOnly(), Bytes: int(min(s.GetBytes(), kv.ScanChunkBytes)),
	})
	if err != nil {
		return nil, wire.Read, err
	}
	out := &kvdv1.ScanResponse{Resume: chunk.Resume}
	for _, item := range chunk.Items {
		out.Items = append(out.Items, &kvdv1.KeyValue{
			Key: item.Key, Value: item.Record.Value, Revision: uint64(item.Record.Revision), ExpireAtMs: item.Record.ExpireAt,
		})
	}
	return &kvdv1.ForwardResponse{Header: wire.FromHeader(chunk.Header), Response: &kvdv1.ForwardResponse_Scan{Scan: out}}, wire.Read, nil
}

func (n *Node) forwardedWrite(ctx context.Context, c *kvdv1.Command) (*kvdv1.ForwardResponse, wire.Op, error) {
	command, err := shard.DecodeCommand(c)
	if err != nil {
		return nil, wire.Write, &kv.InvalidError{Field: "command", Bound: err.Error()}
	}
	switch command.Op {
	case kv.OpPut, kv.OpDelete, kv.OpDeleteRange, kv.OpIncrement, kv.OpTxn:
	default:
		return nil, wire.Write, &kv.InvalidError{Field: "command", Bound: "one of a client"}
	}
	d, err := n.lookup(&command)
	if err != nil {
		return nil, wire.Write, err
	}
	return n.writeHere(ctx, d.Shard, &command)
}

// forwardedMeta looks at a command before it is proposed: an unknown one in the log would stop every replica of the meta
// group for ever, and one that is too large would reach none.
func (n *Node) forwardedMeta(ctx context.Context, m *kvdv1.MetaCommand) (*kvdv1.ForwardResponse, wire.Op, error) {
	if err := raftmeta.CheckCommand(m); err != nil {
		return nil, wire.Write, err
	}
	value, err := m.MarshalVT()
	if err != nil {
		return nil, wire.Write, err
	}
	c := &kv.Command{Op: kv.OpMeta, Value: value}
	if err := shard.CheckCommand(c); err != nil {
		return nil, wire.Write, err
	}
	return n.writeHere(ctx, kv.MetaShard, c)
}

// writeHere carries a command out if its shard is led here.
func (n *Node) writeHere(ctx context.Context, id kv.ShardID, c *kv.Command) (*kvdv1.ForwardResponse, wire.Op, error) {
	v := n.view(id)
	if v == nil {
		return nil, wire.Write, &kv.NotLeaderError{Shard: id}
	}
	if s := v.state.Load(); !s.leader {
		return nil, wire.Write, &kv.NotLeaderError{Shard: id, Leader: s.lead}
	}
	result, err := n.await(ctx, v, shard.EncodeCommand(c), c.Size())
	result, h, err := n.written(v, result, err)
	if err != nil {
		return nil, wire.Write, err
	}
	return &kvdv1.ForwardResponse{
		Header: wire.FromHeader(h), Response: &kvdv1.ForwardResponse_Write{Write: shard.EncodeResult(&result)},
	}, wire.Write, nil
}
