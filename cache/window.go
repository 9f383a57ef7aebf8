package cache

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

const (
	// windowShardBytes is what a shard of the window holds at least, unless the window is smaller: the more shards, the
	// fewer readers and writers meet at a lock, and the smaller is the largest entry that fits.
	windowShardBytes = 256 << 10
	windowShardsMax  = 256
	// ghostBytes is how many bytes of the whole cache there are for each ghost: one for an entry of average size, or two.
	ghostBytes = 512
)

// window holds entries that Ristretto has not admitted, first in, first out. An entry that was read while it was here is
// offered to Ristretto when it leaves; one that was not is forgotten, but for a ghost: if its key comes back while the ghost
// is there, it counts as read.
//
// Without it Ristretto decides at the first read of a key, when nothing is known of it. What is read a few times within a
// short while, and then no more, never gets in; and what is read once takes places of what is read often, wherever the
// sketch knows no difference between them. (The queue in front and the ghosts are those of S3-FIFO, SOSP 2023; that a window
// goes before the admission by frequency is W-TinyLFU's idea, ACM TOS 2017.)
//
// A shard has one queue, a ring of slots, and an index into it without pointers: the collector has one pointer an entry to
// follow.
type window struct {
	shards []windowShard
	// leave gets what leaves after it was read. It is called with the shard's lock held, so it must not call the window.
	leave func(hash uint64, e *Entry)
}

type windowShard struct {
	mu sync.RWMutex
	// index tells the number of an entry; it is in the slot of that number, modulo their count. Numbers wrap.
	index       map[uint64]uint32
	slots       []windowSlot
	first, next uint32 // Numbers of the oldest entry, and of the next to come.
	bytes, most int64  // Of entries, in bytes of cost.
	ghosts      []uint32
	_           [64]byte
}

type windowSlot struct {
	entry *Entry
	hash  uint64
	read  uint32 // Atomic: readers set it under a lock that they share. 1 after a read.
}

// newWindow makes a window of at most so many bytes, and as many ghosts as a cache of cacheBytes needs.
func newWindow(bytes, cacheBytes int64, leave func(uint64, *Entry)) *window {
	shards := int64(1) << (bits.Len64(uint64(max(bytes/windowShardBytes, 1))) - 1)
	shards = min(shards, windowShardsMax)
	w := &window{shards: make([]windowShard, shards), leave: leave}
	for i := range w.shards {
		s := &w.shards[i]
		s.index, s.most = map[uint64]uint32{}, bytes/shards
		s.slots = make([]windowSlot, 16)
		s.ghosts = make([]uint32, int64(1)<<(bits.Len64(uint64(max(cacheBytes/ghostBytes/shards, 1)))-1))
	}
	return w
}

// shard picks by bits that choose neither a stripe nor a part of Ristretto's map.
func (w *window) shard(hash uint64) *windowShard {
	return &w.shards[hash>>16&uint64(len(w.shards)-1)]
}

// largest is the cost of the largest entry that fits.
func (w *window) largest() int64 { return w.shards[0].most }

// get gives what is held under a hash, and remembers that it was read.
func (w *window) get(hash uint64) (*Entry, bool) {
	s := w.shard(hash)
	s.mu.RLock()
	n, ok := s.index[hash]
	if !ok {
		s.mu.RUnlock()
		return nil, false
	}
	slot := s.slot(n)
	e := slot.entry
	if atomic.LoadUint32(&slot.read) == 0 {
		atomic.StoreUint32(&slot.read, 1)
	}
	s.mu.RUnlock()
	return e, true
}

// replace puts an entry in the place of one under the same hash, if there is one.
func (w *window) replace(hash uint64, e *Entry) bool {
	s := w.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.index[hash]
	if !ok {
		return false
	}
	slot := s.slot(n)
	s.bytes += e.cost() - slot.entry.cost()
	slot.entry = e
	s.shrink(s.most, w.leave)
	return true
}

// put lets an entry in that is no larger than the largest, unless there is one under its hash. One that Ristretto has
// evicted is to be read here before it is offered again: it counts neither as read, nor does its ghost.
func (w *window) put(hash uint64, e *Entry, evicted bool) {
	s := w.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.index[hash]; ok {
		return
	}
	read := uint32(0)
	if s.takeGhost(hash) && !evicted {
		read = 1
	}
	s.shrink(s.most-e.cost(), w.leave)
	s.push(windowSlot{entry: e, hash: hash, read: read})
}

// heldBytes is the cost of what is held.
func (w *window) heldBytes() (bytes int64) {
	for i := range w.shards {
		s := &w.shards[i]
		s.mu.RLock()
		bytes += s.bytes
		s.mu.RUnlock()
	}
	return bytes
}

func (s *windowShard) slot(number uint32) *windowSlot {
	return &s.slots[number&uint32(len(s.slots)-1)]
}

// shrink lets the oldest go until no more than so many bytes are held.
func (s *windowShard) shrink(bytes int64, leave func(uint64, *Entry)) {
	for s.bytes > bytes && s.first != s.next {
		oldest := s.slot(s.first)
		gone := *oldest
		*oldest = windowSlot{}
		s.first++
		delete(s.index, gone.hash)
		s.bytes -= gone.entry.cost()
		if gone.read != 0 {
			leave(gone.hash, gone.entry)
		} else {
			*s.ghost(gone.hash) = uint32(gone.hash)
		}
	}
}

func (s *windowShard) push(in windowSlot) {
	if int(s.next-s.first) == len(s.slots) {
		s.grow()
	}
	*s.slot(s.next) = in
	s.index[in.hash] = s.next
	s.next++
	s.bytes += in.entry.cost()
}

// grow doubles the ring. There are never more slots than twice the entries that fit.
func (s *windowShard) grow() {
	old := s.slots
	s.slots = make([]windowSlot, 2*len(old))
	for n := s.first; n != s.next; n++ {
		*s.slot(n) = old[n&uint32(len(old)-1)]
	}
}

// ghost is the place of a hash's ghost, which shares it with others: the last that came is there.
func (s *windowShard) ghost(hash uint64) *uint32 {
	return &s.ghosts[hash>>32&uint64(len(s.ghosts)-1)]
}

// takeGhost tells whether there is a ghost of a hash, and lets it go.
func (s *windowShard) takeGhost(hash uint64) bool {
	g := s.ghost(hash)
	found := *g == uint32(hash)
	if found {
		*g = 0
	}
	return found
}
