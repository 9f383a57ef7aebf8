package cache

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/dgraph-io/ristretto/v2"
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
		if e, ok := store.Get(guard.Hash(key)); ok && e.Record().Revision == 1 {
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
	require.EqualValues(t, 1, e.Record().Revision)
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
	passed := false
	resident := func() (bytes int64) {
		bytes = store.window.heldBytes()
		passed = passed || bytes > 0
		store.cache.IterValues(func(e *Entry) bool {
			bytes += e.cost()
			return false
		})
		return bytes
	}
	var most int64
	for _, size := range []int{10, 1000, 5001, 20_000, 20_001, 200_000} {
		for round := range 3 {
			for i := range 400 {
				e := NewEntry(0, fmt.Appendf(nil, "key-%d", i), kv.Record{Value: make([]byte, size)}, 0)
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
	require.True(t, passed, "nothing was in the window")
	// What goes in evicts, and what is evicted goes through the window again: an item may follow the last one.
	for range 100 {
		store.cache.Wait()
	}
	require.Zero(t, store.pendingItems.Load())
	require.Zero(t, store.pendingBytes.Load())
	require.LessOrEqual(t, store.Metrics().Bytes, store.capacity+store.pendingBytesMax)
}

// TestRistrettoPending: more than may wait is refused rather than queued.
func TestRistrettoPending(t *testing.T) {
	store := newRistretto(t, 2<<20)
	store.pendingBytes.Store(store.pendingBytesMax)
	e := NewEntry(0, []byte("a"), kv.Record{}, 0)
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
	large := NewEntry(0, make([]byte, kv.KeyBytesMax), kv.Record{Value: make([]byte, kv.ValueBytesMax)}, 0)
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

// full fills a store with entries of hashes from 1000 on, until one goes into the window.
func full(t *testing.T, store *Ristretto) {
	hash := uint64(1000)
	for ; store.window.heldBytes() == 0; hash++ {
		e := NewEntry(0, []byte("k"), kv.Record{Value: make([]byte, 500)}, 0)
		store.Set(hash, e, e.cost())
		store.cache.Wait()
	}
	require.GreaterOrEqual(t, int64(hash-1000)*(501+EntryOverheadBytes), store.most-1000, "there was room")
	require.False(t, store.resident(hash-1))
	for h := uint64(1000); h < hash-1; h++ {
		require.True(t, store.resident(h), "there was no room for one")
	}
}

// TestNewKeyInFullStore: it is found at once, and found again after it was read, however many others come.
func TestNewKeyInFullStore(t *testing.T) {
	store := newRistretto(t, 1<<20)
	full(t, store)
	set := func(hash uint64) {
		e := NewEntry(0, []byte("k"), kv.Record{Value: make([]byte, 500)}, 0)
		store.Set(hash, e, e.cost())
	}
	for round := range uint64(20) {
		hash := round + 1
		set(hash)
		for range 3 {
			_, found := store.Get(hash)
			require.True(t, found)
		}
	}
	for hash := range uint64(5000) {
		set(hash + 1_000_000)
		store.cache.Wait()
	}
	found := 0
	for hash := range uint64(20) {
		if _, ok := store.Get(hash + 1); ok {
			found++
		}
	}
	require.GreaterOrEqual(t, found, 15, "those that were read are in Ristretto, beside thousands that were not")
}

// TestEvictedComesBack: what Ristretto evicts is found in the window.
func TestEvictedComesBack(t *testing.T) {
	store := newRistretto(t, 1<<20)
	full(t, store)
	held := store.window.heldBytes()
	large := NewEntry(0, []byte("k"), kv.Record{Value: make([]byte, 10_000)}, 0)
	store.insert(1, large)
	store.cache.Wait()
	require.True(t, store.resident(1))
	require.Greater(t, store.window.heldBytes(), held+9*721)
	for hash := range uint64(100) {
		_, found := store.Get(1000 + hash)
		require.True(t, found)
	}

	store = newRistretto(t, 1<<20)
	e := NewEntry(0, []byte("k"), kv.Record{}, 0)
	store.evicted(&ristretto.Item[*Entry]{Key: 7, Value: e})
	got, found := store.Get(7)
	require.True(t, found)
	require.Same(t, e, got)
	for _, none := range []*Entry{nil, emptyEntry, NewEntry(0, make([]byte, store.window.largest()), kv.Record{}, 0)} {
		store.evicted(&ristretto.Item[*Entry]{Key: 8, Value: none})
		_, found = store.Get(8)
		require.False(t, found)
	}
}

// TestUpdateWhereItIs: a new record of a key takes the place of the old one, in Ristretto and in the window.
func TestUpdateWhereItIs(t *testing.T) {
	store := newRistretto(t, 1<<20)
	full(t, store)
	update := func(hash uint64) {
		e := NewEntry(0, []byte("new"), kv.Record{Value: make([]byte, 500)}, 0)
		store.Set(hash, e, e.cost())
		got, found := store.Get(hash)
		require.True(t, found)
		require.Same(t, e, got)
	}
	before := store.window.heldBytes()
	hash := uint64(1000)
	for !store.resident(hash) {
		hash++
	}
	update(hash)
	require.Equal(t, before, store.window.heldBytes())
	update(1)
	update(1)
	require.EqualValues(t, before+500+3+EntryOverheadBytes, store.window.heldBytes())
}

// TestOfferKeepsTheNewer: an entry that leaves the window does not replace what Ristretto holds of its key.
func TestOfferKeepsTheNewer(t *testing.T) {
	store := newRistretto(t, 1<<20)
	full(t, store)
	hash := uint64(1000)
	for !store.resident(hash) {
		hash++
	}
	newer, _ := store.Get(hash)
	store.offer(hash, NewEntry(0, []byte("older"), kv.Record{}, 0))
	got, _ := store.Get(hash)
	require.Same(t, newer, got)
}

// TestSketchBytes: Ristretto's counters take what was reckoned.
func TestSketchBytes(t *testing.T) {
	for _, most := range []int64{100_000, 1 << 20, 3 << 20, 4<<20 - 1, 5_000_000} {
		counters, bytes := sketchSize(most)
		require.LessOrEqual(t, bytes, most)
		require.Greater(t, bytes, most*2/3)
		allocated := func(counters int64) int64 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			c, err := ristretto.NewCache(&ristretto.Config[uint64, int]{NumCounters: counters, MaxCost: 1, BufferItems: 64})
			require.NoError(t, err)
			runtime.ReadMemStats(&after)
			c.Close()
			return int64(after.TotalAlloc - before.TotalAlloc)
		}
		require.InDelta(t, bytes, allocated(counters)-allocated(1), float64(bytes)/20+8192)
	}
}

// TestHitAllocatesNothing, wherever the entry is.
func TestHitAllocatesNothing(t *testing.T) {
	store := newRistretto(t, 1<<20)
	guard := New(store, 16)
	hit := func(key string) {
		k := []byte(key)
		_, word, _ := guard.Get(1, k, 0)
		guard.Fill(1, k, kv.Record{Value: make([]byte, 500)}, word)
		store.cache.Wait()
		require.Less(t, testing.AllocsPerRun(1000, func() {
			if _, _, hit := guard.Get(1, k, 0); !hit {
				t.Fatal("a miss")
			}
		}), 1.0) // Ristretto's buffer of reads is renewed now and then.
	}
	hit("in Ristretto")
	require.True(t, store.resident(guard.Hash([]byte("in Ristretto"))))
	full(t, store)
	hit("in the window")
	require.False(t, store.resident(guard.Hash([]byte("in the window"))))
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
