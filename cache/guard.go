package cache

import (
	"fmt"
	"math/bits"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/kvdstore/kvd/kv"
)

const (
	// StripesMax bounds the table of words to 1 GiB.
	StripesMax = 128 << 20
	// stripeEvery is of how many bytes of the cache each has a stripe, of 8. So there are three to five stripes for each entry,
	// and with 90 % reads and 10 % writes of zipfian keys, all of which it holds, less than 1 % of the reads miss because
	// of another key of the same stripe; with one stripe for each it were 2 to 3 % (docs/performance.md).
	stripeEvery, stripeBytes = 96, 8
	// BytesMin is the smallest cache there is.
	BytesMin = 1 << 20
)

// Store keeps entries by hash, as well as it likes: it may drop, delay or reorder inserts and forget entries, and Get may return
// what was given to Set under another hash, though it seldom should. All methods may be called by any goroutine, beside
// Close too; after Close, Get finds nothing and Set does nothing.
type Store interface {
	Get(hash uint64) (*Entry, bool)
	// Set offers an entry; cost is its size in bytes.
	Set(hash uint64, e *Entry, cost int64)
	Metrics() StoreMetrics
	Close()
}

// StoreMetrics describes a store.
type StoreMetrics struct {
	// Bytes and CapacityBytes are the cost of what is held, and its bound.
	Bytes, CapacityBytes int64
	// Dropped counts inserts that were refused because too many were waiting.
	Dropped uint64
}

// Metrics describes a Guard and its store.
type Metrics struct {
	Hits, Misses uint64
	// Stale counts the misses in which the store had an entry of the key that was no longer current.
	Stale uint64
	Store StoreMetrics
}

// Guard serves entries of a store, and only current ones.
type Guard struct {
	store   Store
	stripes []atomic.Uint64
	count   lanes
}

// New puts a guard in front of a store, with 1 to StripesMax stripes.
func New(store Store, stripes int) *Guard {
	return &Guard{store: store, stripes: make([]atomic.Uint64, min(max(stripes, 1), StripesMax))}
}

// Open puts a guard in front of Ristretto; together they take at most about maxBytes.
func Open(maxBytes int64) (*Guard, error) {
	if maxBytes < BytesMin {
		return nil, &kv.InvalidError{Field: "cache bytes", Bound: fmt.Sprintf("at least %d, is %d", BytesMin, maxBytes)}
	}
	stripes := min(maxBytes/stripeEvery, StripesMax)
	store, err := NewRistretto(maxBytes - stripes*stripeBytes)
	if err != nil {
		return nil, err
	}
	return New(store, int(stripes)), nil
}

// Hash is the hash under which the store knows a key. It also picks the key's stripe.
func (g *Guard) Hash(key []byte) uint64 { return xxhash.Sum64(key) }

// stripe is chosen by the high bits of a hash: the low ones choose a part of Ristretto's map.
func (g *Guard) stripe(hash uint64) *atomic.Uint64 {
	n, _ := bits.Mul64(hash, uint64(len(g.stripes)))
	return &g.stripes[n]
}

// Get looks a key up (C2). The caller has checked its lease, and compares the published read state again
// afterwards (L8); inc is the incarnation of that read state, now the shard's time in Unix milliseconds.
//
// On a hit the record is current as of some moment within the call; its value is shared and read-only. On a miss
// the caller reads the state store and hands what it found to Fill, together with word. No lock of the guard is
// taken, and nothing is allocated.
func (g *Guard) Get(inc kv.Incarnation, key []byte, now int64) (rec kv.Record, word Word, hit bool) {
	hash := g.Hash(key)
	word = Word(g.stripe(hash).Load())
	if word.Writers() != 0 && !mutantWithoutStamps {
		g.count.miss(false)
		return kv.Record{}, word, false
	}
	e, _ := g.store.Get(hash)
	rec, hit = g.judge(e, inc, key, now, word)
	return rec, word, hit
}

// Peek is Get by one who wants to know what is in the state store, not to serve it: a record is told also when its time is over, and
// nothing is counted.
func (g *Guard) Peek(inc kv.Incarnation, key []byte) (rec kv.Record, hit bool) {
	hash := g.Hash(key)
	word := Word(g.stripe(hash).Load())
	if word.Writers() != 0 {
		return kv.Record{}, false
	}
	e, _ := g.store.Get(hash)
	if !e.holds(inc, key) || e.word != word {
		return kv.Record{}, false
	}
	return e.Record(), true
}

// judge tells whether what the store has found, if not nil, is the key's and current by the word of its stripe, which was loaded
// in this call or the one that asks.
func (g *Guard) judge(e *Entry, inc kv.Incarnation, key []byte, now int64, word Word) (rec kv.Record, hit bool) {
	if !e.holds(inc, key) {
		g.count.miss(false)
		return kv.Record{}, false
	}
	if rec = e.Record(); rec.ExpiredAt(now) {
		g.count.miss(false)
		return kv.Record{}, false
	}
	if e.word != word && !mutantWithoutStamps {
		g.count.miss(true)
		return kv.Record{}, false
	}
	g.count.hit()
	return rec, true
}

// Sought is a key that is looked up beside others: Seek and then Take do together what Get does.
type Sought struct {
	// Key is what is sought; an empty one is passed over.
	Key   []byte
	hash  uint64
	entry *Entry
	// seen is there to have the memory read that Take will look at.
	seen uint64
}

// Seek looks for the entries of some tens of keys. What one step asks of the memory for all of them is on its way at the same time,
// where one Get after the other waits for it several times each. (A hit's word is loaded by Take. That its entry was found
// before makes no difference: it never changes, and what it has of a word holds while the stripe has that one.)
func (g *Guard) Seek(keys []Sought) {
	for i := range keys {
		keys[i].hash = g.Hash(keys[i].Key)
	}
	for i := range keys {
		keys[i].seen = g.stripe(keys[i].hash).Load()
	}
	for i := range keys {
		if s := &keys[i]; len(s.Key) > 0 {
			s.entry, _ = g.store.Get(s.hash)
		}
	}
	for i := range keys {
		if e := keys[i].entry; e != nil {
			keys[i].seen += uint64(e.word)
		}
	}
	for i := range keys {
		if e := keys[i].entry; e != nil {
			keys[i].seen += uint64(e.last())
		}
	}
}

// Take ends it, with what Get gives.
func (g *Guard) Take(s *Sought, inc kv.Incarnation, now int64) (rec kv.Record, word Word, hit bool) {
	word = Word(g.stripe(s.hash).Load())
	if word.Writers() != 0 && !mutantWithoutStamps {
		g.count.miss(false)
		return kv.Record{}, word, false
	}
	rec, hit = g.judge(s.entry, inc, s.Key, now, word)
	return rec, word, hit
}

// Word is the word of a key's stripe, for who is not to look the key up: it goes on as after a miss.
func (g *Guard) Word(key []byte) Word { return Word(g.stripe(g.Hash(key)).Load()) }

// Fill offers what a reader found in the state store after a miss: word is the one that Get returned, loaded
// before that read, and inc the same incarnation. Nothing is inserted if a writer was at work then, or has been
// since. Key and value are copied.
func (g *Guard) Fill(inc kv.Incarnation, key []byte, rec kv.Record, word Word) {
	hash := g.Hash(key)
	if !mutantWithoutStamps && (word.Writers() != 0 || Word(g.stripe(hash).Load()) != word) {
		return
	}
	g.insert(hash, inc, key, rec, word)
}

// Raised is a writer's claim on a stripe, from Raise to Lower.
type Raised struct {
	hash uint64
	word Word // As Raise left it.
}

// Raise announces a change of key, before the batch with it becomes visible (C1). From here until Lower, no key
// of the stripe is served from the cache. Each Raise is followed by exactly one Lower. A batch that changes a key
// several times raises it once.
func (g *Guard) Raise(key []byte) Raised {
	hash := g.Hash(key)
	stripe := g.stripe(hash)
	for {
		old := Word(stripe.Load())
		if raised := old.raised(); stripe.CompareAndSwap(uint64(old), uint64(raised)) {
			return Raised{hash: hash, word: raised}
		}
	}
}

// Lower ends what Raise began, after the batch is visible: the count falls and the version rises in one step
// (C1). insert is the key's last value in the batch, or nil when there is none to keep (a delete, or a follower);
// it goes in only if nobody else touched the stripe since Raise (C3). Key and value are copied.
func (g *Guard) Lower(r Raised, inc kv.Incarnation, key []byte, insert *kv.Record) {
	stripe := g.stripe(r.hash)
	var old, lowered Word
	for {
		old = Word(stripe.Load())
		if old.Writers() == 0 {
			panic(fmt.Sprintf("cache: a stripe was lowered that nobody raised (key %s)", kv.FormatKey(key)))
		}
		lowered = old.lowered()
		if stripe.CompareAndSwap(uint64(old), uint64(lowered)) {
			break
		}
	}
	alone := old == r.word && lowered.Writers() == 0
	if insert != nil && (alone || mutantWithoutStamps) {
		g.insert(r.hash, inc, key, *insert, lowered)
	}
}

// insert offers a copy: a value often lies within a much larger one (a log entry), which the cache would otherwise keep alive
// without counting it.
func (g *Guard) insert(hash uint64, inc kv.Incarnation, key []byte, rec kv.Record, word Word) {
	e := NewEntry(inc, key, rec, word)
	g.store.Set(hash, e, e.cost())
}

// Metrics describes the guard and its store.
func (g *Guard) Metrics() Metrics {
	m := g.count.sum()
	m.Store = g.store.Metrics()
	return m
}

// Close closes the store. Calls that come later miss and insert nothing.
func (g *Guard) Close() { g.store.Close() }

// Stripes is how many there are.
func (g *Guard) Stripes() int { return len(g.stripes) }
