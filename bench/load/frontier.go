package load

import (
	"sync"
	"sync/atomic"
)

// frontier counts records. Those below read are there: a record that is being inserted, and all above it, are not yet
// read, as YCSB has it.
type frontier struct {
	read atomic.Uint64

	mu    sync.Mutex // Guards the rest.
	next  uint64
	ended map[uint64]bool // Above read; at most as many as there are callers.
}

func newFrontier(records uint64) *frontier {
	f := &frontier{next: records, ended: map[uint64]bool{}}
	f.read.Store(records)
	return f
}

// begin gives the number of a new record.
func (f *frontier) begin() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	return f.next - 1
}

// end notes that the insert of a record has ended, whatever came of it.
func (f *frontier) end(record uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended[record] = true
	read := f.read.Load()
	for ; f.ended[read]; read++ {
		delete(f.ended, read)
	}
	f.read.Store(read)
}
