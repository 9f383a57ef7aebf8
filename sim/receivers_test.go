package sim

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
	"github.com/kvdstore/kvd/shard"
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

// TestMuchIsWrittenWhileInstalling (D4): while a snapshot is on its way and is installed, more is written than is kept for a follower
// that is merely slow, and it goes on afterwards. The receiver gets all of it from the log, and no second snapshot.
func TestMuchIsWrittenWhileInstalling(t *testing.T) {
	const id, valueBytes, every = kv.ShardID(1), 512 << 10, 20 * time.Millisecond
	for seed := range uint64(2) {
		w := newWorld(seed, Plan{
			Nodes: 3, Shards: 1, Tick: 50 * time.Millisecond, ElectionTicks: 10, Duration: time.Hour,
			SendTakes: 300 * time.Millisecond, InstallTakes: 4 * time.Second,
		})
		w.found()
		w.run(5 * time.Second)
		asked, written := 0, 0
		write := func(forSoLong time.Duration) {
			for until := w.now + forSoLong; w.now < until; w.run(w.now + every) {
				leader := w.leader(id)
				if leader == nil {
					continue
				}
				c := &kv.Command{Op: kv.OpPut, Key: []byte{byte(asked % 8)}, Value: make([]byte, valueBytes)}
				asked++
				done := waiter(func(_ kv.Result, err error) {
					if err == nil {
						written++
					}
				})
				leader.inbox.Submissions = append(leader.inbox.Submissions, node.Submission{
					Shard: id, Command: shard.EncodeCommand(c), Bytes: c.Size(), Waiter: done,
				})
				leader.wake()
			}
		}
		away := w.nodes[(seed+uint64(w.leader(id).id))%3]
		if away == w.leader(id) {
			away = w.nodes[away.id%3]
		}
		for _, b := range w.nodes {
			w.cut(away, b)
		}
		write(1500 * time.Millisecond)
		for _, b := range w.nodes {
			w.join(away, b)
		}
		installs, before := w.stats.Installs-w.stats.MetaInstalls, written
		for range 100 {
			if write(100 * time.Millisecond); w.stats.Installs-w.stats.MetaInstalls > installs {
				break
			}
		}
		meanwhile := (written - before) * valueBytes
		require.Greater(t, meanwhile, kv.LogWantedBytesMax, "seed %d", seed)
		require.Less(t, meanwhile, kv.SnapshotPinBytesMax, "seed %d", seed)
		write(3 * time.Second)
		newest := w.revision(t, w.leader(id), id)
		w.run(w.now + time.Second)
		require.NoError(t, w.err)
		require.Equal(t, installs+1, w.stats.Installs-w.stats.MetaInstalls, "seed %d", seed)
		require.GreaterOrEqual(t, w.revision(t, away, id), newest, "seed %d", seed)
		t.Logf("seed %d: %d MiB written, %d of them while the snapshot came", seed, written*valueBytes>>20, meanwhile>>20)
	}
}
