package node

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/shard"
)

// TestLevelLogsAreTruncated (T6): what every member has is not kept, on leaders and followers, once it comes to enough; what one of them
// lacks is, also when it was not heard of for long.
func TestLevelLogsAreTruncated(t *testing.T) {
	w := newTrio(t)
	w.elected()
	put := func(nodes ...*third) {
		for range 40 { // 4 MB.
			c := &kv.Command{Op: kv.OpPut, Key: []byte("k"), Value: make([]byte, 100<<10)}
			w.nodes[0].in.Submissions = append(w.nodes[0].in.Submissions, Submission{
				Shard: trioShard, Command: shard.EncodeCommand(c), Bytes: c.Size(), Waiter: &answer{},
			})
			w.tick(nodes...)
		}
		for range 10 {
			w.tick(nodes...)
		}
	}
	bytes := func(m *third) uint64 {
		g := m.core.groups[trioShard]
		first, err := g.replica.Log().FirstIndex()
		require.NoError(t, err)
		return g.marks.above(kv.Index(first) - 1)
	}
	put(w.nodes[:]...)
	for _, m := range w.nodes {
		require.LessOrEqual(t, bytes(m), uint64(kv.LogSurplusBytesMax+markBytes))
	}
	w.now += time.Minute
	put(w.nodes[:2]...)
	put(w.nodes[:2]...)
	for _, m := range w.nodes[:2] {
		require.Greater(t, bytes(m), uint64(8<<20))
	}
	w.nodes[2].in.Envelopes = nil // All that it has missed.
	for range 100 {
		w.tick(w.nodes[:]...)
	}
	for _, m := range w.nodes {
		require.LessOrEqual(t, bytes(m), uint64(kv.LogSurplusBytesMax+markBytes))
		require.Zero(t, m.snapshots)
		require.NoError(t, m.fatal)
	}
}

// TestLogIsKeptWithinBounds (D4): for a follower that is heard and behind as long as what it lacks is within one bound, for a snapshot on
// its way, and what was written meanwhile, within another, which is as large as a shard.
func TestLogIsKeptWithinBounds(t *testing.T) {
	w := newTrio(t)
	w.elected()
	leader, behind := w.nodes[0], kv.ReplicaID(0)
	g := leader.core.groups[trioShard]
	for _, r := range g.machine.Descriptor().Replicas {
		if r.Node == w.nodes[2].id {
			behind = r.Replica
		}
	}
	lacks := g.replica.Match(behind)
	for range 5 {
		c := &kv.Command{Op: kv.OpPut, Key: []byte("k"), Value: []byte("v")}
		leader.in.Submissions = append(leader.in.Submissions, Submission{
			Shard: trioShard, Command: shard.EncodeCommand(c), Bytes: c.Size(), Waiter: &answer{},
		})
		w.tick(w.nodes[:2]...)
	}
	applied := g.replica.Digested()
	require.Greater(t, applied, lacks+3)
	require.Equal(t, lacks, g.replica.Wanted())
	goal := func(above uint64, pinned kv.Index) kv.Index {
		g.marks = marks{total: above, list: []mark{{index: lacks, total: 0}, {index: lacks + 1, total: markBytes}, {index: lacks + 2, total: 2 * markBytes}}}
		clear(g.pinned)
		if pinned != 0 {
			g.pinned[behind] = pinned
		}
		return leader.core.keepGoal(g, applied)
	}
	require.Equal(t, lacks, goal(kv.LogWantedBytesMax-1, 0))
	require.Equal(t, lacks+2, goal(kv.LogWantedBytesMax, 0))
	require.Equal(t, lacks+1, goal(kv.SnapshotPinBytesMax, lacks+1))
	require.Equal(t, lacks+2, goal(kv.SnapshotPinBytesMax+markBytes, lacks+1))

	// The snapshot has come: what was written meanwhile is kept until little of it is lacking.
	require.Equal(t, lacks, goal(kv.LogWantedBytesMax, lacks))
	require.Contains(t, g.pinned, behind)
	require.Equal(t, lacks, goal(kv.SnapshotPinBytesMax-1, lacks))
	require.Equal(t, lacks+2, goal(kv.SnapshotPinBytesMax, lacks))
	require.Equal(t, lacks, goal(kv.LogWantedBytesMax-1, lacks))
	require.NotContains(t, g.pinned, behind)
}
