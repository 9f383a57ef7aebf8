package client

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"

	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

const (
	// keepaliveEvery is the least that gRPC takes: it finds idle connections that died. lostAfter is how long a sent
	// byte may be unacknowledged (TCP_USER_TIMEOUT), so it is what finds a network that swallows packets.
	keepaliveEvery = 10 * time.Second
	lostAfter      = 2 * time.Second
	// windowBytes is how much of a stream may be under way to the client, of a connection twice that. With windows of gRPC's
	// own choice every answer that comes while nothing else does asks the node for an echo, to measure the network: for a lone
	// caller that is as much again to wake, to write and to read as its call.
	windowBytes = 4 << 20
)

// pool holds the connections to all nodes.
type pool struct {
	cfg     Config
	options []grpc.DialOption

	mu        sync.RWMutex
	endpoints map[string]*endpoint
	closed    bool
	suspects  atomic.Int32 // How many endpoints are suspected.
}

// endpoint is the connections to one node.
type endpoint struct {
	address string
	conns   []*grpc.ClientConn
	turn    atomic.Uint32
	users   atomic.Int32 // Changed under the pool's lock, at least shared.
	suspect atomic.Bool  // It does not answer: better left alone.
	awaited atomic.Bool  // Somebody waits in the background until it answers again.
	asked   atomic.Bool  // Somebody with a request without an answer asks whether it is alive.
}

func newPool(cfg Config) *pool {
	creds := insecure.NewCredentials()
	if cfg.TLS != nil {
		creds = credentials.NewTLS(cfg.TLS)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds), experimental.WithBufferPool(wire.Buffers), grpc.WithInitialWindowSize(windowBytes), grpc.WithInitialConnWindowSize(2 * windowBytes),
		// gRPC repeats nothing by itself, whatever a resolver says.
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec()), grpc.MaxCallRecvMsgSize(kv.MessageBytesMax), grpc.MaxCallSendMsgSize(kv.MessageBytesMax)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveEvery, Timeout: lostAfter, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.3, MaxDelay: time.Second}, MinConnectTimeout: attemptMax,
		}),
	}
	return &pool{cfg: cfg, options: append(options, cfg.DialOptions...), endpoints: map[string]*endpoint{}}
}

// acquire gives the endpoint of an address, to be released.
func (p *pool) acquire(address string) (*endpoint, error) {
	p.mu.RLock()
	e := p.endpoints[address]
	if e != nil {
		e.users.Add(1)
	}
	p.mu.RUnlock()
	if e != nil {
		return e, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	if e := p.endpoints[address]; e != nil {
		e.users.Add(1)
		return e, nil
	}
	e = &endpoint{address: address}
	for range p.cfg.Connections {
		conn, err := grpc.NewClient("passthrough:///"+address, p.options...)
		if err != nil {
			_ = e.close()
			return nil, err
		}
		e.conns = append(e.conns, conn)
	}
	e.users.Add(1)
	p.endpoints[address] = e
	return e, nil
}

func (e *endpoint) release() { e.users.Add(-1) }

// callsEach is how many calls under way a further connection is used for. To wake the goroutines and the peer's of one that
// rests costs a lone caller a quarter of its call.
const callsEach = 8

// conn gives the connections in turn, as many as the calls under way are worth.
func (e *endpoint) conn() *grpc.ClientConn {
	n := min(1+uint32(e.users.Load())/callsEach, uint32(len(e.conns)))
	if n == 1 {
		return e.conns[0]
	}
	return e.conns[e.turn.Add(1)%n]
}

func (e *endpoint) close() error {
	var errs []error
	for _, conn := range e.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// suspected tells whether an address is better left alone.
func (p *pool) suspected(address string) bool {
	if p.suspects.Load() == 0 {
		return false
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	e := p.endpoints[address]
	return e != nil && e.suspect.Load()
}

// setSuspect tells whether that is news.
func (p *pool) setSuspect(e *endpoint, suspect bool) bool {
	if !e.suspect.CompareAndSwap(!suspect, suspect) {
		return false
	}
	if suspect {
		p.suspects.Add(1)
	} else {
		p.suspects.Add(-1)
	}
	return true
}

// keep closes the connections to nodes that have left, once nobody uses them.
func (p *pool) keep(known map[string]bool) {
	p.mu.Lock()
	var gone []*endpoint
	for address, e := range p.endpoints {
		if !known[address] && e.users.Load() == 0 {
			delete(p.endpoints, address)
			p.setSuspect(e, false)
			gone = append(gone, e)
		}
	}
	p.mu.Unlock()
	for _, e := range gone {
		_ = e.close() // It fails only when it was closed before.
	}
}

func (p *pool) close() error {
	p.mu.Lock()
	endpoints := p.endpoints
	p.endpoints, p.closed = map[string]*endpoint{}, true
	p.mu.Unlock()
	var errs []error
	for _, e := range endpoints {
		errs = append(errs, e.close())
	}
	return errors.Join(errs...)
}
