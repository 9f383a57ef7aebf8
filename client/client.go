// Package client is the Go client of kvd.
//
//	c, err := client.New(client.Config{Endpoints: []string{"127.0.0.1:7400"}})
//	…
//	_, err = c.Put(ctx, []byte("hello"), []byte("world"))
//	item, found, err := c.Get(ctx, []byte("hello"))
//
// It keeps the shard map and goes straight to the node that leads a key's shard. What is surely not done is tried again
// with growing, jittered pauses within the context's deadline (kv.RequestTimeout if it has none). A write whose end is
// not known is never repeated: its error says ErrUnknown, every other ErrNotDone. A Client may be used by any number of
// goroutines.
package client

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/client/route"
	"github.com/kvdstore/kvd/kv"
)

const (
	// attemptMax bounds one attempt of a read: a node that is silent is left alone for suspectFor, and another asked.
	attemptMax = time.Second
	suspectFor = 2 * time.Second
	// pauseMin and pauseMax bound the pause before another attempt.
	pauseMin = 5 * time.Millisecond
	pauseMax = 250 * time.Millisecond
	// refreshEvery is how often at most the whole map is asked for.
	refreshEvery = 200 * time.Millisecond
	// windowBytes is how much of a stream may be on its way.
	windowBytes = 4 << 20
)

// Config is what a Client needs.
type Config struct {
	// Endpoints are HOST:PORT of some nodes of the cluster; others are found from there.
	Endpoints []string
	// TLS is nil for connections without it.
	TLS *tls.Config
	// Only keeps to the endpoints: no map, every request goes to one of them.
	Only bool
}

// Client talks to a cluster.
type Client struct {
	cfg Config

	mu        sync.Mutex
	routes    *route.Map
	conns     map[string]*grpc.ClientConn
	suspects  map[string]time.Time // Until when an address is left alone.
	refreshed time.Time
	fetching  bool
	closed    bool
	pipes     map[string]*stream
}

// New makes a client. It connects when it is first used.
func New(cfg Config) (*Client, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, &kv.InvalidError{Field: "endpoints", Bound: "at least one HOST:PORT"}
	}
	return &Client{
		cfg: cfg, routes: route.New(), conns: map[string]*grpc.ClientConn{}, suspects: map[string]time.Time{}, pipes: map[string]*stream{},
	}, nil
}

// ErrClosed tells that the client was used after Close.
var ErrClosed = errors.New("the client is closed")

// Close closes all connections. Writes under way are unknown.
func (c *Client) Close() error {
	c.mu.Lock()
	conns, pipes := c.conns, c.pipes
	c.conns, c.pipes, c.closed = map[string]*grpc.ClientConn{}, map[string]*stream{}, true
	c.mu.Unlock()
	for _, s := range pipes {
		s.cancel()
	}
	var errs []error
	for _, conn := range conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// conn gives the connection to an address.
func (c *Client) conn(address string) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	if conn := c.conns[address]; conn != nil {
		return conn, nil
	}
	creds := insecure.NewCredentials()
	if c.cfg.TLS != nil {
		creds = credentials.NewTLS(c.cfg.TLS)
	}
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(creds), grpc.WithStatsHandler(wire.SentHandler()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec()), grpc.MaxCallRecvMsgSize(kv.MessageBytesMax), grpc.MaxCallSendMsgSize(kv.MessageBytesMax)),
		grpc.WithInitialWindowSize(windowBytes), grpc.WithInitialConnWindowSize(2*windowBytes),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.3, MaxDelay: time.Second}, MinConnectTimeout: time.Second,
		}))
	if err != nil {
		return nil, err
	}
	c.conns[address] = conn
	return conn, nil
}

// suspect leaves an address alone for a while.
func (c *Client) suspect(address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.suspects[address] = time.Now().Add(suspectFor)
	c.routes.Forget(address)
}

// target picks where an attempt goes.
func (c *Client) target(key []byte, attempt int) route.Target {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	avoid := func(address string) bool { return now.Before(c.suspects[address]) }
	if !c.cfg.Only {
		if t := c.routes.Lookup(key, attempt, avoid); t.Address != "" {
			return t
		}
	}
	known := c.cfg.Endpoints
	if !c.cfg.Only {
		known = slices.Concat(known, c.routes.Addresses())
	}
	first := attempt
	if attempt == 0 {
		first = rand.IntN(len(known))
	}
	for i := range known {
		if address := known[(first+i)%len(known)]; !avoid(address) {
			return route.Target{Address: address}
		}
	}
	return route.Target{Address: known[first%len(known)]}
}

// refresh asks for the map, now and then, one call at a time. It does not wait for the answer.
func (c *Client) refresh() {
	c.mu.Lock()
	due := !c.cfg.Only && !c.fetching && !c.closed && time.Since(c.refreshed) > refreshEvery
	if due {
		c.fetching, c.refreshed = true, time.Now()
	}
	c.mu.Unlock()
	if due {
		go c.fetch()
	}
}

func (c *Client) fetch() {
	ctx, cancel := context.WithTimeout(context.Background(), attemptMax)
	defer cancel()
	defer func() {
		c.mu.Lock()
		c.fetching = false
		c.mu.Unlock()
	}()
	conn, err := c.conn(c.target(nil, rand.IntN(1<<16)).Address)
	if err != nil {
		return
	}
	// Leaders change without a new version, so the whole map is asked for.
	m, err := kvdv1.NewKVClient(conn).Map(ctx, &kvdv1.MapRequest{})
	if err != nil {
		return
	}
	var descriptors []*kv.Descriptor
	leaders := map[kv.ShardID]kv.NodeID{}
	for _, d := range m.GetDescriptors() {
		descriptors = append(descriptors, wire.ToDescriptor(d))
		leaders[kv.ShardID(d.Shard)] = kv.NodeID(d.Leader)
	}
	var nodes []route.Node
	for _, n := range m.GetNodes() {
		nodes = append(nodes, route.Node{ID: kv.NodeID(n.Node), Address: n.Address})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.routes.Replace(m.GetVersion(), descriptors, leaders, nodes)
}

// learn takes what an answer tells of the map.
func (c *Client) learn(h *kvdv1.ResponseHeader) {
	if len(h.GetDescriptors()) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.learnDescriptors(h.GetDescriptors())
}

func (c *Client) learnDescriptors(list []*kvdv1.Descriptor) {
	for _, d := range list {
		c.routes.Learn(wire.ToDescriptor(d))
		c.routes.Lead(kv.ShardID(d.Shard), kv.NodeID(d.Leader), "")
	}
}

// served takes that a node has answered for a shard: it leads it, or knows who does.
func (c *Client) served(h *kvdv1.ResponseHeader) {
	if h.GetNode() == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.routes.Lead(kv.ShardID(h.GetShard()), kv.NodeID(h.GetNode()), "")
}

// learnError takes what an error tells of the map.
func (c *Client) learnError(d *kvdv1.ErrorDetail) {
	switch d.GetReason() {
	case kvdv1.ErrorDetail_NOT_LEADER:
		c.mu.Lock()
		c.routes.Lead(kv.ShardID(d.GetShard()), kv.NodeID(d.GetLeader()), d.GetLeaderAddress())
		c.mu.Unlock()
		if d.GetLeader() == 0 {
			c.refresh()
		}
	case kvdv1.ErrorDetail_STALE_EPOCH:
		c.mu.Lock()
		c.learnDescriptors(d.GetDescriptors())
		c.mu.Unlock()
		c.refresh()
	}
}

// bounded gives a context without a deadline one.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, kv.RequestTimeout)
}

// call is one attempt of a request.
type call func(ctx context.Context, api kvdv1.KVClient, h *kvdv1.RequestHeader) (*kvdv1.ResponseHeader, error)

// do tries a request until it has an answer, its end is not known, or the deadline comes.
func (c *Client) do(ctx context.Context, read bool, key []byte, f call) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	c.refreshFirst()
	for attempt := 0; ; attempt++ {
		t := c.target(key, attempt)
		err, again := c.attempt(ctx, read, t, f)
		if err == nil {
			return nil
		}
		if !again || !pause(ctx, attempt, err) {
			return mark(read, err)
		}
	}
}

// refreshFirst asks for the map when nothing is known yet.
func (c *Client) refreshFirst() {
	c.mu.Lock()
	known := c.routes.Version() != 0
	c.mu.Unlock()
	if !known {
		c.refresh()
	}
}

func (c *Client) attempt(ctx context.Context, read bool, t route.Target, f call) (err error, again bool) {
	conn, err := c.conn(t.Address)
	if err != nil {
		return errors.Join(&kv.NotLeaderError{}, err), false
	}
	op := wire.Write
	trying := ctx
	if read {
		op = wire.Read
		var cancel context.CancelFunc
		trying, cancel = context.WithTimeout(ctx, attemptMax)
		defer cancel()
	}
	trying, sent := wire.MarkSent(trying)
	var header *kvdv1.RequestHeader
	if t.Route.Version != 0 {
		header = &kvdv1.RequestHeader{Shard: uint64(t.Route.Shard), Version: t.Route.Version}
	}
	h, err := f(trying, kvdv1.NewKVClient(conn), header)
	if err == nil {
		c.learn(h)
		c.served(h)
		return nil, false
	}
	return c.judge(ctx, op, t, sent.Load(), err)
}

// judge tells what an error means, and whether another attempt is worth it.
func (c *Client) judge(ctx context.Context, op wire.Op, t route.Target, sent bool, err error) (error, bool) {
	detail := wire.DetailOf(err)
	if detail == nil && !sent || op == wire.Read && detail == nil && ctx.Err() == nil && lost(err) {
		// Nobody was reached, or nobody answered.
		c.suspect(t.Address)
		c.refresh()
		return errors.Join(&kv.NotLeaderError{}, err), ctx.Err() == nil
	}
	c.learnError(detail)
	said := wire.ToError(op, wire.FromStatus(err))
	if op == wire.Write && detail == nil {
		said = errors.Join(kv.ErrUnknown, said)
	}
	if errors.Is(said, kv.ErrUnknown) {
		return said, false
	}
	return said, kv.Retryable(said)
}

// lost tells whether a call ended without an answer of the node.
func lost(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unknown, codes.Internal:
		return true
	}
	return false
}

// pause waits before another attempt; false when the deadline would come first.
func pause(ctx context.Context, attempt int, err error) bool {
	d := min(pauseMin<<min(attempt, 8), pauseMax)
	if full, ok := errors.AsType[*kv.OverloadError](err); ok {
		d = max(d, full.RetryAfter)
	}
	d = d/2 + rand.N(d)
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
