package target

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"runtime"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/bench/load"
	"github.com/kvdstore/kvd/bench/measure"
	"github.com/kvdstore/kvd/kv"
)

// echo is gRPC alone: what a request costs before anything is stored. Each operation goes to the server that its key's hash
// names, as one of a store goes to the node that has the key: a lone caller, too, is a guest of all servers in turn.
type echo struct {
	pipelined bool
	depth     int
	servers   int
	seed      maphash.Seed
	conns     []*grpc.ClientConn // One to each server, and then the next ones.
	// header is as long as what kvd's client sends, and says how long values are to be.
	header *kvdv1.RequestHeader

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex // Guards shared until the first session has them all.
	shared []*echoStream
}

func newEcho(c Config) (Target, error) {
	t := &echo{pipelined: c.Pipelined, depth: c.Depth, servers: len(c.Endpoints), seed: maphash.MakeSeed(), header: &kvdv1.RequestHeader{Shard: 1000, Version: uint64(c.Value)}}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	for range perServer(len(c.Endpoints)) {
		for _, e := range c.Endpoints {
			conn, err := grpc.NewClient("passthrough:///"+e, grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec()), grpc.MaxCallRecvMsgSize(kv.MessageBytesMax)))
			if err != nil {
				return nil, errors.Join(err, t.Close())
			}
			t.conns = append(t.conns, conn)
		}
	}
	t.shared = make([]*echoStream, len(t.conns))
	return t, nil
}

func (t *echo) Close() error {
	t.cancel()
	t.running.Wait()
	var errs []error
	for _, conn := range t.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// Judge knows that nothing is ever stored.
func (t *echo) Judge(_ load.Op, err error) string {
	if status.Code(err) == codes.Unavailable || errors.Is(err, context.DeadlineExceeded) {
		return measure.NotDone
	}
	return measure.Other
}

func (t *echo) Session(caller int) (load.Session, error) {
	if !t.pipelined {
		return one(func(ctx context.Context, op load.Op) load.Result { return t.unary(ctx, caller, op) }), nil
	}
	if t.depth > 1 { // A stream of its own, and a message for each turn.
		return t.open(t.conns[caller%len(t.conns)])
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.shared {
		if t.shared[i] == nil {
			var err error
			if t.shared[i], err = t.open(t.conns[i]); err != nil {
				return nil, err
			}
		}
	}
	return &echoCaller{t, caller}, nil
}

// at is the connection for a caller's operation with a key.
func (t *echo) at(caller int, key []byte) int {
	first := caller % (len(t.conns) / t.servers) * t.servers
	return first + int(maphash.Bytes(t.seed, key)%uint64(t.servers))
}

func (t *echo) unary(ctx context.Context, caller int, op load.Op) load.Result {
	api := kvdv1.NewKVClient(t.conns[t.at(caller, op.Key)])
	var err error
	switch op.Kind {
	case load.Read:
		_, err = api.Get(ctx, &kvdv1.GetRequest{Header: t.header, Key: op.Key})
	case load.Update, load.Insert:
		_, err = api.Put(ctx, &kvdv1.PutRequest{Header: t.header, Key: op.Key, Value: op.Value})
	default:
		return cannot(op, "echo")
	}
	return load.Result{Err: err}
}

// echoCaller shares the streams with others.
type echoCaller struct {
	*echo
	caller int
}

func (c *echoCaller) Do(ctx context.Context, ops []load.Op, results []load.Result) {
	c.shared[c.at(c.caller, ops[0].Key)].Do(ctx, ops, results)
}

const (
	// echoMost is how many operations of single callers travel in a message, and echoQueue how many turns wait for one.
	echoMost, echoQueue = 64, load.ClientsMax
)

// echoTurn is some operations on their way.
type echoTurn struct {
	ops  []load.Op
	left int
	done chan struct{}
}

// echoStream carries the operations of some callers: whatever is queued travels as one message.
type echoStream struct {
	rpc    kvdv1.KV_PipelineClient
	ctx    context.Context
	header *kvdv1.RequestHeader
	queue  chan *echoTurn

	mu      sync.Mutex // Guards the rest.
	next    uint64
	flights map[uint64]*echoTurn
	broken  error
}

func (t *echo) open(conn *grpc.ClientConn) (*echoStream, error) {
	rpc, err := kvdv1.NewKVClient(conn).Pipeline(t.ctx)
	if err != nil {
		return nil, err
	}
	s := &echoStream{rpc: rpc, ctx: rpc.Context(), header: t.header, queue: make(chan *echoTurn, echoQueue), flights: map[uint64]*echoTurn{}}
	t.running.Go(s.send)
	t.running.Go(s.receive)
	return s, nil
}

func (s *echoStream) Do(_ context.Context, ops []load.Op, results []load.Result) {
	turn := &echoTurn{ops: ops, left: len(ops), done: make(chan struct{})}
	var err error
	select {
	case s.queue <- turn:
		select {
		case <-turn.done:
		case <-s.ctx.Done():
			err = s.ended()
		}
	case <-s.ctx.Done():
		err = s.ended()
	}
	for i := range results {
		results[i].Err = err
	}
}

func (s *echoStream) ended() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return s.broken
	}
	return fmt.Errorf("the stream: %w", s.ctx.Err())
}

func (s *echoStream) send() {
	for {
		select {
		case turn := <-s.queue:
			runtime.Gosched() // As kvd's client does: others may be about to queue theirs.
			if err := s.rpc.Send(s.message(turn)); err != nil {
				return // The receiver hears why.
			}
		case <-s.ctx.Done():
			return
		}
	}
}

// message makes one of a turn and of what else is queued.
func (s *echoStream) message(turn *echoTurn) *kvdv1.PipelineRequest {
	m := &kvdv1.PipelineRequest{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for _, op := range turn.ops {
			s.next++
			s.flights[s.next] = turn
			m.Ops = append(m.Ops, s.op(s.next, op))
		}
		if len(m.Ops) >= echoMost {
			return m
		}
		select {
		case turn = <-s.queue:
		default:
			return m
		}
	}
}

func (s *echoStream) op(id uint64, op load.Op) *kvdv1.PipelineOp {
	if op.Kind.Writes() {
		return &kvdv1.PipelineOp{Id: id, Op: &kvdv1.PipelineOp_Put{Put: &kvdv1.PutRequest{Header: s.header, Key: op.Key, Value: op.Value}}}
	}
	return &kvdv1.PipelineOp{Id: id, Op: &kvdv1.PipelineOp_Get{Get: &kvdv1.GetRequest{Header: s.header, Key: op.Key}}}
}

func (s *echoStream) receive() {
	for {
		m, err := s.rpc.Recv()
		s.mu.Lock()
		if err != nil {
			s.broken = err
			s.mu.Unlock()
			return
		}
		for _, r := range m.GetResults() {
			turn := s.flights[r.GetId()]
			delete(s.flights, r.GetId())
			if turn == nil {
				continue
			}
			if turn.left--; turn.left == 0 {
				close(turn.done)
			}
		}
		s.mu.Unlock()
	}
}
