package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/client/route"
	"github.com/kvdstore/kvd/kv"
)

const (
	// InFlightMax and InFlightBytesMax bound the operations of one client's pipelines that have no answer yet; further
	// ones wait.
	InFlightMax      = kv.ClientInFlightMax
	InFlightBytesMax = kv.ClientInFlightBytesMax
)

// Pipeline sends operations without waiting for the answers of earlier ones; what is queued meanwhile travels as one
// message, over one stream a node. There is no order between operations in flight: what must come after another is begun
// when that has its answer. An operation that was not done is tried again within its deadline; when a stream breaks, gets
// are too, and writes in flight are unknown.
//
// The functions that are called with the results must not block, and must not begin operations themselves (that may
// wait for a place, and they hold up the answers that would free one): they start a goroutine for that.
type Pipeline struct {
	c *Client
}

// Pipeline gives the client's pipelined mode. All share the client's streams and its bound of operations in flight.
func (c *Client) Pipeline() *Pipeline { return &Pipeline{c: c} }

// An operation is waiting (in a queue, or for another try), flying (on a stream), or ended. Only what is flying can be
// unknown.
const (
	waiting = iota
	flying
	ended
)

// operation is one of a pipeline.
type operation struct {
	c      *Client
	ctx    context.Context
	cancel context.CancelFunc
	key    []byte
	kind   wire.Op
	at     place
	size   int // About its bytes in a message.
	// build makes the operation of a message, a new one for each attempt: an earlier one may still be encoded.
	build func(h *kvdv1.RequestHeader) *kvdv1.PipelineOp
	done  func(*kvdv1.PipelineResult, error)

	state atomic.Int32
	// stop ends what watches the context.
	stop func() bool

	// What follows belongs to whoever moves it on: one at a time.
	first     int // Where its attempts begin.
	attempts  int
	redirects int
	target    route.Target
}

// opBytes is about what an operation takes besides key and value.
const opBytes = 64

// GoPut begins a put; done is called once, from any goroutine. It waits while too many operations are in flight.
func (p *Pipeline) GoPut(ctx context.Context, key, value []byte, done func(PutResult, error), list ...WriteOption) {
	w := options(list)
	if err := checkPut(key, value, w); err != nil {
		done(PutResult{}, err)
		return
	}
	p.begin(ctx, &operation{
		key: key, kind: wire.Write, size: opBytes + len(key) + len(value),
		build: func(h *kvdv1.RequestHeader) *kvdv1.PipelineOp {
			return &kvdv1.PipelineOp{Op: &kvdv1.PipelineOp_Put{Put: &kvdv1.PutRequest{
				Header: h, Key: key, Value: value, Condition: w.condition, TtlMs: w.ttlMillis(), ExpireAtMs: w.expireAtMillis(),
			}}}
		},
		done: func(r *kvdv1.PipelineResult, err error) { done(putResult(r.GetPut()), err) },
	})
}

// GoGet begins a get.
func (p *Pipeline) GoGet(ctx context.Context, key []byte, done func(item Item, found bool, err error), list ...ReadOption) {
	if err := checkKey(key); err != nil {
		done(Item{}, false, err)
		return
	}
	l := level(list)
	p.begin(ctx, &operation{
		key: key, kind: wire.Read, at: placeOf(l), size: opBytes + len(key),
		build: func(h *kvdv1.RequestHeader) *kvdv1.PipelineOp {
			return &kvdv1.PipelineOp{Op: &kvdv1.PipelineOp_Get{Get: &kvdv1.GetRequest{Header: h, Key: key, Level: l}}}
		},
		done: func(r *kvdv1.PipelineResult, err error) { done(itemOf(key, r.GetGet()), r.GetGet().GetFound(), err) },
	})
}

// GoDelete begins a delete.
func (p *Pipeline) GoDelete(ctx context.Context, key []byte, done func(DeleteResult, error), list ...WriteOption) {
	if err := checkKey(key); err != nil {
		done(DeleteResult{}, err)
		return
	}
	w := options(list)
	p.begin(ctx, &operation{
		key: key, kind: wire.Write, size: opBytes + len(key),
		build: func(h *kvdv1.RequestHeader) *kvdv1.PipelineOp {
			return &kvdv1.PipelineOp{Op: &kvdv1.PipelineOp_Delete{Delete: &kvdv1.DeleteRequest{Header: h, Key: key, Condition: w.condition}}}
		},
		done: func(r *kvdv1.PipelineResult, err error) { done(deleteResult(r.GetDelete()), err) },
	})
}

// GoIncrement begins an increment.
func (p *Pipeline) GoIncrement(ctx context.Context, key []byte, delta int64, done func(value int64, err error)) {
	if err := checkKey(key); err != nil {
		done(0, err)
		return
	}
	p.begin(ctx, &operation{
		key: key, kind: wire.Write, size: opBytes + len(key),
		build: func(h *kvdv1.RequestHeader) *kvdv1.PipelineOp {
			return &kvdv1.PipelineOp{Op: &kvdv1.PipelineOp_Increment{Increment: &kvdv1.IncrementRequest{Header: h, Key: key, Delta: delta}}}
		},
		done: func(r *kvdv1.PipelineResult, err error) { done(r.GetIncrement().GetValue(), err) },
	})
}

// GoTxn begins a transaction. The request must not be changed before it has ended.
func (p *Pipeline) GoTxn(ctx context.Context, r *kvdv1.TxnRequest, done func(*kvdv1.TxnResponse, error)) {
	if err := checkTxn(r); err != nil {
		done(nil, err)
		return
	}
	p.begin(ctx, &operation{
		key: txnKey(r), kind: wire.Write, size: opBytes + r.SizeVT(),
		build: func(h *kvdv1.RequestHeader) *kvdv1.PipelineOp {
			return &kvdv1.PipelineOp{Op: &kvdv1.PipelineOp_Txn{Txn: txnRequest(r, h)}}
		},
		done: func(r *kvdv1.PipelineResult, err error) { done(r.GetTxn(), err) },
	})
}

// answer is what a waiting call gets.
type answer[T any] struct {
	value T
	err   error
}

// await begins an operation and waits for its end.
func await[T any](begin func(done func(T, error))) (T, error) {
	ch := make(chan answer[T], 1)
	begin(func(value T, err error) { ch <- answer[T]{value, err} })
	a := <-ch
	return a.value, a.err
}

// Put is GoPut and waits.
func (p *Pipeline) Put(ctx context.Context, key, value []byte, list ...WriteOption) (PutResult, error) {
	return await(func(done func(PutResult, error)) { p.GoPut(ctx, key, value, done, list...) })
}

// Get is GoGet and waits.
func (p *Pipeline) Get(ctx context.Context, key []byte, list ...ReadOption) (item Item, found bool, err error) {
	item, err = await(func(done func(Item, error)) {
		p.GoGet(ctx, key, func(i Item, f bool, err error) { found = f; done(i, err) }, list...)
	})
	return item, found, err
}

// Delete is GoDelete and waits.
func (p *Pipeline) Delete(ctx context.Context, key []byte, list ...WriteOption) (DeleteResult, error) {
	return await(func(done func(DeleteResult, error)) { p.GoDelete(ctx, key, done, list...) })
}

// Increment is GoIncrement and waits.
func (p *Pipeline) Increment(ctx context.Context, key []byte, delta int64) (int64, error) {
	return await(func(done func(int64, error)) { p.GoIncrement(ctx, key, delta, done) })
}

// Txn is GoTxn and waits.
func (p *Pipeline) Txn(ctx context.Context, r *kvdv1.TxnRequest) (*kvdv1.TxnResponse, error) {
	return await(func(done func(*kvdv1.TxnResponse, error)) { p.GoTxn(ctx, r, done) })
}

// begin takes a place for an operation and sends it on its way.
func (p *Pipeline) begin(ctx context.Context, o *operation) {
	ctx, cancel := bounded(ctx)
	if err := ctx.Err(); err != nil { // Also when there is a place.
		cancel()
		o.done(nil, notDone{err})
		return
	}
	if err := p.c.budget.acquire(ctx, o.size); err != nil {
		cancel()
		o.done(nil, notDone{err}) // It never left.
		return
	}
	o.c, o.ctx, o.cancel, o.first = p.c, ctx, cancel, rand.Int()&0xffff
	// At its deadline it ends, whatever the streams do.
	o.stop = context.AfterFunc(ctx, o.expire)
	p.c.refreshFirst()
	p.c.dispatch(o)
}

// expire ends an operation whose context ended: one that is not flying was surely not done. It may run before begin has
// set stop.
func (o *operation) expire() {
	err := o.ctx.Err()
	for {
		switch state := o.state.Load(); {
		case state == ended:
			return
		case !o.state.CompareAndSwap(state, ended):
		case state == waiting:
			o.finish(nil, notDone{err})
			return
		default:
			o.finish(nil, o.mark(err))
			return
		}
	}
}

// mark says of an error that it came while the operation was flying.
func (o *operation) mark(err error) error {
	if o.kind == wire.Read {
		return notDone{err}
	}
	return unknown{err}
}

// end ends an operation in a state; it does nothing if it is in another.
func (o *operation) end(state int32, r *kvdv1.PipelineResult, err error) {
	if o.state.CompareAndSwap(state, ended) {
		o.stop()
		o.finish(r, err)
	}
}

// finish tells the caller; the state is ended.
func (o *operation) finish(r *kvdv1.PipelineResult, err error) {
	o.cancel()
	o.c.budget.release(o.size)
	o.done(r, err)
}

// dispatch hands an operation to the stream of the node that it goes to.
func (c *Client) dispatch(o *operation) {
	o.target = c.target(o.at, o.key, o.first+o.attempts)
	o.attempts++
	s, err := c.stream(o.target.Address)
	if err != nil {
		o.end(waiting, nil, notDone{err})
		return
	}
	if !s.add(o) { // It broke just now.
		c.later(o, verdict{err: notDone{&lostError{o.target.Address, errBroken}}, again: true})
	}
}

// later tries an operation that is waiting again, after a pause, or ends it if that makes no sense.
func (c *Client) later(o *operation, v verdict) {
	if !v.again {
		o.end(waiting, nil, v.err)
		return
	}
	if v.redirect && o.redirects < redirectsMax {
		o.redirects++
		c.dispatch(o)
		return
	}
	d := pause(o.attempts-1, v.after)
	if deadline, ok := o.ctx.Deadline(); ok && time.Until(deadline) <= d {
		o.end(waiting, nil, gaveUp(o.ctx, v.err, o.attempts))
		return
	}
	if !c.start(func() {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			c.dispatch(o)
		case <-o.ctx.Done(): // It has ended.
		case <-c.ctx.Done():
			o.end(waiting, nil, notDone{fmt.Errorf("%w: %w", ErrClosed, v.err)})
		}
	}) {
		o.end(waiting, nil, notDone{ErrClosed})
	}
}

// silence is how long an attempt of a read may take: longer ones follow on those that took too long.
func (o *operation) silence() time.Duration { return attemptMax << min(o.attempts-1, silencesMax) }

// message is the operation as it goes into one.
func (o *operation) message(id uint64) *kvdv1.PipelineOp {
	op := o.build(headerOf(o.target))
	op.Id = id
	deadline, _ := o.ctx.Deadline() // There always is one.
	left := time.Until(deadline)
	if o.kind == wire.Read {
		left = min(left, o.silence())
	}
	op.TimeoutMs = uint32(min(max(left.Milliseconds(), 1), 1<<31))
	return op
}
