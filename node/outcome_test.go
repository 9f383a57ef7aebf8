package node

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/shard"
)

// scripted is the network to nodes that answer one after the other as the test says.
type scripted struct {
	Network
	answers []func() (*kvdv1.ForwardResponse, bool, error)
	asked   int
}

func (s *scripted) Forward(context.Context, kv.NodeID, *kvdv1.ForwardRequest) (*kvdv1.ForwardResponse, bool, error) {
	s.asked++
	return s.answers[s.asked-1]()
}

// outsider is a node without replicas, of a cluster of five with the shards [, m) and [m, ).
func outsider(t *testing.T, network Network) *Node {
	meta := foundingOf(t, 5, []byte("m"))
	n := &Node{budget: newBudget(), network: network, inbox: newInbox(), self: Self{Cluster: 7, Node: 9, Life: 1}}
	n.publishMeta(meta)
	n.serving.Store(true)
	return n
}

// TestOutcomeOfPassedOnWrites: what did not leave, and what the other node says was not done, is tried again; what has left
// and has no answer may have been done, and is not: the caller hears that it is unknown.
func TestOutcomeOfPassedOnWrites(t *testing.T) {
	broken := errors.New("the connection broke")
	did := func() (*kvdv1.ForwardResponse, bool, error) {
		return &kvdv1.ForwardResponse{Response: &kvdv1.ForwardResponse_Write{Write: shard.EncodeResult(&kv.Result{Status: kv.Done})}}, true, nil
	}
	notSent := func() (*kvdv1.ForwardResponse, bool, error) { return nil, false, broken }
	sent := func() (*kvdv1.ForwardResponse, bool, error) { return nil, true, broken }
	says := func(err error) func() (*kvdv1.ForwardResponse, bool, error) {
		return func() (*kvdv1.ForwardResponse, bool, error) {
			return &kvdv1.ForwardResponse{Error: wire.FromError(wire.Write, err, func(kv.NodeID) string { return "" })}, true, nil
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := func() (*kvdv1.ForwardResponse, bool, error) {
		cancel()
		return nil, true, context.Canceled
	}
	type script = []func() (*kvdv1.ForwardResponse, bool, error)
	for name, c := range map[string]struct {
		script
		unknown error // nil: it was done.
	}{
		"done":                                 {script{did}, nil},
		"not sent, and then done":              {script{notSent, notSent, did}, nil},
		"not led there, and then done":         {script{says(&kv.NotLeaderError{Shard: 1}), did}, nil},
		"refused at apply, and then done":      {script{says(&kv.StaleEpochError{}), did}, nil},
		"sent, without an answer":              {script{sent}, kv.ErrUnknown},
		"not sent, and then without an answer": {script{notSent, sent}, kv.ErrUnknown},
		"unknown there":                        {script{says(kv.ErrUnknown)}, kv.ErrUnknown},
		"the caller goes":                      {script{ended}, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			network := &scripted{answers: c.script}
			n := outsider(t, network)
			asking := t.Context()
			if name == "the caller goes" {
				asking = ctx
			}
			_, _, err := n.Write(asking, kv.Route{}, &kv.Command{Op: kv.OpIncrement, Key: []byte("k"), Delta: 1})
			require.Len(t, c.script, network.asked)
			if c.unknown == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, c.unknown)
			require.Equal(t, kv.Unknown, kv.OutcomeOf(err))
		})
	}
}

// TestRefusedAtApply: a command whose keys are another shard's when it is applied was not done, and the caller hears who
// has them.
func TestRefusedAtApply(t *testing.T) {
	l := newLone(t)
	g := l.core.groups[1]
	_, _, err := (&Node{}).written(g.view, kv.Result{Status: kv.WrongShard}, nil)
	var stale *kv.StaleEpochError
	require.ErrorAs(t, err, &stale)
	require.Equal(t, []*kv.Descriptor{g.machine.Descriptor()}, stale.Descriptors)
	require.Equal(t, kv.NotDone, kv.OutcomeOf(err))
	_, _, err = (&Node{}).written(g.view, kv.Result{Status: kv.Done}, nil)
	require.NoError(t, err)
}

// TestStaleRoutes: who was routed by an older map, or to a shard that does not hold the key, is told the right one.
func TestStaleRoutes(t *testing.T) {
	n := outsider(t, nil)
	stale := func(shard kv.ShardID, version uint64) []*kv.Descriptor {
		return n.Stale(kv.Route{Shard: shard, Version: version}, []byte("k"))
	}
	right := n.meta.Load().shards.Lookup([]byte("k"))
	require.Equal(t, kv.ShardID(1), right.Shard)
	require.Nil(t, stale(1, 0), "it was not routed by a map")
	require.Nil(t, stale(1, 1))
	require.Equal(t, []*kv.Descriptor{right}, stale(1, 2))
	require.Equal(t, []*kv.Descriptor{right}, stale(2, 1))
}

// TestStaleRouteAfterASplit: who was routed to the whole of a shard that was split hears of both parts.
func TestStaleRouteAfterASplit(t *testing.T) {
	n := outsider(t, nil)
	left := &kv.Descriptor{Shard: 1, Epoch: kv.Epoch{Version: 2, Config: 1}, Span: kv.Span{End: []byte("m")}}
	right := &kv.Descriptor{Shard: 9, Epoch: kv.Epoch{Version: 2, Config: 1}, Span: kv.Span{Start: []byte("m")}}
	var views []*View
	for _, d := range []*kv.Descriptor{left, right} {
		v := &View{shard: d.Shard}
		v.state.Store(&readState{descriptor: d, leader: true})
		views = append(views, v)
	}
	n.ViewsChanged(views)
	require.Equal(t, []*kv.Descriptor{right, left}, n.Stale(kv.Route{Shard: 1, Version: 1}, []byte("x")))
	require.Equal(t, []*kv.Descriptor{left}, n.Stale(kv.Route{Shard: 1, Version: 1}, []byte("a")))
	require.Equal(t, []*kv.Descriptor{right}, n.Stale(kv.Route{Shard: 1, Version: 2}, []byte("x")), "it knows that")
}

// TestLearnersAreNotAsked: where the leader is not known a learner is no help: it may be a while before it hears of one.
func TestLearnersAreNotAsked(t *testing.T) {
	n := outsider(t, nil)
	d := &kv.Descriptor{Shard: 1, Replicas: []kv.Replica{{Node: n.self.Node, Replica: 8, Learner: true}, {Node: 2, Replica: 2}, {Node: 3, Replica: 3}}}
	v := &View{shard: 1}
	v.state.Store(&readState{descriptor: d})
	n.ViewsChanged([]*View{v})
	for attempt := range 4 {
		require.Contains(t, []kv.NodeID{2, 3}, n.route(d, attempt))
	}
	require.NotEqual(t, n.route(d, 1), n.route(d, 2))
	d.Replicas[0].Learner = false
	require.Equal(t, n.self.Node, n.route(d, 1))
}
