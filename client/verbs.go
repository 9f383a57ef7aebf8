package client

import (
	"context"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// verb is what an operation of a pipeline does. Each is one allocation, with the operation and all that its first attempt
// sends.
type verb interface {
	// message makes the operation of a message, a new one for each attempt but the first.
	message(first bool, r kv.Route) *kvdv1.PipelineOp
	// ended takes what the caller is to get, and tells it unless somebody waits. The result is used again afterwards.
	ended(r *kvdv1.PipelineResult, err error)
}

// parcel is an operation as it is sent, with the parts that it consists of: the request Q in its place W of the operation.
type parcel[W, Q any] struct {
	op     kvdv1.PipelineOp
	place  W
	ask    Q
	header kvdv1.RequestHeader
}

// pack gives the parcel of an attempt, and the header of its request.
func (x *parcel[W, Q]) pack(first bool, r kv.Route) (*parcel[W, Q], *kvdv1.RequestHeader) {
	if !first {
		x = &parcel[W, Q]{}
	}
	if r.Version == 0 {
		return x, nil
	}
	x.header.Shard, x.header.Version = uint64(r.Shard), r.Version
	return x, &x.header
}

// opBytes is about what an operation takes besides key and value.
const opBytes = 64

// await begins an operation and waits for its end.
func (p *Pipeline) await(ctx context.Context, o *operation) error {
	if o.waiter, _ = p.c.waiters.Get().(chan struct{}); o.waiter == nil {
		o.waiter = make(chan struct{}, 1)
	}
	p.begin(ctx, o)
	if done := ctx.Done(); done == nil {
		<-o.waiter
	} else {
		select {
		case <-o.waiter:
		case <-done:
			o.expire(ctx.Err())
			<-o.waiter // Told by this, or by who was faster.
		}
	}
	p.c.waiters.Put(o.waiter)
	return o.err
}

// pipelinedPut is the verb of a put.
type pipelinedPut struct {
	operation
	parcel[kvdv1.PipelineOp_Put, kvdv1.PutRequest]
	value []byte
	write *write
	got   PutResult
	done  func(PutResult, error)
}

func newPut(key, value []byte, list []WriteOption) (*pipelinedPut, error) {
	w := options(list)
	if err := checkPut(key, value, w); err != nil {
		return nil, err
	}
	x := &pipelinedPut{value: value, write: w}
	x.verb, x.key, x.kind, x.size = x, key, wire.Write, opBytes+len(key)+len(value)
	x.field = resultPutField
	return x, nil
}

func (x *pipelinedPut) message(first bool, r kv.Route) *kvdv1.PipelineOp {
	m, h := x.pack(first, r)
	q, w := &m.ask, x.write
	q.Header, q.Key, q.Value, q.Condition, q.TtlMs, q.ExpireAtMs = h, x.key, x.value, w.condition, w.ttlMillis(), w.expireAtMillis()
	m.place.Put, m.op.Op = q, &m.place
	return &m.op
}

func (x *pipelinedPut) ended(r *kvdv1.PipelineResult, err error) {
	if x.got = putResult(r.GetPut()); x.done != nil {
		x.done(x.got, err)
	}
}

// GoPut begins a put; done is called once, from any goroutine. It waits while too many operations are in flight.
func (p *Pipeline) GoPut(ctx context.Context, key, value []byte, done func(PutResult, error), list ...WriteOption) {
	x, err := newPut(key, value, list)
	if err != nil {
		done(PutResult{}, err)
		return
	}
	x.done = done
	p.begin(ctx, &x.operation)
}

// Put is GoPut and waits.
func (p *Pipeline) Put(ctx context.Context, key, value []byte, list ...WriteOption) (PutResult, error) {
	x, err := newPut(key, value, list)
	if err != nil {
		return PutResult{}, err
	}
	err = p.await(ctx, &x.operation)
	return x.got, err
}

// pipelinedGet is the verb of a get.
type pipelinedGet struct {
	operation
	parcel[kvdv1.PipelineOp_Get, kvdv1.GetRequest]
	level kvdv1.Level
	item  Item
	found bool
	done  func(item Item, found bool, err error)
}

func newGet(key []byte, list []ReadOption) (*pipelinedGet, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	x := &pipelinedGet{level: level(list)}
	x.verb, x.key, x.kind, x.at, x.size = x, key, wire.Read, placeOf(x.level), opBytes+len(key)
	x.field = resultGetField
	return x, nil
}

func (x *pipelinedGet) message(first bool, r kv.Route) *kvdv1.PipelineOp {
	m, h := x.pack(first, r)
	m.ask.Header, m.ask.Key, m.ask.Level = h, x.key, x.level
	m.place.Get, m.op.Op = &m.ask, &m.place
	return &m.op
}

func (x *pipelinedGet) ended(r *kvdv1.PipelineResult, err error) {
	if x.item, x.found = itemOf(x.key, r.GetGet()), r.GetGet().GetFound(); x.done != nil {
		x.done(x.item, x.found, err)
	}
}

// GoGet begins a get.
func (p *Pipeline) GoGet(ctx context.Context, key []byte, done func(item Item, found bool, err error), list ...ReadOption) {
	x, err := newGet(key, list)
	if err != nil {
		done(Item{}, false, err)
		return
	}
	x.done = done
	p.begin(ctx, &x.operation)
}

// Get is GoGet and waits.
func (p *Pipeline) Get(ctx context.Context, key []byte, list ...ReadOption) (item Item, found bool, err error) {
	x, err := newGet(key, list)
	if err != nil {
		return Item{}, false, err
	}
	err = p.await(ctx, &x.operation)
	return x.item, x.found, err
}

// pipelinedDelete is the verb of a delete.
type pipelinedDelete struct {
	operation
	parcel[kvdv1.PipelineOp_Delete, kvdv1.DeleteRequest]
	condition *kvdv1.Condition
	got       DeleteResult
	done      func(DeleteResult, error)
}

func newDelete(key []byte, list []WriteOption) (*pipelinedDelete, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	x := &pipelinedDelete{condition: options(list).condition}
	x.verb, x.key, x.kind, x.size = x, key, wire.Write, opBytes+len(key)
	x.field = resultDeleteField
	return x, nil
}

func (x *pipelinedDelete) message(first bool, r kv.Route) *kvdv1.PipelineOp {
	m, h := x.pack(first, r)
	m.ask.Header, m.ask.Key, m.ask.Condition = h, x.key, x.condition
	m.place.Delete, m.op.Op = &m.ask, &m.place
	return &m.op
}

func (x *pipelinedDelete) ended(r *kvdv1.PipelineResult, err error) {
	if x.got = deleteResult(r.GetDelete()); x.done != nil {
		x.done(x.got, err)
	}
}

// GoDelete begins a delete.
func (p *Pipeline) GoDelete(ctx context.Context, key []byte, done func(DeleteResult, error), list ...WriteOption) {
	x, err := newDelete(key, list)
	if err != nil {
		done(DeleteResult{}, err)
		return
	}
	x.done = done
	p.begin(ctx, &x.operation)
}

// Delete is GoDelete and waits.
func (p *Pipeline) Delete(ctx context.Context, key []byte, list ...WriteOption) (DeleteResult, error) {
	x, err := newDelete(key, list)
	if err != nil {
		return DeleteResult{}, err
	}
	err = p.await(ctx, &x.operation)
	return x.got, err
}

// pipelinedIncrement is the verb of an increment.
type pipelinedIncrement struct {
	operation
	parcel[kvdv1.PipelineOp_Increment, kvdv1.IncrementRequest]
	delta int64
	value int64
	done  func(value int64, err error)
}

func newIncrement(key []byte, delta int64) (*pipelinedIncrement, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	x := &pipelinedIncrement{delta: delta}
	x.verb, x.key, x.kind, x.size = x, key, wire.Write, opBytes+len(key)
	x.field = resultIncrementField
	return x, nil
}

func (x *pipelinedIncrement) message(first bool, r kv.Route) *kvdv1.PipelineOp {
	m, h := x.pack(first, r)
	m.ask.Header, m.ask.Key, m.ask.Delta = h, x.key, x.delta
	m.place.Increment, m.op.Op = &m.ask, &m.place
	return &m.op
}

func (x *pipelinedIncrement) ended(r *kvdv1.PipelineResult, err error) {
	if x.value = r.GetIncrement().GetValue(); x.done != nil {
		x.done(x.value, err)
	}
}

// GoIncrement begins an increment.
func (p *Pipeline) GoIncrement(ctx context.Context, key []byte, delta int64, done func(value int64, err error)) {
	x, err := newIncrement(key, delta)
	if err != nil {
		done(0, err)
		return
	}
	x.done = done
	p.begin(ctx, &x.operation)
}

// Increment is GoIncrement and waits.
func (p *Pipeline) Increment(ctx context.Context, key []byte, delta int64) (int64, error) {
	x, err := newIncrement(key, delta)
	if err != nil {
		return 0, err
	}
	err = p.await(ctx, &x.operation)
	return x.value, err
}

// pipelinedTxn is the verb of a transaction.
type pipelinedTxn struct {
	operation
	parcel[kvdv1.PipelineOp_Txn, kvdv1.TxnRequest]
	txn  *kvdv1.TxnRequest
	got  *kvdv1.TxnResponse
	done func(*kvdv1.TxnResponse, error)
}

func newTxn(r *kvdv1.TxnRequest) (*pipelinedTxn, error) {
	if err := checkTxn(r); err != nil {
		return nil, err
	}
	x := &pipelinedTxn{txn: r}
	x.verb, x.key, x.kind, x.size = x, txnKey(r), wire.Write, opBytes+r.SizeVT()
	x.field = resultTxnField
	return x, nil
}

func (x *pipelinedTxn) message(first bool, r kv.Route) *kvdv1.PipelineOp {
	m, h := x.pack(first, r)
	fillTxn(&m.ask, x.txn)
	m.ask.Header = h
	m.place.Txn, m.op.Op = &m.ask, &m.place
	return &m.op
}

func (x *pipelinedTxn) ended(r *kvdv1.PipelineResult, err error) {
	if x.got = r.GetTxn(); x.done != nil {
		x.done(x.got, err)
	}
}

// GoTxn begins a transaction. The request must not be changed before it has ended.
func (p *Pipeline) GoTxn(ctx context.Context, r *kvdv1.TxnRequest, done func(*kvdv1.TxnResponse, error)) {
	x, err := newTxn(r)
	if err != nil {
		done(nil, err)
		return
	}
	x.done = done
	p.begin(ctx, &x.operation)
}

// Txn is GoTxn and waits.
func (p *Pipeline) Txn(ctx context.Context, r *kvdv1.TxnRequest) (*kvdv1.TxnResponse, error) {
	x, err := newTxn(r)
	if err != nil {
		return nil, err
	}
	err = p.await(ctx, &x.operation)
	return x.got, err
}
