package storage

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// One suite for every engine: a model with crashes at any moment. After a crash the state store is at a cut that is no
// earlier than the last one known to be durable (T2), an ingest is there whole or not at all and everything before it
// is there too (D1, D2), and what was opened before is dead.

type crashState interface {
	State
	Crasher
}

var stateEngines = map[string]func(testing.TB) crashState{
	"memory": func(testing.TB) crashState { return NewMemState() },
	"pebble": func(t testing.TB) crashState {
		s, err := NewCrashState(options(t, nil, "state"))
		require.NoError(t, err)
		return s
	},
}

// stateModel is what a state store should hold.
type stateModel struct {
	data    map[string]kv.Record
	due     map[string]kv.Due
	shards  map[kv.ShardID]uint64 // Their applied indexes.
	removed map[kv.ShardID]kv.ReplicaID
}

func newStateModel() stateModel {
	return stateModel{
		data: map[string]kv.Record{}, due: map[string]kv.Due{}, shards: map[kv.ShardID]uint64{}, removed: map[kv.ShardID]kv.ReplicaID{},
	}
}

func (m stateModel) clone() stateModel {
	return stateModel{
		data: maps.Clone(m.data), due: maps.Clone(m.due), shards: maps.Clone(m.shards), removed: maps.Clone(m.removed),
	}
}

func (m stateModel) putDue(d kv.Due)    { m.due[fmt.Sprintf("%d %s", d.ExpireAt, d.Key)] = d }
func (m stateModel) deleteDue(d kv.Due) { delete(m.due, fmt.Sprintf("%d %s", d.ExpireAt, d.Key)) }

func (m stateModel) deleteSpan(span kv.Span) {
	maps.DeleteFunc(m.data, func(key string, _ kv.Record) bool { return span.Contains([]byte(key)) })
}

func (m stateModel) putTombstone(g kv.Group) { m.removed[g.Shard] = max(m.removed[g.Shard], g.Replica) }

func (m stateModel) dues() []kv.Due {
	return slices.SortedFunc(maps.Values(m.due), func(a, b kv.Due) int {
		if lessDue(a, b) {
			return -1
		}
		return 1
	})
}

func (m stateModel) pairs(span kv.Span) []string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(m.data)) {
		if span.Contains([]byte(key)) {
			list = append(list, pair([]byte(key), m.data[key]))
		}
	}
	return list
}

func pair(key []byte, rec kv.Record) string {
	return fmt.Sprintf("%s=%x@%d!%d", key, rec.Value, rec.Revision, rec.ExpireAt)
}

func pairsOf(t require.TestingT, r Reader, span kv.Span) []string {
	it, err := r.Iter(span)
	require.NoError(t, err)
	var list []string
	for it.Next() {
		rec, err := it.Record()
		require.NoError(t, err)
		list = append(list, pair(it.Key(), rec))
	}
	require.NoError(t, it.Close())
	return list
}

// openedView is a view, and what it should show.
type openedView struct {
	view  View
	shard kv.ShardID
	span  kv.Span
	model stateModel
}

type stateRun struct {
	s     crashState
	now   stateModel
	cuts  []stateModel // The last one that is durable, and those after it.
	cut   Cut
	views []openedView
}

func drawKey(t *rapid.T) []byte {
	return []byte(rapid.StringMatching(`[abc][0-9]{0,1}`).Draw(t, "key"))
}

func drawRecord(t *rapid.T) kv.Record {
	return kv.Record{
		Value:    rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "value"),
		Revision: kv.Revision(rapid.Uint64().Draw(t, "revision")),
		ExpireAt: rapid.SampledFrom([]int64{0, 0, 1, 7, 500, math.MaxInt64}).Draw(t, "expiry"),
	}
}

func drawSpan(t *rapid.T) kv.Span {
	span := kv.Span{Start: drawKey(t), End: drawKey(t)}
	if rapid.Bool().Draw(t, "no start") {
		span.Start = nil
	}
	if rapid.Bool().Draw(t, "no end") {
		span.End = nil
	}
	return span
}

func drawRemoved(t *rapid.T) kv.Group {
	return kv.Group{
		Shard: kv.ShardID(rapid.IntRange(1, 3).Draw(t, "shard")), Replica: kv.ReplicaID(rapid.IntRange(1, 300).Draw(t, "replica")),
	}
}

func (r *stateRun) commit(t *rapid.T) {
	b, next := r.s.NewBatch(), r.now.clone()
	require.True(t, b.Empty())
	ops, without := rapid.IntRange(0, 6).Draw(t, "operations"), 0
	for range ops {
		key, rec := drawKey(t), drawRecord(t)
		due := kv.Due{ExpireAt: rec.ExpireAt, Key: key}
		switch rapid.IntRange(0, 10).Draw(t, "operation") {
		case 0:
			b.Delete(key)
			delete(next.data, string(key))
		case 1:
			b.PutDue(due)
			next.putDue(due)
		case 2:
			b.DeleteDue(due)
			next.deleteDue(due)
		case 3:
			shard, st := kv.ShardID(rapid.IntRange(0, 2).Draw(t, "shard")), &kvdv1.ShardState{AppliedIndex: uint64(rec.Revision)}
			b.PutShard(shard, st)
			next.shards[shard] = st.AppliedIndex
			st.AppliedIndex = 0 // The store has no part in what the caller does later.
		case 4:
			span := drawSpan(t)
			own := kv.Span{Start: bytes.Clone(span.Start), End: bytes.Clone(span.End)}
			b.DeleteSpan(own)
			clear(own.Start)
			clear(own.End)
			next.deleteSpan(span)
			if span.Empty() {
				without++
			}
		case 5:
			shard := kv.ShardID(rapid.IntRange(0, 2).Draw(t, "shard"))
			b.RemoveShard(shard)
			delete(next.shards, shard)
		case 6:
			g := drawRemoved(t)
			b.PutTombstone(g.Shard, g.Replica)
			next.putTombstone(g)
		default:
			own := bytes.Clone(rec.Value)
			b.Put(key, kv.Record{Value: own, Revision: rec.Revision, ExpireAt: rec.ExpireAt})
			clear(own)
			next.data[string(key)] = rec
		}
	}
	require.Equal(t, ops == without, b.Empty())
	cut, err := r.s.Commit(b)
	require.NoError(t, err)
	r.cut++
	require.Equal(t, r.cut, cut)
	_, err = r.s.Commit(b)
	require.ErrorIs(t, err, ErrClosed, "a batch is used up")
	r.now = next
	r.cuts = append(r.cuts, next)
}

func (r *stateRun) sync(t *rapid.T) {
	cut, err := r.s.Sync()
	require.NoError(t, err)
	require.Equal(t, r.cut, cut)
	require.Equal(t, r.cut, r.s.Durable())
	r.cuts = []stateModel{r.now}
}

func (r *stateRun) ingest(t *rapid.T) {
	span := rapid.SampledFrom([]kv.Span{spanB, {Start: []byte("c")}, {End: []byte("b")}}).Draw(t, "span")
	shard := kv.ShardID(rapid.IntRange(0, 2).Draw(t, "shard"))
	in, err := r.s.NewIngest(shard, span)
	require.NoError(t, err)
	next := r.now.clone()
	replaced, wider := span, drawSpan(t)
	if rapid.Bool().Draw(t, "wider") {
		fits := shard != kv.MetaShard && !wider.Empty() && wider.ContainsSpan(span)
		require.Equal(t, fits, in.Replace(wider) == nil)
		if fits {
			replaced = wider
		}
	}
	if shard != kv.MetaShard {
		next.deleteSpan(replaced)
	}
	absorbed := rapid.SliceOfN(rapid.Custom(drawRemoved), 0, 3).Draw(t, "absorbed")
	for _, g := range absorbed {
		require.Equal(t, g.Shard != shard, in.Remove(g) == nil)
		if g.Shard != shard {
			delete(next.shards, g.Shard)
			next.putTombstone(g)
		}
	}
	keys := rapid.SliceOfNDistinct(rapid.Custom(drawKey), 0, 5, func(key []byte) string { return string(key) }).Draw(t, "keys")
	slices.SortFunc(keys, bytes.Compare)
	for _, key := range keys {
		rec := drawRecord(t)
		err := in.Put(key, rec)
		if !span.Contains(key) {
			require.Error(t, err)
			continue
		}
		require.NoError(t, err)
		if shard == kv.MetaShard {
			continue
		}
		next.data[string(key)] = rec
		if rec.ExpireAt != 0 {
			next.putDue(kv.Due{ExpireAt: rec.ExpireAt, Key: key})
		}
	}
	switch rapid.IntRange(0, 4).Draw(t, "end") {
	case 0:
		in.Abort()
	case 1:
		r.crash(t)
		require.ErrorIs(t, in.Put([]byte("b9"), kv.Record{}), ErrClosed)
		require.ErrorIs(t, in.Replace(kv.Span{}), ErrClosed)
		require.ErrorIs(t, in.Remove(kv.Group{Shard: 4, Replica: 1}), ErrClosed)
		require.ErrorIs(t, in.Commit(&kvdv1.ShardState{}), ErrClosed)
		in.Abort()
	default:
		applied := rapid.Uint64().Draw(t, "applied")
		require.NoError(t, in.Commit(&kvdv1.ShardState{AppliedIndex: applied}))
		in.Abort()
		next.shards[shard] = applied
		r.now, r.cuts = next, []stateModel{next}
		require.Equal(t, r.cut, r.s.Durable())
	}
}

func (r *stateRun) openView(t *rapid.T) {
	if len(r.views) == 3 {
		t.Skip("enough are open")
	}
	o := openedView{shard: kv.ShardID(rapid.IntRange(0, 2).Draw(t, "shard")), span: drawSpan(t), model: r.now}
	var err error
	o.view, err = r.s.View(o.shard, o.span)
	require.NoError(t, err)
	r.views = append(r.views, o)
}

func (r *stateRun) readView(t *rapid.T) {
	if len(r.views) == 0 {
		t.Skip("none is open")
	}
	i := rapid.IntRange(0, len(r.views)-1).Draw(t, "view")
	o := r.views[i]
	applied, there := o.model.shards[o.shard]
	require.Equal(t, there, o.view.State() != nil)
	require.Equal(t, applied, o.view.State().GetAppliedIndex())
	span := drawSpan(t)
	require.Equal(t, o.model.pairs(span.Intersect(o.span)), pairsOf(t, o.view, span))
	key := drawKey(t)
	want, there := o.model.data[string(key)]
	rec, ok, err := o.view.Get(key)
	require.NoError(t, err)
	require.Equal(t, there && o.span.Contains(key), ok)
	if ok {
		require.Equal(t, pair(key, want), pair(key, rec))
	}
	if rapid.Bool().Draw(t, "close") {
		require.NoError(t, o.view.Close())
		r.views = slices.Delete(r.views, i, i+1)
	}
}

// crash crashes with views and an iterator open, and a batch begun.
func (r *stateRun) crash(t *rapid.T) {
	it, err := r.s.Iter(kv.Span{})
	require.NoError(t, err)
	it.Next()
	b := r.s.NewBatch()
	b.Put([]byte("a"), kv.Record{})
	kept := -1
	require.NoError(t, r.s.Crash(func(n int) int {
		require.Less(t, n, len(r.cuts), "more is not durable than was committed")
		k := rapid.IntRange(0, n).Draw(t, "kept")
		kept = len(r.cuts) - 1 - n + k
		return k
	}))
	r.now = r.cuts[kept]
	r.cuts, r.cut = []stateModel{r.now}, 0
	require.Zero(t, r.s.Durable())

	require.False(t, it.Next())
	require.ErrorIs(t, it.Close(), ErrClosed)
	_, err = r.s.Commit(b)
	require.ErrorIs(t, err, ErrClosed)
	for _, o := range r.views {
		_, _, err := o.view.Get([]byte("a"))
		require.ErrorIs(t, err, ErrClosed)
		require.NoError(t, o.view.Close())
	}
	r.views = nil
}

func (r *stateRun) read(t *rapid.T) {
	key := drawKey(t)
	want, there := r.now.data[string(key)]
	rec, ok, err := r.s.Get(key)
	require.NoError(t, err)
	require.Equal(t, there, ok)
	if ok {
		require.Equal(t, pair(key, want), pair(key, rec))
		clear(rec.Value) // It is the caller's.
	}
	for key, want := range r.now.data { // Some of it is remembered, and some is not.
		head, ok, err := r.s.Head([]byte(key))
		require.NoError(t, err)
		require.True(t, ok, key)
		require.Equal(t, want.Head(), head, key)
	}
	head, ok, err := r.s.Head(key)
	require.NoError(t, err)
	require.Equal(t, there, ok)
	require.Equal(t, want.Head(), head)
	span, from := drawSpan(t), drawKey(t)
	it, err := r.s.Iter(span)
	require.NoError(t, err)
	var seen []string
	for ok := it.Seek(from); ok; ok = it.Next() {
		rec, err := it.Record()
		require.NoError(t, err)
		seen = append(seen, pair(it.Key(), rec))
	}
	require.NoError(t, it.Close())
	require.Equal(t, r.now.pairs(span.Intersect(kv.Span{Start: from})), seen)
}

func (r *stateRun) due(t *rapid.T) {
	from := kv.Due{ExpireAt: drawRecord(t).ExpireAt, Key: drawKey(t)}
	time := rapid.SampledFrom([]int64{0, 1, 6, 7, 499, 1000, math.MaxInt64}).Draw(t, "time")
	n, stop := rapid.IntRange(0, 5).Draw(t, "n"), rapid.IntRange(1, 6).Draw(t, "stop")
	var want, seen []kv.Due
	all := true
	for _, d := range r.now.dues() {
		if !lessDue(from, d) || d.ExpireAt > time {
			continue
		}
		if len(want) == n || len(want) == stop {
			all = false
			break
		}
		want = append(want, d)
	}
	if len(want) == stop {
		all = false // Whoever says stop is not told whether that was all.
	}
	last := from
	if len(want) > 0 {
		last = want[len(want)-1]
	}
	gotLast, gotAll, err := r.s.Due(from, time, n, func(d kv.Due) bool {
		seen = append(seen, d)
		return len(seen) < stop
	})
	require.NoError(t, err)
	require.Equal(t, want, seen)
	require.Equal(t, last, gotLast)
	require.Equal(t, all, gotAll)
}

// check compares everything.
func (r *stateRun) check(t *rapid.T) {
	require.Equal(t, r.now.pairs(kv.Span{}), pairsOf(t, r.s, kv.Span{}))
	shards, err := r.s.Shards()
	require.NoError(t, err)
	got := map[kv.ShardID]uint64{}
	for _, record := range shards {
		got[record.Shard] = record.State.AppliedIndex
	}
	require.Equal(t, r.now.shards, got)
	removed, err := r.s.Tombstones()
	require.NoError(t, err)
	require.Equal(t, r.now.removed, removed)
	require.True(t, slices.IsSortedFunc(shards, func(a, b *ShardRecord) int { return int(a.Shard) - int(b.Shard) }))
	var dues []kv.Due
	_, all, err := r.s.Due(kv.Due{}, math.MaxInt64, math.MaxInt, func(d kv.Due) bool { dues = append(dues, d); return true })
	require.NoError(t, err)
	require.True(t, all)
	want := slices.DeleteFunc(r.now.dues(), func(d kv.Due) bool { return !lessDue(kv.Due{}, d) })
	require.Equal(t, want, dues)
}

func TestStates(t *testing.T) {
	for name, open := range stateEngines {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				r := &stateRun{s: open(t), now: newStateModel(), cuts: []stateModel{newStateModel()}}
				rt.Repeat(map[string]func(*rapid.T){
					"": r.check, "commit": r.commit, "sync": r.sync, "ingest": r.ingest, "crash": r.crash, "read": r.read, "due": r.due,
					"open a view": r.openView, "read a view": r.readView,
				})
				for _, o := range r.views {
					require.NoError(rt, o.view.Close())
				}
				require.NoError(rt, r.s.Close())
			})
		})
	}
}

// TestBatchOrder: the operations of a batch take effect in the order of the calls; a deleted span takes what was put
// before, in earlier batches and in its own, and nothing that comes after; the index of expiries is not its business.
func TestBatchOrder(t *testing.T) {
	for name, open := range stateEngines {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			put := func(b Batch, keys ...string) {
				for _, key := range keys {
					b.Put([]byte(key), kv.Record{Value: []byte(key), ExpireAt: 7})
					b.PutDue(kv.Due{ExpireAt: 7, Key: []byte(key)})
				}
			}
			b := s.NewBatch()
			put(b, "a", "b", "b5", "c")
			b.PutShard(1, &kvdv1.ShardState{AppliedIndex: 1})
			b.PutShard(2, &kvdv1.ShardState{AppliedIndex: 2})
			_, err := s.Commit(b)
			require.NoError(t, err)

			b = s.NewBatch()
			put(b, "a1", "b1", "b2")
			b.DeleteSpan(kv.Span{Start: []byte("b"), End: []byte("b")}) // Of no keys.
			b.RemoveShard(1)
			b.RemoveShard(2)
			b.RemoveShard(9) // There is none.
			b.PutShard(2, &kvdv1.ShardState{AppliedIndex: 22})
			require.False(t, b.Empty())
			b.DeleteSpan(spanB)
			put(b, "b2", "b3")
			b.PutTombstone(1, 300)
			b.PutTombstone(1, 5)
			b.PutTombstone(2, 1)
			_, err = s.Commit(b)
			require.NoError(t, err)

			var keys, due []string
			it, err := s.Iter(kv.Span{})
			require.NoError(t, err)
			for it.Next() {
				keys = append(keys, string(it.Key()))
			}
			require.NoError(t, it.Close())
			require.Equal(t, []string{"a", "a1", "b2", "b3", "c"}, keys)
			_, _, err = s.Due(kv.Due{}, 7, 100, func(d kv.Due) bool { due = append(due, string(d.Key)); return true })
			require.NoError(t, err)
			require.Equal(t, []string{"a", "a1", "b", "b1", "b2", "b3", "b5", "c"}, due)
			shards, err := s.Shards()
			require.NoError(t, err)
			require.Len(t, shards, 1)
			require.EqualValues(t, 22, shards[0].State.AppliedIndex)
			removed, err := s.Tombstones()
			require.NoError(t, err)
			require.Equal(t, map[kv.ShardID]kv.ReplicaID{1: 300, 2: 1}, removed)
			require.NoError(t, s.Close())
		})
	}
}

// TestHashSeesEverything: every kind of content is in the hash, and equal contents of both engines have the same.
func TestHashSeesEverything(t *testing.T) {
	seen := map[string][]uint64{}
	for name, open := range stateEngines {
		s := open(t)
		for i, f := range []func(Batch){
			func(Batch) {},
			func(b Batch) { b.Put([]byte("a"), kv.Record{Value: []byte("x")}) },
			func(b Batch) { b.Put([]byte("a"), kv.Record{Value: []byte("y")}) },
			func(b Batch) { b.Put([]byte("a"), kv.Record{Value: []byte("y"), Revision: 1}) },
			func(b Batch) { b.Put([]byte("a"), kv.Record{Value: []byte("y"), Revision: 1, ExpireAt: 1}) },
			func(b Batch) { b.PutDue(kv.Due{ExpireAt: 1, Key: []byte("a")}) },
			func(b Batch) { b.PutShard(1, &kvdv1.ShardState{AppliedIndex: 1}) },
			func(b Batch) { b.PutTombstone(1, 1) },
			func(b Batch) { b.PutTombstone(1, 2) },
		} {
			b := s.NewBatch()
			f(b)
			_, err := s.Commit(b)
			require.NoError(t, err)
			h, err := s.Hash()
			require.NoError(t, err)
			require.NotContains(t, seen[name], h, "change %d is not seen", i)
			seen[name] = append(seen[name], h)
		}
		require.NoError(t, s.Close())
	}
	require.Equal(t, seen["memory"], seen["pebble"])
}

// TestUnsyncedRotation: so much is written without a sync that Pebble begins another log by itself. A crash keeps no
// less than what is durable, and the wrapper says how much that is.
func TestUnsyncedRotation(t *testing.T) {
	s, err := NewCrashState(options(t, vfs.NewMem(), "state"))
	require.NoError(t, err)
	const commits = 200
	for i := range commits {
		b := s.NewBatch()
		b.Put([]byte("a"), kv.Record{Value: make([]byte, 10_000), Revision: kv.Revision(i + 1)})
		_, err := s.Commit(b)
		require.NoError(t, err)
	}
	asked := -1
	require.NoError(t, s.Crash(func(n int) int { asked = n; return 1 }))
	require.Less(t, asked, commits, "no log was begun: the test writes too little")
	rec, ok, err := s.Get([]byte("a"))
	require.NoError(t, err)
	require.True(t, ok)
	require.EqualValues(t, commits-asked+1, rec.Revision)
	require.NoError(t, s.Close())
}
