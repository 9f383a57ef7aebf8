package cache

import (
	"bytes"
	"unsafe"

	"github.com/kvdstore/kvd/kv"
)

// EntryOverheadBytes is what an entry takes besides its key and value: the entry itself, and what Ristretto
// keeps of it in its maps (measured at 115 to 180 B, by how full those are); the window keeps less (65 B).
const EntryOverheadBytes = 188

// Entry is a record with what proves it current. It is immutable, and shared by all readers.
//
// Its key and its value follow it in the same piece of memory: who compares the key has the value near, and the collector has
// no pointer to follow. So entries are made by NewEntry, and never copied.
type Entry struct {
	_           noCopy
	word        Word
	incarnation kv.Incarnation
	revision    kv.Revision
	expireAt    int64
	keyBytes    uint32
	valueBytes  uint32
}

// noCopy has go vet find copies.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// entryBytes is where the key begins.
const entryBytes = int(unsafe.Sizeof(Entry{}))

// NewEntry makes an entry of copies of a key and a record. word is the stripe's at the moment that the record was current, without
// writers.
func NewEntry(inc kv.Incarnation, key []byte, rec kv.Record, word Word) *Entry {
	b := make([]byte, entryBytes+len(key)+len(rec.Value))
	e := (*Entry)(unsafe.Pointer(unsafe.SliceData(b)))
	e.word, e.incarnation, e.revision, e.expireAt = word, inc, rec.Revision, rec.ExpireAt
	e.keyBytes, e.valueBytes = uint32(len(key)), uint32(len(rec.Value))
	copy(b[entryBytes+copy(b[entryBytes:], key):], rec.Value)
	return e
}

// part gives some of the bytes that follow.
func (e *Entry) part(from, size int) []byte {
	if size == 0 {
		return nil // What would be behind the end is another's.
	}
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(e), entryBytes+from)), size)
}

// holds reports whether there is an entry and it is of a key, and of an incarnation.
func (e *Entry) holds(inc kv.Incarnation, key []byte) bool {
	return e != nil && e.incarnation == inc && bytes.Equal(e.Key(), key)
}

// Key is shared and read-only.
func (e *Entry) Key() []byte { return e.part(0, int(e.keyBytes)) }

// Record has a value that is shared and read-only.
func (e *Entry) Record() kv.Record {
	return kv.Record{Value: e.part(int(e.keyBytes), int(e.valueBytes)), Revision: e.revision, ExpireAt: e.expireAt}
}

// last is the last byte of what follows, 0 without any.
func (e *Entry) last() byte {
	if n := int(e.keyBytes) + int(e.valueBytes); n > 0 {
		return *(*byte)(unsafe.Add(unsafe.Pointer(e), entryBytes+n-1))
	}
	return 0
}

// cost is what the entry takes in memory, in bytes.
func (e *Entry) cost() int64 { return int64(e.keyBytes) + int64(e.valueBytes) + EntryOverheadBytes }
