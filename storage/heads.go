package storage

import (
	"hash/maphash"
	"math/bits"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/kvdstore/kvd/kv"
)

// heads remembers the heads of keys that were written or asked for lately, and that some are absent: every write must know what it
// replaces, to count it, and to look that up in Pebble costs several times what else there is to a write. It has one place for
// each hash, and what comes later takes it. Safe for concurrent use.
type heads struct {
	seed maphash.Seed

	mu     sync.Mutex
	places []place
	// changes counts commits: what was read before one may be what it has changed.
	changes uint64
}

// place holds a key's head; an empty one the zero key, which no record has.
type place struct {
	key   string
	head  kv.Head
	there bool
}

// placeBytes is about what a place takes, with a key of the usual length.
const placeBytes = 96

// newHeads makes one of about so many bytes, at least one place.
func newHeads(bytes int) *heads {
	n := max(bytes/placeBytes, 1)
	return &heads{seed: maphash.MakeSeed(), places: make([]place, 1<<(bits.Len(uint(n))-1))}
}

func (h *heads) place(key []byte) *place {
	return &h.places[maphash.Bytes(h.seed, key)&uint64(len(h.places)-1)]
}

// get looks a key up. If it is not known, changes is what put wants.
func (h *heads) get(key []byte) (head kv.Head, there, known bool, changes uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.place(key); p.key == string(key) && p.key != "" {
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
	p := h.place(key)
	if p.key != string(key) {
		p.key = string(key)
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
		clear(h.places)
	}
	return err
}

// replace forgets everything: data comes another way.
func (h *heads) replace(ingest func() error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes++
	clear(h.places)
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
			clear(h.places) // It is rare.
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
