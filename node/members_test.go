package node_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/internal/test"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
	"github.com/kvdstore/kvd/transport"
)

// TestAddressChanges: a node that starts at another address says so, also one that was founded; all others find it there.
func TestAddressChanges(t *testing.T) {
	c := cluster{test.New(t, 3), t}
	c.StartAll()
	joined := c.join()
	for _, i := range []int{0, joined} {
		c.Stop(i, true)
		c.Move(i)
		c.Configure = func(n *node.Config) { n.Initial, n.Members = nil, nil } // They are of a time before.
		require.NoError(t, <-c.Start(i))
		for j := range c.Nodes {
			c.eventually("all know where it is", func() bool {
				meta, _ := c.Nodes[j].Meta()
				return meta.Nodes[i].Node.Address == c.Addresses()[i]
			})
			c.eventually("all hear it there", func() bool {
				list, err := c.Nodes[j].Node.Nodes(t.Context())
				return err == nil && list[i].State == "up"
			})
			c.eventually("all can ask it", func() bool {
				_, silent, err := c.Nodes[j].Shards(c.Context())
				return err == nil && len(silent) == 0
			})
		}
		c.put(i, "k", "v")
		require.Equal(t, "v", c.get(0, "k"))
	}
}

// TestRemovedNodeEnds: a node that was removed while it runs hears it, answers nothing from then on, and ends; one that was
// away meanwhile does when it starts. It does not come back with its old data directory.
func TestRemovedNodeEnds(t *testing.T) {
	for _, away := range []bool{false, true} {
		c := cluster{test.New(t, 1), t}
		c.StartAll()
		ended := make(chan error, 1)
		c.Configure = func(n *node.Config) { n.Fatal = func(err error) { ended <- err } }
		i := c.join()
		if away {
			c.Stop(i, true)
		}
		_, err := c.Nodes[0].RemoveNode(c.Context(), &kvdv1.RemoveNodeRequest{Node: uint64(i + 1)})
		require.NoError(t, err)
		if away {
			require.NoError(t, <-c.Start(i))
		}
		select {
		case err = <-ended:
		case <-time.After(20 * time.Second):
			t.Fatal("it goes on")
		}
		require.ErrorIs(t, err, node.ErrRemoved)
		require.ErrorIs(t, c.Nodes[i].Ready(), kv.ErrStopping)
		for _, level := range []kv.Level{kv.Linearizable, kv.Eventual} {
			_, _, _, err = c.Nodes[i].Get(c.Context(), kv.Route{}, []byte("k"), level)
			require.ErrorIs(t, err, kv.ErrStopping)
		}
		_, err = c.Nodes[i].Join(c.Context(), &kvdv1.JoinRequest{Name: "x", Address: "h:1", StoreId: 77})
		require.ErrorIs(t, err, kv.ErrStopping)
		require.Len(t, c.names(0), 1)
		c.put(0, "k", "v")
	}
}

// TestEmptiedNodeDoesNotJoin: a node that lost its data directory is refused under its old name, whether it was founded or
// has joined; as a new node it is let in.
func TestEmptiedNodeDoesNotJoin(t *testing.T) {
	c := cluster{test.New(t, 1), t}
	c.StartAll()
	i := c.join()
	c.Stop(i, true)
	c.Empty(i)
	require.ErrorIs(t, <-c.Start(i), node.ErrJoinRefused)
	c.Stop(i, true)
	c.Configure = func(n *node.Config) { n.Name = "n1" }
	err := <-c.Start(i)
	require.ErrorIs(t, err, node.ErrJoinRefused)
	require.ErrorContains(t, err, "n1 is node 1, which has another data directory")
	c.Stop(i, true)
	c.Configure = func(n *node.Config) { n.Name = "new" }
	require.NoError(t, <-c.Start(i))
	require.EqualValues(t, 3, c.Nodes[i].ID())
}

// TestCopiedDirectoryDoesNotJoin: a store that a running node has is refused to another.
func TestCopiedDirectoryDoesNotJoin(t *testing.T) {
	c := cluster{test.New(t, 1), t}
	c.StartAll()
	c.join()
	meta, _ := c.Nodes[0].Meta()
	for _, n := range meta.Nodes {
		for _, asked := range c.Nodes {
			c.eventually("it is known to run", func() bool {
				resp, err := asked.Join(c.Context(), &kvdv1.JoinRequest{Name: n.Node.Name, Address: n.Node.Address, StoreId: n.StoreId})
				return err == nil && strings.Contains(resp.Refusal, "one is a copy")
			})
		}
	}
	require.Equal(t, meta.Nodes, func() []*kvdv1.MetaNode { m, _ := c.Nodes[0].Meta(); return m.Nodes }())
}

// TestReadyWithoutReplicas: a node without replicas is not ready before a member has given it the map; what it has
// recorded may be old.
func TestReadyWithoutReplicas(t *testing.T) {
	c := cluster{test.New(t, 1), t}
	c.StartAll()
	i := c.join()
	c.Stop(i, true)
	c.Stop(0, true)
	require.NoError(t, <-c.Start(i))
	require.ErrorContains(t, c.Nodes[i].Ready(), "no member of the cluster has given the newest map yet")
	require.NoError(t, <-c.Start(0))
	c.eventually("it has the map", func() bool { return c.Nodes[i].Ready() == nil })
}

// TestNobodyToJoin: with nobody but itself to ask, and others that wait as it does, a node waits and founds nothing.
func TestNobodyToJoin(t *testing.T) {
	c := cluster{test.New(t, 1), t}
	first, second := c.Add(), c.Add()
	rounds := make(chan string, 100)
	c.Configure = func(n *node.Config) {
		self := n.Advertise
		n.Members = c.Addresses()[1:]
		n.AskToJoin = func(ctx context.Context, address string, r *kvdv1.JoinRequest) (*kvdv1.JoinResponse, error) {
			resp, err := transport.Join(nil)(ctx, address, r)
			switch {
			case err == nil:
				t.Errorf("%s let %s in", address, self)
			case address == self:
				rounds <- "itself: " + err.Error()
			default:
				rounds <- "other: " + err.Error()
			}
			return resp, err
		}
	}
	c.Start(first)
	c.Start(second)
	want := map[string]bool{"itself: is this node itself": true, "other: waits to join itself": true}
	for len(want) > 0 {
		delete(want, <-rounds)
	}
	require.Error(t, c.Nodes[first].Ready())
	require.Zero(t, c.Nodes[first].ID())
}
