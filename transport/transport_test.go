package transport

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// directory is where the nodes are. Ids below 9 were given once.
type directory struct {
	mu        sync.Mutex
	addresses map[kv.NodeID]string
}

func (d *directory) set(id kv.NodeID, address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addresses[id] = address
}

func (d *directory) remove(id kv.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.addresses, id)
}

func (d *directory) find(id kv.NodeID) (string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a, ok := d.addresses[id]
	return a, ok
}

func (d *directory) meta() *kvdv1.MetaState {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := &kvdv1.MetaState{Version: 3, NextNode: 9}
	for id := range d.addresses {
		m.Nodes = append(m.Nodes, &kvdv1.MetaNode{Node: &kvdv1.Node{Node: uint64(id)}})
	}
	return m
}

// end is a node at one end of the network.
type end struct {
	*Transport
	directory *directory
	server    *grpc.Server
	lis       net.Listener

	mu          sync.Mutex
	envelopes   []*kvdv1.Envelope
	unreachable int
	removed     []kv.NodeID
	forward     func(context.Context) *kvdv1.ForwardResponse
	chunks      int
	onChunk     func() // nil for nothing.
	news        chan struct{}
	newer       chan struct{} // Closed when there is newer metadata.
}

func (e *end) signal() {
	select {
	case e.news <- struct{}{}:
	default:
	}
}

func (e *end) Envelope(x *kvdv1.Envelope) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.envelopes = append(e.envelopes, x)
	e.signal()
	return true
}

func (e *end) Unreachable(kv.NodeID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.unreachable++
	e.signal()
}

func (e *end) Removed(by kv.NodeID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.removed = append(e.removed, by)
	e.signal()
}

func (e *end) Snapshot(_ context.Context, h *kvdv1.SnapshotHeader, next func() (*kvdv1.SnapshotChunk, error)) error {
	for {
		c, err := next()
		if errors.Is(err, io.EOF) || c.GetTrailer() != nil {
			break
		}
		if err != nil {
			return err
		}
		e.mu.Lock()
		e.chunks++
		e.mu.Unlock()
		e.signal()
		if e.onChunk != nil {
			e.onChunk()
		}
	}
	if h.GetState().GetKeys() == 13 {
		return errors.New("thirteen is refused")
	}
	return nil
}

func (e *end) Forward(ctx context.Context, _ *kvdv1.ForwardRequest) *kvdv1.ForwardResponse {
	return e.forward(ctx)
}
func (e *end) Meta() (*kvdv1.MetaState, <-chan struct{}) {
	return e.directory.meta(), e.newer
}
func (e *end) Explain(_ context.Context, r *kvdv1.ExplainRequest) (*kvdv1.ExplainResponse, error) {
	return &kvdv1.ExplainResponse{NextGoal: r.GetGoal() + 1}, nil
}

func (e *end) Local(context.Context) (*kvdv1.StatusResponse, error) {
	return &kvdv1.StatusResponse{Version: "x"}, nil
}

// network makes two nodes that know each other.
func network(t *testing.T) (a, b *end) {
	directories := []*directory{{addresses: map[kv.NodeID]string{}}, {addresses: map[kv.NodeID]string{}}}
	var ends []*end
	for i := range 2 {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		id := kv.NodeID(i + 1)
		for _, d := range directories {
			d.set(id, lis.Addr().String())
		}
		e := &end{directory: directories[i], lis: lis, news: make(chan struct{}, 1), newer: make(chan struct{})}
		e.Transport = New(Config{
			Cluster: 7, Node: id, Life: 1, Handler: e, Logger: slog.New(slog.DiscardHandler), Address: e.directory.find,
		})
		e.server = grpc.NewServer(grpc.ForceServerCodecV2(wire.Codec()), grpc.MaxRecvMsgSize(kv.MessageBytesMax))
		s := &Server{}
		s.Use(e.Transport)
		kvdv1.RegisterNodeServiceServer(e.server, s)
		ends = append(ends, e)
		t.Cleanup(func() { e.Close(); e.server.Stop() })
	}
	for _, e := range ends {
		go func() { _ = e.server.Serve(e.lis) }()
	}
	return ends[0], ends[1]
}

// until waits for a condition, woken by what happens at an end.
func (e *end) until(t *testing.T, what string, ok func() bool) {
	deadline := time.After(20 * time.Second)
	for {
		e.mu.Lock()
		done := ok()
		e.mu.Unlock()
		if done {
			return
		}
		select {
		case <-e.news:
		case <-deadline:
			t.Fatal("never: ", what)
		}
	}
}

func raftMessages(n int) []*kvdv1.RaftMessage {
	var list []*kvdv1.RaftMessage
	for i := range n {
		list = append(list, &kvdv1.RaftMessage{Shard: uint64(i), From: 1, To: 2, Type: 8, Term: 5})
	}
	return list
}

func TestMessagesArriveInOrder(t *testing.T) {
	a, b := network(t)
	const n = 500
	for _, m := range raftMessages(n) {
		a.Send(2, []*kvdv1.RaftMessage{m})
	}
	count := func() (got []uint64) {
		for _, e := range b.envelopes {
			for _, m := range e.Messages {
				got = append(got, m.Shard)
			}
		}
		return got
	}
	b.until(t, "all messages", func() bool { return len(count()) == n })
	require.IsIncreasing(t, count())
	require.EqualValues(t, 1, b.envelopes[0].FromNode)
	require.EqualValues(t, 1, b.envelopes[0].FromLife)
}

// TestStrangersAreRefused: another cluster, another node at the address, another version, somebody unknown.
func TestStrangersAreRefused(t *testing.T) {
	_, b := network(t)
	conn, err := Dial(b.lis.Addr().String(), nil)
	require.NoError(t, err)
	defer conn.Close()
	good := kvdv1.Envelope{ClusterId: 7, FromNode: 1, ToNode: 2, FromLife: 1, Version: Version}
	for name, hello := range map[string]*kvdv1.Envelope{
		"another cluster": {ClusterId: 8, FromNode: 1, ToNode: 2, Version: Version},
		"another node":    {ClusterId: 7, FromNode: 1, ToNode: 3, Version: Version},
		"a later version": {ClusterId: 7, FromNode: 1, ToNode: 2, Version: Version + 1},
		"a stranger":      {ClusterId: 7, FromNode: 9, ToNode: 2, Version: Version},
		"itself":          {ClusterId: 7, FromNode: 2, ToNode: 2, Version: Version},
		"nothing":         {},
	} {
		stream, err := kvdv1.NewNodeServiceClient(conn).Raft(t.Context())
		require.NoError(t, err)
		require.NoError(t, stream.Send(hello))
		_, err = stream.Recv()
		require.Equal(t, codes.PermissionDenied, status.Code(err), name)
	}
	stream, err := kvdv1.NewNodeServiceClient(conn).Raft(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&good))
	_, err = stream.Recv()
	require.NoError(t, err)
	require.NoError(t, stream.Send(&kvdv1.Envelope{ClusterId: 7, FromNode: 2, ToNode: 2, Messages: raftMessages(1)}))
	for err == nil {
		_, err = stream.Recv()
	}
	require.Equal(t, codes.InvalidArgument, status.Code(err), "a stream spoke for two nodes")
}

// TestSilentNodeIsGivenUp: one that takes the connection and never answers.
func TestSilentNodeIsGivenUp(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer lis.Close()
	e := &end{news: make(chan struct{}, 1)}
	e.Transport = New(Config{
		Cluster: 7, Node: 1, Life: 1, Handler: e, Logger: slog.New(slog.DiscardHandler),
		Address: func(kv.NodeID) (string, bool) { return lis.Addr().String(), true },
	})
	defer e.Close()
	e.Send(2, raftMessages(1))
	e.until(t, "given up", func() bool { return e.unreachable > 0 })
	require.Zero(t, e.LastHeard(2))
}

// TestLargestEntriesArrive: entries at their bound, with others beside them, fit into what one node takes from another.
func TestLargestEntriesArrive(t *testing.T) {
	a, b := network(t)
	a.Follow([]kv.NodeID{2})
	largest := &kvdv1.RaftMessage{Shard: 1, Entries: []*kvdv1.RaftEntry{{Data: make([]byte, kv.EntryBytesMax)}}}
	const count = kv.OutboxBytesMax/kv.EntryBytesMax - 1
	for range count {
		a.Send(2, []*kvdv1.RaftMessage{largest})
	}
	b.until(t, "all entries", func() bool {
		n := 0
		for _, e := range b.envelopes {
			n += len(e.Messages)
		}
		return n == count
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	require.Zero(t, a.unreachable)
}

// TestQueueIsBounded: what cannot leave is dropped past the bound, and the node is told.
func TestQueueIsBounded(t *testing.T) {
	e := &end{news: make(chan struct{}, 1)}
	e.Transport = New(Config{
		Cluster: 7, Node: 1, Life: 1, Handler: e, Logger: slog.New(slog.DiscardHandler),
		Address: func(kv.NodeID) (string, bool) { return "", false },
	})
	defer e.Close()
	p := &peer{t: e.Transport, id: 2, wake: make(chan struct{}, 1)}
	e.peers[2] = p
	big := []*kvdv1.RaftMessage{{Entries: []*kvdv1.RaftEntry{{Data: make([]byte, 1<<20)}}}}
	for range 100 {
		e.Send(2, big)
	}
	require.LessOrEqual(t, p.bytes, kv.OutboxBytesMax)
	require.Positive(t, e.unreachable)
	for p.take() != nil {
	}
	require.Zero(t, p.bytes)
}

// TestForwardTellsWhetherItLeft: to nobody it has not; a node that goes away with it may have done it.
func TestForwardTellsWhetherItLeft(t *testing.T) {
	a, b := network(t)
	b.forward = func(context.Context) *kvdv1.ForwardResponse { return &kvdv1.ForwardResponse{} }
	_, sent, err := a.Transport.Forward(t.Context(), 2, &kvdv1.ForwardRequest{})
	require.NoError(t, err)
	require.True(t, sent)
	arrived := make(chan struct{})
	b.forward = func(ctx context.Context) *kvdv1.ForwardResponse {
		close(arrived)
		<-ctx.Done()
		return nil
	}
	go func() { <-arrived; b.server.Stop() }()
	_, sent, err = a.Transport.Forward(t.Context(), 2, &kvdv1.ForwardRequest{})
	require.Error(t, err)
	require.True(t, sent)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, sent, err = a.Transport.Forward(ctx, 2, &kvdv1.ForwardRequest{})
	require.Error(t, err)
	require.False(t, sent)
}

// TestForwardedRequestsAreBounded: past so many, or so much, further ones are refused as not done, and taken again when
// there is room.
func TestForwardedRequestsAreBounded(t *testing.T) {
	for name, c := range map[string]struct{ count, bytes int }{
		"number": {kv.ForwardsMax, 10},
		"size":   {16, kv.ProposalBytesMax/16 - 1<<10},
	} {
		t.Run(name, func(t *testing.T) {
			_, b := network(t)
			arrived, release := make(chan struct{}), make(chan struct{})
			b.forward = func(context.Context) *kvdv1.ForwardResponse {
				arrived <- struct{}{}
				<-release
				return &kvdv1.ForwardResponse{}
			}
			r := &kvdv1.ForwardRequest{
				ClusterId: 7, FromNode: 1,
				Request: &kvdv1.ForwardRequest_Get{Get: &kvdv1.ForwardGet{Key: make([]byte, c.bytes)}},
			}
			ended := make(chan error, c.count+1)
			ask := func() {
				resp, err := b.Transport.forward(context.Background(), r)
				ended <- errors.Join(err, wire.ToError(wire.Write, resp.GetError()))
			}
			for range c.count {
				go ask()
				<-arrived
			}
			go ask()
			select {
			case err := <-ended:
				require.ErrorAs(t, err, new(*kv.OverloadError))
				require.Equal(t, kv.NotDone, kv.OutcomeOf(err))
			case <-arrived:
				require.Fail(t, "one too many was taken")
			}
			close(release)
			for range c.count {
				require.NoError(t, <-ended)
			}
			go ask()
			<-arrived
			require.NoError(t, <-ended)
		})
	}
}

func TestSnapshots(t *testing.T) {
	a, b := network(t)
	send := func(keys uint64, fail error) error {
		n := 0
		return a.SendSnapshot(t.Context(), 2, &kvdv1.SnapshotHeader{
			Message: raftMessages(1)[0], State: &kvdv1.ShardState{Keys: keys, Descriptor_: &kvdv1.Descriptor{}},
		}, func() (*kvdv1.SnapshotChunk, bool, error) {
			n++
			switch {
			case n <= 20:
				return &kvdv1.SnapshotChunk{Part: &kvdv1.SnapshotChunk_Data{Data: &kvdv1.SnapshotData{Pairs: make([]byte, 1000)}}}, true, nil
			case n == 21 && fail == nil:
				return &kvdv1.SnapshotChunk{Part: &kvdv1.SnapshotChunk_Trailer{Trailer: &kvdv1.SnapshotTrailer{}}}, true, nil
			}
			return nil, false, fail
		})
	}
	require.NoError(t, send(1, nil))
	require.Equal(t, 20, b.chunks)
	require.ErrorContains(t, send(13, nil), "thirteen is refused")
	require.ErrorContains(t, send(1, errors.New("the view broke")), "the view broke")
}

// TestOneSnapshotComesIn: while one comes in, others are refused and told why; then there is room for the next (D4).
func TestOneSnapshotComesIn(t *testing.T) {
	a, b := network(t)
	send := func(next func() (*kvdv1.SnapshotChunk, bool, error)) error {
		return a.SendSnapshot(t.Context(), 2, &kvdv1.SnapshotHeader{
			Message: raftMessages(1)[0], State: &kvdv1.ShardState{Descriptor_: &kvdv1.Descriptor{}},
		}, next)
	}
	trailer := func() (*kvdv1.SnapshotChunk, bool, error) {
		return &kvdv1.SnapshotChunk{Part: &kvdv1.SnapshotChunk_Trailer{Trailer: &kvdv1.SnapshotTrailer{}}}, true, nil
	}
	sent, on, first := false, make(chan struct{}), make(chan error, 1)
	go func() {
		first <- send(func() (*kvdv1.SnapshotChunk, bool, error) {
			if !sent {
				sent = true
				return &kvdv1.SnapshotChunk{Part: &kvdv1.SnapshotChunk_Data{Data: &kvdv1.SnapshotData{}}}, true, nil
			}
			<-on
			return trailer()
		})
	}()
	b.until(t, "a first chunk", func() bool { return b.chunks == 1 })
	require.ErrorContains(t, send(trailer), "another snapshot is coming in")
	close(on)
	require.NoError(t, <-first)
	require.NoError(t, send(trailer))
}

func TestMetaAndLocal(t *testing.T) {
	a, _ := network(t)
	st, err := a.Transport.Local(t.Context(), 2)
	require.NoError(t, err)
	require.Equal(t, "x", st.Version)
	told, err := a.Transport.Explain(t.Context(), 2, &kvdv1.ExplainRequest{Goal: 7})
	require.NoError(t, err)
	require.EqualValues(t, 8, told.GetNextGoal())
	ctx, cancel := context.WithCancel(t.Context())
	var got uint64
	err = a.WatchMeta(ctx, 2, 2, func(m *kvdv1.MetaState) { got = m.Version; cancel() })
	require.Error(t, err)
	require.EqualValues(t, 3, got)
}

// TestNothingAfterClose: who still asks or sends while, and after, the transport is closed opens no connection that nobody
// will close.
func TestNothingAfterClose(t *testing.T) {
	a, b := network(t)
	b.forward = func(context.Context) *kvdv1.ForwardResponse { return &kvdv1.ForwardResponse{} }
	began, ended := make(chan struct{}, 2), make(chan struct{}, 2)
	for range 2 {
		go func() {
			for i := range kv.NodeID(200) {
				a.Send(3+i, raftMessages(1))
				_, _, _ = a.Transport.Forward(t.Context(), 2, &kvdv1.ForwardRequest{})
				if i == 0 {
					began <- struct{}{}
				}
			}
			ended <- struct{}{}
		}()
	}
	<-began
	a.Close()
	<-ended
	<-ended
	for _, conn := range a.bulk {
		require.Equal(t, connectivity.Shutdown, conn.GetState())
	}
	clear(a.bulk)
	_, sent, err := a.Transport.Forward(t.Context(), 2, &kvdv1.ForwardRequest{})
	require.ErrorIs(t, err, kv.ErrStopping)
	require.False(t, sent)
	require.Empty(t, a.bulk)
	a.Close()
}
