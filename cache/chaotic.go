package cache

import (
	"math/rand/v2"
	"sync"
)

const (
	// chaoticEntriesMax and chaoticPendingMax bound a Chaotic store.
	chaoticEntriesMax = 1024
	chaoticPendingMax = 64
)

// Chaotic is a store that drops, delays and reorders inserts, keeps the older of two, and forgets entries, all by
// chance from a seed: equal seeds and calls give equal answers (C5). It is for tests and the simulator, and does
// on purpose whatever a Store may do.
type Chaotic struct {
	mu      sync.Mutex
	rand    *rand.Rand
	entries map[uint64]*Entry
	// order lists the hashes in entries, so that chance can pick one without ranging over the map.
	order   []uint64
	pending []pendingSet
	dropped uint64
	bytes   int64
	closed  bool
}

type pendingSet struct {
	hash  uint64
	entry *Entry
}

// NewChaotic makes a store that draws its chances from seed.
func NewChaotic(seed uint64) *Chaotic {
	return &Chaotic{rand: rand.New(rand.NewPCG(seed, 0x6b7664)), entries: map[uint64]*Entry{}}
}

// Get gives what is held under a hash.
func (c *Chaotic) Get(hash uint64) (*Entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.step()
	e, ok := c.entries[hash]
	return e, ok
}

// Set offers an entry: one in eight is dropped, one in two waits a while, the rest go in at once.
func (c *Chaotic) Set(hash uint64, e *Entry, cost int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.step()
	switch draw := c.rand.IntN(8); {
	case draw == 0:
		c.dropped++
	case draw <= 4 && len(c.pending) < chaoticPendingMax:
		c.pending = append(c.pending, pendingSet{hash, e})
	default:
		c.put(hash, e)
	}
}

// step lets time pass: it may let one of the waiting inserts in, in any order, and may forget an entry.
func (c *Chaotic) step() {
	if len(c.pending) > 0 && c.rand.IntN(3) == 0 {
		i := c.rand.IntN(len(c.pending))
		late := c.pending[i]
		c.pending[i] = c.pending[len(c.pending)-1]
		c.pending = c.pending[:len(c.pending)-1]
		c.put(late.hash, late.entry)
	}
	if len(c.order) > 0 && c.rand.IntN(64) == 0 {
		c.forget()
	}
}

func (c *Chaotic) put(hash uint64, e *Entry) {
	if old, ok := c.entries[hash]; ok {
		c.bytes -= old.cost()
	} else {
		if len(c.order) == chaoticEntriesMax {
			c.forget()
		}
		c.order = append(c.order, hash)
	}
	c.entries[hash] = e
	c.bytes += e.cost()
}

// forget drops an entry by chance.
func (c *Chaotic) forget() {
	i := c.rand.IntN(len(c.order))
	hash := c.order[i]
	c.order[i] = c.order[len(c.order)-1]
	c.order = c.order[:len(c.order)-1]
	c.bytes -= c.entries[hash].cost()
	delete(c.entries, hash)
}

// Metrics describes the store. Its capacity is a number of entries, so it gives none in bytes.
func (c *Chaotic) Metrics() StoreMetrics {
	c.mu.Lock()
	defer c.mu.Unlock()
	return StoreMetrics{Bytes: c.bytes, Dropped: c.dropped}
}

// Close forgets everything.
func (c *Chaotic) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.entries, c.order, c.pending, c.bytes = map[uint64]*Entry{}, nil, nil, 0
}
