package cache

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/kvdstore/kvd/kv"
)

const (
	// RistrettoBytesMin is the smallest cache there is.
	RistrettoBytesMin = 1 << 20
	// pendingItemsMax bounds the inserts that wait in Ristretto's queue. It is below the queue's own length
	// (32 Ki), so that Ristretto never drops one by itself: the count of what waits stays exact.
	pendingItemsMax = 16 << 10
	// counterBytes is what Ristretto's sketch and doorkeeper take a counter, in bytes, rounded up.
	counterBytes = 4
)

// Ristretto keeps entries in memory in a bounded number of bytes.
//
// Ristretto by itself bounds neither the bytes of the inserts that wait in its queue nor what updates of resident
// keys add, and it panics when it is closed beside a call. All three are mended here. An insert is refused when too
// many bytes wait already; when updates have pushed the sum over the bound, an offered entry is
// replaced by an empty one, which takes its key's bytes out; and Close waits for the calls that are under way.
type Ristretto struct {
	cache    *ristretto.Cache[uint64, *Entry]
	capacity int64 // Of entries, in bytes of cost.

	pendingItems, pendingBytes atomic.Int64
	pendingBytesMax            int64
	dropped                    atomic.Uint64

	gate  gate
	close sync.Once
}

// emptyEntry holds the place of an entry that was to grow a cache that is over its bound. No key is empty, so it
// is never served.
var emptyEntry = &Entry{}

// NewRistretto makes a store of at most about maxBytes, its bookkeeping included.
func NewRistretto(maxBytes int64) (*Ristretto, error) {
	if maxBytes < RistrettoBytesMin {
		return nil, &kv.InvalidError{Field: "cache bytes", Bound: fmt.Sprintf("at least %d, is %d", RistrettoBytesMin, maxBytes)}
	}
	// A counter for each 64 to 128 bytes is three to six an entry of 364 bytes (16 of key, 128 of value), and
	// at most a sixteenth of the memory. Ristretto would round up to a power of two: here it is rounded down.
	counters := int64(1) << (bits.Len64(uint64(maxBytes)/64) - 1)
	// The largest entry must be able to wait, if it is not out of proportion.
	largest := int64(kv.KeyBytesMax + kv.ValueBytesMax + EntryOverheadBytes)
	r := &Ristretto{pendingBytesMax: max(maxBytes/16, min(maxBytes/4, largest))}
	r.capacity = maxBytes - counters*counterBytes - r.pendingBytesMax
	cache, err := ristretto.NewCache(&ristretto.Config[uint64, *Entry]{
		NumCounters:        counters,
		MaxCost:            r.capacity,
		BufferItems:        64,
		IgnoreInternalCost: true,
		KeyToHash:          func(hash uint64) (uint64, uint64) { return hash, 0 },
		Cost:               r.taken,
	})
	if err != nil {
		return nil, fmt.Errorf("open the cache: %w", err)
	}
	r.cache = cache
	return r, nil
}

// Get gives what is held under a hash.
func (r *Ristretto) Get(hash uint64) (*Entry, bool) {
	pass, ok := r.gate.enter()
	defer pass.leave()
	if !ok {
		return nil, false
	}
	return r.cache.Get(hash)
}

// Set offers an entry.
func (r *Ristretto) Set(hash uint64, e *Entry, cost int64) {
	pass, ok := r.gate.enter()
	defer pass.leave()
	if !ok || cost > r.capacity {
		return
	}
	if r.cache.RemainingCost() < 0 {
		e, cost = emptyEntry, emptyEntry.cost()
	}
	if !r.reserve(cost) {
		r.dropped.Add(1)
		return
	}
	// A cost of 0 makes Ristretto ask taken for it, at the moment that it takes the item from its queue.
	if !r.cache.Set(hash, e, 0) {
		r.release(cost)
		r.dropped.Add(1)
	}
}

// taken is called by Ristretto when an item leaves its queue.
func (r *Ristretto) taken(e *Entry) int64 {
	cost := e.cost()
	r.release(cost)
	return cost
}

// reserve counts an insert that will wait in the queue, if there is room.
func (r *Ristretto) reserve(cost int64) bool {
	items, bytes := r.pendingItems.Add(1), r.pendingBytes.Add(cost)
	if items > pendingItemsMax || bytes > r.pendingBytesMax {
		r.release(cost)
		return false
	}
	return true
}

func (r *Ristretto) release(cost int64) {
	r.pendingItems.Add(-1)
	r.pendingBytes.Add(-cost)
}

// Metrics describes the store.
func (r *Ristretto) Metrics() StoreMetrics {
	m := StoreMetrics{CapacityBytes: r.capacity, Dropped: r.dropped.Load()}
	pass, ok := r.gate.enter()
	defer pass.leave()
	if ok {
		m.Bytes = r.capacity - r.cache.RemainingCost()
	}
	return m
}

// Close lets the calls under way end, and stops Ristretto. It may be called more than once.
func (r *Ristretto) Close() {
	r.close.Do(func() {
		r.gate.shut()
		r.cache.Close()
	})
}
