package sim

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
	"github.com/kvdstore/kvd/shard"
)

// reading is a write, or a read that waits for a ReadIndex.
type reading struct {
	done bool
	err  error
}

func (r *reading) Done(_ kv.Result, err error) { r.done, r.err = true, err }

// TestReadsOnFullDisks: when no disk has room, reads go on, also after the leader was lost.
func TestReadsOnFullDisks(t *testing.T) {
	for seed := range uint64(10) {
		w := calm(t, seed)
		w.run(5 * time.Second)
		for _, m := range w.nodes {
			m.inbox.Disk = &node.Disk{Full: true}
			m.wake()
		}
		w.run(w.now + time.Second)
		w.nodes[seed%3].crash()
		w.run(w.now + 5*time.Second)
		for _, id := range w.groups() {
			r := &reading{}
			for _, m := range w.nodes {
				if m.core != nil && m.leads(id) {
					m.inbox.Submissions = append(m.inbox.Submissions, node.Submission{Shard: id, Waiter: r})
					m.wake()
				}
			}
			w.run(w.now + time.Second)
			require.NoError(t, w.err)
			require.True(t, r.done, "seed %d, shard %d", seed, id)
			require.NoError(t, r.err)
		}
	}
}

// askAll asks the leader of every shard to write a key, and to read by ReadIndex, and gives what came of it after a while.
func (w *world) askAll(t *testing.T) (writes, reads []*reading) {
	for _, d := range w.newest.Descriptors() {
		m := w.leader(d.Shard)
		require.NotNil(t, m, "%v", d.Shard)
		c := &kv.Command{Op: kv.OpPut, Key: append(slices.Clone(d.Span.Start), 0, 'x'), Value: []byte("v")}
		write, read := &reading{}, &reading{}
		m.inbox.Submissions = append(m.inbox.Submissions,
			node.Submission{Shard: d.Shard, Command: shard.EncodeCommand(c), Bytes: c.Size(), Waiter: write},
			node.Submission{Shard: d.Shard, Waiter: read})
		m.wake()
		writes, reads = append(writes, write), append(reads, read)
	}
	w.run(w.now + time.Second)
	return writes, reads
}

// TestTailOnFullDisks: when no disk has room and the leader is lost, the next one's log ends with what the other follower
// had no room for any more. That takes it: without it no reads would go on.
func TestTailOnFullDisks(t *testing.T) {
	for seed := range uint64(10) {
		w := calm(t, seed)
		w.run(8 * time.Second)
		w.nodes[2].setFull(true)
		w.run(w.now + 3*time.Second)
		writes, _ := w.askAll(t)
		for i := range writes {
			require.NoError(t, writes[i].err, "seed %d", seed)
		}
		w.nodes[0].setFull(true)
		w.nodes[1].setFull(true)
		w.run(w.now + time.Second)
		w.nodes[0].crash()
		w.run(w.now + 5*time.Second)
		writes, reads := w.askAll(t)
		for i := range reads {
			require.ErrorAs(t, writes[i].err, new(*kv.DiskFullError), "seed %d", seed)
			require.True(t, reads[i].done, "seed %d, shard %d", seed, i)
			require.NoError(t, reads[i].err, "seed %d, shard %d", seed, i)
		}
		require.NoError(t, w.err)
	}
}

// setFull makes the disk of a node nearly full for good, or gives it room.
func (m *machine) setFull(full bool) {
	m.full = 0
	if full {
		m.full = math.MaxInt64
	}
	m.lookAtDisk()
}

// TestFullDiskLosesTheLead: while a majority has room, writes go on: nodes whose disk is full give their leaderships to
// those with room, and get them back when there is room again, not before.
func TestFullDiskLosesTheLead(t *testing.T) {
	led := 0 // Before their disks were full.
	for seed := range uint64(20) {
		nodes := 3 + 2*int(seed%2)
		w := calmOf(t, nodes, seed)
		w.run(90 * time.Second)
		full := w.nodes[:nodes/2]
		for _, m := range full {
			led += w.leadsOf(m)
			m.setFull(true)
		}
		w.run(w.now + 5*time.Second)
		leads := func() (n int) {
			for _, m := range full {
				n += w.leadsOf(m)
			}
			return n
		}
		require.Zero(t, leads(), "seed %d", seed)
		w.run(w.now + 60*time.Second) // Until they are evened out among the others.
		elections := w.stats.Elections
		w.run(w.now + 20*time.Second)
		writes, reads := w.askAll(t)
		for i := range writes {
			require.True(t, writes[i].done && reads[i].done, "seed %d", seed)
			require.NoError(t, writes[i].err, "seed %d", seed)
			require.NoError(t, reads[i].err, "seed %d", seed)
		}
		require.Zero(t, leads(), "seed %d", seed)
		require.Equal(t, elections, w.stats.Elections, "seed %d", seed)
		for _, m := range full {
			m.setFull(false)
		}
		w.run(w.now + 90*time.Second)
		require.NoError(t, w.err)
		require.True(t, w.balanced(), "seed %d", seed)
	}
	require.Positive(t, led)
}

// TestFullMajority: when a majority's disks are full every write is refused at once, by whoever leads, and not left
// without an answer; leaderships do not wander, and reads go on.
func TestFullMajority(t *testing.T) {
	for seed := range uint64(10) {
		for _, n := range []int{2, 3} {
			w := calm(t, seed)
			w.run(90 * time.Second)
			for _, m := range w.nodes[:n] {
				m.setFull(true)
			}
			w.run(w.now + 10*time.Second)
			elections := w.stats.Elections // Whoever has room may have been preferred; then it stays so.
			w.run(w.now + 10*time.Second)
			require.Equal(t, elections, w.stats.Elections, "seed %d", seed)
			writes, reads := w.askAll(t)
			for i := range writes {
				require.True(t, writes[i].done && reads[i].done, "seed %d", seed)
				require.ErrorAs(t, writes[i].err, new(*kv.DiskFullError), "seed %d", seed)
				require.Equal(t, kv.NotDone, kv.OutcomeOf(writes[i].err))
				require.NoError(t, reads[i].err, "seed %d", seed)
			}
			if n == 2 { // One that is going down gives its leaderships to whom there is.
				for range 5 { // As it asks until it leads nothing.
					w.nodes[2].inbox.HandOver = true
					w.nodes[2].wake()
					w.run(w.now + time.Second)
				}
				// One stays whose log ends with what the others have no room for.
				require.LessOrEqual(t, w.leadsOf(w.nodes[2]), 1, "seed %d", seed)
			}
			for _, m := range w.nodes[:n] {
				m.setFull(false)
			}
			w.run(w.now + time.Second)
			writes, _ = w.askAll(t)
			for i := range writes {
				require.True(t, writes[i].done, "seed %d", seed)
				require.NoError(t, writes[i].err, "seed %d", seed)
			}
			require.NoError(t, w.err)
		}
	}
}
