// Package hitrate replays traces through kvd's cache, and through a plain LRU of the same number of entries beside it.
package hitrate

import (
	"container/list"
	"math/rand/v2"
	"runtime"

	"github.com/kvdstore/kvd/cache"
	"github.com/kvdstore/kvd/kv"
)

const (
	// entryBytes is what an entry takes at least: that of a key of 16 bytes with a value of 128.
	entryBytes = 16 + 128 + cache.EntryOverheadBytes
	// incarnation is that of all records here.
	incarnation = kv.Incarnation(1)
	// EntriesMax bounds a cache.
	EntriesMax = 10_000_000
)

// Rates of a replay, as shares of 1.
type Rates struct {
	// Hits by reads.
	Hits float64
	// Stale misses by reads: the cache had the entry, and a write to its stripe made it unusable.
	Stale float64
	// Dropped counts entries that the cache refused, because too many waited for it.
	Dropped uint64
}

// writes tells of each access whether it is a write; the same for the same percentage.
func writes(percent int) func() bool {
	rng := rand.New(rand.NewPCG(1, uint64(percent)))
	return func() bool { return percent > 0 && rng.IntN(100) < percent }
}

// LRU replays a trace through an LRU of some entries, of which a percentage of accesses are writes: they count as uses.
func LRU(trace [][]byte, entries, percent int) Rates {
	order, at, write := list.New(), map[string]*list.Element{}, writes(percent)
	reads, hits := 0, 0
	for _, key := range trace {
		isWrite := write()
		e := at[string(key)]
		if !isWrite {
			if reads++; e != nil {
				hits++
			}
		}
		if e != nil {
			order.MoveToFront(e)
			continue
		}
		at[string(key)] = order.PushFront(string(key))
		if len(at) > entries {
			delete(at, order.Remove(order.Back()).(string))
		}
	}
	return Rates{Hits: share(hits, reads)}
}

func share(n, of int) float64 {
	if of == 0 {
		return 0
	}
	return float64(n) / float64(of)
}

// Cache replays a trace through kvd's cache with room for some entries, all of the same size, of which a percentage of
// accesses are writes. Reads that miss fill it, as a node does.
//
// Inserts are queued, and Ristretto takes them in a goroutine of its own. Here nothing takes time between two accesses, where
// a node has a request to answer and a disk to read; so there is one processor meanwhile, which is given up after each
// insert: then it is taken before the next access.
func Cache(trace [][]byte, entries, percent int) (Rates, error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	guard, each, err := sized(entries)
	if err != nil {
		return Rates{}, err
	}
	defer guard.Close()
	write, value := writes(percent), make([]byte, each)
	reads, hits := 0, 0
	for _, key := range trace {
		rec := kv.Record{Value: value[:max(int(each)-cache.EntryOverheadBytes-len(key), 0)], Revision: 1}
		if write() {
			raised := guard.Raise(key)
			guard.Lower(raised, incarnation, key, &rec)
			runtime.Gosched()
			continue
		}
		reads++
		_, word, hit := guard.Get(incarnation, key, 0)
		if hit {
			hits++
			continue
		}
		guard.Fill(incarnation, key, rec, word)
		runtime.Gosched()
	}
	m := guard.Metrics()
	return Rates{Hits: share(hits, reads), Stale: share(int(m.Stale), reads), Dropped: m.Store.Dropped}, nil
}

// sized makes a cache with room for exactly so many entries, and tells what each of them is to cost.
func sized(entries int) (guard *cache.Guard, each int64, err error) {
	for bytes := max(int64(entries)*entryBytes, cache.BytesMin); ; bytes += bytes / 64 {
		if guard, err = cache.Open(bytes); err != nil {
			return nil, 0, err
		}
		if each = guard.Metrics().Store.CapacityBytes / int64(entries); each >= entryBytes {
			return guard, each, nil
		}
		guard.Close()
	}
}
