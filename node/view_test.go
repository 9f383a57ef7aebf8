package node

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/kvdstore/kvd/cache"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/shard"
	"github.com/kvdstore/kvd/storage"
)

// obedient is a cache that keeps everything, and lets something happen before it answers.
type obedient struct {
	entries map[uint64]*cache.Entry
	onGet   func()
}

func (o *obedient) Get(hash uint64) (*cache.Entry, bool) {
	if o.onGet != nil {
		o.onGet()
	}
	e, ok := o.entries[hash]
	return e, ok
}
func (o *obedient) Set(hash uint64, e *cache.Entry, _ int64) { o.entries[hash] = e }
func (o *obedient) Metrics() cache.StoreMetrics              { return cache.StoreMetrics{} }
func (o *obedient) Close()                                   {}

// watched is a state store beside which something happens: around a commit, and when an iterator is open.
type watched struct {
	storage.State
	around func()
	onIter func()
}

func (w *watched) Commit(b storage.Batch) (storage.Cut, error) {
	if w.around == nil {
		return w.State.Commit(b)
	}
	w.around()
	cut, err := w.State.Commit(b)
	w.around()
	return cut, err
}

func (w *watched) Iter(span kv.Span) (storage.Iterator, error) {
	it, err := w.State.Iter(span)
	if w.onIter != nil {
		w.onIter()
	}
	return it, err
}

// readable is a lone node with a reader on it.
type readable struct {
	*lone
	cache  *obedient
	state  *watched
	reader *Reader
	view   *View
}

func newReadable(t *testing.T) *readable {
	r := &readable{lone: newLone(t), cache: &obedient{entries: map[uint64]*cache.Entry{}}}
	r.state = &watched{State: r.lone.state}
	r.core.Guard, r.core.State = cache.New(r.cache, 16), r.state
	r.view = r.core.groups[1].view
	r.reader = &Reader{Node: 1, Guard: r.core.Guard, State: r.state}
	return r
}

// get reads in steps, with something between them.
func (r *readable) get(key string, proof Proof, between func()) Get {
	g, done := r.reader.Look(r.view, []byte(key), proof)
	if !done {
		between()
		require.NoError(r.t, r.reader.Load(&g, []byte(key)))
		between()
		r.reader.Finish(&g, []byte(key))
	}
	return g
}

// lease makes the node hold a lease.
func (r *readable) lease() {
	a := &answer{}
	r.in.Submissions = append(r.in.Submissions, Submission{Shard: 1, Waiter: a})
	r.tick()
	require.True(r.t, a.done)
	require.NoError(r.t, a.err)
	_, _, until := r.view.Lead()
	require.Greater(r.t, until, r.now)
}

// replacements are what may happen to a replica between two steps of a read of the key k.
var replacements = map[string]struct {
	change func(s *readState)
	ok     bool
}{
	"nothing":                     {func(*readState) {}, true},
	"the lease ends":              {func(s *readState) { s.leader, s.leaseUntil = false, 0 }, true},
	"other data was installed":    {func(s *readState) { s.incarnation++ }, false},
	"other data is installed now": {func(s *readState) { s.installing = true }, false},
	"the key went to another shard": {func(s *readState) {
		narrow := *s.descriptor
		narrow.Span.End = []byte("k")
		s.descriptor = &narrow
	}, false},
}

// TestReadAcrossAReplacement (L8): a read that began on a replica's data tells nothing once the data is another's,
// whether it was found in memory or not.
func TestReadAcrossAReplacement(t *testing.T) {
	for name, test := range replacements {
		t.Run(name, func(t *testing.T) {
			r := newReadable(t)
			require.NoError(t, r.put("k").err)
			change := func() {
				next := *r.view.state.Load()
				test.change(&next)
				r.view.state.Store(&next)
			}
			before := r.view.state.Load()
			r.cache.onGet = change
			g, hit := r.reader.Look(r.view, []byte("k"), ByNothing())
			require.True(t, hit)
			require.Equal(t, test.ok, g.Ok && g.Found)

			r.view.state.Store(before)
			head, known := r.reader.Peek(r.view, []byte("k"))
			require.Equal(t, test.ok, known)
			if known {
				require.Equal(t, g.Record.Head(), head)
			}

			r.view.state.Store(before)
			r.cache.onGet, r.cache.entries = nil, map[uint64]*cache.Entry{}
			require.Equal(t, test.ok, r.get("k", ByNothing(), change).Ok)

			r.view.state.Store(before)
			r.cache.entries = map[uint64]*cache.Entry{}
			missed, done := r.reader.Missed(r.view, []byte("k"), ByNothing())
			require.False(t, done)
			change()
			require.NoError(t, r.reader.Load(&missed, []byte("k")))
			change()
			r.reader.Finish(&missed, []byte("k"))
			require.Equal(t, test.ok, missed.Ok)

			r.view.state.Store(before)
			r.state.onIter = change
			chunk, err := r.reader.Scan(r.view, kv.ScanRequest{})
			require.Equal(t, test.ok, err == nil, "%v", err)
			if test.ok {
				require.Len(t, chunk.Items, 1)
			}
		})
	}
}

// together looks keys up together.
func (r *readable) together(proof Proof, keys ...string) []Read {
	reads := make([]Read, len(keys))
	for i, key := range keys {
		reads[i] = Read{Key: []byte(key), Get: Get{Ok: true, Found: true, Record: kv.Record{Revision: 99}}}
	}
	r.reader.LookAll(newLocals([]*View{r.view}), reads, proof)
	return reads
}

// TestLookAll: it tells what Look tells of each key, of more than are looked up at a time too, and nothing of what is not there.
func TestLookAll(t *testing.T) {
	r := newReadable(t)
	var keys []string
	for i := range 2*together + 3 {
		keys = append(keys, fmt.Sprintf("k%d", i))
		if i%5 != 0 {
			require.NoError(t, r.put(keys[i]).err)
		}
	}
	r.lease()
	for _, key := range keys {
		r.get(key, ByReadIndex(), func() {}) // Then it is in memory: another of its stripe may have been written after it.
	}
	for proof, hits := range map[Proof]int{ByLease(r.now): 53, ByLease(0): 0, ByLease(r.now + time.Hour): 0, ByReadIndex(): 53} {
		for i, x := range r.together(proof, keys...) {
			if x.Ok {
				hits--
			}
			one, done := r.reader.Look(r.view, []byte(keys[i]), proof)
			require.Equal(t, done && one.Ok, x.Ok, "%s by %v", keys[i], proof)
			require.Equal(t, x.Ok, x.Found)
			if x.Ok {
				require.Equal(t, []any{one.Record, one.Header}, []any{x.Record, x.Header})
			} else {
				require.Zero(t, x.Get)
			}
		}
		require.Zero(t, hits)
	}
	narrow := *r.view.state.Load()
	narrow.descriptor = &kv.Descriptor{Shard: 1, Span: kv.Span{End: []byte("k11")}, Epoch: narrow.descriptor.Epoch}
	r.view.state.Store(&narrow)
	got := r.together(ByReadIndex(), "k1", "k2", "k3")
	require.Equal(t, []bool{true, false, false}, []bool{got[0].Ok, got[1].Ok, got[2].Ok}, "two are in another shard")
}

// TestLookAllAcrossAReplacement (L8): as TestReadAcrossAReplacement, for reads that are looked up together.
func TestLookAllAcrossAReplacement(t *testing.T) {
	for name, test := range replacements {
		t.Run(name, func(t *testing.T) {
			r := newReadable(t)
			require.NoError(t, r.put("k").err)
			r.cache.onGet = func() {
				next := *r.view.state.Load()
				test.change(&next)
				r.view.state.Store(&next)
				r.cache.onGet = nil
			}
			for _, x := range r.together(ByNothing(), "k", "k", "k") {
				require.Equal(t, test.ok, x.Ok && x.Found)
			}
		})
	}
}

// TestReadBesideACommit: from before a batch is visible until after it, nothing is served from memory (C1), and a read
// of the store tells a revision that holds what it saw, a delete too (R2).
func TestReadBesideACommit(t *testing.T) {
	r := newReadable(t)
	require.NoError(t, r.put("k").err)
	_, hit := r.reader.Look(r.view, []byte("k"), ByNothing())
	require.True(t, hit)
	var seen []Get
	r.state.around = func() {
		_, hit := r.reader.Look(r.view, []byte("k"), ByNothing())
		require.False(t, hit)
		require.False(t, r.together(ByNothing(), "k")[0].Ok)
		seen = append(seen, r.get("k", ByNothing(), func() {}))
		chunk, err := r.reader.Scan(r.view, kv.ScanRequest{})
		require.NoError(t, err)
		require.Equal(t, seen[len(seen)-1].Header.Revision, chunk.Header.Revision)
	}
	require.NoError(t, r.put("k").err)
	require.Len(t, seen, 2)
	require.Equal(t, kv.Revision(1), seen[0].Record.Revision)
	require.Equal(t, kv.Revision(2), seen[1].Record.Revision)
	require.Equal(t, kv.Revision(2), seen[1].Header.Revision)

	seen = nil
	require.NoError(t, r.submit(&kv.Command{Op: kv.OpDelete, Key: []byte("k")}).err)
	require.Len(t, seen, 2)
	require.True(t, seen[0].Found)
	require.False(t, seen[1].Found)
	require.Equal(t, kv.Revision(3), seen[1].Header.Revision)
}

// TestWritesOfOneKeyInATurn (C3): of several in a step, the last alone goes into memory.
func TestWritesOfOneKeyInATurn(t *testing.T) {
	r := newReadable(t)
	for _, value := range []string{"first", "second", "last"} {
		c := &kv.Command{Op: kv.OpPut, Key: []byte("k"), Value: []byte(value)}
		r.in.Submissions = append(r.in.Submissions, Submission{Shard: 1, Command: shard.EncodeCommand(c), Bytes: c.Size(), Waiter: &answer{}})
	}
	r.tick()
	require.Len(t, r.cache.entries, 1)
	g, hit := r.reader.Look(r.view, []byte("k"), ByNothing())
	require.True(t, hit)
	require.Equal(t, "last", string(g.Record.Value))
	require.Equal(t, kv.Revision(3), g.Record.Revision)
}

// TestClockIsReadForTheRead: a process that was stopped for longer than its lease wakes with a read, before any turn.
func TestClockIsReadForTheRead(t *testing.T) {
	r := newReadable(t)
	r.lease()
	require.True(t, r.get("k", ByLease(r.now), func() {}).Ok)
	require.False(t, r.get("k", ByLease(0), func() {}).Ok, "nobody has read the clock")
	_, _, until := r.view.Lead()
	r.now = until - 1
	require.True(t, r.get("k", ByLease(r.now), func() {}).Ok)
	r.now = until
	require.False(t, r.get("k", ByLease(r.now), func() {}).Ok)
	require.True(t, r.get("k", ByReadIndex(), func() {}).Ok)
}

// TestClockOnTheStack: the clock is read for the reads of each message, and a read from memory allocates nothing.
func TestClockOnTheStack(t *testing.T) {
	require.Zero(t, testing.AllocsPerRun(1000, func() { bootTime() }))
}

// TestSuspendEndsALease: a machine that slept wakes without its lease, although its monotonic clock stood still.
func TestSuspendEndsALease(t *testing.T) {
	r := newReadable(t)
	var slept time.Duration
	clockGettime = func(clock int32) (unix.Timespec, error) {
		now := r.now
		if clock == unix.CLOCK_BOOTTIME {
			now += slept
		}
		return unix.NsecToTimespec(int64(now)), nil
	}
	t.Cleanup(func() { clockGettime = systemClock })
	r.lease()
	require.True(t, r.get("k", ByLease(bootTime()), func() {}).Ok)
	slept = time.Hour
	require.False(t, r.get("k", ByLease(bootTime()), func() {}).Ok)
}

// TestMissCountsOnce: a read that has not found its key in memory does not look there again, nor count twice; what it reads is as
// good as after a look.
func TestMissCountsOnce(t *testing.T) {
	r := newReadable(t)
	require.NoError(t, r.put("k").err)
	r.lease()
	r.cache.entries = map[uint64]*cache.Entry{}
	before := r.core.Guard.Metrics().Misses
	_, done := r.reader.Look(r.view, []byte("k"), ByLease(r.now))
	require.False(t, done)
	r.cache.onGet = func() { t.Error("it looks again") }
	g, done := r.reader.Missed(r.view, []byte("k"), ByLease(r.now))
	require.False(t, done)
	require.NoError(t, r.reader.Load(&g, []byte("k")))
	r.reader.Finish(&g, []byte("k"))
	require.True(t, g.Ok && g.Found)
	require.Equal(t, before+1, r.core.Guard.Metrics().Misses)
	r.cache.onGet = nil
	_, hit := r.reader.Look(r.view, []byte("k"), ByLease(r.now))
	require.True(t, hit, "it was put into memory")

	r.now += time.Hour
	g, done = r.reader.Missed(r.view, []byte("k"), ByLease(r.now))
	require.True(t, done)
	require.False(t, g.Ok, "there is no lease")
}

// TestMissBesideAWrite (C2): what a read that does not look again puts into memory is never what a write has replaced.
func TestMissBesideAWrite(t *testing.T) {
	for at := range 4 {
		r := newReadable(t)
		require.NoError(t, r.put("k").err)
		write := func(step int) {
			if step == at {
				require.NoError(t, r.put("k").err)
				r.cache.entries = map[uint64]*cache.Entry{} // As if what it has put there had been dropped.
			}
		}
		r.cache.entries = map[uint64]*cache.Entry{}
		write(0)
		g, done := r.reader.Missed(r.view, []byte("k"), ByNothing())
		require.False(t, done)
		write(1)
		require.NoError(t, r.reader.Load(&g, []byte("k")))
		write(2)
		r.reader.Finish(&g, []byte("k"))
		write(3)
		require.True(t, g.Ok && g.Found)
		next, hit := r.reader.Look(r.view, []byte("k"), ByNothing())
		require.Equal(t, at == 0, hit)
		if hit {
			require.Equal(t, kv.Revision(2), next.Record.Revision)
		}
	}
}

// TestBlocksBesideMemtables: with two memtables in each store, Pebble has a sixteenth of the memory left for blocks.
func TestBlocksBesideMemtables(t *testing.T) {
	for _, memory := range []int64{320 << 20, 1 << 30, 16 << 30} {
		require.GreaterOrEqual(t, blockBytes(memory)-2*2*memtableBytes(memory), memory/16)
	}
}
