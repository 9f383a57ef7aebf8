package node

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/shard"
)

// slow is the network to nodes that answer when the test says so.
type slow struct {
	Network
	arrived, release chan struct{}
}

func (s slow) Forward(context.Context, kv.NodeID, *kvdv1.ForwardRequest) (*kvdv1.ForwardResponse, bool, error) {
	s.arrived <- struct{}{}
	<-s.release
	done := shard.EncodeResult(&kv.Result{Status: kv.Done})
	return &kvdv1.ForwardResponse{Response: &kvdv1.ForwardResponse_Write{Write: done}}, true, nil
}

// TestPassageIsBoundedByBytes: large writes to a slow node are refused before their number is, and do not take the room
// of those to another node.
func TestPassageIsBoundedByBytes(t *testing.T) {
	network := slow{arrived: make(chan struct{}), release: make(chan struct{})}
	n := &Node{budget: newBudget(), network: network}
	const size = 3 << 20
	ended := make(chan error)
	pass := func(to kv.NodeID) {
		_, _, err := n.forwardWrite(context.Background(), &kv.Descriptor{Shard: 1}, &kvdv1.Command{}, size, to)
		ended <- err
	}
	fits := kv.ForwardBytesMax / size
	for range fits {
		go pass(2)
		<-network.arrived
	}
	go pass(2)
	select {
	case err := <-ended:
		require.ErrorAs(t, err, new(*kv.OverloadError))
		require.Equal(t, kv.NotDone, kv.OutcomeOf(err))
	case <-network.arrived:
		require.Fail(t, "one too many was passed on")
	}
	go pass(3)
	<-network.arrived
	close(network.release)
	for range fits + 1 {
		require.NoError(t, <-ended)
	}
	go pass(2)
	<-network.arrived
	require.NoError(t, <-ended)
	require.Zero(t, n.budget.to(2).bytes.Load())
	require.Zero(t, n.budget.to(2).waiting.Load())
}
