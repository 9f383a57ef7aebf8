package sim

import (
	"testing"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/shard"
)

// TestLedger: replicas may apply an entry as often as they start anew, and each the same.
func TestLedger(t *testing.T) {
	data := func(life, seq uint64) []byte {
		b, err := shard.Encode(&kvdv1.Batch{Node: 1, Life: life, Seq: seq, Commands: []*kvdv1.Command{shard.EncodeCommand(&kv.Command{Op: kv.OpDelete, Key: []byte("k")})}})
		require.NoError(t, err)
		return b
	}
	l := newLedger()
	add := func(at entryAt, term uint64, data []byte) error {
		if err := l.add(at, term, data); err != nil {
			return err
		}
		return l.addBatch(at, data)
	}
	for range 3 {
		require.NoError(t, add(entryAt{1, 11}, 6, nil))
		require.NoError(t, add(entryAt{1, 12}, 6, data(1, 1)))
		require.NoError(t, add(entryAt{2, 12}, 6, data(1, 1)), "another shard's")
		require.NoError(t, add(entryAt{1, 13}, 6, data(2, 1)))
	}
	require.ErrorContains(t, add(entryAt{1, 11}, 7, nil), "different entries")
	require.ErrorContains(t, add(entryAt{1, 12}, 6, data(1, 2)), "different entries")
	require.ErrorContains(t, add(entryAt{1, 14}, 6, data(1, 1)), "is applied at 12 and at 14")
}
