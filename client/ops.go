package client

import (
	"context"
	"fmt"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// Item is a key and what is stored under it.
type Item = kv.Item

// exchange is a request with all that one call of it needs, to be allocated at once. What is nested in the answer may outlive it.
type exchange[Q, P any] struct {
	request
	unary
	asked  Q
	answer P
}

func (x *exchange[Q, P]) fill(op wire.Op, at place, key []byte, method string, q wire.Request, head **kvdv1.RequestHeader, reply replying) {
	x.op, x.at, x.key, x.call = op, at, key, &x.unary
	x.method, x.Request, x.head, x.reply = method, q, head, reply
}

// PutResult tells of a write.
type PutResult struct {
	// Succeeded is false when the condition was not met: nothing was written.
	Succeeded bool
	// Revision of the key: of this write, or the current one when the condition was not met (0: absent).
	Revision kv.Revision
}

// Put writes a key.
func (c *Client) Put(ctx context.Context, key, value []byte, list ...WriteOption) (PutResult, error) {
	w := options(list)
	if err := checkPut(key, value, w); err != nil {
		return PutResult{}, err
	}
	x := &exchange[kvdv1.PutRequest, kvdv1.PutResponse]{}
	r := &x.asked
	r.Key, r.Value, r.Condition, r.TtlMs, r.ExpireAtMs = key, value, w.condition, w.ttlMillis(), w.expireAtMillis()
	x.fill(wire.Write, atLeader, key, kvdv1.KV_Put_FullMethodName, r, &r.Header, &x.answer)
	if err := c.do(ctx, &x.request); err != nil {
		return PutResult{}, err
	}
	return putResult(&x.answer), nil
}

func putResult(r *kvdv1.PutResponse) PutResult {
	return PutResult{r.GetSucceeded(), kv.Revision(r.GetRevision())}
}

// DeleteResult tells of a delete.
type DeleteResult struct {
	// Succeeded is false when the condition was not met.
	Succeeded bool
	// Found tells whether the key was there.
	Found bool
	// Revision is the key's current one when the condition was not met (0: absent), else the shard's at the delete.
	Revision kv.Revision
}

// Delete removes a key.
func (c *Client) Delete(ctx context.Context, key []byte, list ...WriteOption) (DeleteResult, error) {
	if err := checkKey(key); err != nil {
		return DeleteResult{}, err
	}
	x := &exchange[kvdv1.DeleteRequest, kvdv1.DeleteResponse]{}
	r := &x.asked
	r.Key, r.Condition = key, options(list).condition
	x.fill(wire.Write, atLeader, key, kvdv1.KV_Delete_FullMethodName, r, &r.Header, &x.answer)
	if err := c.do(ctx, &x.request); err != nil {
		return DeleteResult{}, err
	}
	return deleteResult(&x.answer), nil
}

func deleteResult(r *kvdv1.DeleteResponse) DeleteResult {
	return DeleteResult{r.GetSucceeded(), r.GetFound(), kv.Revision(r.GetRevision())}
}

// DeleteRange removes the keys of a span, shard by shard, and tells how many. After an error some may be gone: count
// are those that are known to be.
func (c *Client) DeleteRange(ctx context.Context, span kv.Span) (count uint64, err error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	for {
		r := &kvdv1.DeleteRangeRequest{Start: span.Start, End: span.End}
		var resp *kvdv1.DeleteRangeResponse
		err := c.do(ctx, &request{op: wire.Write, at: atLeader, key: span.Start, call: byStub(func(ctx context.Context, api services) (err error) {
			resp, err = api.DeleteRange(ctx, r)
			return err
		})})
		if err != nil {
			return count, err
		}
		if count += resp.GetCount(); len(resp.GetResume()) == 0 {
			return count, nil
		}
		span.Start = resp.GetResume()
	}
}

// Increment adds to a decimal counter and gives its new value. An absent key counts as 0.
func (c *Client) Increment(ctx context.Context, key []byte, delta int64) (value int64, revision kv.Revision, err error) {
	if err := checkKey(key); err != nil {
		return 0, 0, err
	}
	x := &exchange[kvdv1.IncrementRequest, kvdv1.IncrementResponse]{}
	r := &x.asked
	r.Key, r.Delta = key, delta
	x.fill(wire.Write, atLeader, key, kvdv1.KV_Increment_FullMethodName, r, &r.Header, &x.answer)
	if err := c.do(ctx, &x.request); err != nil {
		return 0, 0, err
	}
	return x.answer.GetValue(), kv.Revision(x.answer.GetRevision()), nil
}

// Txn compares and then does one of two lists, atomically. All keys lie in one shard. The request is not changed.
func (c *Client) Txn(ctx context.Context, r *kvdv1.TxnRequest) (*kvdv1.TxnResponse, error) {
	if err := checkTxn(r); err != nil {
		return nil, err
	}
	x := &exchange[kvdv1.TxnRequest, struct{}]{}
	q := &x.asked
	fillTxn(q, r)
	resp := &kvdv1.TxnResponse{}
	x.fill(wire.Write, atLeader, txnKey(r), kvdv1.KV_Txn_FullMethodName, q, &q.Header, resp)
	if err := c.do(ctx, &x.request); err != nil {
		return nil, err
	}
	return resp, nil
}

// fillTxn makes q the transaction r, with a header of its own to come.
func fillTxn(q, r *kvdv1.TxnRequest) {
	q.Compare, q.Then, q.Else = r.GetCompare(), r.GetThen(), r.GetElse()
}

// txnKey is any key of a transaction, to route it by.
func txnKey(r *kvdv1.TxnRequest) []byte {
	for _, x := range r.GetCompare() {
		return x.GetKey()
	}
	for _, list := range [][]*kvdv1.TxnOp{r.GetThen(), r.GetElse()} {
		for _, o := range list {
			for _, key := range [][]byte{o.GetGet().GetKey(), o.GetPut().GetKey(), o.GetDelete().GetKey()} {
				if len(key) > 0 {
					return key
				}
			}
		}
	}
	return nil
}

// Get reads a key; found is false when it is not there.
func (c *Client) Get(ctx context.Context, key []byte, list ...ReadOption) (item Item, found bool, err error) {
	if err := checkKey(key); err != nil {
		return Item{}, false, err
	}
	x := &exchange[kvdv1.GetRequest, kvdv1.GetResponse]{}
	r := &x.asked
	r.Key, r.Level = key, level(list)
	x.fill(wire.Read, placeOf(r.Level), key, kvdv1.KV_Get_FullMethodName, r, &r.Header, &x.answer)
	if err := c.do(ctx, &x.request); err != nil {
		return Item{Key: key}, false, err
	}
	return itemOf(key, &x.answer), x.answer.GetFound(), nil
}

func itemOf(key []byte, r *kvdv1.GetResponse) Item {
	return Item{Key: key, Record: kv.Record{Value: r.GetValue(), Revision: kv.Revision(r.GetRevision()), ExpireAt: r.GetExpireAtMs()}}
}

// What breaks a bound is refused before it leaves: some of it would not fit into a message, and would break the
// connection of everything else.

func checkKey(key []byte) error {
	if err := kv.CheckKey("key", key); err != nil {
		return notDone{err}
	}
	return nil
}

func checkPut(key, value []byte, w *write) error {
	if err := kv.CheckKey("key", key); err != nil {
		return notDone{err}
	}
	if err := kv.CheckValue("value", value); err != nil {
		return notDone{err}
	}
	return w.check()
}

func checkTxn(r *kvdv1.TxnRequest) error {
	if n := r.SizeVT(); n > kv.TxnBytesMax {
		return notDone{&kv.InvalidError{Field: "txn", Bound: fmt.Sprintf("at most %d bytes, has %d", kv.TxnBytesMax, n)}}
	}
	return nil
}
