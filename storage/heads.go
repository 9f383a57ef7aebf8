package storage

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"unsafe"

	"github.com/cockroachdb/pebble/v2"

	"github.com/kvdstore/kvd/kv"
)

// heads remembers the heads of keys that were written or asked for lately, and that some are absent: every write must know what it
// replaces, to count it, and to look that up in Pebble costs several times what else there is to a write. Each key has a few
// places that it may be in, and what comes later takes one of them, rather one that was not asked for since. Safe for concurrent
// use.
//
// A place knows its key by 127 bits of two hashes, whose seeds no other process has: a look-up compares four places, so that one
// in 10^37 may take another key for its own. Keys themselves would take three times the memory, and the collector's time.
type heads struct {
	seeds [2]maphash.Seed

	mu      sync.Mutex
	buckets []bucket
	// changes counts commits: what was read before one may be what it has changed.
	changes uint64
}

// bucket has the places of keys with like hashes.
type bucket struct {
	places [4]place
	// there tells of each place whether its key is, and used whether it was asked for since the last look for a place to be
	// taken, in a bit each; next is where the next look begins.
	there, used, next uint8
}

// place holds a key's head. The empty one has an empty fingerprint, which no key has.
type place struct {
	of   fingerprint
	head kv.Head
}

// fingerprint stands for a key.
type fingerprint struct{ hash, check uint64 }

const bucketBytes = int(unsafe.Sizeof(bucket{}))

// newHeads makes one of about so many bytes, at least one bucket.
func newHeads(bytes int) *heads {
	return &heads{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, buckets: make([]bucket, max(bytes/bucketBytes, 1))}
}

func (h *heads) fingerprint(key []byte) fingerprint {
	return fingerprint{maphash.Bytes(h.seeds[0], key), maphash.Bytes(h.seeds[1], key) | 1}
}

// find gives the bucket of a key, and which place there is its, -1 if none is.
func (h *heads) find(of fingerprint) (b *bucket, i int) {
	at, _ := bits.Mul64(of.hash, uint64(len(h.buckets)))
	b = &h.buckets[at]
	for i := range b.places {
		if b.places[i].of == of {
			return b, i
		}
	}
	return b, -1
}

// take gives a place for another key: the next that was not asked for since the last time that it was come to.
func (b *bucket) take() int {
	for {
		i := int(b.next)
		b.next = (b.next + 1) % uint8(len(b.places))
		if b.used&(1<<i) == 0 {
			return i
		}
		b.used &^= 1 << i
	}
}

// get looks a key up. If it is not known, changes is what put wants.
func (h *heads) get(key []byte) (head kv.Head, there, known bool, changes uint64) {
	of := h.fingerprint(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.look(of)
}

// lacks reports whether a key is not known, as far as that can be told at once.
func (h *heads) lacks(key []byte) (lacks bool, changes uint64) {
	of := h.fingerprint(key)
	if !h.mu.TryLock() {
		return false, 0
	}
	defer h.mu.Unlock()
	_, _, known, changes := h.look(of)
	return !known, changes
}

func (h *heads) look(of fingerprint) (head kv.Head, there, known bool, changes uint64) {
	b, i := h.find(of)
	if i < 0 {
		return kv.Head{}, false, false, h.changes
	}
	b.used |= 1 << i
	return b.places[i].head, b.there&(1<<i) != 0, true, 0
}

// put remembers what was read, unless something was committed since get.
func (h *heads) put(changes uint64, key []byte, head kv.Head, there bool) {
	of := h.fingerprint(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.changes == changes {
		h.set(of, head, there)
	}
}

func (h *heads) set(of fingerprint, head kv.Head, there bool) {
	b, i := h.find(of)
	if i < 0 {
		i = b.take()
	}
	b.places[i] = place{of, head}
	b.there &^= 1 << i
	if there {
		b.there |= 1 << i
	}
}

// commit remembers what a batch writes, which commit makes visible; nobody is told anything else meanwhile.
func (h *heads) commit(b *pebble.Batch, commit func() error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes++
	err := h.read(b)
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

// read remembers what a batch writes.
func (h *heads) read(b *pebble.Batch) error {
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
			h.set(h.fingerprint(key[1:]), rec.Head(), true)
		default:
			h.set(h.fingerprint(key[1:]), kv.Head{}, false)
		}
	}
}
