package node_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/internal/test"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
	"github.com/kvdstore/kvd/storage"
)

// eventually waits for what other nodes are about to do.
func (c cluster) eventually(what string, f func() bool) {
	c.t.Helper()
	require.Eventually(c.t, f, 20*time.Second, 5*time.Millisecond, what)
}

// names are the members that a node knows, with their addresses.
func (c cluster) names(i int) (names []string) {
	meta, _ := c.Nodes[i].Meta()
	for _, n := range meta.GetNodes() {
		names = append(names, n.GetNode().GetName()+"="+n.GetNode().GetAddress())
	}
	return names
}

// join adds a node that joins, and waits until it is ready.
func (c cluster) join() int {
	i := c.Add()
	require.NoError(c.t, <-c.Start(i))
	c.eventually("the new node is ready", func() bool { return c.Nodes[i].Ready() == nil })
	return i
}

// TestJoin: an empty node joins, also by way of one that has joined itself, and takes every request, without a replica.
// It is the same node when it starts again, whatever is asked of it then, and finds the others by what it has recorded.
func TestJoin(t *testing.T) {
	c := cluster{test.New(t, 1, "m"), t}
	c.StartAll()
	c.put(0, "a", "1")
	second := c.join()
	c.Configure = func(n *node.Config) { n.Members = []string{n.Advertise, c.Addresses()[second]} }
	third := c.join()
	for _, i := range []int{second, third} {
		require.EqualValues(t, i+1, c.Nodes[i].ID())
		require.Equal(t, c.Nodes[0].Self().Cluster, c.Nodes[i].Self().Cluster)
		require.Equal(t, "1", c.get(i, "a"))
		c.put(i, "z", "2")
		chunk, err := c.Nodes[i].ScanChunk(c.Context(), kv.Route{}, kv.ScanRequest{Span: kv.PrefixSpan([]byte("z"))})
		require.NoError(t, err)
		require.Len(t, chunk.Items, 1)
		require.NoError(t, c.Nodes[i].SetSetting(c.Context(), "log-keep", "100"))
	}
	for i := range 3 {
		c.eventually("all know all", func() bool { return len(c.names(i)) == 3 })
	}
	c.eventually("the third is in the record of the second", func() bool {
		r, ok, err := storage.ReadStore(c.Nodes[second].Dir())
		return err == nil && ok && r.Phase == kvdv1.StoreRecord_READY && len(r.Meta.GetNodes()) == 3
	})
	c.Stop(second, false)
	c.Configure = func(n *node.Config) {
		n.Members, n.Initial = []string{"127.0.0.1:1"}, []node.FoundNode{{Name: "x", Address: "h:1"}}
	}
	require.NoError(t, <-c.Start(second))
	require.EqualValues(t, second+1, c.Nodes[second].ID())
	require.Equal(t, "2", c.get(second, "z"))
}

// interrupted starts a node whose first question to the cluster ends as f has it, and stops it then.
func (c cluster) interrupted(i int, f func(ask func() (*kvdv1.JoinResponse, error))) {
	asked, lost := make(chan struct{}), errors.New("lost")
	var once sync.Once
	c.Configure = func(n *node.Config) {
		through := n.AskToJoin
		n.AskToJoin = func(ctx context.Context, address string, r *kvdv1.JoinRequest) (*kvdv1.JoinResponse, error) {
			once.Do(func() {
				f(func() (*kvdv1.JoinResponse, error) { return through(ctx, address, r) })
				close(asked)
			})
			return nil, lost
		}
	}
	started := c.Start(i)
	<-asked
	c.Stop(i, true)
	require.ErrorIs(c.t, <-started, context.Canceled)
	c.Configure = nil
}

// TestJoinInterrupted (B2): a joiner that stops before it asked, or before it heard the answer, is let in as the same node
// when it starts again. Meanwhile it founds nothing.
func TestJoinInterrupted(t *testing.T) {
	c := cluster{test.New(t, 1), t}
	c.StartAll()
	i := c.Add()
	c.interrupted(i, func(func() (*kvdv1.JoinResponse, error)) {})
	require.Len(t, c.names(0), 1)
	record, _, err := storage.ReadStore(c.Nodes[i].Dir())
	require.NoError(t, err)
	require.Equal(t, kvdv1.StoreRecord_JOINING, record.Phase)
	store := record.StoreId
	c.interrupted(i, func(ask func() (*kvdv1.JoinResponse, error)) {
		resp, err := ask()
		if err != nil || resp.GetRefusal() != "" {
			t.Errorf("was not let in: %v, %v", resp, err)
		}
	})
	c.eventually("it was registered", func() bool { return len(c.names(0)) == 2 })

	for what, change := range map[string]func(*node.Config){
		"join: must be given": func(n *node.Config) { n.Members = nil },
		"join: not together":  func(n *node.Config) { n.Initial = []node.FoundNode{{Name: n.Name, Address: n.Advertise}} },
		"about to join a clust": func(n *node.Config) {
			n.Members, n.Initial = nil, []node.FoundNode{{Name: n.Name, Address: n.Advertise}}
		},
	} {
		config := node.Config{Name: "n2", DataDir: c.Nodes[i].Dir(), Advertise: "h:1", Members: []string{"h:2"}, Replicas: 3}
		change(&config)
		_, err := node.Open(config)
		require.ErrorContains(t, err, what)
	}

	require.NoError(t, <-c.Start(i))
	require.EqualValues(t, 2, c.Nodes[i].ID())
	meta, _ := c.Nodes[0].Meta()
	require.Equal(t, store, meta.Nodes[1].StoreId)
	require.Len(t, c.names(0), 2)
}

// TestJoinedIsFinished (B2): a node that stopped when it had its id, and some of its stores, makes the others and starts.
func TestJoinedIsFinished(t *testing.T) {
	c := cluster{test.New(t, 1), t}
	c.StartAll()
	i := c.join()
	for _, made := range [][]string{{}, {"log"}, {"state"}, {"log", "state"}} {
		c.Stop(i, true)
		dir := c.Nodes[i].Dir()
		record, _, err := storage.ReadStore(dir)
		require.NoError(t, err)
		record.Phase, record.Life = kvdv1.StoreRecord_JOINED, 0
		require.NoError(t, storage.WriteStore(dir, record))
		for _, store := range []string{"log", "state"} {
			if !slices.Contains(made, store) {
				require.NoError(t, os.RemoveAll(filepath.Join(dir, store)))
			}
		}
		require.NoError(t, <-c.Start(i), made)
		require.EqualValues(t, 2, c.Nodes[i].ID())
		c.put(i, "k", "v")
		record, _, err = storage.ReadStore(dir)
		require.NoError(t, err)
		require.Equal(t, kvdv1.StoreRecord_READY, record.Phase)
	}
}
