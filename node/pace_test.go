package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// parts gives so many parts of a size, and then a trailer.
func parts(n, size int) func() (*kvdv1.SnapshotChunk, bool, error) {
	return func() (*kvdv1.SnapshotChunk, bool, error) {
		switch n--; {
		case n >= 0:
			return &kvdv1.SnapshotChunk{Part: &kvdv1.SnapshotChunk_Data{Data: &kvdv1.SnapshotData{Pairs: make([]byte, size)}}}, true, nil
		case n == -1:
			return &kvdv1.SnapshotChunk{Part: &kvdv1.SnapshotChunk_Trailer{}}, true, nil
		}
		return nil, false, nil
	}
}

// TestPace: snapshots, one after the other, go at the rate that the setting has while they go, whatever the size of their
// parts. Times are those of the bubble's clock.
func TestPace(t *testing.T) {
	for name, size := range map[string]int{"small parts": 1000, "whole chunks": kv.SnapshotChunkBytes, "large values": kv.SnapshotChunkBytes + kv.ValueBytesMax + kv.KeyBytesMax} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pace, setting := newPace(), int64(1<<20)
				send := func(n int) (count int, took time.Duration) {
					began, next := time.Now(), paced(t.Context(), pace, func() int64 { return setting }, parts(n, size))
					for {
						_, ok, err := next()
						require.NoError(t, err)
						if !ok {
							return count, time.Since(began)
						}
						count++
					}
				}
				n := 16 << 20 / size
				for range 2 {
					count, took := send(n)
					require.Equal(t, n+1, count, "the trailer is lost")
					want := float64(n*size) / float64(setting)
					require.InDelta(t, want, took.Seconds(), float64(kv.SnapshotChunkBytes)/float64(setting)+0.01)
				}
				setting *= 4
				_, took := send(n)
				require.InDelta(t, float64(n*size)/float64(setting), took.Seconds(), 0.1)
			})
		})
	}
}

// TestPaceEnds: the end of the process, or of the sending, ends a wait.
func TestPaceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		next := paced(ctx, newPace(), func() int64 { return 1 }, parts(9, kv.SnapshotChunkBytes))
		_, ok, err := next()
		require.NoError(t, err)
		require.True(t, ok)
		began := time.Now()
		time.AfterFunc(time.Second, cancel)
		_, ok, err = next()
		require.ErrorIs(t, err, context.Canceled)
		require.False(t, ok)
		require.Equal(t, time.Second, time.Since(began))
	})
}
