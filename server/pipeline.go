package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

const (
	// answerBytes is about where a message of results ends.
	answerBytes = kv.AnswerBytesMax / 2
	// unsentBytesMax bounds the values of a stream's results that wait to be sent: past it no operation is begun. What
	// had begun before comes on top.
	unsentBytesMax = 4 * kv.AnswerBytesMax
)

// pipeline is one stream. Operations are taken as long as fewer than kv.PipelineInFlight are in flight; then the
// stream is not read, and gRPC's flow control reaches the client. An operation is in flight until its result was sent:
// else a client that takes no answers would fill the node's memory with them.
type pipeline struct {
	*service
	ctx    context.Context
	places chan struct{}
	// room says that results were sent; unsent counts the bytes of the values in results.
	room   chan struct{}
	unsent atomic.Int64

	mu      sync.Mutex
	results []*kvdv1.PipelineResult
	wake    chan struct{}
	open    sync.WaitGroup // Operations without a result.
}

func newPipeline(ctx context.Context, s *service) *pipeline {
	return &pipeline{
		service: s, ctx: ctx, places: make(chan struct{}, kv.PipelineInFlight), room: make(chan struct{}, 1), wake: make(chan struct{}, 1),
	}
}

// Pipeline serves a stream of operations.
func (s *service) Pipeline(stream kvdv1.KV_PipelineServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	p := newPipeline(ctx, s)
	s.pipelines.Store(p, true)
	defer s.pipelines.Delete(p)
	drained := make(chan error, 1)
	go func() {
		err := p.receive(stream)
		p.open.Wait()
		drained <- err
	}()
	for {
		select {
		case <-p.wake:
			if err := p.send(stream); err != nil {
				return err
			}
		case err := <-drained:
			// Also before an error: what has a result is known to the client, the rest is unknown.
			if sent := p.send(stream); err == nil {
				err = sent
			}
			return err
		}
	}
}

// piped reports whether an operation of any pipeline is in flight.
func (s *service) piped() (found bool) {
	s.pipelines.Range(func(p, _ any) bool {
		found = len(p.(*pipeline).places) > 0
		return !found
	})
	return found
}

// receive takes operations until the client has no more.
func (p *pipeline) receive(stream kvdv1.KV_PipelineServer) error {
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if size := proto.Size(r); size > kv.TxnBytesMax+1024 {
			return p.fail(wire.Write, &kv.InvalidError{Field: "message", Bound: fmt.Sprintf("at most %d bytes, is %d", kv.TxnBytesMax, size)})
		}
		for _, op := range r.GetOps() {
			if err := p.begin(); err != nil {
				return err
			}
			p.do(op)
		}
	}
}

// begin waits for a place in flight.
func (p *pipeline) begin() error {
	for p.unsent.Load() > unsentBytesMax {
		select {
		case <-p.room:
		case <-p.ctx.Done():
			return p.ctx.Err()
		}
	}
	select {
	case p.places <- struct{}{}:
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
	p.open.Add(1)
	return nil
}

// send sends the results that are there.
func (p *pipeline) send(stream kvdv1.KV_PipelineServer) error {
	for {
		p.mu.Lock()
		n, size := 0, 0
		for n < len(p.results) && (n == 0 || size < answerBytes) {
			size += p.results[n].SizeVT()
			n++
		}
		results := p.results[:n:n]
		p.results = p.results[n:]
		if len(p.results) == 0 {
			p.results = nil
		}
		p.mu.Unlock()
		if n == 0 {
			return nil
		}
		if err := stream.Send(&kvdv1.PipelineResponse{Results: results}); err != nil {
			return err
		}
		p.sent(results)
	}
}

// sent gives the places of results that were sent back.
func (p *pipeline) sent(results []*kvdv1.PipelineResult) {
	freed := 0
	for _, r := range results {
		freed += valueBytes(r)
		<-p.places
	}
	p.unsent.Add(-int64(freed))
	select {
	case p.room <- struct{}{}:
	default:
	}
}

// valueBytes is the size of the values in a result, which is most of a large one.
func valueBytes(r *kvdv1.PipelineResult) int {
	switch x := r.Result.(type) {
	case *kvdv1.PipelineResult_Get:
		return len(x.Get.Value)
	case *kvdv1.PipelineResult_Txn:
		n := 0
		for _, o := range x.Txn.Results {
			n += len(o.Value)
		}
		return n
	}
	return 0
}

// finish hands a result to the sender.
func (p *pipeline) finish(r *kvdv1.PipelineResult) {
	p.unsent.Add(int64(valueBytes(r)))
	p.mu.Lock()
	p.results = append(p.results, r)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
	p.open.Done()
}

func (p *pipeline) refuse(id uint64, op wire.Op, err error) {
	if _, full := errors.AsType[*kv.OverloadError](err); full && op == wire.Write {
		p.finish(&kvdv1.PipelineResult{Id: id, Result: busy})
		return
	}
	p.finish(&kvdv1.PipelineResult{Id: id, Result: &kvdv1.PipelineResult_Error{Error: wire.FromError(op, err, p.backend.NodeAddress)}})
}

// busy is the refusal of a write for want of room. It is shared: refusals must cost little.
var busy = &kvdv1.PipelineResult_Error{Error: wire.FromError(wire.Write, &kv.OverloadError{What: "the queue of writes", RetryAfter: kv.RetryAfter}, nil)}

// do begins an operation.
func (p *pipeline) do(op *kvdv1.PipelineOp) {
	id := op.GetId()
	if _, read := op.GetOp().(*kvdv1.PipelineOp_Get); !read && (p.backend.Busy() || p.backend.Lag() > kv.LoopLagMax) {
		p.finish(&kvdv1.PipelineResult{Id: id, Result: busy})
		return
	}
	switch x := op.GetOp().(type) {
	case *kvdv1.PipelineOp_Get:
		if resp := p.tryGet(x.Get); resp != nil {
			p.finish(&kvdv1.PipelineResult{Id: id, Result: &kvdv1.PipelineResult_Get{Get: resp}})
			return
		}
		go p.get(op, x.Get)
	case *kvdv1.PipelineOp_Put:
		c, err := putCommand(x.Put)
		p.write(op, x.Put.GetHeader(), c, err, func(r kv.Result, h *kvdv1.ResponseHeader) *kvdv1.PipelineResult {
			return &kvdv1.PipelineResult{Id: id, Result: &kvdv1.PipelineResult_Put{Put: putResponse(r, h)}}
		})
	case *kvdv1.PipelineOp_Delete:
		c, err := deleteCommand(x.Delete)
		p.write(op, x.Delete.GetHeader(), c, err, func(r kv.Result, h *kvdv1.ResponseHeader) *kvdv1.PipelineResult {
			return &kvdv1.PipelineResult{Id: id, Result: &kvdv1.PipelineResult_Delete{Delete: deleteResponse(r, h)}}
		})
	case *kvdv1.PipelineOp_Increment:
		c, err := incrementCommand(x.Increment)
		p.write(op, x.Increment.GetHeader(), c, err, func(r kv.Result, h *kvdv1.ResponseHeader) *kvdv1.PipelineResult {
			return &kvdv1.PipelineResult{Id: id, Result: &kvdv1.PipelineResult_Increment{Increment: incrementResponse(r, h)}}
		})
	case *kvdv1.PipelineOp_Txn:
		c, err := txnCommand(x.Txn)
		p.write(op, x.Txn.GetHeader(), c, err, func(r kv.Result, h *kvdv1.ResponseHeader) *kvdv1.PipelineResult {
			return &kvdv1.PipelineResult{Id: id, Result: &kvdv1.PipelineResult_Txn{Txn: txnResponse(r, h)}}
		})
	default:
		p.refuse(id, wire.Write, &kv.InvalidError{Field: "op", Bound: "get, put, delete, increment or txn"})
	}
}

// deadline is the operation's own.
func deadline(op *kvdv1.PipelineOp) time.Duration {
	if ms := op.GetTimeoutMs(); ms != 0 {
		return time.Duration(ms) * time.Millisecond
	}
	return kv.RequestTimeout
}

func (p *pipeline) get(op *kvdv1.PipelineOp, r *kvdv1.GetRequest) {
	ctx, cancel := context.WithTimeout(p.ctx, deadline(op))
	defer cancel()
	resp, err := p.service.get(ctx, r)
	if err != nil {
		p.refuse(op.GetId(), wire.Read, err)
		return
	}
	p.finish(&kvdv1.PipelineResult{Id: op.GetId(), Result: &kvdv1.PipelineResult_Get{Get: resp}})
}

// write submits a command. It ends with the result or at its deadline, whichever comes first.
func (p *pipeline) write(op *kvdv1.PipelineOp, h *kvdv1.RequestHeader, c *kv.Command, err error, answer func(kv.Result, *kvdv1.ResponseHeader) *kvdv1.PipelineResult) {
	id := op.GetId()
	if err != nil {
		p.refuse(id, wire.Write, err)
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, deadline(op))
	var ended atomic.Bool
	late := context.AfterFunc(ctx, func() {
		if ended.CompareAndSwap(false, true) {
			p.refuse(id, wire.Write, ctx.Err())
		}
	})
	route := routeOf(h)
	p.backend.Submit(ctx, route, c, func(r kv.Result, header kv.Header, err error) {
		late()
		cancel()
		if !ended.CompareAndSwap(false, true) {
			return
		}
		if err != nil {
			p.refuse(id, wire.Write, err)
			return
		}
		p.finish(answer(r, p.header(header, route, c.Key)))
	})
}
