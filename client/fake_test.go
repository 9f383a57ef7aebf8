package client_test

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/kv"
)

// network is a net of fake nodes without sockets, so that it may live in a bubble of testing/synctest: there the clock
// moves only when everybody waits, and a goroutine that is left over fails the test.
type network struct {
	t       *testing.T
	options []grpc.ServerOption

	mu    sync.Mutex
	nodes map[string]*fakeNode
	dials int
	conns int // Open ones.
}

func newNetwork(t *testing.T, options ...grpc.ServerOption) *network {
	return &network{t: t, options: options, nodes: map[string]*fakeNode{}}
}

// fakeNode answers as the test says.
type fakeNode struct {
	kvdv1.UnimplementedKVServer
	kvdv1.UnimplementedAdminServer
	address string
	lis     *bufconn.Listener
	server  *grpc.Server

	mu   sync.Mutex
	puts []*kvdv1.PutRequest // Those that came, over any call.
	maps int                 // How often it was asked for its map, or a sign of life.
	mute bool                // It gives none.
	// put answers the n-th put, from 0.
	put    func(ctx context.Context, n int, r *kvdv1.PutRequest) (*kvdv1.PutResponse, error)
	get    func(ctx context.Context, r *kvdv1.GetRequest) (*kvdv1.GetResponse, error)
	backup func(r *kvdv1.BackupRequest, send func(*kvdv1.BackupChunk) error) error
	// pipeline is a stream that it does not serve itself.
	pipeline func(stream kvdv1.KV_PipelineServer) error
	// know is the map that it gives; without one it says that it has none.
	know *kvdv1.MapResponse
}

// node starts a node.
func (w *network) node(address string) *fakeNode {
	n := &fakeNode{address: address, lis: bufconn.Listen(1 << 20), server: grpc.NewServer(append([]grpc.ServerOption{grpc.MaxRecvMsgSize(kv.MessageBytesMax)}, w.options...)...)}
	kvdv1.RegisterKVServer(n.server, n)
	kvdv1.RegisterAdminServer(n.server, n)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes[address] = n
	go func() { _ = n.server.Serve(n.lis) }()
	return n
}

func (w *network) stop() {
	for _, n := range w.nodes {
		n.server.Stop()
	}
}

// connect makes a client that knows only this network.
func (w *network) connect(change func(*client.Config), endpoints ...string) *client.Client {
	config := client.Config{Endpoints: endpoints, Connections: 1, DialOptions: []grpc.DialOption{grpc.WithContextDialer(w.dial)}}
	if change != nil {
		change(&config)
	}
	c, err := client.New(config)
	require.NoError(w.t, err)
	return c
}

func (w *network) dial(ctx context.Context, address string) (net.Conn, error) {
	w.mu.Lock()
	w.dials++
	n := w.nodes[address]
	w.mu.Unlock()
	if n == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: net.UnknownNetworkError("nobody is at " + address)}
	}
	conn, err := n.lis.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	w.opened(1)
	return counted{conn, sync.OnceFunc(func() { w.opened(-1) })}, nil
}

func (w *network) opened(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns += n
}

// open tells how many connections are.
func (w *network) open() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.conns
}

func (w *network) dialed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dials
}

// came tells of the puts that came, and does f beside no other.
func (n *fakeNode) came() []*kvdv1.PutRequest {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]*kvdv1.PutRequest{}, n.puts...)
}

// asked tells how often it was asked for its map.
func (n *fakeNode) asked() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.maps
}

func (n *fakeNode) Put(ctx context.Context, r *kvdv1.PutRequest) (*kvdv1.PutResponse, error) {
	n.mu.Lock()
	i, answer := len(n.puts), n.put
	n.puts = append(n.puts, r)
	n.mu.Unlock()
	if answer == nil {
		return &kvdv1.PutResponse{Succeeded: true}, nil
	}
	return answer(ctx, i, r)
}

func (n *fakeNode) Get(ctx context.Context, r *kvdv1.GetRequest) (*kvdv1.GetResponse, error) {
	n.mu.Lock()
	answer := n.get
	n.mu.Unlock()
	if answer == nil {
		return &kvdv1.GetResponse{}, nil
	}
	return answer(ctx, r)
}

func (n *fakeNode) Backup(r *kvdv1.BackupRequest, stream kvdv1.Admin_BackupServer) error {
	return n.backup(r, stream.Send)
}

func (n *fakeNode) Map(ctx context.Context, _ *kvdv1.MapRequest) (*kvdv1.MapResponse, error) {
	n.mu.Lock()
	mute := n.mute
	n.mu.Unlock()
	if mute { // Its deadline is the client's: what else it said then might come before that.
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.maps++
	if n.know == nil {
		return nil, refusal(wire.Read, kv.ErrNoMap)
	}
	return n.know, nil
}

// Pipeline answers each operation by itself. An answer that is no error of kvd's breaks the stream.
func (n *fakeNode) Pipeline(stream kvdv1.KV_PipelineServer) error {
	n.mu.Lock()
	pipeline := n.pipeline
	n.mu.Unlock()
	if pipeline != nil {
		return pipeline(stream)
	}
	var sending sync.Mutex
	broken := make(chan error, 1)
	fail := func(err error) {
		select {
		case broken <- err:
		default:
		}
	}
	answer := func(op *kvdv1.PipelineOp) {
		result := &kvdv1.PipelineResult{Id: op.Id}
		var err error
		if put := op.GetPut(); put != nil {
			var resp *kvdv1.PutResponse
			resp, err = n.Put(stream.Context(), put)
			result.Result = &kvdv1.PipelineResult_Put{Put: resp}
		} else {
			var resp *kvdv1.GetResponse
			resp, err = n.Get(stream.Context(), op.GetGet())
			result.Result = &kvdv1.PipelineResult_Get{Get: resp}
		}
		if err != nil {
			p := wire.FromStatus(err)
			if p.Detail == nil {
				fail(err)
				return
			}
			result.Result = &kvdv1.PipelineResult_Error{Error: p}
		}
		sending.Lock()
		defer sending.Unlock()
		if err := stream.Send(&kvdv1.PipelineResponse{Results: []*kvdv1.PipelineResult{result}}); err != nil {
			fail(err)
		}
	}
	go func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				fail(err)
				return
			}
			for _, op := range m.Ops {
				go answer(op)
			}
		}
	}()
	return <-broken
}

// refusal is an error as a node of kvd answers with it.
func refusal(op wire.Op, err error) error { return wire.StatusError(op, err, nil) }

var noLeader = &kv.NotLeaderError{Shard: 1}
