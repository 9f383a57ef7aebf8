package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/kvdstore/kvd/client/route"
	"github.com/kvdstore/kvd/kv"
)

const (
	// attemptMax is how long a node may be silent: then a read goes elsewhere, and a write has the node asked whether it
	// is alive. An attempt that follows a silent one may take twice as long, up to attemptMax << silencesMax.
	attemptMax  = time.Second
	silencesMax = 3
	// redirectsMax bounds the attempts that follow an answer elsewhere without a pause.
	redirectsMax = 3
	// pauseMin and pauseMax bound the pause before another attempt, unless the node asks for a longer one.
	pauseMin = 5 * time.Millisecond
	pauseMax = 250 * time.Millisecond
	// refreshEvery is how often at most the whole map is asked for.
	refreshEvery = 200 * time.Millisecond
	// connectionsDefault and connectionsMax bound the connections to one node. Of one process four to eight in all do
	// best, fewer are worse and more are not better.
	connectionsDefault = 2
	connectionsMax     = 64
)

// Config is what a Client needs.
type Config struct {
	// Endpoints are HOST:PORT of some nodes of the cluster; others are found from there.
	Endpoints []string
	// TLS is nil for connections without it.
	TLS *tls.Config
	// Only keeps to the endpoints: no map, every request goes to one of them.
	Only bool
	// Connections to each node, 1 to 64; 0 is 2. The operations of Pipelines share the first.
	Connections int
	// DialOptions come after the client's own, and may replace them.
	DialOptions []grpc.DialOption
}

// validate tells of everything that is wrong at once.
func (c *Config) validate() error {
	var errs []error
	if len(c.Endpoints) == 0 {
		errs = append(errs, &kv.InvalidError{Field: "endpoints", Bound: "at least one HOST:PORT"})
	}
	for _, e := range c.Endpoints {
		if _, port, err := net.SplitHostPort(e); err != nil || port == "" {
			errs = append(errs, &kv.InvalidError{Field: "endpoints", Bound: fmt.Sprintf("HOST:PORT, one is %q", e)})
		}
	}
	if c.Connections < 0 || c.Connections > connectionsMax {
		errs = append(errs, &kv.InvalidError{Field: "connections", Bound: fmt.Sprintf("1 to %d, or 0 for %d, is %d", connectionsMax, connectionsDefault, c.Connections)})
	}
	return errors.Join(errs...)
}

// Client talks to a cluster.
type Client struct {
	cfg  Config
	pool *pool
	// budget bounds the operations of pipelines that have no answer yet.
	budget budget
	// flights are the calls without an answer.
	flights flights

	// ctx ends with Close. Whatever runs in the background is counted by running.
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	routing sync.RWMutex // Guards routes. Taken before the pool's lock.
	routes  *route.Map
	mapped  atomic.Bool // A whole map was taken.

	mu        sync.Mutex // Guards the rest. Taken alone.
	refreshed time.Time
	fetching  bool
	closed    bool

	// waiters are the channels that pipelined calls wait on, to be used again: of this client, so that it can live in a bubble
	// of testing/synctest.
	waiters sync.Pool
	streams sync.Map // string to *stream: those that are not broken, by address. Stored under mu.
}

// New makes a client. It connects when it is first used.
func New(cfg Config) (*Client, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Connections == 0 {
		cfg.Connections = connectionsDefault
	}
	c := &Client{
		cfg: cfg, pool: newPool(cfg), routes: route.New(),
	}
	c.flights.init()
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// ErrClosed tells that the client was used after Close.
var ErrClosed = errors.New("the client is closed")

// Close closes all connections and waits for what runs in the background; it may be called twice, and not from a
// function that a Pipeline calls. Writes under way are unknown.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	err := c.pool.close()
	c.running.Wait()
	return err
}

// start runs f in the background, unless the client is closed.
func (c *Client) start(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.running.Go(f)
	return true
}

// bounded gives a context without a deadline one.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, kv.RequestTimeout)
}
