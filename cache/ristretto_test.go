package cache

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
)

func newRistretto(t testing.TB, maxBytes int64) *Ristretto {
	store, err := NewRistretto(maxBytes)
	require.NoError(t, err)
	t.Cleanup(store.Close)
	return store
}

// TestTwoQueuedSets shows the trap, and that the guard does not fall into it: of two quick inserts of
// a new key Ristretto keeps the older.
func TestTwoQueuedSets(t *testing.T) {
	store := newRistretto(t, 8<<20)
	guard := New(store, 1024)
	defer guard.Close()
	older := 0
	for i := range 500 {
		key := fmt.Appendf(nil, "key-%d", i)
		for rev := range kv.Revision(2) {
			raised := guard.Raise(key)
			guard.Lower(raised, 1, key, &kv.Record{Value: []byte("v"), Revision: rev + 1})
		}
		store.cache.Wait()
		if e, ok := store.Get(guard.Hash(key)); ok && e.Record.Revision == 1 {
			older++
		}
		if rec, _, hit := guard.Get(1, key, 0); hit {
			require.EqualValues(t, 2, rec.Revision)
		}
	}
	require.NotZero(t, older, "Ristretto no longer keeps the older of two queued inserts: this test shows nothing")
}

// TestDroppedInsert: when too many inserts wait, the newer value is dropped and the older one stays in the store. It is
// not served (C2).
func TestDroppedInsert(t *testing.T) {
	store := newRistretto(t, 2<<20)
	guard := New(store, 16)
	key := []byte("k")
	write := func(rev kv.Revision) {
		guard.Lower(guard.Raise(key), 1, key, &kv.Record{Value: []byte("v"), Revision: rev})
		store.cache.Wait()
	}
	write(1)
	rec, _, hit := guard.Get(1, key, 0)
	require.True(t, hit)
	require.EqualValues(t, 1, rec.Revision)
	store.pendingBytes.Store(store.pendingBytesMax)
	write(2)
	require.EqualValues(t, 1, store.Metrics().Dropped)
	e, found := store.Get(guard.Hash(key))
	require.True(t, found)
	require.EqualValues(t, 1, e.Record.Revision)
	_, _, hit = guard.Get(1, key, 0)
	require.False(t, hit)
	store.pendingBytes.Store(0)
	write(3)
	rec, _, hit = guard.Get(1, key, 0)
	require.True(t, hit)
	require.EqualValues(t, 3, rec.Revision)
}

// TestRistrettoBytes offers far more than fits, in new keys and in updates that grow: the sum stays bounded.
func TestRistrettoBytes(t *testing.T) {
	const maxBytes = 2 << 20
	store := newRistretto(t, maxBytes)
	resident := func() (bytes int64) {
		store.cache.IterValues(func(e *Entry) bool {
			bytes += e.cost()
			return false
		})
		return bytes
	}
	var most int64
	for _, size := range []int{10, 1000, 20_000, 200_000} {
		for round := range 3 {
			for i := range 400 {
				e := &Entry{Key: fmt.Appendf(nil, "key-%d", i), Record: kv.Record{Value: make([]byte, size)}}
				store.Set(uint64(i)*0x9e3779b97f4a7c15+uint64(size&1), e, e.cost())
				if i%16 == round {
					most = max(most, resident())
				}
			}
		}
		store.cache.Wait()
		most = max(most, resident())
	}
	require.LessOrEqual(t, most, int64(maxBytes))
	require.NotZero(t, most)
	require.Zero(t, store.pendingItems.Load())
	require.Zero(t, store.pendingBytes.Load())
	require.LessOrEqual(t, store.Metrics().Bytes, store.capacity+store.pendingBytesMax)
}

// TestRistrettoPending: more than may wait is refused rather than queued.
func TestRistrettoPending(t *testing.T) {
	store := newRistretto(t, 2<<20)
	store.pendingBytes.Store(store.pendingBytesMax)
	e := &Entry{Key: []byte("a")}
	store.Set(1, e, e.cost())
	require.EqualValues(t, 1, store.Metrics().Dropped)
	store.pendingBytes.Store(0)
	store.Set(1, e, e.cost())
	store.cache.Wait()
	_, found := store.Get(1)
	require.True(t, found)
}

// TestRistrettoLargest: the largest entry fits a cache that is not tiny, and one too large does no harm.
func TestRistrettoLargest(t *testing.T) {
	large := &Entry{Key: make([]byte, kv.KeyBytesMax), Record: kv.Record{Value: make([]byte, kv.ValueBytesMax)}}
	store := newRistretto(t, 8<<20)
	store.Set(1, large, large.cost())
	store.cache.Wait()
	_, found := store.Get(1)
	require.True(t, found)

	small := newRistretto(t, 1<<20)
	small.Set(1, large, large.cost())
	small.cache.Wait()
	_, found = small.Get(1)
	require.False(t, found)
}

// TestCloseBesideCalls: Ristretto itself panics when it is closed beside a Set.
func TestCloseBesideCalls(t *testing.T) {
	for range 20 {
		store := newRistretto(t, 1<<20)
		guard := New(store, 64)
		var group sync.WaitGroup
		begun := make(chan struct{}, 4)
		for w := range 4 {
			group.Go(func() {
				key := fmt.Appendf(nil, "key-%d", w)
				for i := range 2000 {
					guard.Lower(guard.Raise(key), 1, key, &kv.Record{Value: key, Revision: 1})
					guard.Get(1, key, 0)
					guard.Metrics()
					if i == 10 {
						begun <- struct{}{}
					}
				}
			})
		}
		for range 4 {
			<-begun
		}
		guard.Close()
		guard.Close()
		group.Wait()
		_, _, hit := guard.Get(1, []byte("key-0"), 0)
		require.False(t, hit)
	}
}

func TestRistrettoTooSmall(t *testing.T) {
	_, err := NewRistretto(1000)
	invalid, ok := errors.AsType[*kv.InvalidError](err)
	require.True(t, ok)
	require.Equal(t, "cache bytes", invalid.Field)
}
