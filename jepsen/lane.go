package main

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/jepsen/overload"
)

// laneBatch bounds the operations of one message of a lane, and laneQueue those that wait to be sent.
const laneBatch, laneQueue = 64, 4096

// lane is a Pipeline stream of the crowd. It sends whatever waits, and repeats nothing.
type lane struct {
	queue chan *asked
	ended chan struct{} // Closed when the stream has ended, for good.

	mu   sync.Mutex
	last uint64
	open map[uint64]*asked
	err  error
}

// asked is an operation on its way.
type asked struct {
	op   *kvdv1.PipelineOp
	done chan *kvdv1.PipelineError // With room for the answer: nil if it was done.
}

func newLane(ctx context.Context, conn *grpc.ClientConn) (*lane, error) {
	stream, err := kvdv1.NewKVClient(conn).Pipeline(ctx)
	if err != nil {
		return nil, err
	}
	l := &lane{queue: make(chan *asked, laneQueue), ended: make(chan struct{}), open: map[uint64]*asked{}}
	go l.send(stream)
	go l.receive(stream)
	return l, nil
}

// do gives the answer to an operation: no error, *overload.Refused or another, with what a node told of it.
func (l *lane) do(ctx context.Context, op *kvdv1.PipelineOp) (*kvdv1.ErrorDetail, error) {
	a := &asked{op: op, done: make(chan *kvdv1.PipelineError, 1)}
	select {
	case l.queue <- a:
	case <-l.ended:
		return nil, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case e := <-a.done:
		return e.GetDetail(), answered(e)
	case <-l.ended:
		return nil, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// send sends what waits, at most laneBatch at a time.
func (l *lane) send(stream kvdv1.KV_PipelineClient) {
	for {
		select {
		case a := <-l.queue:
			r := &kvdv1.PipelineRequest{Ops: []*kvdv1.PipelineOp{l.number(a)}}
			for len(r.Ops) < laneBatch && len(l.queue) > 0 {
				r.Ops = append(r.Ops, l.number(<-l.queue))
			}
			if err := stream.Send(r); err != nil {
				return // Who receives hears why.
			}
		case <-l.ended:
			return
		}
	}
}

func (l *lane) number(a *asked) *kvdv1.PipelineOp {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	a.op.Id = l.last
	l.open[a.op.Id] = a
	return a.op
}

func (l *lane) receive(stream kvdv1.KV_PipelineClient) {
	defer close(l.ended)
	for {
		r, err := stream.Recv()
		if err != nil {
			l.err = err
			return
		}
		for _, x := range r.GetResults() {
			l.mu.Lock()
			a := l.open[x.GetId()]
			delete(l.open, x.GetId())
			l.mu.Unlock()
			if a != nil {
				a.done <- x.GetError()
			}
		}
	}
}

// answered is an answer as the judge of the storm knows it.
func answered(e *kvdv1.PipelineError) error {
	if e == nil {
		return nil
	}
	if codes.Code(e.GetCode()) == codes.ResourceExhausted {
		return &overload.Refused{Hint: time.Duration(e.GetDetail().GetRetryAfterMs()) * time.Millisecond}
	}
	return status.Error(codes.Code(e.GetCode()), e.GetMessage())
}
