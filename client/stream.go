package client

// A stream carries the operations of pipelines to one node. Two goroutines: one sends what is queued as one message
// as soon as the last has left, one receives; who looks at all flights looks at the streams too. When no answer came for attemptMax the node is asked whether
// it is alive, over the same connection: a shard without a leader keeps its operations waiting and is no reason to give
// up those of others, but a node that does not answer at all is. What was flying on a stream that broke is unknown, if
// it is a write; what was queued was not done.

import (
	"context"
	"errors"
	"runtime"
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
	// wake says that there may be something to send.
	wake chan struct{}

	mu     sync.Mutex // Guards the rest.
	queue  []*operation
	slots  slots
	idle   bool // The sender waits to be woken.
	heard  time.Time
	conn   *grpc.ClientConn // nil before it is open.
	asking bool             // Whether the node is alive.
	broken bool
}

// slots hold what is in flight. An id is the number of the slot and, above it, how many had it before.
type slots struct {
	taken []slot
	free  []uint16
}

type slot struct {
	id uint64
	o  *operation
}

func (s *slots) len() int { return len(s.taken) - len(s.free) }

// put takes a slot; there are less than kv.PipelineInFlight in flight.
func (s *slots) put(o *operation) (id uint64) {
	n := len(s.free) - 1
	if n < 0 {
		s.taken = append(s.taken, slot{id: uint64(len(s.taken))})
		s.free = append(s.free, uint16(len(s.taken)-1))
		n = 0
	}
	x := &s.taken[s.free[n]]
	s.free = s.free[:n]
	x.id += kv.PipelineInFlight
	x.o = o
	return x.id
}

// take gives what is in flight under an id, and its slot back; nil for an id that nobody knows.
func (s *slots) take(id uint64) *operation {
	n := id % kv.PipelineInFlight
	if n >= uint64(len(s.taken)) || s.taken[n].id != id || s.taken[n].o == nil {
		return nil
	}
	o := s.taken[n].o
	s.taken[n].o = nil
	s.free = append(s.free, uint16(n))
	return o
}

// stream gives the stream to an address, a new one when the last broke.
func (c *Client) stream(address string) (*stream, error) {
	if s, ok := c.streams.Load(address); ok {
		return s.(*stream), nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	if s, ok := c.streams.Load(address); ok {
		return s.(*stream), nil
	}
	s := &stream{c: c, address: address, wake: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancelCause(c.ctx)
	c.streams.Store(address, s)
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
	wake := s.idle
	s.idle = false
	s.mu.Unlock()
	if wake {
		signal(s.wake)
	}
	if !s.c.flights.awake.Load() {
		s.c.watchFlights()
	}
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
	s.c.streams.CompareAndDelete(s.address, s)
	if e != nil && s.c.ctx.Err() == nil {
		s.c.suspect(e)
		s.c.refresh()
	}
	s.mu.Lock()
	s.broken = true
	queue, flights := s.queue, s.slots.taken
	s.queue, s.slots = nil, slots{}
	s.mu.Unlock()
	lost := &lostError{s.address, err}
	if s.c.ctx.Err() != nil {
		lost.err = ErrClosed
	}
	for _, o := range queue {
		s.c.later(o, verdict{err: notDone{lost}, again: true})
	}
	for _, x := range flights {
		if o := x.o; o == nil {
			continue
		} else if o.kind == wire.Write {
			o.conclude(flying, nil, unknown{lost})
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
	s.mu.Lock()
	s.conn = conn
	s.mu.Unlock()
	var group sync.WaitGroup
	// The first error is the cause: the others follow from it.
	group.Go(func() { s.cancel(s.send(rpc)) })
	group.Go(func() { s.cancel(s.receive(rpc, e)) })
	group.Wait()
	return context.Cause(s.ctx)
}

// departure is a message, and the operations in it that are leaving.
type departure struct {
	kvdv1.PipelineRequest
	ops []*operation
}

// Encoded is called by the client's codec, and by who sends, in the same goroutine: the codec may be another.
func (m *departure) Encoded() {
	for _, o := range m.ops {
		o.state.CompareAndSwap(leaving, flying)
	}
	clear(m.ops)
	m.ops = m.ops[:0]
}

// send sends messages of what is queued. Where several use the stream it lets those run first that can: what they queue goes
// into the same message, instead of one of its own.
func (s *stream) send(rpc kvdv1.KV_PipelineClient) error {
	m := &departure{}
	for shared := false; ; {
		if shared {
			runtime.Gosched()
		}
		if shared = s.take(m) > 1; len(m.ops) > 0 {
			err := rpc.SendMsg(m)
			if m.Encoded(); err != nil {
				<-s.ctx.Done() // It says only that the stream ended; the receiver knows why.
				return err
			}
			continue
		}
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-s.wake:
		}
	}
}

// take makes a message of what is queued, in place of the last one, which has left. There is nothing in it when there is
// nothing to send, or no more may be in flight: then the sender is woken when there is. It gives how many operations the
// stream has, which wait or fly.
func (s *stream) take(m *departure) (has int) {
	clear(m.Ops)
	m.Ops = m.Ops[:0]
	now := time.Now()
	s.mu.Lock()
	size, n, none := 0, 0, s.slots.len() == 0
	for ; n < len(s.queue) && len(m.ops) < messageOps && s.slots.len() < kv.PipelineInFlight; n++ {
		o := s.queue[n]
		if size += o.size; size > messageBytes && len(m.ops) > 0 {
			break
		}
		if !o.state.CompareAndSwap(waiting, leaving) {
			size -= o.size // It ended in the queue.
			continue
		}
		o.id = s.slots.put(o)
		m.ops = append(m.ops, o)
	}
	s.drop(n)
	if none {
		s.heard = now // Silence counts from here.
	}
	s.idle = len(m.ops) == 0
	has = s.slots.len() + len(s.queue)
	s.mu.Unlock()
	for _, o := range m.ops {
		m.Ops = append(m.Ops, o.message(now))
	}
	return has
}

// drop takes the first n out of the queue.
func (s *stream) drop(n int) {
	rest := copy(s.queue, s.queue[n:])
	clear(s.queue[rest:])
	s.queue = s.queue[:rest]
}

// receive takes answers.
func (s *stream) receive(rpc kvdv1.KV_PipelineClient, e *endpoint) error {
	var m answers
	var memory answerMemory
	var list []answer
	for {
		if err := rpc.RecvMsg(&m); err != nil {
			return err
		}
		var err error
		if list, err = m.split(list[:0]); err != nil {
			return err
		}
		s.claim(list)
		s.c.answered(e)
		for i, a := range list {
			if a.o == nil {
				continue
			}
			r, err := memory.decode(&a)
			if err == nil && !a.fits() {
				err = errGarbledAnswer
			}
			if err != nil {
				s.giveBack(list[i:])
				return err
			}
			s.answer(a.o, r)
		}
		clear(list)
	}
}

// claim takes the operations that are answered out of flight; there is none for an id that nobody knows.
func (s *stream) claim(list []answer) {
	s.mu.Lock()
	s.heard = time.Now()
	for i := range list {
		list[i].o = s.slots.take(list[i].id)
	}
	more := s.idle && len(s.queue) > 0
	s.idle = s.idle && !more
	s.mu.Unlock()
	if more {
		signal(s.wake)
	}
}

// giveBack puts operations into flight again whose answers say nothing, for the end of the stream.
func (s *stream) giveBack(list []answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range list {
		if a.o != nil {
			s.slots.put(a.o)
		}
	}
}

// answer ends an operation, or tries it again when it was not done.
func (s *stream) answer(o *operation, r *kvdv1.PipelineResult) {
	o.state.CompareAndSwap(leaving, flying) // Another codec does not tell that it was encoded.
	p := r.GetError()
	if p == nil {
		s.c.learn(o.target, resultHeader(r), o.at == atLeader)
		o.conclude(flying, r, nil)
		return
	}
	v := s.c.judgeAnswer(o.kind, o.target, p)
	if !v.again {
		o.conclude(flying, nil, v.err)
		return
	}
	if o.state.CompareAndSwap(flying, waiting) {
		s.c.later(o, v)
	}
}

// expired is an operation whose time is over.
type expired struct {
	o   *operation
	err error
}

// look ends what has taken too long, and has the node asked whether it is alive when it is silent while operations are in
// flight. It tells whether the stream has any.
func (s *stream) look(now time.Time) bool {
	var over []expired
	check := func(o *operation) {
		if err := o.over(now); err != nil {
			over = append(over, expired{o, err})
		}
	}
	s.mu.Lock()
	for _, x := range s.slots.taken {
		if x.o != nil {
			check(x.o)
		}
	}
	for _, o := range s.queue {
		check(o)
	}
	some := s.slots.len() > 0 || len(s.queue) > 0
	silent := s.slots.len() > 0 && s.conn != nil && !s.asking && now.Sub(s.heard) >= attemptMax
	if silent && !s.c.start(s.ask) {
		silent = false
	}
	s.asking = s.asking || silent
	s.mu.Unlock()
	for _, x := range over {
		x.o.expire(x.err)
	}
	return some
}

// ask ends the stream when the node does not answer at all.
func (s *stream) ask() {
	s.mu.Lock()
	heard, conn := s.heard, s.conn
	s.mu.Unlock()
	alive := s.c.alive(conn)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asking = false
	if !alive && !s.heard.After(heard) {
		s.cancel(errSilent)
		return
	}
	s.heard = time.Now()
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
