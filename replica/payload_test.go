package replica

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// noting is a codec that notes how payloads were decoded.
type noting struct {
	plain
	decoded, shared int
}

func (n *noting) DecodeBatch(p []byte) (*kvdv1.Batch, error) {
	n.decoded++
	return n.plain.DecodeBatch(p)
}

func (n *noting) ShareBatch(p []byte) (*kvdv1.Batch, error) {
	n.shared++
	return n.plain.DecodeBatch(p)
}

// TestPayload: a leader applies what it has proposed as it is in memory; it decodes what came another way, and what changes the
// shape. Who follows shares memory with the log, but for what is kept: the shape, and the meta group's state.
func TestPayload(t *testing.T) {
	put := []*kvdv1.Command{{Op: uint32(kv.OpPut), Key: []byte("k"), Value: []byte("v")}}
	shape := []*kvdv1.Command{{Op: uint32(kv.OpShape)}}
	t.Run("leader", func(t *testing.T) {
		r := leadAlone(t)
		c := &noting{}
		r.codec = c
		require.NoError(t, r.Propose(5, put, []Waiter{nobody{}}))
		require.Len(t, settleAlone(t, r, 0), 1)
		require.Equal(t, noting{}, *c)
		require.NoError(t, r.Propose(5, shape, []Waiter{nobody{}}))
		require.Nil(t, r.proposals[0].batch)
	})
	t.Run("nothing is kept of what is answered", func(t *testing.T) {
		r := leadAlone(t)
		require.NoError(t, r.Propose(5, put, []Waiter{nobody{}}))
		all := r.proposals[:1]
		require.Len(t, settleAlone(t, r, 0), 1)
		require.Nil(t, all[0])
		require.NoError(t, r.Propose(5, put, []Waiter{nobody{}}))
		r.doubt()
		require.Nil(t, r.doubtful[0].batch)
		require.Nil(t, r.doubtful[0].payload)
	})
	t.Run("another entry at the index", func(t *testing.T) {
		r := leadAlone(t)
		require.NoError(t, r.Propose(5, put, []Waiter{nobody{}}))
		p := r.proposals[0]
		p.index = 9
		own := &raftpb.Entry{Index: new(uint64(9)), Data: p.payload}
		b, err := r.payload(own)
		require.NoError(t, err)
		require.Same(t, p.batch, b)
		own.Data = slices.Clone(p.payload) // As one is that was read from the disk.
		b, err = r.payload(own)
		require.NoError(t, err)
		require.NotSame(t, p.batch, b)
		own.Index, own.Data = new(uint64(8)), p.payload
		b, err = r.payload(own)
		require.NoError(t, err)
		require.NotSame(t, p.batch, b)
	})
	t.Run("follower", func(t *testing.T) {
		for name, x := range map[string]struct {
			commands []*kvdv1.Command
			group    kv.ShardID
			want     noting
		}{
			"a put":          {put, 1, noting{shared: 1}},
			"a shape":        {shape, 1, noting{decoded: 1}},
			"the meta group": {put, kv.MetaShard, noting{decoded: 1}},
		} {
			r := member(t, 2, 3)
			c := &noting{}
			r.codec, r.shard = c, x.group
			data, err := (&kvdv1.Batch{Commands: x.commands}).MarshalVT()
			require.NoError(t, err)
			_, err = r.payload(&raftpb.Entry{Index: new(uint64(9)), Data: data})
			require.NoError(t, err)
			require.Equal(t, x.want, *c, name)
		}
	})
}
