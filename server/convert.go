package server

import (
	"fmt"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

func routeOf(h *kvdv1.RequestHeader) kv.Route {
	return kv.Route{Shard: kv.ShardID(h.GetShard()), Version: h.GetVersion()}
}

// levelOf refuses the levels that are not built yet.
func levelOf(l kvdv1.Level) (kv.Level, error) {
	switch l {
	case kvdv1.Level_LINEARIZABLE:
		return kv.Linearizable, nil
	case kvdv1.Level_EVENTUAL:
		return kv.Eventual, nil
	}
	return 0, fmt.Errorf("level %v: %w", l, kv.ErrUnsupported)
}

func conditionOf(c *kvdv1.Condition) (kv.Condition, error) {
	switch kind := c.GetKind().(type) {
	case nil:
		return kv.Condition{}, nil
	case *kvdv1.Condition_Absent:
		if !kind.Absent {
			return kv.Condition{}, &kv.InvalidError{Field: "condition.absent", Bound: "true, or no condition"}
		}
		return kv.Condition{Kind: kv.IfAbsent}, nil
	case *kvdv1.Condition_Revision:
		return kv.Condition{Kind: kv.IfRevision, Revision: kv.Revision(kind.Revision)}, nil
	}
	return kv.Condition{}, &kv.InvalidError{Field: "condition", Bound: "a kind that this version knows"}
}

func putCommand(r *kvdv1.PutRequest) (*kv.Command, error) {
	cond, err := conditionOf(r.GetCondition())
	return &kv.Command{Op: kv.OpPut, Key: r.GetKey(), Value: r.GetValue(), Cond: cond, TTL: r.GetTtlMs(), ExpireAt: r.GetExpireAtMs()}, err
}

func deleteCommand(r *kvdv1.DeleteRequest) (*kv.Command, error) {
	cond, err := conditionOf(r.GetCondition())
	return &kv.Command{Op: kv.OpDelete, Key: r.GetKey(), Cond: cond}, err
}

func incrementCommand(r *kvdv1.IncrementRequest) (*kv.Command, error) {
	return &kv.Command{Op: kv.OpIncrement, Key: r.GetKey(), Delta: r.GetDelta()}, nil
}

func txnCommand(r *kvdv1.TxnRequest) (*kv.Command, error) {
	t := &kv.Txn{}
	for i, c := range r.GetCompare() {
		x := kv.Compare{Key: c.GetKey()}
		switch kind := c.GetKind().(type) {
		case *kvdv1.Compare_Absent:
			x.Cond.Kind = kv.IfAbsent
		case *kvdv1.Compare_Present:
			x.Cond.Kind = kv.IfPresent
		case *kvdv1.Compare_Revision:
			x.Cond = kv.Condition{Kind: kv.IfRevision, Revision: kv.Revision(kind.Revision)}
		case *kvdv1.Compare_Value:
			x.Cond = kv.Condition{Kind: kv.IfValue, Value: kind.Value}
		default:
			return nil, &kv.InvalidError{Field: fmt.Sprintf("compare[%d]", i), Bound: "absent, present, revision or value"}
		}
		t.Compare = append(t.Compare, x)
	}
	var err error
	if t.Then, err = txnOps("then", r.GetThen()); err != nil {
		return nil, err
	}
	if t.Else, err = txnOps("else", r.GetElse()); err != nil {
		return nil, err
	}
	return &kv.Command{Op: kv.OpTxn, Txn: t}, nil
}

func txnOps(list string, ops []*kvdv1.TxnOp) ([]kv.TxnOp, error) {
	var out []kv.TxnOp
	for i, o := range ops {
		switch op := o.GetOp().(type) {
		case *kvdv1.TxnOp_Get:
			out = append(out, kv.TxnOp{Kind: kv.TxnGet, Key: op.Get.GetKey()})
		case *kvdv1.TxnOp_Put:
			out = append(out, kv.TxnOp{
				Kind: kv.TxnPut, Key: op.Put.GetKey(), Value: op.Put.GetValue(), TTL: op.Put.GetTtlMs(), ExpireAt: op.Put.GetExpireAtMs(),
			})
		case *kvdv1.TxnOp_Delete:
			out = append(out, kv.TxnOp{Kind: kv.TxnDelete, Key: op.Delete.GetKey()})
		default:
			return nil, &kv.InvalidError{Field: fmt.Sprintf("%s[%d]", list, i), Bound: "get, put or delete"}
		}
	}
	return out, nil
}

// spanOf reads a prefix, or a start and an end.
func spanOf(prefix, start, end []byte) (kv.Span, error) {
	span := kv.Span{Start: start, End: end}
	if len(prefix) > 0 {
		if len(start) > 0 || len(end) > 0 {
			return kv.Span{}, &kv.InvalidError{Field: "prefix", Bound: "empty when start or end is given"}
		}
		span = kv.PrefixSpan(prefix)
	}
	for field, key := range map[string][]byte{"prefix": prefix, "start": start, "end": end} {
		if len(key) > kv.KeyBytesMax {
			return kv.Span{}, &kv.InvalidError{Field: field, Bound: fmt.Sprintf("at most %d bytes, is %d", kv.KeyBytesMax, len(key))}
		}
	}
	return span, nil
}

// getAnswer is a GetResponse with the parts that it refers to, so that all are one object.
type getAnswer struct {
	response kvdv1.GetResponse
	header   kvdv1.ResponseHeader
	epoch    kvdv1.Epoch
}

func getResponse(rec kv.Record, found bool, h kv.Header) *kvdv1.GetResponse {
	a := &getAnswer{}
	a.fill(rec, found, h)
	return &a.response
}

// fill makes an empty answer one of what was found.
func (a *getAnswer) fill(rec kv.Record, found bool, h kv.Header) {
	wire.FillHeader(&a.header, &a.epoch, h)
	a.response.Header = &a.header
	if found {
		a.response.Found, a.response.Value = true, rec.Value
		a.response.Revision, a.response.ExpireAtMs = uint64(rec.Revision), rec.ExpireAt
	}
}

func putResponse(r kv.Result, h *kvdv1.ResponseHeader) *kvdv1.PutResponse {
	return &kvdv1.PutResponse{Header: h, Succeeded: r.Status == kv.Done, Revision: uint64(r.Revision)}
}

func deleteResponse(r kv.Result, h *kvdv1.ResponseHeader) *kvdv1.DeleteResponse {
	return &kvdv1.DeleteResponse{Header: h, Succeeded: r.Status == kv.Done, Found: r.Found, Revision: uint64(r.Revision)}
}

func incrementResponse(r kv.Result, h *kvdv1.ResponseHeader) *kvdv1.IncrementResponse {
	return &kvdv1.IncrementResponse{Header: h, Value: r.Counter, Revision: uint64(r.Revision)}
}

func txnResponse(r kv.Result, h *kvdv1.ResponseHeader) *kvdv1.TxnResponse {
	out := &kvdv1.TxnResponse{Header: h, Succeeded: r.Succeeded, Revision: uint64(r.Revision)}
	for _, o := range r.Ops {
		out.Results = append(out.Results, &kvdv1.TxnOpResult{
			Found: o.Found, Value: o.Record.Value, Revision: uint64(o.Record.Revision), ExpireAtMs: o.Record.ExpireAt,
		})
	}
	return out
}
