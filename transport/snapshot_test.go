package transport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/snapshot"
	"github.com/kvdstore/kvd/storage"
)

// manual is a watchdog that the test looks at, and lets bark.
type manual struct {
	running atomic.Bool
	bark    func()
}

func (m *manual) Reset(time.Duration) bool { return m.running.Swap(true) }
func (m *manual) Stop() bool               { return m.running.Swap(false) }

// TestSilence: the receiver is watched while it takes a part, and until it has answered. While the sender makes the next
// part it is not, however long that takes.
func TestSilence(t *testing.T) {
	a, b := network(t)
	m := &manual{}
	a.watch = func(_ time.Duration, bark func()) watchdog {
		m.bark = bark
		m.running.Store(true)
		return m
	}
	n := 0
	send := func() error {
		return a.SendSnapshot(t.Context(), 2, &kvdv1.SnapshotHeader{
			Message: raftMessages(1)[0], State: &kvdv1.ShardState{Descriptor_: &kvdv1.Descriptor{}},
		}, func() (*kvdv1.SnapshotChunk, bool, error) {
			require.False(t, m.running.Load(), "the sender's own time counts as the receiver's silence")
			n++
			return &kvdv1.SnapshotChunk{Part: &kvdv1.SnapshotChunk_Data{Data: &kvdv1.SnapshotData{}}}, n < 5, nil
		})
	}
	require.NoError(t, send())
	require.Equal(t, 5, n)

	barked := false
	b.onChunk = func() {
		for !barked && !m.running.Load() {
			runtime.Gosched() // Until it waits for the answer, or to send more.
		}
		barked = true
		m.bark()
	}
	n = 0
	require.Error(t, send(), "a receiver that is silent is waited for")
}

// endless is a view of so many pairs of 4 KiB, which are made as they are read.
type endless struct {
	storage.View
	pairs uint64
}

type endlessIterator struct {
	storage.Iterator
	at, end uint64
	key     [8]byte
	value   []byte
}

func (e endless) State() *kvdv1.ShardState { return &kvdv1.ShardState{Keys: e.pairs} }
func (e endless) Iter(kv.Span) (storage.Iterator, error) {
	return &endlessIterator{end: e.pairs, value: bytes.Repeat([]byte("x"), 4<<10)}, nil
}
func (i *endlessIterator) Next() bool {
	i.at++
	binary.BigEndian.PutUint64(i.key[:], i.at)
	return i.at <= i.end
}
func (i *endlessIterator) Key() []byte                { return i.key[:] }
func (i *endlessIterator) Record() (kv.Record, error) { return kv.Record{Value: i.value}, nil }
func (i *endlessIterator) Close() error               { return nil }

// TestSendingTakesLittleMemory: a shard of 1 GiB is sent to a receiver that is slower than the sender, and what is on its
// way stays small (D4): the window of the stream holds the sender back.
func TestSendingTakesLittleMemory(t *testing.T) {
	const shardBytes, growthMax = 1 << 30, 64 << 20
	a, b := network(t)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, most, ahead, made := heap(), uint64(0), int64(0), atomic.Int64{}
	b.onChunk = func() {
		if b.chunks%128 == 0 { // Looking takes long: the sender could run ahead.
			most = max(most, heap())
		}
		ahead = max(ahead, made.Load()-int64(b.chunks))
	}
	view := endless{pairs: shardBytes / (4 << 10)}
	w, err := snapshot.NewWriter(view, kv.Span{}, kv.SnapshotChunkBytes)
	require.NoError(t, err)
	err = a.SendSnapshot(t.Context(), 2, &kvdv1.SnapshotHeader{
		Message: raftMessages(1)[0], State: &kvdv1.ShardState{Descriptor_: &kvdv1.Descriptor{}},
	}, func() (*kvdv1.SnapshotChunk, bool, error) {
		made.Add(1)
		return w.Next()
	})
	require.NoError(t, errors.Join(err, w.Close()))
	require.Greater(t, b.chunks*kv.SnapshotChunkBytes, shardBytes*9/10)
	require.Less(t, int64(most)-int64(before), int64(growthMax))
	require.Less(t, ahead*kv.SnapshotChunkBytes, int64(growthMax), "the sender runs ahead of the receiver")
}
