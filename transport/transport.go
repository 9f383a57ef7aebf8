// Package transport is how nodes talk to each other over gRPC.
//
// Between two nodes there is one stream a direction for Raft's messages, on a connection of its own, so that bulk data
// does not delay heartbeats; snapshots, forwarded requests and the rest share another. A stream begins with a hello that
// keeps strangers out; when nothing is to be said, a ping is, so that silence means a broken stream.
package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

const (
	// Version of the protocol that this program speaks.
	Version = 1
	// pingInterval is how often something is said at least; a stream that was silent for about silenceMax is torn down. Who listens
	// looks each lookInterval whether it has heard something, and if so says it.
	pingInterval = 500 * time.Millisecond
	lookInterval = pingInterval / 4
	silenceMax   = 3 * time.Second
	// snapshotSilence is how long the receiver of a snapshot may take for one chunk, or for its answer.
	snapshotSilence = 20 * time.Second
	// retryMax is the longest pause between two attempts to connect.
	retryMax = time.Second
	// envelopeBytes is about where an envelope ends when several are waiting.
	envelopeBytes = 1 << 20
)

// Handler is the node.
type Handler interface {
	// Envelope hands over what a neighbour said; it must not block. It reports false when it was dropped.
	Envelope(e *kvdv1.Envelope) bool
	// Unreachable tells that messages to a node were dropped, or that its stream broke.
	Unreachable(node kv.NodeID)
	// Removed tells that a member of this cluster refuses this node because it was removed. Node ids are not given again:
	// it stays so.
	Removed(by kv.NodeID)
	// Snapshot receives the rest of a snapshot's stream; an error refuses it.
	Snapshot(ctx context.Context, header *kvdv1.SnapshotHeader, next func() (*kvdv1.SnapshotChunk, error)) error
	// Forward answers a request for a shard led here, and never passes it on.
	Forward(ctx context.Context, r *kvdv1.ForwardRequest) *kvdv1.ForwardResponse
	// Meta gives the newest metadata, nil when none is known, and a channel that is closed when there is newer.
	Meta() (*kvdv1.MetaState, <-chan struct{})
	// Local describes this node.
	Local(ctx context.Context) (*kvdv1.StatusResponse, error)
	// Explain tells what this node remembers, and what the plan thinks if it runs here.
	Explain(ctx context.Context, r *kvdv1.ExplainRequest) (*kvdv1.ExplainResponse, error)
}

// Config is what a Transport needs.
type Config struct {
	Cluster kv.ClusterID
	Node    kv.NodeID
	Life    kv.Life
	// Address gives HOST:PORT of a node.
	Address func(kv.NodeID) (string, bool)
	// Credentials are for connections to other nodes; nil is none.
	Credentials credentials.TransportCredentials
	Handler     Handler
	Logger      *slog.Logger
}

// Transport sends to other nodes, and answers them behind a Server.
type Transport struct {
	Config
	ctx      context.Context
	cancel   context.CancelFunc
	group    sync.WaitGroup
	forwards struct{ count, bytes atomic.Int64 } // Requests of others that are worked on.
	incoming atomic.Int64                        // Snapshots.
	warned   atomic.Int64                        // When a stranger was last logged.

	// mu is read-locked for each message and each forwarded request, of which there are many at a time.
	mu    sync.RWMutex
	peers map[kv.NodeID]*peer
	bulk  map[string]*grpc.ClientConn // By address.

	watch func(time.Duration, func()) watchdog
}

// watchdog is a timer that does something when it was not reset or stopped for long.
type watchdog interface {
	Reset(time.Duration) bool
	Stop() bool
}

// New makes a transport.
func New(c Config) *Transport {
	ctx, cancel := context.WithCancel(context.Background())
	return &Transport{
		Config: c, ctx: ctx, cancel: cancel, peers: map[kv.NodeID]*peer{}, bulk: map[string]*grpc.ClientConn{},
		watch: func(d time.Duration, f func()) watchdog { return time.AfterFunc(d, f) },
	}
}

// Close ends all streams and connections and waits for them; there are no new ones.
func (t *Transport) Close() {
	t.mu.Lock()
	t.cancel()
	for _, c := range t.bulk {
		_ = c.Close()
	}
	t.mu.Unlock()
	t.group.Wait()
}

// Dial opens a connection as nodes use them.
func Dial(address string, creds credentials.TransportCredentials) (*grpc.ClientConn, error) {
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	return grpc.NewClient("passthrough:///"+address, append(dialling(),
		grpc.WithTransportCredentials(creds), experimental.WithBufferPool(wire.Buffers),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec()), grpc.MaxCallRecvMsgSize(kv.MessageBytesMax), grpc.MaxCallSendMsgSize(kv.MessageBytesMax)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: silenceMax}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: retryMax}, MinConnectTimeout: time.Second,
		}))...)
}

// peer is a neighbour that is sent Raft's messages, at one address.
type peer struct {
	t       *Transport
	id      kv.NodeID
	address string
	ctx     context.Context // Ends when the node has left, has another address, or the transport is closed.
	cancel  context.CancelFunc

	mu    sync.Mutex
	queue []*kvdv1.RaftMessage
	bytes int
	wake  chan struct{}
	heard atomic.Int64
}

// peer gives the neighbour of that id; nil if there is no such member, or the transport is closed.
func (t *Transport) peer(id kv.NodeID) *peer {
	if p := t.known(id); p != nil {
		return p
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.openPeer(id)
}

// known is the neighbour of that id if there is one already.
func (t *Transport) known(id kv.NodeID) *peer {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.peers[id]
}

func (t *Transport) openPeer(id kv.NodeID) *peer {
	if p := t.peers[id]; p != nil {
		return p
	}
	address, member := t.Address(id)
	if !member || t.ctx.Err() != nil {
		return nil
	}
	p := &peer{t: t, id: id, address: address, wake: make(chan struct{}, 1)}
	p.ctx, p.cancel = context.WithCancel(t.ctx)
	t.peers[id] = p
	t.group.Go(p.run)
	return p
}

// Follow keeps a stream to each of these nodes even if there is nothing to send, at the addresses that Config.Address gives
// now. Streams and connections to any other node or address are closed, and what was queued for them is dropped.
func (t *Transport) Follow(nodes []kv.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return
	}
	members, addresses := map[kv.NodeID]bool{}, map[string]bool{}
	for _, id := range nodes {
		address, _ := t.Address(id)
		members[id], addresses[address] = true, true
		old := t.peers[id]
		if old != nil && old.address != address {
			t.closePeer(old)
		}
		if p := t.openPeer(id); p != nil && old != nil {
			p.heard.Store(old.heard.Load())
		}
	}
	for id, p := range t.peers {
		if !members[id] {
			t.closePeer(p)
		}
	}
	for address, conn := range t.bulk {
		if !addresses[address] {
			delete(t.bulk, address)
			t.group.Go(func() { _ = conn.Close() })
		}
	}
}

func (t *Transport) closePeer(p *peer) {
	p.cancel()
	delete(t.peers, p.id)
}

// Send queues messages for a node; it never blocks. They are the transport's from then on. Past the bound they are
// dropped and the handler is told.
func (t *Transport) Send(to kv.NodeID, messages []*kvdv1.RaftMessage) {
	p := t.peer(to)
	if p == nil {
		t.Handler.Unreachable(to)
		return
	}
	if messages = p.leave(messages); len(messages) > 0 {
		p.put(messages)
	}
}

// put queues messages.
func (p *peer) put(messages []*kvdv1.RaftMessage) {
	size := 0
	for _, m := range messages {
		size += m.SizeVT()
	}
	p.mu.Lock()
	full := p.bytes+size > kv.OutboxBytesMax
	if !full {
		p.queue, p.bytes = append(p.queue, messages...), p.bytes+size
	}
	p.mu.Unlock()
	if full {
		p.t.Handler.Unreachable(p.id)
		return
	}
	p.signal()
}

func (p *peer) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// LastHeard is when a node last said that it reads, in nanoseconds of Unix time; 0 for never.
func (t *Transport) LastHeard(id kv.NodeID) int64 {
	p := t.known(id)
	if p == nil {
		return 0
	}
	return p.heard.Load()
}

// run keeps a stream up.
func (p *peer) run() {
	pause := 20 * time.Millisecond
	for p.ctx.Err() == nil {
		began := time.Now()
		err := p.stream()
		p.drop()
		if p.ctx.Err() != nil {
			return
		}
		p.t.heed(p.id, err)
		p.t.Handler.Unreachable(p.id)
		if time.Since(began) > silenceMax {
			pause = 20 * time.Millisecond
		}
		p.t.Logger.Debug("the stream to a node broke", "node", p.id, "error", err)
		select {
		case <-p.ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, retryMax)
	}
}

// drop forgets what is queued: the stream is down, and Raft repeats what matters.
func (p *peer) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue, p.bytes = nil, 0
}

// take gives what is queued, up to about the size of an envelope.
func (p *peer) take() []*kvdv1.RaftMessage {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, size := 0, 0
	for n < len(p.queue) && (n == 0 || size < envelopeBytes) {
		size += p.queue[n].SizeVT()
		n++
	}
	messages := p.queue[:n:n]
	if n == len(p.queue) {
		p.queue, p.bytes = nil, 0
	} else {
		p.queue, p.bytes = p.queue[n:], p.bytes-size
	}
	return messages
}

var errSilent = errors.New("the node is silent")

// stream opens a stream and sends until it breaks.
func (p *peer) stream() error {
	t := p.t
	conn, err := Dial(p.address, t.Credentials)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(p.ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(silenceMax, func() { cancel(errSilent) })
	defer watchdog.Stop()
	stream, err := kvdv1.NewNodeServiceClient(conn).Raft(ctx)
	if err != nil {
		return err
	}
	envelope := func(messages []*kvdv1.RaftMessage) *kvdv1.Envelope {
		return &kvdv1.Envelope{
			ClusterId: uint64(t.Cluster), FromNode: uint64(t.Node), ToNode: uint64(p.id), FromLife: uint64(t.Life),
			Version: Version, Messages: messages,
		}
	}
	if err := stream.Send(envelope(nil)); err != nil {
		return readError(stream, err)
	}
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				cancel(err)
				return
			}
			p.heard.Store(time.Now().UnixNano())
			watchdog.Reset(silenceMax)
		}
	}()
	return p.send(ctx, func(messages []*kvdv1.RaftMessage) error { return stream.Send(envelope(messages)) })
}

// send sends what is queued, and nothing when it is time for a ping, until the context ends; it gives the cause. The ping is a timer's
// that signals, not one that is waited for: that would be set again after each envelope.
func (p *peer) send(ctx context.Context, send func([]*kvdv1.RaftMessage) error) error {
	var due atomic.Bool
	ping := time.AfterFunc(pingInterval, func() {
		due.Store(true)
		p.signal()
	})
	defer ping.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.wake:
		}
		messages := p.take()
		for pings := due.Swap(false); pings || len(messages) > 0; messages = p.take() {
			if err := send(messages); err != nil {
				<-ctx.Done() // Who receives knows why.
				return context.Cause(ctx)
			}
			if pings {
				pings = false
				ping.Reset(pingInterval)
			}
		}
	}
}

// readError gives the reason that the other side had, if it said one.
func readError(stream kvdv1.NodeService_RaftClient, err error) error {
	if _, said := stream.Recv(); said != nil {
		return said
	}
	return err
}

// raft serves a neighbour's stream.
func (t *Transport) raft(stream kvdv1.NodeService_RaftServer) error {
	hello, err := stream.Recv()
	if err != nil {
		return err
	}
	if err := t.check(hello); err != nil {
		return err
	}
	heard := &kvdv1.RaftHeard{Life: uint64(t.Life)}
	if err := stream.Send(heard); err != nil {
		return err
	}
	// Nobody but the one that reads is woken for an envelope.
	var last atomic.Int64 // When something was heard, in nanoseconds since began.
	began, broken := time.Now(), make(chan error, 1)
	go func() {
		for {
			if err := t.hear(stream, hello); err != nil {
				broken <- err
				return
			}
			last.Store(int64(time.Since(began)))
		}
	}()
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	for answered := int64(0); ; {
		select {
		case err := <-broken:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-ticker.C:
			at := last.Load()
			if time.Since(began)-time.Duration(at) > silenceMax {
				return status.Error(codes.DeadlineExceeded, errSilent.Error())
			}
			if at == answered {
				continue
			}
			answered = at
			if err := stream.Send(heard); err != nil {
				return err
			}
		case <-t.ctx.Done():
			return status.Error(codes.Unavailable, kv.ErrStopping.Error())
		}
	}
}

// hear takes the next envelope of a stream that began with a hello.
func (t *Transport) hear(stream kvdv1.NodeService_RaftServer, hello *kvdv1.Envelope) error {
	e, err := stream.Recv()
	if err != nil {
		return err
	}
	if e.FromNode != hello.FromNode || e.ClusterId != hello.ClusterId || e.ToNode != hello.ToNode {
		return status.Error(codes.InvalidArgument, "an envelope of another node came over the stream")
	}
	if err := t.member(e.ClusterId, e.FromNode); err != nil {
		return err // It was removed since.
	}
	if len(e.Messages) > 0 {
		t.Handler.Envelope(e)
	}
	return nil
}

// check refuses strangers: nodes of another cluster, or who look for another node at this address.
func (t *Transport) check(e *kvdv1.Envelope) error {
	if err := t.member(e.GetClusterId(), e.GetFromNode()); err != nil {
		return err
	}
	switch {
	case kv.NodeID(e.GetToNode()) != t.Node:
		return t.refuse(e.GetFromNode(), fmt.Sprintf("this is node %d, not %d: is an address wrong?", t.Node, e.GetToNode()))
	case e.GetVersion() != Version:
		return t.refuse(e.GetFromNode(), fmt.Sprintf("this node speaks version %d of the protocol, not %d", Version, e.GetVersion()))
	}
	return nil
}

func (t *Transport) member(cluster, from uint64) error {
	if kv.ClusterID(cluster) != t.Cluster {
		return t.refuse(from, fmt.Sprintf("this node belongs to cluster %v, not %v", t.Cluster, kv.ClusterID(cluster)))
	}
	if _, ok := t.Address(kv.NodeID(from)); ok && kv.NodeID(from) != t.Node {
		return nil
	}
	if t.removed(from) {
		return status.Error(codeRemoved, fmt.Sprintf("node %d was removed from this cluster", from))
	}
	return t.refuse(from, fmt.Sprintf("node %d is not a member of this cluster", from))
}

// codeRemoved is the code of a refusal that says: you were removed. No other answer between nodes has it.
const codeRemoved = codes.FailedPrecondition

// removed tells whether a node was a member and is none any more. An id above all that were given is that of a node whose
// joining this one has not heard of yet.
func (t *Transport) removed(id uint64) bool {
	m, _ := t.Handler.Meta()
	return id != 0 && id < m.GetNextNode() && !slices.ContainsFunc(m.GetNodes(), func(n *kvdv1.MetaNode) bool { return n.GetNode().GetNode() == id })
}

// heed tells the handler if a member says that this node was removed.
func (t *Transport) heed(by kv.NodeID, err error) {
	if status.Code(err) == codeRemoved {
		t.Handler.Removed(by)
	}
}

// refusedByMember tells that a call was refused before anything was done: by who the caller is.
func refusedByMember(err error) bool {
	code := status.Code(err)
	return code == codes.PermissionDenied || code == codes.Unauthenticated || code == codeRemoved
}

// refuse refuses a stranger, and says so in the log now and then.
func (t *Transport) refuse(from uint64, why string) error {
	now, last := time.Now().Unix(), t.warned.Load()
	if now-last >= 10 && t.warned.CompareAndSwap(last, now) {
		t.Logger.Warn("a node was refused", "node", from, "reason", why)
	}
	return status.Error(codes.PermissionDenied, why)
}

// bulkClient is what calls a node over bulkConn.
func (t *Transport) bulkClient(id kv.NodeID) (kvdv1.NodeServiceClient, error) {
	conn, err := t.bulkConn(id)
	if err != nil {
		return nil, err
	}
	return kvdv1.NewNodeServiceClient(conn), nil
}

// bulkConn gives the connection for everything but Raft's messages.
func (t *Transport) bulkConn(id kv.NodeID) (*grpc.ClientConn, error) {
	address, ok := t.Address(id)
	if !ok {
		return nil, fmt.Errorf("the address of node %d is not known", id)
	}
	t.mu.RLock()
	conn := t.bulk[address]
	t.mu.RUnlock()
	if conn != nil {
		return conn, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return nil, kv.ErrStopping
	}
	if conn = t.bulk[address]; conn == nil {
		var err error
		if conn, err = Dial(address, t.Credentials); err != nil {
			return nil, err
		}
		t.bulk[address] = conn
	}
	return conn, nil
}

// Forward passes a request on to a node. With sent false it surely has not left, and so was not done.
func (t *Transport) Forward(ctx context.Context, to kv.NodeID, r *kvdv1.ForwardRequest) (resp *kvdv1.ForwardResponse, sent bool, err error) {
	conn, err := t.bulkConn(to)
	if err != nil {
		return nil, false, err
	}
	r.ClusterId, r.FromNode = uint64(t.Cluster), uint64(t.Node)
	marked := &wire.MarkedConn{Conn: conn}
	resp, err = kvdv1.NewNodeServiceClient(marked).Forward(ctx, r)
	t.heed(to, err)
	return resp, marked.Sent() && !refusedByMember(err), err
}

// forward serves a request that another node has passed on.
func (t *Transport) forward(ctx context.Context, r *kvdv1.ForwardRequest) (*kvdv1.ForwardResponse, error) {
	if err := t.member(r.GetClusterId(), r.GetFromNode()); err != nil {
		return nil, err
	}
	size := int64(r.SizeVT())
	defer t.forwards.count.Add(-1)
	defer t.forwards.bytes.Add(-size)
	if count, bytes := t.forwards.count.Add(1), t.forwards.bytes.Add(size); count > kv.ForwardsMax || bytes > kv.ProposalBytesMax {
		err := &kv.OverloadError{What: "the queue of forwarded requests", RetryAfter: kv.RetryAfter}
		return &kvdv1.ForwardResponse{Error: wire.FromError(wire.Write, err, nil)}, nil
	}
	return t.Handler.Forward(ctx, r), nil
}

// Local asks a node to describe itself.
func (t *Transport) Local(ctx context.Context, to kv.NodeID) (*kvdv1.StatusResponse, error) {
	client, err := t.bulkClient(to)
	if err != nil {
		return nil, err
	}
	resp, err := client.Local(ctx, &kvdv1.LocalRequest{ClusterId: uint64(t.Cluster), FromNode: uint64(t.Node)})
	return resp.GetStatus(), err
}

// Explain asks a node what it remembers, and what its plan thinks.
func (t *Transport) Explain(ctx context.Context, to kv.NodeID, r *kvdv1.ExplainRequest) (*kvdv1.ExplainResponse, error) {
	client, err := t.bulkClient(to)
	if err != nil {
		return nil, err
	}
	r.ClusterId, r.FromNode = uint64(t.Cluster), uint64(t.Node)
	return client.Explain(ctx, r)
}

// WatchMeta calls f with a node's metadata if it is newer than a version, and with each newer one, until the stream breaks.
func (t *Transport) WatchMeta(ctx context.Context, from kv.NodeID, version uint64, f func(*kvdv1.MetaState)) error {
	client, err := t.bulkClient(from)
	if err != nil {
		return err
	}
	stream, err := client.Meta(ctx, &kvdv1.MetaStreamRequest{ClusterId: uint64(t.Cluster), FromNode: uint64(t.Node), Version: version})
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			t.heed(from, err)
			return err
		}
		f(m)
	}
}

// SendSnapshot sends a header and then what next gives, until its ok is false.
func (t *Transport) SendSnapshot(ctx context.Context, to kv.NodeID, header *kvdv1.SnapshotHeader, next func() (*kvdv1.SnapshotChunk, bool, error)) error {
	client, err := t.bulkClient(to)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A receiver that takes nothing more, or never answers, is given up: no other follower gets one meanwhile. The time that
	// next takes is not the receiver's: the node may send slowly.
	watchdog := t.watch(snapshotSilence, cancel)
	defer watchdog.Stop()
	stream, err := client.Snapshot(ctx)
	if err != nil {
		return err
	}
	header.ClusterId, header.FromNode, header.ToNode, header.FromLife = uint64(t.Cluster), uint64(t.Node), uint64(to), uint64(t.Life)
	chunk := &kvdv1.SnapshotChunk{Part: &kvdv1.SnapshotChunk_Header{Header: header}}
	for ok := true; ok; {
		if err := stream.Send(chunk); err != nil {
			break // The reason comes with CloseAndRecv.
		}
		watchdog.Stop()
		if chunk, ok, err = next(); err != nil {
			return err
		}
		watchdog.Reset(snapshotSilence)
	}
	end, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	if !end.GetAccepted() {
		return fmt.Errorf("node %d refused the snapshot: %s", to, end.GetReason())
	}
	return nil
}

// snapshot serves a snapshot's stream. One comes in at a time.
func (t *Transport) snapshot(stream kvdv1.NodeService_SnapshotServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	header := first.GetHeader()
	if err := t.member(header.GetClusterId(), header.GetFromNode()); err != nil {
		return err
	}
	if header.GetMessage() == nil || header.GetState().GetDescriptor_() == nil || kv.NodeID(header.GetToNode()) != t.Node {
		return status.Error(codes.InvalidArgument, "a snapshot begins with a header for this node")
	}
	if t.incoming.Add(1) > kv.SnapshotsIncomingMax {
		t.incoming.Add(-1)
		return stream.SendAndClose(&kvdv1.SnapshotEnd{Reason: "another snapshot is coming in"})
	}
	defer t.incoming.Add(-1)
	if err := t.Handler.Snapshot(stream.Context(), header, stream.Recv); err != nil {
		return stream.SendAndClose(&kvdv1.SnapshotEnd{Reason: err.Error()})
	}
	return stream.SendAndClose(&kvdv1.SnapshotEnd{Accepted: true})
}

// meta serves the metadata and its changes.
func (t *Transport) meta(r *kvdv1.MetaStreamRequest, stream kvdv1.NodeService_MetaServer) error {
	if err := t.member(r.GetClusterId(), r.GetFromNode()); err != nil {
		return err
	}
	for sent := r.GetVersion(); ; {
		m, changed := t.Handler.Meta()
		if m.GetVersion() > sent {
			sent = m.GetVersion()
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		if err := t.member(r.GetClusterId(), r.GetFromNode()); err != nil {
			return err // It was removed, and has just been sent that.
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-t.ctx.Done():
			return status.Error(codes.Unavailable, kv.ErrStopping.Error())
		}
	}
}

// Server is the NodeService of a node: the founding, and once there is a transport all of it.
type Server struct {
	kvdv1.UnimplementedNodeServiceServer
	// Founding answers the steps of the founding.
	Founding func(ctx context.Context, r *kvdv1.FoundRequest) (*kvdv1.FoundResponse, error)
	// Joining answers a node that asks to join, also before there is a transport. An error is one that may end by itself.
	Joining func(ctx context.Context, r *kvdv1.JoinRequest) (*kvdv1.JoinResponse, error)
	current atomic.Pointer[Transport]
}

// Use makes the transport answer from now on.
func (s *Server) Use(t *Transport) { s.current.Store(t) }

var errFounding = status.Error(codes.Unavailable, "the node takes no part yet")

// Raft serves a neighbour's stream.
func (s *Server) Raft(stream kvdv1.NodeService_RaftServer) error {
	if t := s.current.Load(); t != nil {
		return t.raft(stream)
	}
	return errFounding
}

// Snapshot serves a snapshot's stream.
func (s *Server) Snapshot(stream kvdv1.NodeService_SnapshotServer) error {
	if t := s.current.Load(); t != nil {
		return t.snapshot(stream)
	}
	return errFounding
}

// Meta serves the metadata.
func (s *Server) Meta(r *kvdv1.MetaStreamRequest, stream kvdv1.NodeService_MetaServer) error {
	if t := s.current.Load(); t != nil {
		return t.meta(r, stream)
	}
	return errFounding
}

// Forward serves a request that was passed on.
func (s *Server) Forward(ctx context.Context, r *kvdv1.ForwardRequest) (*kvdv1.ForwardResponse, error) {
	if t := s.current.Load(); t != nil {
		return t.forward(ctx, r)
	}
	return nil, errFounding
}

// Local describes this node.
func (s *Server) Local(ctx context.Context, r *kvdv1.LocalRequest) (*kvdv1.LocalResponse, error) {
	t := s.current.Load()
	if t == nil {
		return nil, errFounding
	}
	if err := t.member(r.GetClusterId(), r.GetFromNode()); err != nil {
		return nil, err
	}
	st, err := t.Handler.Local(ctx)
	return &kvdv1.LocalResponse{Status: st}, err
}

// Explain tells what this node remembers.
func (s *Server) Explain(ctx context.Context, r *kvdv1.ExplainRequest) (*kvdv1.ExplainResponse, error) {
	t := s.current.Load()
	if t == nil {
		return nil, errFounding
	}
	if err := t.member(r.GetClusterId(), r.GetFromNode()); err != nil {
		return nil, err
	}
	return t.Handler.Explain(ctx, r)
}

// Found serves a step of the founding.
func (s *Server) Found(ctx context.Context, r *kvdv1.FoundRequest) (*kvdv1.FoundResponse, error) {
	return s.Founding(ctx, r)
}

// Join serves a node that asks to join.
func (s *Server) Join(ctx context.Context, r *kvdv1.JoinRequest) (*kvdv1.JoinResponse, error) {
	if r.GetVersion() != Version {
		return &kvdv1.JoinResponse{Refusal: fmt.Sprintf(
			"the nodes of this cluster speak version %d of the protocol, and the new one %d: install the version of kvd that they have", Version, r.GetVersion())}, nil
	}
	resp, err := s.Joining(ctx, r)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return resp, nil
}

var _ kvdv1.NodeServiceServer = (*Server)(nil)

// Ask gives what sends a step of the founding to an address.
func Ask(creds credentials.TransportCredentials) func(context.Context, string, *kvdv1.FoundRequest) (*kvdv1.FoundResponse, error) {
	return func(ctx context.Context, address string, r *kvdv1.FoundRequest) (*kvdv1.FoundResponse, error) {
		return once(address, creds, func(c kvdv1.NodeServiceClient) (*kvdv1.FoundResponse, error) { return c.Found(ctx, r) })
	}
}

// Join gives what asks the node at an address to join its cluster.
func Join(creds credentials.TransportCredentials) func(context.Context, string, *kvdv1.JoinRequest) (*kvdv1.JoinResponse, error) {
	return func(ctx context.Context, address string, r *kvdv1.JoinRequest) (*kvdv1.JoinResponse, error) {
		r.Version = Version
		return once(address, creds, func(c kvdv1.NodeServiceClient) (*kvdv1.JoinResponse, error) { return c.Join(ctx, r) })
	}
}

// once makes one call on a connection of its own.
func once[R any](address string, creds credentials.TransportCredentials, call func(kvdv1.NodeServiceClient) (R, error)) (resp R, err error) {
	conn, err := Dial(address, creds)
	if err != nil {
		return resp, err
	}
	defer conn.Close()
	if resp, err = call(kvdv1.NewNodeServiceClient(conn)); err != nil {
		return resp, errors.New(wire.Message(err))
	}
	return resp, nil
}
