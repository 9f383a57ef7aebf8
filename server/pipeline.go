package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
)

// pipeline is one stream. A goroutine receives: it decodes one operation after the other and begins it, reads some at a time, since
// they are looked up together (node.TryGets). A read that is in memory has its result at once; what waits, waits elsewhere. Results
// are encoded where they come up, into the messages in which they leave (results.go), and the call's own goroutine sends those.
//
// Operations are taken as long as fewer than kv.PipelineInFlight are in flight; then the stream is not read, and gRPC's
// flow control reaches the client. An operation is in flight until its result was sent: else a client that takes no
// answers would fill the node's memory with them.
type pipeline struct {
	*service
	ctx context.Context
	// The receiver's own: the places in flight of operations that have not begun, the reads of the message that have not, the results of
	// reads that it has not handed over, and what they are encoded from.
	reserved int
	reads    *reads
	hits     *answers
	result   readResult
	// at is a moment after the message had come, and after the last wait for a place; 0 until a read asks for it.
	at time.Duration
	// ahead is how many reads are looked up together: what is found waits in memory for its place.
	ahead int

	mu      sync.Mutex
	results results
	writes  openWrites
}

func newPipeline(ctx context.Context, s *service) *pipeline {
	return &pipeline{service: s, ctx: ctx, results: newResults()}
}

// Pipeline serves a stream of operations.
func (s *service) Pipeline(stream kvdv1.KV_PipelineServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	p := newPipeline(ctx, s)
	s.pipelines.Store(p, true)
	defer s.pipelines.Delete(p)
	context.AfterFunc(ctx, p.abandon)
	go func() { p.end(p.receive(stream)) }()
	return p.send(stream)
}

// piped reports whether an operation of any pipeline is in flight.
func (s *service) piped() (found bool) {
	s.pipelines.Range(func(p, _ any) bool {
		found = p.(*pipeline).busy()
		return !found
	})
	return found
}

func (p *pipeline) busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.results.inFlight > 0
}

// receive takes operations until the client has no more.
func (p *pipeline) receive(stream kvdv1.KV_PipelineServer) error {
	for {
		var m opsMessage
		err := stream.RecvMsg(&m)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = p.take(&m)
		}
		m.free()
		if err != nil {
			return err
		}
	}
}

// take begins the operations of a message.
func (p *pipeline) take(m *opsMessage) error {
	if m.size > opsBytesMax {
		return p.fail(wire.Write, &kv.InvalidError{Field: "message", Bound: fmt.Sprintf("at most %d bytes, is %d", kv.TxnBytesMax, m.size)})
	}
	p.reads = newReads()
	defer func() {
		p.reads.free()
		p.reads, p.result.answer = nil, getAnswer{}
		p.flush()
	}()
	p.at, p.ahead = 0, readsMax
	for left := m.count; left > 0; left-- {
		if err := p.one(m.next(), left); err != nil {
			_ = p.read(left - 1) // What came before is answered, unless the stream has ended.
			return err
		}
	}
	return p.read(0)
}

// one begins an operation that comes encoded, or has it wait for others if it is a read that memory may answer; left is how many
// operations of the message have not been looked at, with this one.
func (p *pipeline) one(b []byte, left int) error {
	if isGet(b) {
		added, err := p.reads.add(b)
		if err != nil {
			return undecodable(err)
		}
		if added && p.reads.count == readsMax {
			return p.read(left - 1)
		}
		if added {
			return nil
		}
	}
	op := &kvdv1.PipelineOp{}
	if err := op.UnmarshalVT(b); err != nil {
		return undecodable(err)
	}
	if err := p.place(left + p.reads.count); err != nil {
		return err
	}
	p.reserved--
	if get, ok := op.Op.(*kvdv1.PipelineOp_Get); ok {
		go p.get(op, get.Get)
		return nil
	}
	p.write(op)
	return nil
}

// read begins the reads that wait; left is how many operations of the message have not been looked at.
func (p *pipeline) read(left int) error {
	defer p.reads.reset()
	for next := 0; next < p.reads.count; {
		if err := p.place(left + p.reads.count - next); err != nil {
			return err
		}
		from, end := next, min(next+min(p.reserved, p.ahead), p.reads.count)
		p.look(from, end)
		for ; next < end && p.reserved > 0; next++ {
			p.reserved--
			if err := p.answer(&p.reads.ops[next], &p.reads.looks[next]); err != nil {
				p.reserved++ // It has not begun.
				return err
			}
		}
		clear(p.reads.looks[from:end]) // What is left of them is looked up again when there is room.
		p.ahead = min(2*p.ahead, readsMax)
	}
	return nil
}

// look looks for some of the reads in memory.
func (p *pipeline) look(from, to int) {
	if p.at == 0 {
		p.at = p.backend.Moment()
	}
	for i := from; i < to; i++ {
		p.reads.looks[i].Key = p.reads.ops[i].request.Key
	}
	p.backend.TryGets(p.at, p.reads.looks[from:to])
}

// answer takes what look has found, or begins a read that waits.
func (p *pipeline) answer(op *readOp, look *node.Read) error {
	if !look.Ok {
		op, err := op.own()
		if err != nil {
			return undecodable(err)
		}
		go p.get(op, op.GetGet())
		return nil
	}
	p.result.reset(op.op.Id)
	p.found(&p.result.answer, &op.request, look.Record, look.Found, look.Header)
	if p.hits == nil {
		p.hits = newAnswers()
	}
	p.hits.add(&p.result.result)
	if len(p.hits.b) >= flushBytes {
		p.flush()
	}
	return nil
}

// place sees to it that an operation has a place in flight, and waits for one if need be; left is how many operations of the
// message have not begun, for which places are taken as far as there are some.
func (p *pipeline) place(left int) error {
	if p.reserved > 0 {
		return nil
	}
	p.flush()
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.results.full() {
		p.results.short = true
		p.mu.Unlock()
		select {
		case <-p.results.room:
		case <-p.ctx.Done():
		}
		p.mu.Lock()
		if err := p.ctx.Err(); err != nil {
			return err
		}
		p.at, p.ahead = 0, 1
	}
	p.reserved = min(left, kv.PipelineInFlight-p.results.inFlight)
	p.results.reserve(p.reserved)
	return nil
}

// undecodable ends a stream as gRPC does for a message that cannot be decoded.
func undecodable(err error) error {
	return status.Errorf(codes.Internal, "decode an operation: %v", err)
}

// flush hands over what was read from memory. With too much to be sent the places that were taken for what follows are
// given back, so that it waits.
func (p *pipeline) flush() {
	if p.hits == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.results.take(p.hits)
	p.hits = nil
	if p.results.crowded() {
		p.results.reserve(-p.reserved)
		p.reserved = 0
	}
}

// end tells the sender that nothing more is received.
func (p *pipeline) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.results.reserve(-p.reserved)
	p.reserved = 0
	p.results.ended, p.results.err = true, err
	p.results.signal()
}

// send sends results until all operations have theirs and nothing more is received.
func (p *pipeline) send(stream kvdv1.KV_PipelineServer) error {
	for {
		p.mu.Lock()
		m, over, err := p.results.next()
		p.mu.Unlock()
		switch {
		case m != nil:
			if sent := stream.SendMsg(m); sent != nil {
				return sent
			}
			p.mu.Lock()
			p.results.sent(m)
			p.mu.Unlock()
			m.free()
		case over:
			return err // What has a result is known to the client, the rest is unknown.
		default:
			<-p.results.wake
		}
	}
}

// finish hands a result to the sender.
func (p *pipeline) finish(r *kvdv1.PipelineResult) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.results.add(r)
}

func (p *pipeline) refuse(id uint64, op wire.Op, err error) { p.finish(p.refusal(id, op, err)) }

func (p *pipeline) refusal(id uint64, op wire.Op, err error) *kvdv1.PipelineResult {
	if _, full := errors.AsType[*kv.OverloadError](err); full && op == wire.Write {
		return &kvdv1.PipelineResult{Id: id, Result: busy}
	}
	return &kvdv1.PipelineResult{Id: id, Result: &kvdv1.PipelineResult_Error{Error: wire.FromError(op, err, p.backend.NodeAddress)}}
}

// busy is the refusal of a write for want of room. It is shared: refusals must cost little.
var busy = &kvdv1.PipelineResult_Error{Error: wire.FromError(wire.Write, &kv.OverloadError{What: "the queue of writes", RetryAfter: kv.RetryAfter}, nil)}

// patience is how long an operation may take.
func patience(op *kvdv1.PipelineOp) time.Duration {
	if ms := op.GetTimeoutMs(); ms != 0 {
		return time.Duration(ms) * time.Millisecond
	}
	return kv.RequestTimeout
}

// get is a read that is not in memory.
func (p *pipeline) get(op *kvdv1.PipelineOp, r *kvdv1.GetRequest) {
	ctx, cancel := context.WithTimeout(p.ctx, patience(op))
	defer cancel()
	resp, err := p.service.get(ctx, r)
	if err != nil {
		p.refuse(op.GetId(), wire.Read, err)
		return
	}
	p.finish(&kvdv1.PipelineResult{Id: op.GetId(), Result: &kvdv1.PipelineResult_Get{Get: resp}})
}
