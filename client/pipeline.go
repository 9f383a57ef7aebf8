package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

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
// wait for a place, and they hold up the answers that would free one): they start a goroutine for that. That the context
// has ended they are told within 50 ms; a call that waits returns at once.
type Pipeline struct {
	c *Client
}

// Pipeline gives the client's pipelined mode. All share the client's streams and its bound of operations in flight.
func (c *Client) Pipeline() *Pipeline { return &Pipeline{c: c} }

// An operation is waiting (in a queue, or for another try), leaving (in a message that is being encoded), flying (on a stream),
// or ended. Only what is flying can be unknown. Of one that is leaving the caller hears nothing: told of an end, it may use the
// key's and the value's memory again, and what is sent would be neither the one nor the other.
const (
	waiting = iota
	leaving
	flying
	ended
)

// operation is one of a pipeline. It has neither a timer nor a context of its own: whoever looks at the streams (flights.go)
// ends it when its time has come, or who waits for it.
type operation struct {
	c    *Client
	ctx  context.Context // The caller's.
	end  time.Time       // The caller's deadline or, when there is none, the client's own.
	verb verb
	key  []byte
	kind wire.Op
	at   place
	size int // About its bytes in a message.
	// field is the number of its answers' field in PipelineResult.
	field protowire.Number

	state atomic.Int32
	// waiter is who waits for it, and err what they are told; nil when nobody does.
	waiter chan struct{}
	err    error

	// What follows belongs to whoever moves it on: one at a time.
	first     int // Where its attempts begin.
	attempts  int
	redirects int
	target    route.Target
	id        uint64 // On its stream.
}

// begin takes a place for an operation and sends it on its way.
func (p *Pipeline) begin(ctx context.Context, o *operation) {
	o.c, o.ctx = p.c, ctx
	if err := ctx.Err(); err != nil { // Also when there is a place.
		o.refuse(err)
		return
	}
	var ok bool
	if o.end, ok = ctx.Deadline(); !ok {
		o.end = time.Now().Add(kv.RequestTimeout)
	}
	if err := p.c.budget.acquire(ctx, o.end, o.size); err != nil {
		o.refuse(err) // It never left.
		return
	}
	o.first = rand.Int() & 0xffff
	p.c.refreshFirst()
	p.c.dispatch(o)
}

// refuse ends an operation that has no place.
func (o *operation) refuse(err error) {
	o.state.Store(ended)
	o.tell(nil, notDone{err})
}

// over gives the error of an operation whose time is over; nil when it is not, or the operation has ended.
func (o *operation) over(now time.Time) error {
	if o.state.Load() == ended {
		return nil
	}
	if err := o.ctx.Err(); err != nil {
		return err
	}
	if !now.Before(o.end) {
		return context.DeadlineExceeded
	}
	return nil
}

// expire ends an operation whose time is over: one that is not flying was surely not done. One that is leaving ends later: who
// looks at the streams finds it again.
func (o *operation) expire(err error) {
	for {
		switch state := o.state.Load(); {
		case state == ended, state == leaving:
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

// conclude ends an operation in a state; it does nothing if it is in another.
func (o *operation) conclude(state int32, r *kvdv1.PipelineResult, err error) {
	if o.state.CompareAndSwap(state, ended) {
		o.finish(r, err)
	}
}

// finish gives the place back and tells the caller; the state is ended.
func (o *operation) finish(r *kvdv1.PipelineResult, err error) {
	o.c.budget.release(1, o.size)
	o.tell(r, err)
}

// tell tells the caller; the result is good for as long as this lasts.
func (o *operation) tell(r *kvdv1.PipelineResult, err error) {
	if o.waiter == nil {
		o.verb.ended(r, err)
		return
	}
	o.err = err
	o.verb.ended(r, err)
	o.waiter <- struct{}{}
}

// dispatch hands an operation to the stream of the node that it goes to.
func (c *Client) dispatch(o *operation) {
	o.target = c.target(o.at, o.key, o.first+o.attempts)
	o.attempts++
	s, err := c.stream(o.target.Address)
	if err != nil {
		o.conclude(waiting, nil, notDone{err})
		return
	}
	if !s.add(o) { // It broke just now.
		c.later(o, verdict{err: notDone{&lostError{o.target.Address, errBroken}}, again: true})
	}
}

// later tries an operation that is waiting again, after a pause, or ends it if that makes no sense.
func (c *Client) later(o *operation, v verdict) {
	if !v.again {
		o.conclude(waiting, nil, v.err)
		return
	}
	if v.redirect && o.redirects < redirectsMax {
		o.redirects++
		c.dispatch(o)
		return
	}
	d := pause(o.attempts-1, v.after)
	if time.Until(o.end) <= d {
		o.conclude(waiting, nil, gaveUp(o.ctx, v.err, o.attempts))
		return
	}
	if !c.start(func() {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			c.dispatch(o)
		case <-o.ctx.Done():
			o.expire(o.ctx.Err())
		case <-c.ctx.Done():
			o.conclude(waiting, nil, notDone{fmt.Errorf("%w: %w", ErrClosed, v.err)})
		}
	}) {
		o.conclude(waiting, nil, notDone{ErrClosed})
	}
}

// silence is how long an attempt of a read may take: longer ones follow on those that took too long.
func (o *operation) silence() time.Duration { return attemptMax << min(o.attempts-1, silencesMax) }

// message is the operation as it goes into one.
func (o *operation) message(now time.Time) *kvdv1.PipelineOp {
	op := o.verb.message(o.attempts == 1, o.target.Route)
	left := o.end.Sub(now)
	if o.kind == wire.Read {
		left = min(left, o.silence())
	}
	op.Id, op.TimeoutMs = o.id, uint32(min(max(left.Milliseconds(), 1), 1<<31))
	return op
}
