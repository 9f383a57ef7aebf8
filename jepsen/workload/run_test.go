package workload_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/internal/test"
	"github.com/kvdstore/kvd/jepsen/workload"
)

const prefix = "try/"

// start starts three nodes with eight shards under the prefix, and a client of each.
func start(t *testing.T) (*test.Cluster, []*client.Client) {
	cluster := test.New(t, 3, workload.Cuts(prefix, 8)...)
	cluster.StartAll()
	var clients []*client.Client
	for _, address := range cluster.Addresses() {
		c, err := client.New(client.Config{Endpoints: []string{address}})
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		clients = append(clients, c)
	}
	return cluster, clients
}

// run runs a workload to its end, and gives its history.
func run(t *testing.T, name string, drive time.Duration, clients []*client.Client) []check.Event {
	r := check.NewRecorder()
	w, err := workload.New(workload.Config{
		Name: name, Prefix: prefix, Seed: 1, Processes: 16, Rate: 400, Timeout: 5 * time.Second, Clients: clients, Recorder: r,
	})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, w.Setup(ctx))
	driving, stop := context.WithTimeout(ctx, drive)
	defer stop()
	require.NoError(t, w.Drive(driving))
	require.NoError(t, w.ReadBack(ctx))
	require.NoError(t, w.Clean(ctx))
	for item, err := range clients[0].Scan(ctx, client.ScanOptions{}) {
		require.NoError(t, err)
		t.Fatalf("%s is left", item.Key)
	}
	return r.Events()
}

// TestRuns: every workload holds on a cluster without faults, also after its history was written to a file and read again.
func TestRuns(t *testing.T) {
	_, clients := start(t)
	for _, name := range workload.Names() {
		t.Run(name, func(t *testing.T) {
			events := run(t, name, 1500*time.Millisecond, clients)
			var file bytes.Buffer
			require.NoError(t, check.WriteEvents(&file, events))
			t.Logf("%d events, %d bytes", len(events), file.Len())
			read, err := check.ReadEvents(&file)
			require.NoError(t, err)
			v, err := workload.Judge(name, read)
			require.NoError(t, err)
			require.Empty(t, v.Violations)
			require.True(t, v.Valid)
			require.Empty(t, v.Note)
			require.Greater(t, v.OK, 50)
			require.Equal(t, v.Operations, v.OK+v.Failed+v.Unknown)
			t.Logf("%d operations: %d ok, %d failed, %d unknown; p50 %v, p99 %v; %v", v.Operations, v.OK, v.Failed, v.Unknown, v.P50, v.P99, v.Figures)
		})
	}
}
