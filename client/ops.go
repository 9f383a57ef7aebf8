package client

import (
	"context"
	"errors"
	"iter"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// Item is a key and what is stored under it.
type Item = kv.Item

// WriteOption changes a write.
type WriteOption func(*write)

type write struct {
	ttl       time.Duration
	expireAt  time.Time
	condition *kvdv1.Condition
}

// TTL makes a key go away after a time.
func TTL(d time.Duration) WriteOption { return func(w *write) { w.ttl = d } }

// ExpireAt makes a key go away at a moment.
func ExpireAt(t time.Time) WriteOption { return func(w *write) { w.expireAt = t } }

// IfAbsent writes only if the key is not there.
func IfAbsent() WriteOption {
	return func(w *write) { w.condition = &kvdv1.Condition{Kind: &kvdv1.Condition_Absent{Absent: true}} }
}

// IfRevision writes only if the key is there at exactly this revision.
func IfRevision(r kv.Revision) WriteOption {
	return func(w *write) { w.condition = &kvdv1.Condition{Kind: &kvdv1.Condition_Revision{Revision: uint64(r)}} }
}

func options(list []WriteOption) *write {
	w := &write{}
	for _, o := range list {
		o(w)
	}
	return w
}

func putRequest(key, value []byte, list []WriteOption) *kvdv1.PutRequest {
	w := options(list)
	r := &kvdv1.PutRequest{Key: key, Value: value, Condition: w.condition, TtlMs: w.ttl.Milliseconds()}
	if w.ttl > 0 && r.TtlMs == 0 {
		r.TtlMs = 1
	}
	if !w.expireAt.IsZero() {
		r.ExpireAtMs = w.expireAt.UnixMilli()
	}
	return r
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
	r := putRequest(key, value, list)
	var resp *kvdv1.PutResponse
	err := c.do(ctx, false, key, func(ctx context.Context, api kvdv1.KVClient, h *kvdv1.RequestHeader) (*kvdv1.ResponseHeader, error) {
		var err error
		r.Header = h
		resp, err = api.Put(ctx, r)
		return resp.GetHeader(), err
	})
	return PutResult{resp.GetSucceeded(), kv.Revision(resp.GetRevision())}, err
}

// DeleteResult tells of a delete.
type DeleteResult struct {
	// Succeeded is false when the condition was not met.
	Succeeded bool
	// Found tells whether the key was there.
	Found    bool
	Revision kv.Revision
}

// Delete removes a key.
func (c *Client) Delete(ctx context.Context, key []byte, list ...WriteOption) (DeleteResult, error) {
	r := &kvdv1.DeleteRequest{Key: key, Condition: options(list).condition}
	var resp *kvdv1.DeleteResponse
	err := c.do(ctx, false, key, func(ctx context.Context, api kvdv1.KVClient, h *kvdv1.RequestHeader) (*kvdv1.ResponseHeader, error) {
		var err error
		r.Header = h
		resp, err = api.Delete(ctx, r)
		return resp.GetHeader(), err
	})
	return DeleteResult{resp.GetSucceeded(), resp.GetFound(), kv.Revision(resp.GetRevision())}, err
}

// DeleteRange removes the keys of a span, shard by shard, and tells how many. After an error some may be gone.
func (c *Client) DeleteRange(ctx context.Context, span kv.Span) (count uint64, err error) {
	for {
		r := &kvdv1.DeleteRangeRequest{Start: span.Start, End: span.End}
		var resp *kvdv1.DeleteRangeResponse
		err := c.do(ctx, false, span.Start, func(ctx context.Context, api kvdv1.KVClient, h *kvdv1.RequestHeader) (*kvdv1.ResponseHeader, error) {
			var err error
			resp, err = api.DeleteRange(ctx, r)
			return nil, err
		})
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
	r := &kvdv1.IncrementRequest{Key: key, Delta: delta}
	var resp *kvdv1.IncrementResponse
	err = c.do(ctx, false, key, func(ctx context.Context, api kvdv1.KVClient, h *kvdv1.RequestHeader) (*kvdv1.ResponseHeader, error) {
		var err error
		r.Header = h
		resp, err = api.Increment(ctx, r)
		return resp.GetHeader(), err
	})
	return resp.GetValue(), kv.Revision(resp.GetRevision()), err
}

// Txn compares and then does one of two lists, atomically. All keys lie in one shard.
func (c *Client) Txn(ctx context.Context, r *kvdv1.TxnRequest) (*kvdv1.TxnResponse, error) {
	var resp *kvdv1.TxnResponse
	err := c.do(ctx, false, txnKey(r), func(ctx context.Context, api kvdv1.KVClient, h *kvdv1.RequestHeader) (*kvdv1.ResponseHeader, error) {
		var err error
		r.Header = h
		resp, err = api.Txn(ctx, r)
		return resp.GetHeader(), err
	})
	return resp, err
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

// ReadOption changes a read.
type ReadOption func(*kvdv1.Level)

// Eventual reads what any replica holds, at once. Without it a read is linearizable.
func Eventual() ReadOption { return func(l *kvdv1.Level) { *l = kvdv1.Level_EVENTUAL } }

func level(list []ReadOption) kvdv1.Level {
	l := kvdv1.Level_LINEARIZABLE
	for _, o := range list {
		o(&l)
	}
	return l
}

// Get reads a key; found is false when it is not there.
func (c *Client) Get(ctx context.Context, key []byte, list ...ReadOption) (item Item, found bool, err error) {
	r := &kvdv1.GetRequest{Key: key, Level: level(list)}
	var resp *kvdv1.GetResponse
	err = c.do(ctx, true, key, func(ctx context.Context, api kvdv1.KVClient, h *kvdv1.RequestHeader) (*kvdv1.ResponseHeader, error) {
		var err error
		r.Header = h
		resp, err = api.Get(ctx, r)
		return resp.GetHeader(), err
	})
	return itemOf(key, resp), resp.GetFound(), err
}

func itemOf(key []byte, r *kvdv1.GetResponse) Item {
	return Item{Key: key, Record: kv.Record{Value: r.GetValue(), Revision: kv.Revision(r.GetRevision()), ExpireAt: r.GetExpireAtMs()}}
}

// BatchGet reads many keys, each linearizable on its own. The answer has nil where a key is not there.
func (c *Client) BatchGet(ctx context.Context, keys [][]byte, list ...ReadOption) ([]*Item, error) {
	out := make([]*Item, 0, len(keys))
	for len(out) < len(keys) {
		rest := keys[len(out):]
		rest = rest[:min(len(rest), kv.BatchGetKeysMax)]
		var resp *kvdv1.BatchGetResponse
		err := c.do(ctx, true, rest[0], func(ctx context.Context, api kvdv1.KVClient, _ *kvdv1.RequestHeader) (*kvdv1.ResponseHeader, error) {
			var err error
			resp, err = api.BatchGet(ctx, &kvdv1.BatchGetRequest{Keys: rest, Level: level(list)})
			return nil, err
		})
		if err != nil {
			return nil, err
		}
		if len(resp.GetResults()) == 0 {
			return nil, errors.New("the node answered a BatchGet with nothing")
		}
		for i, r := range resp.GetResults() {
			if !r.GetFound() {
				out = append(out, nil)
				continue
			}
			item := itemOf(rest[i], r)
			out = append(out, &item)
		}
	}
	return out, nil
}

// ScanOptions choose what a scan gives.
type ScanOptions struct {
	Span     kv.Span
	Limit    int // 0 is no limit.
	KeysOnly bool
	Level    []ReadOption
}

// Scan gives the keys of a span in order, over all shards. Each chunk of it shows one shard at one revision. After an
// error the iteration ends; breaks of connections are gone over, without missing or repeating a key.
func (c *Client) Scan(ctx context.Context, o ScanOptions) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		span, left := o.Span, o.Limit
		for {
			next, given, more, err := c.scanOnce(ctx, o, span, left, yield)
			if err != nil {
				yield(Item{}, err)
				return
			}
			if left -= given; !more || o.Limit > 0 && left <= 0 {
				return
			}
			span.Start = next
		}
	}
}

// scanOnce streams from one node until the scan is complete or the stream breaks; next is where to go on. more is
// false when the scan is complete, or the caller wants no more.
func (c *Client) scanOnce(ctx context.Context, o ScanOptions, span kv.Span, left int, yield func(Item, error) bool) (next []byte, given int, more bool, err error) {
	next, more = span.Start, true
	err = c.do(ctx, true, span.Start, func(trying context.Context, api kvdv1.KVClient, h *kvdv1.RequestHeader) (*kvdv1.ResponseHeader, error) {
		// A stream lasts longer than an attempt; its first chunk is what an attempt waits for.
		streaming, cancel := context.WithCancel(ctx)
		defer cancel()
		first := context.AfterFunc(trying, cancel)
		stream, err := api.Scan(streaming, &kvdv1.ScanRequest{
			Header: h, Start: span.Start, End: span.End, Limit: uint64(max(left, 0)), KeysOnly: o.KeysOnly, Level: level(o.Level),
		})
		if err != nil {
			return nil, err
		}
		for got := false; ; got = true {
			chunk, err := stream.Recv()
			first()
			if err != nil {
				if got || given > 0 {
					return nil, nil // Go on from next at another node.
				}
				return nil, err
			}
			c.learn(chunk.GetHeader())
			for _, kvp := range chunk.GetItems() {
				given++
				if !yield(Item{Key: kvp.Key, Record: kv.Record{Value: kvp.Value, Revision: kv.Revision(kvp.Revision), ExpireAt: kvp.ExpireAtMs}}, nil) {
					more = false
					return nil, nil
				}
			}
			if len(chunk.GetResume()) == 0 {
				more = false
				return nil, nil
			}
			next = chunk.GetResume()
			if o.Limit > 0 && given >= left {
				return nil, nil
			}
		}
	})
	return next, given, more, err
}

// Admin gives the operators' service at one of the endpoints.
func (c *Client) Admin() (kvdv1.AdminClient, error) {
	conn, err := c.conn(c.target(nil, 0).Address)
	if err != nil {
		return nil, err
	}
	return kvdv1.NewAdminClient(conn), nil
}
