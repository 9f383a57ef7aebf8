package cache

import (
	"math/bits"
	"sync"
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
// A shard has a table of its entries and a queue of their hashes: the collector has one pointer an entry to follow.
type window struct {
	shards []windowShard
	// leave gets what leaves after it was read. It is called with the shard's lock held, so it must not call the window.
	leave func(hash uint64, e *Entry)
}

type windowShard struct {
	table table // Read without the lock.
	mu    sync.Mutex
	// queue is a ring of hashes, from the oldest on, at first. Numbers wrap, modulo its length.
	queue       []uint64
	first, next uint32
	bytes, most int64 // Of entries, in bytes of cost.
	ghosts      []uint32
	_           [64]byte
}

// newWindow makes a window of at most so many bytes, and as many ghosts as a cache of cacheBytes needs.
func newWindow(bytes, cacheBytes int64, leave func(uint64, *Entry)) *window {
	shards := int64(1) << (bits.Len64(uint64(max(bytes/windowShardBytes, 1))) - 1)
	shards = min(shards, windowShardsMax)
	w := &window{shards: make([]windowShard, shards), leave: leave}
	for i := range w.shards {
		s := &w.shards[i]
		s.table.init()
		s.queue, s.most = make([]uint64, tableCellsMin), bytes/shards
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
	c, e := w.shard(hash).table.find(hash)
	if e != nil && !c.read.Load() {
		c.read.Store(true)
	}
	return e, e != nil
}

// replace puts an entry in the place of one under the same hash, if there is one.
func (w *window) replace(hash uint64, e *Entry) bool {
	s := w.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	c, old := s.table.find(hash)
	if old == nil {
		return false
	}
	s.bytes += e.cost() - old.cost()
	c.entry.Store(e)
	s.shrink(s.most, w.leave)
	return true
}

// put lets an entry in that is no larger than the largest, unless there is one under its hash. One that Ristretto has
// evicted is to be read here before it is offered again: it counts neither as read, nor does its ghost.
func (w *window) put(hash uint64, e *Entry, evicted bool) {
	s := w.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, held := s.table.find(hash); held != nil || hash == 0 {
		return
	}
	read := s.takeGhost(hash) && !evicted
	s.shrink(s.most-e.cost(), w.leave)
	s.push(hash, e, read)
}

// heldBytes is the cost of what is held.
func (w *window) heldBytes() (bytes int64) {
	for i := range w.shards {
		s := &w.shards[i]
		s.mu.Lock()
		bytes += s.bytes
		s.mu.Unlock()
	}
	return bytes
}

func (s *windowShard) queued(number uint32) *uint64 {
	return &s.queue[number&uint32(len(s.queue)-1)]
}

// shrink lets the oldest go until no more than so many bytes are held.
func (s *windowShard) shrink(bytes int64, leave func(uint64, *Entry)) {
	for s.bytes > bytes && s.first != s.next {
		hash := *s.queued(s.first)
		s.first++
		e, read := s.table.remove(hash)
		s.bytes -= e.cost()
		if read {
			leave(hash, e)
		} else {
			*s.ghost(hash) = uint32(hash)
		}
	}
}

func (s *windowShard) push(hash uint64, e *Entry, read bool) {
	if int(s.next-s.first) == len(s.queue) {
		s.grow()
	}
	*s.queued(s.next) = hash
	s.next++
	s.table.add(hash, e, read)
	s.bytes += e.cost()
}

// grow doubles the ring. It is never longer than twice as many entries as fit.
func (s *windowShard) grow() {
	old := s.queue
	s.queue = make([]uint64, 2*len(old))
	for n := s.first; n != s.next; n++ {
		*s.queued(n) = old[n&uint32(len(old)-1)]
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
