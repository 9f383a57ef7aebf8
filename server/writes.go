package server

import (
	"context"
	"sync"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// openWrite is a write of a pipeline that has no result yet. It gets the backend's, or at its deadline that it is unknown,
// whichever comes first.
type openWrite struct {
	*pipeline
	id       uint64
	command  *kv.Command
	route    kv.Route
	deadline time.Time
	// over says that it has a result. Until then it is in a list.
	over          bool
	before, after *openWrite
}

// openWrites are those of a stream. A pipeline's mu guards it. One timer serves all: it goes off at the earliest deadline
// that there was when it was set, which is seldom one that is still open. A timer for each write took a tenth of its time.
type openWrites struct {
	first *openWrite
	timer *time.Timer
	// alarm is when the timer goes off, zero when it does not.
	alarm time.Time
	// gone says that the stream has ended.
	gone bool
}

// write begins a write.
func (p *pipeline) write(op *kvdv1.PipelineOp) {
	if p.backend.Busy() || p.backend.Lag() > kv.LoopLagMax {
		p.finish(&kvdv1.PipelineResult{Id: op.GetId(), Result: busy})
		return
	}
	command, header, err := commandOf(op)
	if err != nil {
		p.refuse(op.GetId(), wire.Write, err)
		return
	}
	w := &openWrite{pipeline: p, id: op.GetId(), command: command, route: routeOf(header), deadline: time.Now().Add(patience(op))}
	if !p.open(w) {
		p.refuse(w.id, wire.Write, p.ctx.Err())
		return
	}
	p.backend.Submit(p.ctx, w.deadline, w.route, command, w.done)
}

// commandOf is the command of an operation that writes, and its request's header.
func commandOf(op *kvdv1.PipelineOp) (c *kv.Command, h *kvdv1.RequestHeader, err error) {
	switch x := op.GetOp().(type) {
	case *kvdv1.PipelineOp_Put:
		c, err = putCommand(x.Put)
		return c, x.Put.GetHeader(), err
	case *kvdv1.PipelineOp_Delete:
		c, err = deleteCommand(x.Delete)
		return c, x.Delete.GetHeader(), err
	case *kvdv1.PipelineOp_Increment:
		c, err = incrementCommand(x.Increment)
		return c, x.Increment.GetHeader(), err
	case *kvdv1.PipelineOp_Txn:
		c, err = txnCommand(x.Txn)
		return c, x.Txn.GetHeader(), err
	}
	return nil, nil, &kv.InvalidError{Field: "op", Bound: "get, put, delete, increment or txn"}
}

// open puts a write into the list, unless the stream has ended.
func (p *pipeline) open(w *openWrite) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := &p.writes
	if o.gone {
		return false
	}
	if w.after = o.first; w.after != nil {
		w.after.before = w
	}
	o.first = w
	if o.alarm.IsZero() || w.deadline.Before(o.alarm) {
		p.wakeAt(w.deadline)
	}
	return true
}

func (p *pipeline) wakeAt(t time.Time) {
	o := &p.writes
	o.alarm = t
	if o.timer == nil {
		o.timer = time.AfterFunc(time.Until(t), p.expire)
	} else {
		o.timer.Reset(time.Until(t))
	}
}

// close takes a write out of the list.
func (o *openWrites) close(w *openWrite) {
	w.over = true
	if w.before != nil {
		w.before.after = w.after
	} else {
		o.first = w.after
	}
	if w.after != nil {
		w.after.before = w.before
	}
	w.before, w.after = nil, nil
}

// expire ends the writes whose time has come.
func (p *pipeline) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	o, now := &p.writes, time.Now()
	o.alarm = time.Time{}
	var earliest time.Time
	for w := o.first; w != nil; {
		after := w.after
		if !w.deadline.After(now) {
			p.unknown(w, context.DeadlineExceeded)
		} else if earliest.IsZero() || w.deadline.Before(earliest) {
			earliest = w.deadline
		}
		w = after
	}
	if !earliest.IsZero() {
		p.wakeAt(earliest)
	}
}

// abandon ends all writes, when the stream has ended.
func (p *pipeline) abandon() {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := &p.writes
	o.gone = true
	for o.first != nil {
		p.unknown(o.first, p.ctx.Err())
	}
	if o.timer != nil {
		o.timer.Stop()
	}
}

// unknown ends a write that has no result.
func (p *pipeline) unknown(w *openWrite, err error) {
	p.writes.close(w)
	p.results.add(p.refusal(w.id, wire.Write, err))
}

// done ends a write with the backend's result.
func (w *openWrite) done(r kv.Result, h kv.Header, err error) {
	if err != nil {
		w.answer(w.refusal(w.id, wire.Write, err))
		return
	}
	if w.command.Op == kv.OpPut {
		a := puts.Get().(*onePut)
		w.answer(a.fill(w, r, h))
		puts.Put(a)
		return
	}
	x := wire.FromHeader(h)
	w.addStale(x, w.route, w.command.Key)
	w.answer(w.result(r, x))
}

// answer gives it a result, unless it has one.
func (w *openWrite) answer(x *kvdv1.PipelineResult) {
	p := w.pipeline
	p.mu.Lock()
	defer p.mu.Unlock()
	if !w.over {
		p.writes.close(w)
		p.results.add(x)
	}
}

// result is that of a write other than a Put.
func (w *openWrite) result(r kv.Result, h *kvdv1.ResponseHeader) *kvdv1.PipelineResult {
	x := &kvdv1.PipelineResult{Id: w.id}
	switch w.command.Op {
	case kv.OpDelete:
		x.Result = &kvdv1.PipelineResult_Delete{Delete: deleteResponse(r, h)}
	case kv.OpIncrement:
		x.Result = &kvdv1.PipelineResult_Increment{Increment: incrementResponse(r, h)}
	case kv.OpTxn:
		x.Result = &kvdv1.PipelineResult_Txn{Txn: txnResponse(r, h)}
	}
	return x
}

// onePut is the result of a Put until it is encoded.
type onePut struct {
	result   kvdv1.PipelineResult
	body     kvdv1.PipelineResult_Put
	response kvdv1.PutResponse
	header   kvdv1.ResponseHeader
	epoch    kvdv1.Epoch
}

var puts = sync.Pool{New: func() any { return &onePut{} }}

func (a *onePut) fill(w *openWrite, r kv.Result, h kv.Header) *kvdv1.PipelineResult {
	a.header.Descriptors = nil
	wire.FillHeader(&a.header, &a.epoch, h)
	w.addStale(&a.header, w.route, w.command.Key)
	a.response.Header, a.response.Succeeded, a.response.Revision = &a.header, r.Status == kv.Done, uint64(r.Revision)
	a.body.Put = &a.response
	a.result.Id, a.result.Result = w.id, &a.body
	return &a.result
}
