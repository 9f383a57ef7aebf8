package sim

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
)

// reading is a read that waits for a ReadIndex.
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
		for shard := range kv.ShardID(w.Shards + 1) {
			r := &reading{}
			for _, m := range w.nodes {
				if m.core == nil {
					continue
				}
				if lead, _, _ := m.views[shard].Lead(); lead == m.id {
					m.inbox.Submissions = append(m.inbox.Submissions, node.Submission{Shard: shard, Waiter: r})
					m.wake()
				}
			}
			w.run(w.now + time.Second)
			require.NoError(t, w.err)
			require.True(t, r.done, "seed %d, shard %d", seed, shard)
			require.NoError(t, r.err)
		}
	}
}
