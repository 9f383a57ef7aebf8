package cache_test

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/kvdstore/kvd/cache"
	"github.com/kvdstore/kvd/kv"
)

// TestStories plays the interleavings of testdata/: readers and writers move in steps, and the store lets an
// insert in when the story says so.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var s *story
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "new" {
				s = newStory(1)
				if d.HasArg("stripes") {
					s = newStory(number[int](t, d, "stripes"))
				}
				return ""
			}
			return s.run(t, d)
		})
	})
}

// story is a guard, a state store that is a map, and the readers and writers at work.
type story struct {
	guard   *cache.Guard
	store   *heldStore
	data    map[string]kv.Record
	inc     kv.Incarnation
	readers map[string]*storyReader
	writers map[string]*storyWriter
}

type storyReader struct {
	key  string
	inc  kv.Incarnation
	word cache.Word
	rec  kv.Record
	ok   bool
}

type storyWriter struct {
	key    string
	raised cache.Raised
}

func newStory(stripes int) *story {
	store := &heldStore{entries: map[uint64]*cache.Entry{}}
	return &story{
		guard: cache.New(store, stripes), store: store, data: map[string]kv.Record{}, inc: 1,
		readers: map[string]*storyReader{}, writers: map[string]*storyWriter{},
	}
}

func (s *story) run(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "get": // key, as a reader: a hit, or a miss that loads the word.
		r := &storyReader{key: arg(t, d, "key"), inc: s.inc}
		s.readers[arg(t, d, "as")] = r
		var now int64
		if d.HasArg("now") {
			now = number[int64](t, d, "now")
		}
		rec, word, hit := s.guard.Get(r.inc, []byte(r.key), now)
		r.word = word
		if hit {
			return "hit " + show(rec, true)
		}
		return fmt.Sprintf("miss version=%d writers=%d", word.Version(), word.Writers())
	case "read": // The reader looks in the state store.
		r := s.readers[arg(t, d, "as")]
		r.rec, r.ok = s.data[r.key]
		return show(r.rec, r.ok)
	case "fill":
		r := s.readers[arg(t, d, "as")]
		if r.ok {
			s.guard.Fill(r.inc, []byte(r.key), r.rec, r.word)
		}
		return s.store.took()
	case "raise":
		w := &storyWriter{key: arg(t, d, "key")}
		w.raised = s.guard.Raise([]byte(w.key))
		s.writers[arg(t, d, "as")] = w
		return ""
	case "commit": // The batch of a writer is visible: a value, or none for a delete.
		w := s.writers[arg(t, d, "as")]
		if !d.HasArg("value") {
			delete(s.data, w.key)
			return ""
		}
		rec := kv.Record{Value: []byte(arg(t, d, "value")), Revision: number[kv.Revision](t, d, "rev")}
		if d.HasArg("expire") {
			rec.ExpireAt = number[int64](t, d, "expire")
		}
		s.data[w.key] = rec
		return ""
	case "lower": // insert: hands over what the state store holds of the key.
		w := s.writers[arg(t, d, "as")]
		var insert *kv.Record
		if rec, ok := s.data[w.key]; ok && d.HasArg("insert") {
			insert = &rec
		}
		s.guard.Lower(w.raised, s.inc, []byte(w.key), insert)
		return s.store.took()
	case "incarnation":
		s.inc = number[kv.Incarnation](t, d, "is")
		return ""
	case "hold": // From now on the store delays inserts.
		s.store.holding = true
		return ""
	case "deliver": // The store lets the n-th waiting insert in.
		return s.store.deliver(number[int](t, d, "n"))
	case "ingest": // Data that comes without a writer: a snapshot.
		s.data[arg(t, d, "key")] = kv.Record{Value: []byte(arg(t, d, "value")), Revision: number[kv.Revision](t, d, "rev")}
		return ""
	}
	t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
	return ""
}

func arg(t *testing.T, d *datadriven.TestData, name string) string {
	var v string
	d.ScanArgs(t, name, &v)
	return v
}

func number[T ~int | ~int64 | ~uint64](t *testing.T, d *datadriven.TestData, name string) T {
	n, err := strconv.ParseInt(arg(t, d, name), 10, 64)
	if err != nil {
		t.Fatalf("%s: %s: %v", d.Pos, name, err)
	}
	return T(n)
}

func show(rec kv.Record, ok bool) string {
	if !ok {
		return "not found"
	}
	return fmt.Sprintf("%s @%d", rec.Value, rec.Revision)
}

// heldStore is a store whose inserts wait until the test lets them in.
type heldStore struct {
	entries map[uint64]*cache.Entry
	holding bool
	waiting []heldSet
	sets    int
}

type heldSet struct {
	hash  uint64
	entry *cache.Entry
}

func (s *heldStore) Get(hash uint64) (*cache.Entry, bool) {
	e, ok := s.entries[hash]
	return e, ok
}

func (s *heldStore) Set(hash uint64, e *cache.Entry, cost int64) {
	s.sets++
	if s.holding {
		s.waiting = append(s.waiting, heldSet{hash, e})
		return
	}
	s.entries[hash] = e
}

// took tells whether there was a Set since it was last asked.
func (s *heldStore) took() string {
	n := s.sets
	s.sets = 0
	switch {
	case n == 0:
		return "nothing inserted"
	case s.holding:
		return "insert waits"
	}
	return "inserted"
}

func (s *heldStore) deliver(n int) string {
	set := s.waiting[n]
	s.waiting = slices.Delete(s.waiting, n, n+1)
	s.entries[set.hash] = set.entry
	return show(set.entry.Record(), true)
}

func (s *heldStore) Metrics() cache.StoreMetrics { return cache.StoreMetrics{} }

func (s *heldStore) Close() {}
