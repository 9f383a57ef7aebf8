package node_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
	"github.com/kvdstore/kvd/storage"
	"github.com/kvdstore/kvd/transport"
)

func alone(t *testing.T, dir string, network func(*node.Node, node.Self) node.Network) *node.Node {
	n, err := node.Open(node.Config{
		Name: "n1", DataDir: dir, Advertise: "127.0.0.1:1", Replicas: 1, MemoryBytes: 64 << 20,
		Logger: slog.New(slog.DiscardHandler), Ask: transport.Ask(nil), Fatal: func(err error) { panic(err) }, Network: network,
	})
	require.NoError(t, err)
	return n
}

func dial(n *node.Node, self node.Self) node.Network {
	return transport.New(transport.Config{
		Cluster: self.Cluster, Node: self.Node, Life: self.Life, Address: n.Address, Handler: n, Logger: n.Logger,
	})
}

// TestStopAfterAFailedStart: a start that ends in the middle leaves a node that can be stopped, and a directory that can
// be opened again.
func TestStopAfterAFailedStart(t *testing.T) {
	dir := t.TempDir()
	ballast := filepath.Join(dir, "BALLAST")
	require.NoError(t, os.Mkdir(ballast, 0o700)) // So that the file cannot be made.
	n := alone(t, dir, dial)
	require.ErrorContains(t, n.Start(t.Context()), "ballast")
	require.NoError(t, n.Stop(true))
	require.NoError(t, os.Remove(ballast))
	n = alone(t, dir, dial)
	require.NoError(t, n.Start(t.Context()))
	require.NoError(t, n.Stop(true))
}

// TestStopWhileStarting: Stop waits for a start whose context has ended.
func TestStopWhileStarting(t *testing.T) {
	dir := t.TempDir()
	n, err := node.Open(node.Config{
		Name: "n1", DataDir: dir, Advertise: "127.0.0.1:1", Replicas: 3, MemoryBytes: 64 << 20,
		Initial: []node.FoundNode{{Name: "n1", Address: "127.0.0.1:1"}, {Name: "n2", Address: "127.0.0.1:2"}},
		Logger:  slog.New(slog.DiscardHandler), Ask: transport.Ask(nil), Fatal: func(err error) { panic(err) }, Network: dial,
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan error, 1)
	go func() { started <- n.Start(ctx) }()
	cancel()
	require.NoError(t, n.Stop(true))
	require.ErrorIs(t, <-started, context.Canceled)
}

// TestOperatorsAskWhileANodeStarts: they are told that it does not serve yet.
func TestOperatorsAskWhileANodeStarts(t *testing.T) {
	n := alone(t, t.TempDir(), func(n *node.Node, self node.Self) node.Network {
		_, err := n.Nodes(t.Context())
		require.ErrorIs(t, err, kv.ErrNoMap)
		_, _, err = n.Shards(t.Context())
		require.ErrorIs(t, err, kv.ErrNoMap)
		require.ErrorIs(t, n.SetSetting(t.Context(), "log-keep", "100"), kv.ErrNoMap)
		require.Error(t, n.Ready())
		return dial(n, self)
	})
	require.NoError(t, n.Start(t.Context()))
	_, err := n.Nodes(t.Context())
	require.NoError(t, err)
	require.NoError(t, n.Stop(true))
}

// TestTimingIsTheClusters: a node times as the cluster's metadata says, whatever the program would give a new cluster: nodes of
// several versions must agree, or a lease outlives the promises that it stands on (L9).
func TestTimingIsTheClusters(t *testing.T) {
	dir := t.TempDir()
	n := alone(t, dir, dial)
	require.NoError(t, n.Start(t.Context()))
	tick, election := n.Timing()
	require.NoError(t, n.Stop(true))

	record, _, err := storage.ReadStore(dir)
	require.NoError(t, err)
	record.Meta.TickMs, record.Meta.ElectionTicks, record.Meta.Version = 20, 9, record.Meta.Version+1
	require.NoError(t, storage.WriteStore(dir, record))
	n = alone(t, dir, dial)
	require.NoError(t, n.Start(t.Context()))
	now, timeout := n.Timing()
	require.NoError(t, n.Stop(true))
	require.Equal(t, 20*time.Millisecond, now)
	require.Equal(t, 9, timeout)
	require.NotEqual(t, tick, now)
	require.NotEqual(t, election, timeout)
}
