package sim

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
)

// TestDriftedReplicaStops: a replica whose data differs from the majority's stops its node soon, whether it leads or
// follows, and however long each takes for its checksum.
func TestDriftedReplicaStops(t *testing.T) {
	for seed := range uint64(30) {
		w := calm(t, seed)
		w.run(8 * time.Second)
		writes, _ := w.askAll(t)
		for i := range writes {
			require.NoError(t, writes[i].err, "seed %d", seed)
		}
		drifted := w.nodes[seed%3]
		d := w.newest.Descriptors()[seed/3%3]
		key := append(slices.Clone(d.Span.Start), 0, 'x')
		rec, ok, err := drifted.state.Get(key)
		require.NoError(t, err)
		require.True(t, ok)
		b := drifted.state.NewBatch()
		b.Put(key, kv.Record{Value: []byte("w"), Revision: rec.Revision})
		_, err = drifted.state.Commit(b)
		require.NoError(t, err)
		w.run(w.now + 10*time.Second)
		require.ErrorContains(t, w.err, node.ErrDiverged.Error(), "seed %d", seed)
		require.ErrorContains(t, w.err, "node "+string(rune('0'+drifted.id))+" stops", "seed %d", seed)
	}
}

// TestStalledDiskLosesTheLead: a node whose disk does not end a write gives its leaderships away, and writes go on; when
// the disk answers again they come back.
func TestStalledDiskLosesTheLead(t *testing.T) {
	for seed := range uint64(20) {
		w := calm(t, seed)
		w.run(90 * time.Second)
		stalled := w.nodes[seed%3]
		require.Positive(t, w.leadsOf(stalled), "seed %d", seed)
		stalled.stalled = w.now + 20*time.Second
		_, _ = w.askAll(t) // Of those that the stalled node leads nobody knows the end.
		w.run(w.now + time.Second)
		for range 10 {
			require.Zero(t, w.leadsOf(stalled), "seed %d", seed)
			w.run(w.now + time.Second)
		}
		writes, reads := w.askAll(t)
		for i := range writes {
			require.True(t, writes[i].done && reads[i].done, "seed %d", seed)
			require.NoError(t, writes[i].err, "seed %d", seed)
			require.NoError(t, reads[i].err, "seed %d", seed)
		}
		w.run(w.now + 90*time.Second)
		require.NoError(t, w.err)
		require.True(t, w.balanced(), "seed %d", seed)
	}
}
