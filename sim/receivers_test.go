package sim

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
)

// revision is how far a machine has a shard.
func (w *world) revision(t *testing.T, m *machine, shard kv.ShardID) uint64 {
	v, err := m.state.View(shard, kv.Span{})
	require.NoError(t, err)
	defer v.Close()
	return v.State().GetRevision()
}

// TestSlowReceivers (D4): two followers come back at the same time, need snapshots, and install them so slowly that the log
// is truncated meanwhile, while writes go on. Each gets what came after its snapshot from the log, and not yet another
// snapshot, again and again.
func TestSlowReceivers(t *testing.T) {
	for seed := range uint64(3) {
		w := newWorld(seed, Plan{
			Nodes: 5, Shards: 2, KeysPerShard: 60, Clients: 8, Tick: 50 * time.Millisecond, ElectionTicks: 10, Duration: time.Hour,
			Think: 30 * time.Millisecond, Patience: 2 * time.Second, ReadPercent: 5, SendTakes: 300 * time.Millisecond, InstallTakes: 3 * time.Second,
		})
		w.found()
		for i := range w.Clients {
			w.newClient(i)
		}
		w.run(6 * time.Second)
		away := []*machine{w.nodes[seed%5], w.nodes[(seed+2)%5]}
		for _, a := range away {
			for _, b := range w.nodes {
				w.cut(a, b)
			}
		}
		w.run(10 * time.Second)
		for _, a := range away {
			for _, b := range w.nodes {
				w.join(a, b)
			}
		}
		w.run(22 * time.Second)
		require.NoError(t, w.err)
		require.GreaterOrEqual(t, w.stats.Installs, 4, "seed %d", seed)
		for shard := kv.ShardID(1); shard <= kv.ShardID(w.Shards); shard++ {
			newest := uint64(0)
			for _, m := range w.nodes {
				newest = max(newest, w.revision(t, m, shard))
			}
			w.run(w.now + time.Second)
			for _, m := range away {
				require.GreaterOrEqual(t, w.revision(t, m, shard), newest, "seed %d: shard %d on node %d", seed, shard, m.id)
			}
		}
		require.NoError(t, w.err)
		t.Logf("seed %d: %d installs, %d truncations, %d operations", seed, w.stats.Installs, w.stats.Truncations, len(w.history))
	}
}
