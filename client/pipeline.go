package client

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

const (
	// messageBytes and messageOps are where a message ends when more is queued.
	messageBytes = 1 << 20
	messageOps   = 512
	// silentMax is after how much silence a stream with operations in flight is given up: its writes are unknown then.
	silentMax = 1500 * time.Millisecond
	// InFlightMax bounds the operations of one client's pipelines that have no answer yet; further ones wait.
	InFlightMax = 4096
)

// Pipeline sends operations without waiting for the answers of earlier ones; what is queued meanwhile travels as one
// message. There is no order between operations in flight. It may be used by any number of goroutines.
type Pipeline struct {
	c      *Client
	places chan struct{}
}

// Pipeline gives the client's pipelined mode.
func (c *Client) Pipeline() *Pipeline {
	return &Pipeline{c: c, places: make(chan struct{}, InFlightMax)}
}

// operation is one in a pipeline.
type operation struct {
	p        *Pipeline
	ctx      context.Context
	cancel   context.CancelFunc
	key      []byte
	read     bool
	attempts int
	op       *kvdv1.PipelineOp
	done     func(*kvdv1.PipelineResult, error)
	ended    atomic.Bool
	stop     func() bool
}

// end tells the caller, once.
func (o *operation) end(r *kvdv1.PipelineResult, err error) {
	if !o.ended.CompareAndSwap(false, true) {
		return
	}
	o.stop()
	o.cancel()
	<-o.p.places
	o.done(r, mark(o.read, err))
}

// GoPut begins a put; done is called once, from any goroutine. It waits while too many operations are in flight.
func (p *Pipeline) GoPut(ctx context.Context, key, value []byte, done func(PutResult, error), list ...WriteOption) {
	op := &kvdv1.PipelineOp{Op: &kvdv1.PipelineOp_Put{Put: putRequest(key, value, list)}}
	p.begin(ctx, key, false, op, func(r *kvdv1.PipelineResult, err error) {
		done(PutResult{r.GetPut().GetSucceeded(), kv.Revision(r.GetPut().GetRevision())}, err)
	})
}

// GoGet begins a get.
func (p *Pipeline) GoGet(ctx context.Context, key []byte, done func(item Item, found bool, err error), list ...ReadOption) {
	op := &kvdv1.PipelineOp{Op: &kvdv1.PipelineOp_Get{Get: &kvdv1.GetRequest{Key: key, Level: level(list)}}}
	p.begin(ctx, key, true, op, func(r *kvdv1.PipelineResult, err error) { done(itemOf(key, r.GetGet()), r.GetGet().GetFound(), err) })
}

// GoDelete begins a delete.
func (p *Pipeline) GoDelete(ctx context.Context, key []byte, done func(DeleteResult, error), list ...WriteOption) {
	op := &kvdv1.PipelineOp{Op: &kvdv1.PipelineOp_Delete{Delete: &kvdv1.DeleteRequest{Key: key, Condition: options(list).condition}}}
	p.begin(ctx, key, false, op, func(r *kvdv1.PipelineResult, err error) {
		d := r.GetDelete()
		done(DeleteResult{d.GetSucceeded(), d.GetFound(), kv.Revision(d.GetRevision())}, err)
	})
}

// GoIncrement begins an increment.
func (p *Pipeline) GoIncrement(ctx context.Context, key []byte, delta int64, done func(value int64, err error)) {
	op := &kvdv1.PipelineOp{Op: &kvdv1.PipelineOp_Increment{Increment: &kvdv1.IncrementRequest{Key: key, Delta: delta}}}
	p.begin(ctx, key, false, op, func(r *kvdv1.PipelineResult, err error) { done(r.GetIncrement().GetValue(), err) })
}

// Put is GoPut and waits.
func (p *Pipeline) Put(ctx context.Context, key, value []byte, list ...WriteOption) (PutResult, error) {
	type answer struct {
		r   PutResult
		err error
	}
	ch := make(chan answer, 1)
	p.GoPut(ctx, key, value, func(r PutResult, err error) { ch <- answer{r, err} }, list...)
	a := <-ch
	return a.r, a.err
}

// Get is GoGet and waits.
func (p *Pipeline) Get(ctx context.Context, key []byte, list ...ReadOption) (Item, bool, error) {
	type answer struct {
		item  Item
		found bool
		err   error
	}
	ch := make(chan answer, 1)
	p.GoGet(ctx, key, func(item Item, found bool, err error) { ch <- answer{item, found, err} }, list...)
	a := <-ch
	return a.item, a.found, a.err
}

func (p *Pipeline) begin(ctx context.Context, key []byte, read bool, op *kvdv1.PipelineOp, done func(*kvdv1.PipelineResult, error)) {
	o := &operation{p: p, key: key, read: read, op: op, done: done}
	o.ctx, o.cancel = bounded(ctx)
	select {
	case p.places <- struct{}{}:
	case <-o.ctx.Done():
		err := o.ctx.Err()
		o.cancel()
		done(nil, notDone{err}) // It never left.
		return
	}
	// At the deadline it ends, whatever the streams do; that may be now.
	armed := make(chan struct{})
	o.stop = context.AfterFunc(o.ctx, func() {
		<-armed
		o.end(nil, o.ctx.Err())
	})
	close(armed)
	p.c.refreshFirst()
	p.c.dispatch(o)
}

// dispatch hands an operation to the stream of the node that it goes to.
func (c *Client) dispatch(o *operation) {
	t := c.target(o.key, o.attempts)
	o.attempts++
	header := (*kvdv1.RequestHeader)(nil)
	if t.Route.Version != 0 {
		header = &kvdv1.RequestHeader{Shard: uint64(t.Route.Shard), Version: t.Route.Version}
	}
	setHeader(o.op, header)
	if !c.stream(t.Address).add(o) {
		c.later(o, &kv.NotLeaderError{})
	}
}

func setHeader(op *kvdv1.PipelineOp, h *kvdv1.RequestHeader) {
	switch x := op.Op.(type) {
	case *kvdv1.PipelineOp_Get:
		x.Get.Header = h
	case *kvdv1.PipelineOp_Put:
		x.Put.Header = h
	case *kvdv1.PipelineOp_Delete:
		x.Delete.Header = h
	case *kvdv1.PipelineOp_Increment:
		x.Increment.Header = h
	}
}

// later tries an operation that was not done again, after a pause.
func (c *Client) later(o *operation, err error) {
	go func() {
		if o.ended.Load() {
			return
		}
		if !pause(o.ctx, o.attempts, err) {
			if o.read || o.ctx.Err() == nil {
				o.end(nil, err)
			} else {
				o.end(nil, notDone{errors.Join(err, o.ctx.Err())})
			}
			return
		}
		c.dispatch(o)
	}()
}

// stream is one Pipeline stream to a node.
type stream struct {
	c       *Client
	address string
	ctx     context.Context
	cancel  context.CancelFunc

	mu     sync.Mutex
	queue  []*operation
	flying map[uint64]*operation
	next   uint64
	heard  time.Time
	broken bool
	wake   chan struct{}
}

// stream gives the stream to an address, a new one when the last broke.
func (c *Client) stream(address string) *stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.pipes[address]; s != nil {
		return s
	}
	s := &stream{c: c, address: address, flying: map[uint64]*operation{}, wake: make(chan struct{}, 1), heard: time.Now()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if c.closed {
		s.broken = true
		return s
	}
	c.pipes[address] = s
	go s.run()
	return s
}

// add queues an operation; false when the stream is broken.
func (s *stream) add(o *operation) bool {
	s.mu.Lock()
	if s.broken {
		s.mu.Unlock()
		return false
	}
	if len(s.flying)+len(s.queue) == 0 {
		s.heard = time.Now() // Silence counts from here.
	}
	s.queue = append(s.queue, o)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return true
}

// run sends and receives until the stream breaks.
func (s *stream) run() {
	err := s.carry()
	s.cancel()
	s.c.mu.Lock()
	if s.c.pipes[s.address] == s {
		delete(s.c.pipes, s.address)
	}
	s.c.mu.Unlock()
	s.c.suspect(s.address)
	s.c.refresh()
	s.mu.Lock()
	s.broken = true
	queue, flying := s.queue, s.flying
	s.queue, s.flying = nil, nil
	s.mu.Unlock()
	for _, o := range queue {
		s.c.later(o, &kv.NotLeaderError{})
	}
	for _, o := range flying {
		if o.read {
			s.c.later(o, &kv.NotLeaderError{})
		} else {
			o.end(nil, errors.Join(kv.ErrUnknown, err))
		}
	}
}

var errSilent = errors.New("the node is silent")

func (s *stream) carry() error {
	conn, err := s.c.conn(s.address)
	if err != nil {
		return err
	}
	rpc, err := kvdv1.NewKVClient(conn).Pipeline(s.ctx, grpc.WaitForReady(false))
	if err != nil {
		return err
	}
	received := make(chan error, 1)
	go func() { received <- s.receive(rpc) }()
	ticker := time.NewTicker(silentMax / 8)
	defer ticker.Stop()
	for {
		select {
		case err := <-received:
			return err
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-ticker.C:
			if s.silent() {
				return errSilent
			}
		case <-s.wake:
			for r := s.take(); r != nil; r = s.take() {
				if err := rpc.Send(r); err != nil {
					return <-received
				}
			}
		}
	}
}

func (s *stream) silent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.flying)+len(s.queue) > 0 && time.Since(s.heard) > silentMax
}

// take makes a message of what is queued.
func (s *stream) take() *kvdv1.PipelineRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &kvdv1.PipelineRequest{}
	size, n := 0, 0
	for n < len(s.queue) && n < messageOps && (len(r.Ops) == 0 || size < messageBytes) {
		o := s.queue[n]
		n++
		if o.ended.Load() {
			continue
		}
		s.next++
		// The operation may be repeated on another stream while this one still encodes: each message has its own.
		op := &kvdv1.PipelineOp{Id: s.next, Op: o.op.Op}
		if deadline, ok := o.ctx.Deadline(); ok {
			op.TimeoutMs = uint32(max(time.Until(deadline).Milliseconds(), 1))
		}
		s.flying[op.Id] = o
		size += op.SizeVT()
		r.Ops = append(r.Ops, op)
	}
	s.queue = s.queue[n:]
	if len(r.Ops) == 0 {
		return nil
	}
	return r
}

func (s *stream) receive(rpc kvdv1.KV_PipelineClient) error {
	for {
		resp, err := rpc.Recv()
		if err != nil {
			return err
		}
		for _, r := range resp.GetResults() {
			s.mu.Lock()
			s.heard = time.Now()
			o := s.flying[r.GetId()]
			delete(s.flying, r.GetId())
			s.mu.Unlock()
			if o != nil {
				s.answer(o, r)
			}
		}
	}
}

// answer ends an operation, or tries it again when it was not done.
func (s *stream) answer(o *operation, r *kvdv1.PipelineResult) {
	p := r.GetError()
	if p == nil {
		s.c.learn(headerOf(r))
		s.c.served(headerOf(r))
		o.end(r, nil)
		return
	}
	op := wire.Write
	if o.read {
		op = wire.Read
	}
	s.c.learnError(p.GetDetail())
	err := wire.ToError(op, p)
	if kv.Retryable(err) && !errors.Is(err, kv.ErrUnknown) {
		s.c.later(o, err)
		return
	}
	o.end(nil, err)
}

func headerOf(r *kvdv1.PipelineResult) *kvdv1.ResponseHeader {
	switch x := r.GetResult().(type) {
	case *kvdv1.PipelineResult_Get:
		return x.Get.GetHeader()
	case *kvdv1.PipelineResult_Put:
		return x.Put.GetHeader()
	case *kvdv1.PipelineResult_Delete:
		return x.Delete.GetHeader()
	case *kvdv1.PipelineResult_Increment:
		return x.Increment.GetHeader()
	}
	return nil
}
