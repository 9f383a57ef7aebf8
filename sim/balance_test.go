package sim

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
	"github.com/kvdstore/kvd/shard"
)

// calm is a cluster without clients and faults.
func calm(t *testing.T, seed uint64) *world { return calmOf(t, 3, seed) }

func calmOf(t *testing.T, nodes int, seed uint64) *world {
	w := newWorld(seed, Plan{Nodes: nodes, Shards: 3, Tick: 50 * time.Millisecond, ElectionTicks: 15, SleepAfter: time.Hour})
	w.found()
	require.NoError(t, w.err)
	return w
}

// leadsOf counts the groups that a node leads.
func (w *world) leadsOf(m *machine) int {
	n := 0
	for _, shard := range w.groups() {
		if m.leads(shard) {
			n++
		}
	}
	return n
}

// balanced reports whether every shard has a leader, and no node leads two more of them than another.
func (w *world) balanced() bool {
	var leads []int
	all := 0
	for _, m := range w.nodes {
		n := 0
		for _, d := range w.newest.Descriptors() {
			if m.leads(d.Shard) {
				n++
			}
		}
		leads, all = append(leads, n), all+n
	}
	return all == len(w.newest.Descriptors()) && slices.Max(leads)-slices.Min(leads) <= 1
}

// TestLeadersSpread: the leaderships are evened out, at whatever tick of raft's own rounds the first leaders were elected, and
// each hand-over is told.
func TestLeadersSpread(t *testing.T) {
	told := 0
	for seed := range uint64(10) {
		w := calm(t, seed)
		w.run(90 * time.Second)
		require.NoError(t, w.err)
		require.True(t, w.balanced(), "seed %d", seed)
		told += w.handedOver
	}
	require.Positive(t, told)
}

// TestLeavingNodeGetsNothingBack: a node that is going down hands its leaderships over, and they do not come back to it
// before it has started anew.
func TestLeavingNodeGetsNothingBack(t *testing.T) {
	for seed := range uint64(8) {
		w := calm(t, seed)
		w.run(90 * time.Second)
		leaving := w.nodes[seed%3]
		require.Positive(t, w.leadsOf(leaving), "seed %d", seed)
		for range 5 { // As it asks until it leads nothing.
			leaving.inbox.HandOver = true
			leaving.wake()
			w.run(w.now + time.Second)
		}
		for range 30 { // While it waits for calls under way.
			w.run(w.now + 100*time.Millisecond)
			require.Zero(t, w.leadsOf(leaving), "seed %d", seed)
		}
		leaving.crash()
		leaving.start()
		w.run(w.now + 90*time.Second)
		require.NoError(t, w.err)
		require.True(t, w.balanced(), "seed %d", seed)
	}
}

// TestLeadersSpreadFar: they are evened out also when the nodes are far from each other and every shard is written to: then a
// follower that keeps up is always some entries behind, by what the leader knows.
func TestLeadersSpreadFar(t *testing.T) {
	for seed := range uint64(1) {
		w := calm(t, seed)
		for _, a := range w.nodes {
			for _, b := range w.nodes {
				w.late[link{a.id, b.id}] = 50 * time.Millisecond
			}
		}
		var write func()
		write = func() {
			for _, m := range w.nodes {
				for _, d := range w.newest.Descriptors() {
					if m.leads(d.Shard) {
						c := &kv.Command{Op: kv.OpPut, Key: append(slices.Clone(d.Span.Start), 0, 'x'), Value: []byte("v")}
						m.inbox.Submissions = append(m.inbox.Submissions, node.Submission{Shard: d.Shard, Command: shard.EncodeCommand(c), Bytes: c.Size()})
						m.wake()
					}
				}
			}
			w.after(4*time.Millisecond, write)
		}
		w.after(100*time.Millisecond, write)
		w.run(60 * time.Second)
		require.NoError(t, w.err)
		require.True(t, w.balanced(), "seed %d", seed)
	}
}
