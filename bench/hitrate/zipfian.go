package hitrate

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/kvdstore/kvd/bench/load"
	"github.com/kvdstore/kvd/cache"
	"github.com/kvdstore/kvd/kv"
)

const (
	// zipfianTheta is the skew of the keys, as YCSB has it.
	zipfianTheta = 0.99
	// zipfianRounds is how many accesses there are for each key, twice: before anything is counted, so that even keys that are
	// rarely read have met the writes of others, and while it is.
	zipfianRounds = 10
)

var zipfianRecord = kv.Record{Value: make([]byte, 128), Revision: 1}

// False tells of reads that missed for no reason of their own: their key was not being written, but another of the same stripe
// was, or had been.
type False struct {
	// Misses as a share of the reads.
	Misses  float64
	Stripes int
}

// Zipfian reads and writes so many keys in several goroutines at once, with as many stripes as a cache has that these keys
// fill. All of them are in a store that loses and delays nothing, so that no read misses for another reason.
func Zipfian(keys, percent, workers int) (False, error) {
	filled, _, err := sized(keys)
	if err != nil {
		return False{}, err
	}
	defer filled.Close()
	z := newZipfian(keys, percent, filled.Stripes())
	z.run(workers, 1)
	reads, misses := z.reads.Load(), z.misses.Load()
	z.run(workers, 2)
	return False{Misses: share(int(z.misses.Load()-misses), int(z.reads.Load()-reads)), Stripes: filled.Stripes()}, nil
}

// places is a store with a place for each of its keys.
type places map[uint64]*atomic.Pointer[cache.Entry]

func (p places) Get(hash uint64) (*cache.Entry, bool) {
	e := p[hash].Load()
	return e, e != nil
}

func (p places) Set(hash uint64, e *cache.Entry, _ int64) { p[hash].Store(e) }
func (p places) Metrics() cache.StoreMetrics              { return cache.StoreMetrics{} }
func (p places) Close()                                   {}

type zipfian struct {
	guard         *cache.Guard
	percent       int
	keys          []zipfianKey
	reads, misses atomic.Int64
}

type zipfianKey struct {
	name []byte
	// begun and ended count the writes of the key.
	begun, ended atomic.Int64
}

func newZipfian(keys, percent, stripes int) *zipfian {
	store := places{}
	z := &zipfian{guard: cache.New(store, stripes), percent: percent, keys: make([]zipfianKey, keys)}
	for i := range z.keys {
		k := &z.keys[i]
		k.name = fmt.Appendf(nil, "user%012d", i)
		store[z.guard.Hash(k.name)] = &atomic.Pointer[cache.Entry]{}
		z.read(k)
	}
	return z
}

// run makes the accesses of one half.
func (z *zipfian) run(workers int, seed uint64) {
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(w)))
			draw := load.NewZipfian(uint64(len(z.keys)), zipfianTheta)
			for range zipfianRounds * len(z.keys) / workers {
				k := &z.keys[draw.Draw(rng)]
				if rng.IntN(100) < z.percent {
					z.write(k)
					continue
				}
				ended := k.ended.Load()
				hit := z.read(k)
				z.reads.Add(1)
				if !hit && k.begun.Load() == ended {
					z.misses.Add(1)
				}
			}
		})
	}
	group.Wait()
}

// read reports a hit, and fills the cache after a miss.
func (z *zipfian) read(k *zipfianKey) bool {
	_, word, hit := z.guard.Get(incarnation, k.name, 0)
	if !hit {
		z.guard.Fill(incarnation, k.name, zipfianRecord, word)
	}
	return hit
}

func (z *zipfian) write(k *zipfianKey) {
	k.begun.Add(1)
	z.guard.Lower(z.guard.Raise(k.name), incarnation, k.name, &zipfianRecord)
	k.ended.Add(1)
}
