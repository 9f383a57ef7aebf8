package storage

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"unsafe"

	"github.com/kvdstore/kvd/kv"
)

// heads remembers the heads of keys that were written or asked for lately, and that some are absent: every write must know what it
// replaces, to count it, and to look that up in Pebble costs several times what else there is to a write. Each key has a few
// places that it may be in, and what comes later takes one of them, rather one that was not asked for since. Safe for concurrent
// use.
//
// A place knows its key by 95 bits of two hashes, and its bucket by others of them; the seeds no other process has. A look-up
// compares four places, so that one in 10^28 may take another key for its own. Keys themselves would take three times the memory,
// and the collector's time.
type heads struct {
	seeds [2]maphash.Seed

	mu      sync.Mutex
	buckets []bucket
	hands   []uint8 // Of each bucket, where the next look for a place to be taken begins.
	// changes counts commits and ingests: what was read before one may be what it has changed.
	changes uint64
}

// bucket has the places of keys with like hashes, in two lines of the processor's cache.
type bucket [4]place

// place holds a key's head. The empty one is no key's: check is odd of all.
type place struct {
	check uint64
	hash  uint32 // Its lowest bits: the highest choose the bucket.
	value uint32 // The value's length, or absent; and used.

	revision kv.Revision
	expireAt int64
}

const (
	// used tells of a place that its key was asked for since the last look for a place to be taken, absent that there is none.
	used, absent = 1 << 31, 1 << 30
	// Lengths have room beside them.
	_ = uint(absent - 1 - kv.ValueBytesMax)
)

const bucketBytes = int(unsafe.Sizeof(bucket{}))

// newHeads makes one of about so many bytes, at least one bucket.
func newHeads(bytes int) *heads {
	n := max(bytes/(bucketBytes+1), 1)
	return &heads{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, buckets: make([]bucket, n), hands: make([]uint8, n)}
}

// hashes are those of a key.
type hashes struct{ place, check uint64 }

func (h *heads) hashes(key []byte) hashes {
	return hashes{maphash.Bytes(h.seeds[0], key), maphash.Bytes(h.seeds[1], key) | 1}
}

// find gives the bucket of a key, and its place there, nil if it has none.
func (h *heads) find(key hashes) (bucket uint64, p *place) {
	bucket, _ = bits.Mul64(key.place, uint64(len(h.buckets)))
	b := &h.buckets[bucket]
	for i := range b {
		if b[i].check == key.check && b[i].hash == uint32(key.place) {
			return bucket, &b[i]
		}
	}
	return bucket, nil
}

// take gives a place of a bucket for another key: the next that was not asked for since the last time that it was come to.
func (h *heads) take(bucket uint64) *place {
	b, hand := &h.buckets[bucket], &h.hands[bucket]
	for {
		p := &b[*hand]
		*hand = (*hand + 1) % uint8(len(b))
		if p.value&used == 0 {
			return p
		}
		p.value &^= used
	}
}

// get looks a key up. If it is not known, changes is what put wants.
func (h *heads) get(key []byte) (head kv.Head, there, known bool, changes uint64) {
	of := h.hashes(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.look(of)
}

// lacks reports whether a key is not known, as far as that can be told at once.
func (h *heads) lacks(key []byte) (lacks bool, changes uint64) {
	of := h.hashes(key)
	if !h.mu.TryLock() {
		return false, 0
	}
	defer h.mu.Unlock()
	_, _, known, changes := h.look(of)
	return !known, changes
}

func (h *heads) look(key hashes) (head kv.Head, there, known bool, changes uint64) {
	_, p := h.find(key)
	if p == nil {
		return kv.Head{}, false, false, h.changes
	}
	p.value |= used
	if p.value&absent != 0 {
		return kv.Head{}, false, true, 0
	}
	return kv.Head{Revision: p.revision, ExpireAt: p.expireAt, Bytes: int(p.value &^ used)}, true, true, 0
}

// put remembers what was read, unless something was committed since get.
func (h *heads) put(changes uint64, key []byte, head kv.Head, there bool) {
	of := h.hashes(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.changes == changes {
		h.set(of, head, there)
	}
}

func (h *heads) set(key hashes, head kv.Head, there bool) {
	bucket, p := h.find(key)
	if p == nil {
		p = h.take(bucket)
	}
	if !there {
		head.Bytes = absent
	}
	*p = place{key.check, uint32(key.place), uint32(head.Bytes) | p.value&used, head.Revision, head.ExpireAt}
}

// change is a key that a batch writes.
type change struct {
	key   hashes
	head  kv.Head
	there bool
}

// changed takes note of what was committed, which was visible to those that look up beside a moment before: what they read
// until now is not put any more, or is replaced here. So whoever is to learn what was committed may ask only after this.
func (h *heads) changed(list []change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes++
	for _, c := range list {
		h.set(c.key, c.head, c.there)
	}
}

// forget forgets everything: more was changed than is known.
func (h *heads) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes++
	clear(h.buckets)
}
