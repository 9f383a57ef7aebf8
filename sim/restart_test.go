package sim

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestManyShardsRestart: when all nodes start at one moment with a hundred shards each, all of these have a leader after a
// few election timeouts, hardly one needs a second election, and what they say to a neighbour in a turn leaves as one envelope:
// every Send of every run is checked for that.
func TestManyShardsRestart(t *testing.T) {
	const shards, election = 100, 750 * time.Millisecond
	for seed := range uint64(3) {
		w := newWorld(seed, Plan{Nodes: 3, Shards: 1, IdleShards: shards - 1, Tick: 50 * time.Millisecond, ElectionTicks: 15, SleepAfter: time.Hour})
		w.found()
		w.run(5 * time.Second)
		require.NoError(t, w.err)
		led := func() (n int) {
			for _, d := range w.newest.Descriptors() {
				if w.leader(d.Shard) != nil {
					n++
				}
			}
			return n
		}
		require.Equal(t, shards, led(), "seed %d", seed)
		for _, m := range w.nodes {
			m.crash()
		}
		for _, m := range w.nodes {
			m.start()
		}
		elected := w.stats.Elections
		w.run(w.now + 4*election)
		require.NoError(t, w.err)
		require.Equal(t, shards, led(), "seed %d", seed)
		require.LessOrEqual(t, w.stats.Elections-elected, shards*13/10, "seed %d", seed)
	}
}
