package storage

import (
	"hash/maphash"
	"math/bits"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/kvdstore/kvd/kv"
)

// heads remembers the heads of keys that were written or asked for lately, and that some are absent: every write must know what it
// replaces, to count it, and to look that up in Pebble costs several times what else there is to a write. Each key has a few
// places that it may be in, and what comes later takes one of them. Safe for concurrent use.
type heads struct {
	seed maphash.Seed

	mu      sync.Mutex
	buckets []bucket
	// changes counts commits: what was read before one may be what it has changed.
	changes uint64
}

// bucket has the places of keys with like hashes.
type bucket struct {
	places [4]place
	next   uint8 // The place to be taken.
}

// place holds a key's head; an empty one the empty key, which no record has.
type place struct {
	hash  uint64 // Compared first: the key itself is elsewhere in memory.
	key   string
	head  kv.Head
	there bool
}

const (
	// placeBytes is about what a place takes, with a key of the usual length.
	placeBytes = 96
	// headKeyBytesMax is the longest key that has a place: with keys of 4 KiB the places would take forty times the memory.
	headKeyBytesMax = 256
)

// newHeads makes one of about so many bytes, at least one bucket.
func newHeads(bytes int) *heads {
	return &heads{seed: maphash.MakeSeed(), buckets: make([]bucket, max(bytes/placeBytes/len(bucket{}.places), 1))}
}

// find gives the bucket of a key, and its place there, nil if it has none.
func (h *heads) find(hash uint64, key []byte) (*bucket, *place) {
	at, _ := bits.Mul64(hash, uint64(len(h.buckets)))
	b := &h.buckets[at]
	for i := range b.places {
		if p := &b.places[i]; p.hash == hash && p.key == string(key) {
			return b, p
		}
	}
	return b, nil
}

// get looks a key up. If it is not known, changes is what put wants.
func (h *heads) get(key []byte) (head kv.Head, there, known bool, changes uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.look(key)
}

// lacks reports whether a key is not known, as far as that can be told at once.
func (h *heads) lacks(key []byte) (lacks bool, changes uint64) {
	if !h.mu.TryLock() {
		return false, 0
	}
	defer h.mu.Unlock()
	_, _, known, changes := h.look(key)
	return !known, changes
}

func (h *heads) look(key []byte) (head kv.Head, there, known bool, changes uint64) {
	if _, p := h.find(maphash.Bytes(h.seed, key), key); p != nil && len(key) > 0 {
		return p.head, p.there, true, 0
	}
	return kv.Head{}, false, false, h.changes
}

// put remembers what was read, unless something was committed since get.
func (h *heads) put(changes uint64, key []byte, head kv.Head, there bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.changes == changes {
		h.set(key, head, there)
	}
}

func (h *heads) set(key []byte, head kv.Head, there bool) {
	if len(key) > headKeyBytesMax {
		return
	}
	hash := maphash.Bytes(h.seed, key)
	b, p := h.find(hash, key)
	if p == nil {
		p = &b.places[b.next]
		p.hash, p.key, b.next = hash, string(key), (b.next+1)%uint8(len(b.places))
	}
	p.head, p.there = head, there
}

// commit remembers what a batch writes, which commit makes visible; nobody is told anything else meanwhile.
func (h *heads) commit(b *pebble.Batch, commit func() error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes++
	err := h.take(b)
	if err == nil {
		err = commit()
	}
	if err != nil {
		clear(h.buckets)
	}
	return err
}

// replace forgets everything: data comes another way.
func (h *heads) replace(ingest func() error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes++
	clear(h.buckets)
	return ingest()
}

func (h *heads) take(b *pebble.Batch) error {
	for r := b.Reader(); ; {
		kind, key, value, more, err := r.Next()
		if err != nil || !more {
			return err
		}
		switch {
		case len(key) == 0 || key[0] != dataPrefix:
		case kind == pebble.InternalKeyKindRangeDelete:
			clear(h.buckets) // It is rare.
		case kind == pebble.InternalKeyKindSet:
			rec, err := decodeRecord(value)
			if err != nil {
				return err
			}
			h.set(key[1:], rec.Head(), true)
		default:
			h.set(key[1:], kv.Head{}, false)
		}
	}
}
