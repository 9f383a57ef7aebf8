package cache

import "sync/atomic"

// table finds entries by hash. It is open addressing with linear probing: one goroutine at a time changes it, while any number
// look entries up without a lock. A look-up beside a change may miss an entry, and seldom finds one of another hash, to which its
// cell was given meanwhile: whoever asks compares the keys (C2). (With a map and a lock that readers share, a look-up took
// 20 ns rather than 7.)
type table struct {
	cells atomic.Pointer[[]cell]
	// Readers have cells in a cache line that no change takes from them, unless the table grows.
	_     [120]byte
	count int
}

// cell has an entry if its hash is not 0. The hash is set last, and cleared first.
type cell struct {
	hash  atomic.Uint64
	entry atomic.Pointer[Entry]
	read  atomic.Bool
}

const tableCellsMin = 16

func (t *table) init() {
	cells := make([]cell, tableCellsMin)
	t.cells.Store(&cells)
}

// home is where the search for a hash begins. Other bits choose shards, stripes and parts of Ristretto's map.
func home(hash uint64, cells []cell) uint64 { return hash >> 24 & uint64(len(cells)-1) }

// find gives the cell of a hash and what is in it.
func (t *table) find(hash uint64) (*cell, *Entry) {
	if hash == 0 {
		return nil, nil
	}
	cells := *t.cells.Load()
	mask := uint64(len(cells) - 1)
	for i := home(hash, cells); ; i = (i + 1) & mask {
		c := &cells[i]
		switch c.hash.Load() {
		case 0:
			return nil, nil
		case hash:
			// The cell may have been given to another by now.
			if e := c.entry.Load(); e != nil {
				return c, e
			}
			return nil, nil
		}
	}
}

// add puts an entry in under a hash that is not there; 0 is none.
func (t *table) add(hash uint64, e *Entry, read bool) {
	if old := *t.cells.Load(); t.count >= len(old)/4*3 {
		grown := make([]cell, 2*len(old))
		for i := range old {
			if h := old[i].hash.Load(); h != 0 {
				place(grown, h, old[i].entry.Load(), old[i].read.Load())
			}
		}
		t.cells.Store(&grown)
	}
	place(*t.cells.Load(), hash, e, read)
	t.count++
}

func place(cells []cell, hash uint64, e *Entry, read bool) {
	i := home(hash, cells)
	for cells[i].hash.Load() != 0 {
		i = (i + 1) & uint64(len(cells)-1)
	}
	cells[i].set(hash, e, read)
}

func (c *cell) set(hash uint64, e *Entry, read bool) {
	c.entry.Store(e)
	c.read.Store(read)
	c.hash.Store(hash)
}

// remove takes an entry out, and moves those behind it that a search would no longer reach.
func (t *table) remove(hash uint64) (e *Entry, read bool) {
	c, e := t.find(hash)
	if e == nil {
		return nil, false
	}
	read = c.read.Load()
	cells := *t.cells.Load()
	mask := uint64(len(cells) - 1)
	hole := home(hash, cells)
	for &cells[hole] != c {
		hole = (hole + 1) & mask
	}
	c.hash.Store(0)
	for i := (hole + 1) & mask; ; i = (i + 1) & mask {
		h := cells[i].hash.Load()
		if h == 0 {
			break
		}
		if (i-home(h, cells))&mask < (i-hole)&mask {
			continue // Its search begins behind the hole.
		}
		cells[hole].set(h, cells[i].entry.Load(), cells[i].read.Load())
		cells[i].hash.Store(0)
		hole = i
	}
	cells[hole].entry.Store(nil)
	t.count--
	return e, read
}
