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
	RistrettoBytesMin = BytesMin * 3 / 4
	// pendingItemsMax bounds the inserts that wait in Ristretto's queue. It is below the queue's own length
	// (32 Ki), so that Ristretto never drops one by itself: the count of what waits stays exact.
	pendingItemsMax = 16 << 10
	// windowPercent is the window's share of the bytes.
	windowPercent = 30
	// sketchPart of the bytes, one by that number, go to counters at most.
	sketchPart = 12
)

// Ristretto keeps entries in memory in a bounded number of bytes: in Ristretto itself, and in a window in front of it. An
// entry goes into Ristretto while there is room, and later by way of the window (window.go). What Ristretto evicts comes
// back to the window once: of entries with equal counts it evicts any, and the window knows which are still read.
//
// Ristretto by itself bounds neither the bytes of the inserts that wait in its queue nor what updates of resident
// keys add, and it panics when it is closed beside a call. All three are mended here. An insert is refused when too
// many bytes wait already; when updates have pushed the sum over the bound, an offered entry is
// replaced by an empty one, which takes its key's bytes out; and Close waits for the calls that are under way.
type Ristretto struct {
	cache  *ristretto.Cache[uint64, *Entry]
	window *window
	most   int64 // Of entries in cache, in bytes of cost.
	// capacity is of both, in bytes of cost.
	capacity int64
	// remaining is what was left of most when an item last left the queue: to ask Ristretto takes its policy's lock, for
	// which a writer would wait while the counters are halved.
	remaining atomic.Int64

	pendingItems, pendingBytes atomic.Int64
	pendingBytesMax            int64
	dropped                    atomic.Uint64

	gate  gate
	close sync.Once
}

// emptyEntry holds the place of an entry that was to grow a cache that is over its bound. No key is empty, so it
// is never served.
var emptyEntry = NewEntry(0, nil, kv.Record{}, 0)

// NewRistretto makes a store of at most about maxBytes, its bookkeeping included.
func NewRistretto(maxBytes int64) (*Ristretto, error) {
	if maxBytes < RistrettoBytesMin {
		return nil, &kv.InvalidError{Field: "cache bytes", Bound: fmt.Sprintf("at least %d, is %d", RistrettoBytesMin, maxBytes)}
	}
	counters, counterBytes := sketchSize(maxBytes / sketchPart)
	// The largest entry must be able to wait, if it is not out of proportion.
	largest := int64(kv.KeyBytesMax + kv.ValueBytesMax + EntryOverheadBytes)
	r := &Ristretto{pendingBytesMax: max(maxBytes/16, min(maxBytes/4, largest))}
	r.capacity = maxBytes - counterBytes - maxBytes/ghostBytes*4 - r.pendingBytesMax
	r.window = newWindow(r.capacity*windowPercent/100, maxBytes, r.offer)
	r.most = r.capacity - r.capacity*windowPercent/100
	r.remaining.Store(r.most)
	cache, err := ristretto.NewCache(&ristretto.Config[uint64, *Entry]{
		NumCounters:        counters,
		MaxCost:            r.most,
		BufferItems:        64,
		IgnoreInternalCost: true,
		KeyToHash:          func(hash uint64) (uint64, uint64) { return hash, 0 },
		Cost:               r.taken,
		OnEvict:            r.evicted,
	})
	if err != nil {
		return nil, fmt.Errorf("open the cache: %w", err)
	}
	r.cache = cache
	return r, nil
}

// sketchSize is how many counters Ristretto can have for so many bytes, and what they take. It has two bytes of sketch for
// each, and 9.6 bits of doorkeeper, both rounded up to a power of two: so powers of two, and five sixths of them, waste
// nothing.
func sketchSize(bytesMax int64) (counters, bytes int64) {
	power := int64(1) << (bits.Len64(uint64(bytesMax/3)) - 1)
	if 4*power <= bytesMax {
		return power, 4 * power
	}
	return power * 5 / 6, 3 * power
}

// Get gives what is held under a hash.
func (r *Ristretto) Get(hash uint64) (*Entry, bool) {
	pass, ok := r.gate.enter()
	defer pass.leave()
	if !ok {
		return nil, false
	}
	// First Ristretto, which counts what it is asked for.
	if e, ok := r.cache.Get(hash); ok {
		return e, true
	}
	return r.window.get(hash)
}

// Set takes an entry in, where there is one of its key already, where there is room, or into the window.
func (r *Ristretto) Set(hash uint64, e *Entry, cost int64) {
	pass, ok := r.gate.enter()
	defer pass.leave()
	switch {
	case !ok || cost > r.most:
	case r.resident(hash):
		r.insert(hash, e)
	case r.window.replace(hash, e):
	case cost <= r.remaining.Load()-r.pendingBytes.Load() || cost > r.window.largest():
		r.insert(hash, e)
	default:
		r.window.put(hash, e, false)
	}
}

// resident tells whether Ristretto holds an entry under a hash. Unlike Get it is no read that counts.
func (r *Ristretto) resident(hash uint64) bool {
	_, ok := r.cache.GetTTL(hash)
	return ok
}

// insert gives an entry to Ristretto. Under a hash that it holds, it is there at once; another waits in the queue.
func (r *Ristretto) insert(hash uint64, e *Entry) {
	if r.remaining.Load() < 0 {
		e = emptyEntry
	}
	cost := e.cost()
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

// offer is called by the window with an entry that leaves it. What Ristretto holds of its key came later.
func (r *Ristretto) offer(hash uint64, e *Entry) {
	if !r.resident(hash) {
		r.insert(hash, e)
	}
}

// evicted is called by Ristretto with what it evicts, in the goroutine that takes items from its queue.
func (r *Ristretto) evicted(i *ristretto.Item[*Entry]) {
	e := i.Value
	if e == nil || e == emptyEntry || r.gate.closed.Load() || e.cost() > r.window.largest() {
		return
	}
	r.window.put(i.Key, e, true)
}

// taken is called by Ristretto when an item leaves its queue.
func (r *Ristretto) taken(e *Entry) int64 {
	cost := e.cost()
	remaining := r.cache.RemainingCost()
	if remaining >= cost {
		remaining -= cost // It goes in now. If it is an update, more is left than this says, until the next item.
	}
	r.remaining.Store(remaining)
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
		m.Bytes = r.most - r.cache.RemainingCost() + r.window.heldBytes()
	}
	return m
}

// Close lets the calls under way end, and stops Ristretto. It may be called more than once.
func (r *Ristretto) Close() {
	r.close.Do(func() {
		r.gate.shut()
		r.cache.Close()
		r.window = nil
	})
}
