package cache

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
)

// TestNoStaleRead races writers and readers over few keys on few stripes, on a store that misbehaves and on
// Ristretto. A read that began after a write was acknowledged may not see less than that write.
func TestNoStaleRead(t *testing.T) {
	stores := map[string]func(t *testing.T) Store{
		"ristretto": func(t *testing.T) Store { return newRistretto(t, 4<<20) },
		"cramped":   func(t *testing.T) Store { return cramped(t) },
		"chaotic":   func(*testing.T) Store { return NewChaotic(1) },
	}
	for name, open := range stores {
		for _, stripes := range []int{1, 4, 1024} {
			t.Run(fmt.Sprintf("%s/%d stripes", name, stripes), func(t *testing.T) {
				raceReadersAndWriters(t, open(t), stripes)
			})
		}
	}
}

// cramped has room for four entries in Ristretto and for four in the window, so that they pass from one to the other all the
// time.
func cramped(t *testing.T) *Ristretto {
	const bytes = 4 * (EntryOverheadBytes + 20)
	store := newRistretto(t, 1<<20)
	store.cache.UpdateMaxCost(bytes)
	store.remaining.Store(bytes)
	store.window.shards[0].most = bytes
	return store
}

const (
	raceWriters, raceReaders = 3, 5
	raceKeys                 = 12
	raceSteps                = 4000
	// raceTogether is how many keys a reader looks up together, or one by one.
	raceTogether = 4
)

// racedKey is one key of the state store. Its writers take turns, as a shard's loop makes them.
type racedKey struct {
	mu           sync.Mutex
	visible      atomic.Pointer[kv.Record] // nil: deleted.
	revision     kv.Revision               // Of the last write; under mu.
	acknowledged atomic.Uint64             // The last revision that a client was told of.
}

func raceReadersAndWriters(t *testing.T, store Store, stripes int) {
	guard := New(store, stripes)
	defer guard.Close()
	var keys [raceKeys]racedKey
	var group sync.WaitGroup
	var reads atomic.Uint64
	for w := range raceWriters {
		rnd := rand.New(rand.NewPCG(uint64(w), 1))
		group.Go(func() {
			for range raceSteps {
				n := rnd.IntN(raceKeys)
				keys[n].write(guard, raceKey(n), rnd)
			}
		})
	}
	for r := range raceReaders {
		rnd := rand.New(rand.NewPCG(uint64(r), 2))
		group.Go(func() {
			// Where every key has a stripe, it goes on until some read was a hit: an insert into Ristretto takes its time.
			for step := 0; step < 2*raceSteps/raceTogether || stripes > raceKeys && step < 100*raceSteps && guard.Metrics().Hits == 0; step++ {
				reads.Add(raceTogether)
				var some [raceTogether]int
				for i := range some {
					some[i] = rnd.IntN(raceKeys)
				}
				read := readOneByOne
				if r%2 == 1 {
					read = readTogether
				}
				if stale := read(guard, &keys, some); stale != "" {
					t.Error(stale)
					return
				}
			}
		})
	}
	group.Go(func() {
		rnd := rand.New(rand.NewPCG(1, 3))
		for range 2 * raceSteps {
			n := rnd.IntN(raceKeys)
			least := keys[n].acknowledged.Load()
			rec, hit := guard.Peek(1, raceKey(n))
			if !hit {
				continue
			}
			if stale := keys[n].judge(guard, raceKey(n), least, rec, 0, true); stale != "" {
				t.Error(stale)
				return
			}
		}
	})
	group.Wait()
	m := guard.Metrics()
	require.Equal(t, reads.Load(), m.Hits+m.Misses, "who peeks is not counted")
	if stripes > raceKeys {
		require.NotZero(t, m.Hits, "a race without hits shows nothing")
	}
}

func raceKey(n int) []byte { return fmt.Appendf(nil, "key-%d", n) }

func (k *racedKey) write(guard *Guard, key []byte, rnd *rand.Rand) {
	k.mu.Lock()
	defer k.mu.Unlock()
	raised := guard.Raise(key)
	k.revision++
	var rec *kv.Record
	if rnd.IntN(8) != 0 {
		rec = &kv.Record{Value: binary.BigEndian.AppendUint64(nil, uint64(k.revision)), Revision: k.revision}
	}
	k.visible.Store(rec)
	if rnd.IntN(4) == 0 {
		guard.Lower(raised, 1, key, nil)
	} else {
		guard.Lower(raised, 1, key, rec)
	}
	k.acknowledged.Store(uint64(k.revision))
}

// readOneByOne gets keys as a node does, and says what was wrong.
func readOneByOne(guard *Guard, keys *[raceKeys]racedKey, some [raceTogether]int) string {
	for _, n := range some {
		least := keys[n].acknowledged.Load()
		rec, word, hit := guard.Get(1, raceKey(n), 0)
		if stale := keys[n].judge(guard, raceKey(n), least, rec, word, hit); stale != "" {
			return stale
		}
	}
	return ""
}

// readTogether does the same for all keys at once.
func readTogether(guard *Guard, keys *[raceKeys]racedKey, some [raceTogether]int) string {
	var sought [raceTogether]Sought
	var least [raceTogether]uint64
	for i, n := range some {
		sought[i].Key, least[i] = raceKey(n), keys[n].acknowledged.Load()
	}
	guard.Seek(sought[:])
	for i, n := range some {
		rec, word, hit := guard.Take(&sought[i], 1, 0)
		if stale := keys[n].judge(guard, raceKey(n), least[i], rec, word, hit); stale != "" {
			return stale
		}
	}
	return ""
}

// judge says what was wrong with a read that began when the revision least was acknowledged, and fills the cache after a miss.
func (k *racedKey) judge(guard *Guard, key []byte, least uint64, rec kv.Record, word Word, hit bool) string {
	if !hit {
		found := k.visible.Load()
		if found == nil {
			return ""
		}
		guard.Fill(1, key, *found, word)
		return ""
	}
	if uint64(rec.Revision) < least {
		return fmt.Sprintf("%s: read revision %d after %d was acknowledged", key, rec.Revision, least)
	}
	if got := binary.BigEndian.Uint64(rec.Value); got != uint64(rec.Revision) {
		return fmt.Sprintf("%s: value of revision %d at revision %d", key, got, rec.Revision)
	}
	return ""
}

// TestSeekThenTake (C2): between the two a key may change, or stay what it is.
func TestSeekThenTake(t *testing.T) {
	const now = 100
	key, rec := []byte("key"), kv.Record{Value: []byte("value"), Revision: 1, ExpireAt: now}
	put := func(g *Guard, inc kv.Incarnation, insert *kv.Record) { g.Lower(g.Raise(key), inc, key, insert) }
	for name, c := range map[string]struct {
		between func(g *Guard)
		inc     kv.Incarnation
		now     int64
		hit     bool
	}{
		"nothing":               {func(*Guard) {}, 1, now - 1, true},
		"it expires":            {func(*Guard) {}, 1, now, false},
		"other data":            {func(*Guard) {}, 2, now - 1, false},
		"a writer is at work":   {func(g *Guard) { g.Raise(key) }, 1, now - 1, false},
		"it is deleted":         {func(g *Guard) { put(g, 1, nil) }, 1, now - 1, false},
		"it is written":         {func(g *Guard) { put(g, 1, &kv.Record{Revision: 2}) }, 1, now - 1, false},
		"another of its stripe": {func(g *Guard) { g.Lower(g.Raise([]byte("else")), 1, []byte("else"), nil) }, 1, now - 1, false},
		"the store forgets it":  {func(g *Guard) { g.Close() }, 1, now - 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			store := newRistretto(t, 4<<20)
			g := New(store, 1)
			put(g, 1, &rec)
			store.cache.Wait()
			before := g.Metrics()
			sought := []Sought{{Key: key}, {}, {Key: []byte("no such key")}, {Key: key}}
			g.Seek(sought)
			c.between(g)
			for i, want := range []bool{c.hit, false, false, c.hit} {
				if len(sought[i].Key) == 0 {
					continue
				}
				got, word, hit := g.Take(&sought[i], c.inc, c.now)
				require.Equal(t, want, hit)
				require.Equal(t, g.Word(key), word)
				if want {
					require.Equal(t, rec, got)
				}
			}
			m := g.Metrics()
			require.EqualValues(t, 3, m.Hits+m.Misses-before.Hits-before.Misses)
		})
	}
	store := newRistretto(t, 4<<20)
	g := New(store, 1)
	e := NewEntry(1, []byte("another"), rec, 0)
	store.Set(g.Hash(key), e, e.cost())
	store.cache.Wait()
	sought := []Sought{{Key: key}}
	g.Seek(sought)
	_, _, hit := g.Take(&sought[0], 1, 0)
	require.False(t, hit, "another key with its hash")
}

// TestPeek: it tells of what is in the state store, also when its time is over, and of nothing else.
func TestPeek(t *testing.T) {
	key, rec := []byte("key"), kv.Record{Value: []byte("value"), Revision: 1, ExpireAt: 1}
	for name, c := range map[string]struct {
		before func(g *Guard)
		inc    kv.Incarnation
		hit    bool
	}{
		"nothing":               {func(*Guard) {}, 1, true},
		"other data":            {func(*Guard) {}, 2, false},
		"a writer is at work":   {func(g *Guard) { g.Raise(key) }, 1, false},
		"it was deleted":        {func(g *Guard) { g.Lower(g.Raise(key), 1, key, nil) }, 1, false},
		"another of its stripe": {func(g *Guard) { g.Lower(g.Raise([]byte("else")), 1, []byte("else"), nil) }, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			store := newRistretto(t, 4<<20)
			g := New(store, 1)
			g.Lower(g.Raise(key), 1, key, &rec)
			store.cache.Wait()
			c.before(g)
			before := g.Metrics()
			got, hit := g.Peek(c.inc, key)
			require.Equal(t, c.hit, hit)
			if hit {
				require.Equal(t, rec, got)
			}
			_, hit = g.Peek(c.inc, []byte("no such key"))
			require.False(t, hit)
			m := g.Metrics()
			require.Equal(t, before.Hits+before.Misses, m.Hits+m.Misses)
		})
	}
}

// TestStuckStripe fills the count of writers: the stripe then misses for ever, rather than spilling into the
// version and hiding that writers are at work.
func TestStuckStripe(t *testing.T) {
	guard := New(NewChaotic(1), 1)
	key, rec := []byte("a"), kv.Record{Value: []byte("v"), Revision: 1}
	var raised []Raised
	for range writersMax + 5 {
		raised = append(raised, guard.Raise(key))
	}
	for _, r := range raised {
		guard.Lower(r, 1, key, &rec)
	}
	_, word, hit := guard.Get(1, key, 0)
	require.False(t, hit)
	require.Equal(t, writersMax, word.Writers())
	guard.Fill(1, key, rec, word)
	_, _, hit = guard.Get(1, key, 0)
	require.False(t, hit)
}

func TestLowerWithoutRaise(t *testing.T) {
	guard := New(NewChaotic(1), 1)
	r := guard.Raise([]byte("a"))
	guard.Lower(r, 1, []byte("a"), nil)
	require.Panics(t, func() { guard.Lower(r, 1, []byte("a"), nil) })
}

// TestVersionWraps: the version comes round without touching the count.
func TestVersionWraps(t *testing.T) {
	last := ^Word(writersMax)
	require.Equal(t, 0, last.Writers())
	require.Equal(t, Word(0), last.raised().lowered())
	require.Equal(t, uint64(1)<<48-1, last.Version())
}

func TestStripes(t *testing.T) {
	for asked, want := range map[int]int{-1: 1, 0: 1, 1: 1, 2: 2, 3: 3, 1000: 1000} {
		guard := New(NewChaotic(1), asked)
		require.Len(t, guard.stripes, want)
		for i := range 200 {
			guard.stripe(guard.Hash(fmt.Appendf(nil, "k%d", i))).Load() // In range.
		}
		require.Same(t, &guard.stripes[0], guard.stripe(0))
		require.Same(t, &guard.stripes[want-1], guard.stripe(math.MaxUint64))
	}
}

// TestOpen: the stripes are part of the bytes.
func TestOpen(t *testing.T) {
	guard, err := Open(96 << 20)
	require.NoError(t, err)
	defer guard.Close()
	require.Len(t, guard.stripes, 1<<20)
	alone := newRistretto(t, 88<<20)
	require.Equal(t, alone.capacity, guard.Metrics().Store.CapacityBytes)
	smallest, err := Open(BytesMin)
	require.NoError(t, err)
	smallest.Close()
	_, err = Open(BytesMin - 1)
	require.ErrorContains(t, err, "cache bytes")
}

// TestEntriesAreCopies: what the caller does with its buffers afterwards does not reach the cache.
func TestEntriesAreCopies(t *testing.T) {
	store := newRistretto(t, 4<<20)
	guard := New(store, 16)
	defer guard.Close()
	key, value := []byte("key"), []byte("value")
	_, word, _ := guard.Get(1, key, 0)
	guard.Fill(1, key, kv.Record{Value: value, Revision: 1}, word)
	store.cache.Wait()
	copy(value, "xxxxx")
	rec, _, hit := guard.Get(1, []byte("key"), 0)
	require.True(t, hit)
	require.Equal(t, "value", string(rec.Value))
	require.Equal(t, len(rec.Value), cap(rec.Value))
}

// TestHashCollision: the store finds an entry under the hash of another key.
func TestHashCollision(t *testing.T) {
	store := newRistretto(t, 4<<20)
	guard := New(store, 1)
	defer guard.Close()
	hash := guard.Hash([]byte("b"))
	e := NewEntry(1, []byte("a"), kv.Record{Value: []byte("of a"), Revision: 1}, 0)
	store.Set(hash, e, e.cost())
	store.cache.Wait()
	_, found := store.Get(hash)
	require.True(t, found)
	_, _, hit := guard.Get(1, []byte("b"), 0)
	require.False(t, hit)
}

func BenchmarkHit(b *testing.B) {
	benchmarkGet(b, fillBenchmark)
}

// BenchmarkHitAlone is one reader's, with a processor of its own.
func BenchmarkHitAlone(b *testing.B) {
	guard, keys := benchmarkGuard(b, fillBenchmark)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		guard.Get(1, keys[i%len(keys)], 0)
	}
}

// BenchmarkMiss finds no key in either part of the store.
func BenchmarkMiss(b *testing.B) {
	benchmarkGet(b, func(*Guard, [][]byte) {})
}

func fillBenchmark(guard *Guard, keys [][]byte) {
	for _, key := range keys {
		_, word, _ := guard.Get(1, key, 0)
		guard.Fill(1, key, kv.Record{Value: make([]byte, 128), Revision: 1}, word)
	}
}

func benchmarkGuard(b *testing.B, prepare func(*Guard, [][]byte)) (*Guard, [][]byte) {
	store := newRistretto(b, 64<<20)
	guard := New(store, 64<<10)
	keys := make([][]byte, 1024)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "benchmark-%06d", i)
	}
	prepare(guard, keys)
	store.cache.Wait()
	return guard, keys
}

func benchmarkGet(b *testing.B, prepare func(*Guard, [][]byte)) {
	guard, keys := benchmarkGuard(b, prepare)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			guard.Get(1, keys[i%len(keys)], 0)
		}
	})
	m := guard.Metrics()
	b.ReportMetric(float64(m.Hits)/float64(m.Hits+m.Misses), "hits/op")
}

// BenchmarkWrite is a writer's share: raise, lower and insert.
func BenchmarkWrite(b *testing.B) {
	store := newRistretto(b, 64<<20)
	guard := New(store, 64<<10)
	defer guard.Close()
	key, rec := []byte("benchmark-000000"), kv.Record{Value: make([]byte, 128), Revision: 1}
	b.ReportAllocs()
	for b.Loop() {
		guard.Lower(guard.Raise(key), 1, key, &rec)
	}
}

// BenchmarkHitWindow hits what Ristretto has not admitted.
func BenchmarkHitWindow(b *testing.B) {
	benchmarkGet(b, fillWindow)
}

// BenchmarkHitWindowAlone is one reader's.
func BenchmarkHitWindowAlone(b *testing.B) {
	guard, keys := benchmarkGuard(b, fillWindow)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		guard.Get(1, keys[i%len(keys)], 0)
	}
}

func fillWindow(guard *Guard, keys [][]byte) {
	guard.store.(*Ristretto).remaining.Store(0)
	fillBenchmark(guard, keys)
}
