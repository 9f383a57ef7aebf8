package client

// A stream carries the operations of pipelines to one node. Three goroutines: one sends what is queued as one message
// as soon as the last has left, one receives, one watches. When no answer came for attemptMax the node is asked whether
// it is alive, over the same connection: a shard without a leader keeps its operations waiting and is no reason to give
// up those of others, but a node that does not answer at all is. What was flying on a stream that broke is unknown, if
// it is a write; what was queued was not done.

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

const (
	// messageBytes and messageOps are where a message ends when more is queued. One larger operation goes alone.
	messageBytes = 1 << 20
	messageOps   = 512
	// quietEvery is how often a stream with operations in flight is looked at.
	quietEvery = attemptMax / 4
)

// A message is no larger than what a node takes.
var _ [kv.TxnBytesMax - messageBytes]struct{}

var errBroken = errors.New("the stream broke")

// stream is one Pipeline stream to a node.
type stream struct {
	c       *Client
	address string
	ctx     context.Context
	cancel  context.CancelCauseFunc
	// wake says that there may be something to send, busy that something is in flight.
	wake, busy chan struct{}

	mu      sync.Mutex
	queue   []*operation
	flights map[uint64]*operation // At most kv.PipelineInFlight.
	next    uint64
	heard   time.Time
	broken  bool
}

// stream gives the stream to an address, a new one when the last broke.
func (c *Client) stream(address string) (*stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	if s := c.streams[address]; s != nil {
		return s, nil
	}
	s := &stream{
		c: c, address: address, flights: map[uint64]*operation{}, wake: make(chan struct{}, 1), busy: make(chan struct{}, 1),
	}
	s.ctx, s.cancel = context.WithCancelCause(c.ctx)
	c.streams[address] = s
	c.running.Go(s.run)
	return s, nil
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// add queues an operation; false when the stream is broken.
func (s *stream) add(o *operation) bool {
	s.mu.Lock()
	if s.broken {
		s.mu.Unlock()
		return false
	}
	s.queue = append(s.queue, o)
	s.mu.Unlock()
	signal(s.wake)
	return true
}

// run sends and receives until the stream breaks, and then sees to what it had.
func (s *stream) run() {
	e, err := s.c.pool.acquire(s.address)
	if err == nil {
		err = s.carry(e)
		e.release()
	}
	s.cancel(nil)
	s.c.mu.Lock()
	if s.c.streams[s.address] == s {
		delete(s.c.streams, s.address)
	}
	s.c.mu.Unlock()
	if e != nil && s.c.ctx.Err() == nil {
		s.c.suspect(e)
		s.c.refresh()
	}
	s.mu.Lock()
	s.broken = true
	queue, flights := s.queue, s.flights
	s.queue, s.flights = nil, nil
	s.mu.Unlock()
	lost := &lostError{s.address, err}
	if s.c.ctx.Err() != nil {
		lost.err = ErrClosed
	}
	for _, o := range queue {
		s.c.later(o, verdict{err: notDone{lost}, again: true})
	}
	for _, o := range flights {
		if o.kind == wire.Write {
			o.end(flying, nil, unknown{lost})
		} else if o.state.CompareAndSwap(flying, waiting) {
			s.c.later(o, verdict{err: notDone{lost}, again: true})
		}
	}
}

// carry has the stream open, until one of its goroutines ends.
func (s *stream) carry(e *endpoint) error {
	conn := e.conns[0]
	rpc, err := kvdv1.NewKVClient(conn).Pipeline(s.ctx)
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	// The first error is the cause: the others follow from it.
	for _, f := range []func() error{
		func() error { return s.send(rpc) },
		func() error { return s.receive(rpc, e) },
		func() error { return s.watch(conn) },
	} {
		group.Go(func() { s.cancel(f()) })
	}
	group.Wait()
	return context.Cause(s.ctx)
}

// send sends messages of what is queued.
func (s *stream) send(rpc kvdv1.KV_PipelineClient) error {
	for {
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-s.wake:
		}
		for m := s.take(); m != nil; m = s.take() {
			if err := rpc.Send(m); err != nil {
				<-s.ctx.Done() // It says only that the stream ended; the receiver knows why.
				return err
			}
		}
	}
}

// take makes a message of what is queued; nil when there is nothing, or no more may be in flight.
func (s *stream) take() *kvdv1.PipelineRequest {
	var ops []*operation
	s.mu.Lock()
	size, n, idle := 0, 0, len(s.flights) == 0
	for ; n < len(s.queue) && len(ops) < messageOps && len(s.flights) < kv.PipelineInFlight; n++ {
		o := s.queue[n]
		if size += o.size; size > messageBytes && len(ops) > 0 {
			break
		}
		if !o.state.CompareAndSwap(waiting, flying) {
			size -= o.size // It ended in the queue.
			continue
		}
		s.next++
		s.flights[s.next] = o
		ops = append(ops, o)
	}
	clear(s.queue[:n])
	s.queue = s.queue[n:]
	first := s.next - uint64(len(ops)) + 1
	if idle {
		s.heard = time.Now() // Silence counts from here.
	}
	s.mu.Unlock()
	if len(ops) == 0 {
		return nil
	}
	if idle {
		signal(s.busy)
	}
	m := &kvdv1.PipelineRequest{Ops: make([]*kvdv1.PipelineOp, len(ops))}
	for i, o := range ops {
		m.Ops[i] = o.message(first + uint64(i))
	}
	return m
}

// receive takes answers.
func (s *stream) receive(rpc grpc.BidiStreamingClient[kvdv1.PipelineRequest, kvdv1.PipelineResponse], e *endpoint) error {
	var ops []*operation
	for {
		m, err := rpc.Recv()
		if err != nil {
			return err
		}
		ops = ops[:0]
		s.mu.Lock()
		s.heard = time.Now()
		for _, r := range m.GetResults() {
			ops = append(ops, s.flights[r.GetId()]) // nil for an id that nobody knows.
			delete(s.flights, r.GetId())
		}
		more := len(s.queue) > 0
		s.mu.Unlock()
		if more {
			signal(s.wake)
		}
		s.c.answered(e)
		for i, o := range ops {
			if o != nil {
				s.answer(o, m.Results[i])
			}
		}
	}
}

// answer ends an operation, or tries it again when it was not done.
func (s *stream) answer(o *operation, r *kvdv1.PipelineResult) {
	p := r.GetError()
	if p == nil {
		s.c.learn(resultHeader(r), o.at == atLeader)
		o.end(flying, r, nil)
		return
	}
	v := s.c.judgeAnswer(o.kind, o.target, p)
	if !v.again {
		o.end(flying, nil, v.err)
		return
	}
	if o.state.CompareAndSwap(flying, waiting) {
		s.c.later(o, v)
	}
}

// watch ends the stream when the node is silent while operations are in flight.
func (s *stream) watch(conn *grpc.ClientConn) error {
	for {
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-s.busy:
		}
		ticker := time.NewTicker(quietEvery)
		err := s.watchBusy(conn, ticker.C)
		ticker.Stop()
		if err != nil {
			return err
		}
	}
}

// watchBusy watches until nothing is in flight.
func (s *stream) watchBusy(conn *grpc.ClientConn, tick <-chan time.Time) error {
	for {
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-tick:
		}
		s.mu.Lock()
		idle, heard := len(s.flights) == 0, s.heard
		s.mu.Unlock()
		switch {
		case idle:
			return nil
		case time.Since(heard) < attemptMax:
			continue
		case !s.c.alive(conn) && !s.heardSince(heard):
			return errSilent
		}
		s.mu.Lock()
		s.heard = time.Now()
		s.mu.Unlock()
	}
}

// heardSince tells whether an answer came after a moment.
func (s *stream) heardSince(t time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard.After(t)
}

func resultHeader(r *kvdv1.PipelineResult) *kvdv1.ResponseHeader {
	switch x := r.GetResult().(type) {
	case *kvdv1.PipelineResult_Get:
		return x.Get.GetHeader()
	case *kvdv1.PipelineResult_Put:
		return x.Put.GetHeader()
	case *kvdv1.PipelineResult_Delete:
		return x.Delete.GetHeader()
	case *kvdv1.PipelineResult_Increment:
		return x.Increment.GetHeader()
	case *kvdv1.PipelineResult_Txn:
		return x.Txn.GetHeader()
	}
	return nil
}
