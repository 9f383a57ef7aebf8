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
	r := &kvdv1.PutRequest{Key: key, Value: value, Condition: w.condition, TtlMs: w.ttlMillis(), ExpireAtMs: w.expireAtMillis()}
	var resp *kvdv1.PutResponse
	err := c.do(ctx, request{wire.Write, atLeader, key, func(ctx context.Context, api services, h *kvdv1.RequestHeader) (*kvdv1.ResponseHeader, error) {
		var err error
		r.Header = h
		resp, err = api.Put(ctx, r)
		return resp.GetHeader(), err
	}})
	return putResult(resp), err
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
	r := &kvdv1.DeleteRequest{Key: key, Condition: options(list).condition}
	var resp *kvdv1.DeleteResponse
	err := c.do(ctx, request{wire.Write, atLeader, key, func(ctx context.Context, api services, h *kvdv1.RequestHeader) (*kvdv1.ResponseHeader, error) {
		var err error
		r.Header = h
		resp, err = api.Delete(ctx, r)
		return resp.GetHeader(), err
	}})
	return deleteResult(resp), err
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
		err := c.do(ctx, request{wire.Write, atLeader, span.Start, func(ctx context.Context, api services, _ *kvdv1.RequestHeader) (*kvdv1.ResponseHeader, error) {
			var err error
			resp, err = api.DeleteRange(ctx, r)
			return nil, err
		}})
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
	r := &kvdv1.IncrementRequest{Key: key, Delta: delta}
	var resp *kvdv1.IncrementResponse
	err = c.do(ctx, request{wire.Write, atLeader, key, func(ctx context.Context, api services, h *kvdv1.RequestHeader) (*kvdv1.ResponseHeader, error) {
		var err error
		r.Header = h
		resp, err = api.Increment(ctx, r)
		return resp.GetHeader(), err
	}})
	return resp.GetValue(), kv.Revision(resp.GetRevision()), err
}

// Txn compares and then does one of two lists, atomically. All keys lie in one shard. The request is not changed.
func (c *Client) Txn(ctx context.Context, r *kvdv1.TxnRequest) (*kvdv1.TxnResponse, error) {
	if err := checkTxn(r); err != nil {
		return nil, err
	}
	var resp *kvdv1.TxnResponse
	err := c.do(ctx, request{wire.Write, atLeader, txnKey(r), func(ctx context.Context, api services, h *kvdv1.RequestHeader) (*kvdv1.ResponseHeader, error) {
		var err error
		resp, err = api.Txn(ctx, txnRequest(r, h))
		return resp.GetHeader(), err
	}})
	return resp, err
}

// txnRequest gives a transaction with a header of its own.
func txnRequest(r *kvdv1.TxnRequest, h *kvdv1.RequestHeader) *kvdv1.TxnRequest {
	return &kvdv1.TxnRequest{Header: h, Compare: r.GetCompare(), Then: r.GetThen(), Else: r.GetElse()}
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
	r := &kvdv1.GetRequest{Key: key, Level: level(list)}
	var resp *kvdv1.GetResponse
	err = c.do(ctx, request{wire.Read, placeOf(r.Level), key, func(ctx context.Context, api services, h *kvdv1.RequestHeader) (*kvdv1.ResponseHeader, error) {
		var err error
		r.Header = h
		resp, err = api.Get(ctx, r)
		return resp.GetHeader(), err
	}})
	return itemOf(key, resp), resp.GetFound(), err
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
