package transport

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// heardOf waits until a node reads what this end sends.
func (e *end) heardOf(t *testing.T, id kv.NodeID, after int64) {
	t.Helper()
	require.Eventually(t, func() bool { return e.LastHeard(id) > after }, 20*time.Second, 5*time.Millisecond)
}

// TestAddressIsFollowed: a node that has another address is sent to there, messages and requests, and nothing is left of the
// connections to where it was.
func TestAddressIsFollowed(t *testing.T) {
	a, b := network(t)
	b.forward = func(context.Context) *kvdv1.ForwardResponse { return &kvdv1.ForwardResponse{} }
	a.Follow([]kv.NodeID{2})
	a.heardOf(t, 2, 0)
	_, _, err := a.Transport.Forward(t.Context(), 2, &kvdv1.ForwardRequest{})
	require.NoError(t, err)
	old, was := a.peers[2], b.lis.Addr().String()
	conn := a.bulk[was]
	require.NotNil(t, conn)

	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	moved := grpc.NewServer(grpc.ForceServerCodecV2(wire.Codec()))
	s := &Server{}
	s.Use(b.Transport)
	kvdv1.RegisterNodeServiceServer(moved, s)
	go func() { _ = moved.Serve(lis) }()
	t.Cleanup(moved.Stop)
	a.directory.set(2, lis.Addr().String())
	last := a.LastHeard(2)
	a.Follow([]kv.NodeID{2})
	require.Equal(t, last, a.LastHeard(2), "it is no stranger")
	require.Error(t, old.ctx.Err(), "the old stream has ended")
	require.NotContains(t, a.bulk, was)
	b.server.Stop() // Nobody is where it was.
	a.heardOf(t, 2, last)
	a.Send(2, raftMessages(1))
	b.until(t, "a message at the new address", func() bool { return len(b.envelopes) > 0 })
	_, _, err = a.Transport.Forward(t.Context(), 2, &kvdv1.ForwardRequest{})
	require.NoError(t, err)
	same := a.peers[2]
	a.Follow([]kv.NodeID{2})
	require.Same(t, same, a.peers[2], "nothing has changed")
}

// TestRemovedNode: nothing is sent to it any more, whatever stream and call of its own was open ends, and it hears why.
func TestRemovedNode(t *testing.T) {
	a, b := network(t)
	b.Follow([]kv.NodeID{1})
	a.Follow([]kv.NodeID{2})
	a.heardOf(t, 2, 0)
	b.heardOf(t, 1, 0)
	b.forward = func(context.Context) *kvdv1.ForwardResponse { return &kvdv1.ForwardResponse{} }
	_, _, err := a.Transport.Forward(t.Context(), 2, &kvdv1.ForwardRequest{})
	require.NoError(t, err)
	watching, watched := make(chan struct{}), make(chan error, 1)
	go func() {
		watched <- b.WatchMeta(context.Background(), 1, 2, func(*kvdv1.MetaState) { close(watching) })
	}()
	<-watching
	old := a.peers[2]
	a.directory.remove(2) // b has not heard of that, and goes on as before.
	a.Follow(nil)
	require.Error(t, old.ctx.Err())
	require.Empty(t, a.peers)
	require.Empty(t, a.bulk)
	a.mu.Lock()
	before := a.unreachable
	a.mu.Unlock()
	a.Send(2, raftMessages(1))
	require.Equal(t, before+1, a.unreachable)
	require.Empty(t, a.peers, "there is no queue for a node that is none")
	b.until(t, "b hears that it was removed", func() bool { return len(b.removed) > 0 && b.removed[0] == 1 })

	_, sent, err := b.Transport.Forward(t.Context(), 1, &kvdv1.ForwardRequest{})
	require.Equal(t, codeRemoved, status.Code(err))
	require.ErrorContains(t, err, "node 2 was removed from this cluster")
	require.False(t, sent, "it was surely not done")
	close(a.newer) // The watch was open since before.
	select {
	case err := <-watched:
		require.Equal(t, codeRemoved, status.Code(err))
	case <-time.After(20 * time.Second):
		t.Fatal("the watch never ended")
	}
}

// TestUnknownNode: one whose joining this node has not heard of yet is refused, and not told that it was removed.
func TestUnknownNode(t *testing.T) {
	_, b := network(t)
	b.Transport.Node = 9
	_, sent, err := b.Transport.Forward(t.Context(), 1, &kvdv1.ForwardRequest{})
	require.Equal(t, codes.PermissionDenied, status.Code(err))
	require.False(t, sent)
	b.Transport.Node, b.Transport.Cluster = 5, 8 // Its cluster has removed nobody of ours.
	_, _, err = b.Transport.Forward(t.Context(), 1, &kvdv1.ForwardRequest{})
	require.Equal(t, codes.PermissionDenied, status.Code(err))
	require.ErrorContains(t, err, "belongs to cluster")
	require.Empty(t, b.removed)
}

// TestJoinAsksByVersion: who speaks another version of the protocol hears so for good; what the node says itself, and what
// keeps it from answering, arrives as it is.
func TestJoinAsksByVersion(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var fail error
	s := &Server{Joining: func(_ context.Context, r *kvdv1.JoinRequest) (*kvdv1.JoinResponse, error) {
		return &kvdv1.JoinResponse{NodeId: r.StoreId}, fail
	}}
	g := grpc.NewServer(grpc.ForceServerCodecV2(wire.Codec()))
	kvdv1.RegisterNodeServiceServer(g, s)
	go func() { _ = g.Serve(lis) }()
	defer g.Stop()
	resp, err := Join(nil)(t.Context(), lis.Addr().String(), &kvdv1.JoinRequest{StoreId: 5})
	require.NoError(t, err)
	require.EqualValues(t, 5, resp.NodeId)
	fail = errors.New("waits to join itself")
	_, err = Join(nil)(t.Context(), lis.Addr().String(), &kvdv1.JoinRequest{StoreId: 5})
	require.EqualError(t, err, fail.Error())
	resp, err = s.Join(t.Context(), &kvdv1.JoinRequest{StoreId: 5, Version: Version + 1})
	require.NoError(t, err)
	require.Contains(t, resp.Refusal, "version 1 of the protocol, and the new one 2")
	require.Zero(t, resp.NodeId)
}
