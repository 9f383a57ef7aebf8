package storage

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"pgregory.net/rapid"

	"github.com/kvdstore/kvd/kv"
)

// One suite for every engine: a model with crashes at any moment. What was synced is there after a crash, and of the rest
// a beginning, in order; a write that is refused changes nothing.

type crashLog interface {
	Log
	Crasher
}

var logEngines = map[string]func(testing.TB) crashLog{
	"memory": func(testing.TB) crashLog { return NewMemLog() },
	"pebble": func(t testing.TB) crashLog {
		l, err := NewCrashLog(options(t, nil, "log"))
		require.NoError(t, err)
		return l
	},
}

// modelGroup is what the log store should hold of a group; entries is never changed in place.
type modelGroup struct {
	hard      HardState
	truncated Point
	entries   []string
}

func (g modelGroup) last() kv.Index { return g.truncated.Index + kv.Index(len(g.entries)) }

type logModel map[kv.Group]modelGroup

type logRun struct {
	l      crashLog
	now    logModel
	writes []logModel // The last one that is durable, and those after it.
}

func tell(e *raftpb.Entry) string {
	return fmt.Sprintf("%v %d %x", e.GetType(), e.GetTerm(), e.GetData())
}

func drawEntry(t *rapid.T, index kv.Index) *raftpb.Entry {
	return &raftpb.Entry{
		Type:  rapid.SampledFrom([]raftpb.EntryType{raftpb.EntryNormal, raftpb.EntryConfChange, raftpb.EntryConfChangeV2}).Draw(t, "type").Enum(),
		Index: new(uint64(index)), Term: new(rapid.Uint64().Draw(t, "term")), Data: rapid.SliceOfN(rapid.Byte(), 0, 30).Draw(t, "data"),
	}
}

func drawGroup(t *rapid.T) kv.Group {
	return kv.Group{Shard: kv.ShardID(rapid.IntRange(0, 2).Draw(t, "shard")), Replica: kv.ReplicaID(rapid.IntRange(1, 2).Draw(t, "replica"))}
}

// drawWrite makes a write that fits the model, and changes the model by it.
func drawWrite(t *rapid.T, m logModel) LogWrite {
	w := LogWrite{Group: drawGroup(t)}
	g, there := m[w.Group]
	if rapid.IntRange(0, 9).Draw(t, "remove") == 0 {
		w.Remove, g, there = true, modelGroup{}, false
	}
	if rapid.IntRange(0, 7).Draw(t, "reset") == 0 {
		w.Reset = &Point{Index: kv.Index(rapid.IntRange(1, 30).Draw(t, "index")), Term: kv.Term(rapid.Uint64().Draw(t, "term"))}
		g.truncated, g.entries, there = *w.Reset, nil, true
	}
	if rapid.IntRange(0, 4).Draw(t, "truncate") == 0 {
		w.Truncate = &Point{Index: kv.Index(rapid.IntRange(0, int(g.last())).Draw(t, "index")), Term: kv.Term(rapid.Uint64().Draw(t, "term"))}
		if there = true; w.Truncate.Index > g.truncated.Index {
			g.entries, g.truncated = g.entries[w.Truncate.Index-g.truncated.Index:], *w.Truncate
		}
	}
	if n := rapid.IntRange(0, 4).Draw(t, "entries"); n > 0 {
		first := g.truncated.Index + 1 + kv.Index(rapid.IntRange(0, len(g.entries)).Draw(t, "first"))
		g.entries, there = slices.Clone(g.entries[:first-g.truncated.Index-1]), true
		for i := range kv.Index(n) {
			e := drawEntry(t, first+i)
			w.Entries, g.entries = append(w.Entries, e), append(g.entries, tell(e))
		}
	}
	if rapid.Bool().Draw(t, "hard") {
		w.Hard = &HardState{Term: kv.Term(rapid.Uint64().Draw(t, "term")), Vote: 1, Commit: kv.Index(rapid.IntRange(0, 30).Draw(t, "commit"))}
		g.hard, there = *w.Hard, true
	}
	if delete(m, w.Group); there {
		m[w.Group] = g
	}
	return w
}

func (r *logRun) write(t *rapid.T) {
	next := maps.Clone(r.now)
	var writes []LogWrite
	for range rapid.IntRange(0, 4).Draw(t, "writes") {
		writes = append(writes, drawWrite(t, next))
	}
	sync := rapid.IntRange(0, 2).Draw(t, "sync") == 0
	require.NoError(t, r.l.Write(writes, sync))
	for _, w := range writes { // The store has no part in what the caller does later.
		for _, e := range w.Entries {
			clear(e.Data)
			*e.Term = 0
		}
	}
	r.now = next
	r.writes = append(r.writes, next)
	if sync {
		r.writes = []logModel{next}
	}
}

// refused writes something good and, last, something that would leave a gap.
func (r *logRun) refused(t *rapid.T) {
	next := maps.Clone(r.now)
	good := drawWrite(t, next)
	bad := LogWrite{Group: drawGroup(t)}
	g := next[bad.Group]
	switch rapid.IntRange(0, 3).Draw(t, "gap") {
	case 0:
		bad.Entries = []*raftpb.Entry{drawEntry(t, g.last()+2)}
	case 1:
		bad.Entries = []*raftpb.Entry{drawEntry(t, g.truncated.Index)}
	case 2:
		bad.Entries = []*raftpb.Entry{drawEntry(t, g.last()+1), drawEntry(t, g.last()+3)}
	case 3:
		bad.Truncate = &Point{Index: g.last() + 1}
	}
	require.ErrorContains(t, r.l.Write([]LogWrite{good, bad}, true), bad.Group.String())
}

func (r *logRun) read(t *rapid.T) {
	id := drawGroup(t)
	g := r.now[id]
	lo := kv.Index(rapid.IntRange(0, int(g.last())+2).Draw(t, "lo"))
	hi := kv.Index(rapid.IntRange(0, int(g.last())+2).Draw(t, "hi"))
	maxBytes := uint64(rapid.IntRange(0, 60).Draw(t, "bytes"))
	entries, err := r.l.Entries(id, lo, hi, maxBytes)
	if lo <= g.truncated.Index || hi > g.last()+1 || lo >= hi {
		require.ErrorContains(t, err, id.String())
		return
	}
	require.NoError(t, err)
	size := uint64(0)
	for i, e := range entries {
		require.EqualValues(t, lo+kv.Index(i), e.GetIndex())
		require.Equal(t, g.entries[lo-g.truncated.Index-1+kv.Index(i)], tell(e))
		size += uint64(len(e.GetData()))
		clear(e.Data) // They are the caller's.
		*e.Term = 0
	}
	require.NotEmpty(t, entries)
	require.True(t, len(entries) == 1 || size <= maxBytes)
	if next := lo + kv.Index(len(entries)); next < hi {
		more, err := r.l.Entries(id, next, next+1, 0)
		require.NoError(t, err)
		require.Greater(t, size+uint64(len(more[0].GetData())), maxBytes, "another entry had room")
	}
}

func (r *logRun) crash(t *rapid.T) {
	kept := -1
	require.NoError(t, r.l.Crash(func(n int) int {
		require.Less(t, n, len(r.writes), "more is not durable than was written")
		k := rapid.IntRange(0, n).Draw(t, "kept")
		kept = len(r.writes) - 1 - n + k
		return k
	}))
	r.now = r.writes[kept]
	r.writes = []logModel{r.now}
}

// check compares everything.
func (r *logRun) check(t *rapid.T) {
	groups, err := r.l.Groups()
	require.NoError(t, err)
	require.True(t, slices.IsSortedFunc(groups, compareGroups))
	require.Len(t, groups, len(r.now))
	for _, id := range groups {
		g := r.now[id]
		st, ok, err := r.l.Load(id)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, LogState{Hard: g.hard, Truncated: g.truncated, Last: g.last()}, st)
		if len(g.entries) == 0 {
			continue
		}
		entries, err := r.l.Entries(id, g.truncated.Index+1, g.last()+1, 1<<20)
		require.NoError(t, err)
		require.Len(t, entries, len(g.entries))
		for i, e := range entries {
			require.Equal(t, g.entries[i], tell(e))
		}
	}
	_, ok, err := r.l.Load(kv.Group{Shard: 99, Replica: 1})
	require.NoError(t, err)
	require.False(t, ok)
}

func TestLogs(t *testing.T) {
	for name, open := range logEngines {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				r := &logRun{l: open(t), now: logModel{}, writes: []logModel{{}}}
				rt.Repeat(map[string]func(*rapid.T){
					"": r.check, "write": r.write, "a refused write": r.refused, "read": r.read, "crash": r.crash,
				})
				require.NoError(rt, r.l.Close())
			})
		})
	}
}

// TestSyncOfNothing: a synced write without anything in it makes the earlier ones durable.
func TestSyncOfNothing(t *testing.T) {
	for name, open := range logEngines {
		t.Run(name, func(t *testing.T) {
			l := open(t)
			id := kv.Group{Shard: 1, Replica: 1}
			require.NoError(t, l.Write([]LogWrite{{Group: id, Reset: &Point{Index: 10, Term: 5}}}, false))
			require.NoError(t, l.Write(nil, true))
			require.NoError(t, l.Crash(func(n int) int {
				require.Zero(t, n)
				return 0
			}))
			_, ok, err := l.Load(id)
			require.NoError(t, err)
			require.True(t, ok)
			require.NoError(t, l.Close())
		})
	}
}

// TestLogRecordOnceABatch: the writes of several turns that share a sync put a group's record once, and only where it has changed.
func TestLogRecordOnceABatch(t *testing.T) {
	l, err := OpenLog(options(t, vfs.NewMem(), "log"))
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	a, b := kv.Group{Shard: 1, Replica: 2}, kv.Group{Shard: 2, Replica: 3}
	write := func(id kv.Group, index uint64, commit kv.Index) LogWrite {
		return LogWrite{Group: id, Entries: []*raftpb.Entry{{Index: &index, Term: new(uint64(1))}}, Hard: &HardState{Term: 1, Commit: commit}}
	}
	puts := func(writes ...LogWrite) uint32 {
		batch, err := l.prepare(writes)
		require.NoError(t, err)
		n := batch.Count()
		require.NoError(t, l.commit(batch, true))
		return n
	}
	require.EqualValues(t, 5, puts(write(a, 1, 0), write(b, 1, 0), write(a, 2, 1)))
	require.EqualValues(t, 5, puts(write(a, 3, 2), write(a, 4, 3), write(a, 5, 4), write(a, 6, 4)))
	require.EqualValues(t, 1, puts(LogWrite{Group: a, Entries: []*raftpb.Entry{{Index: new(uint64(7)), Term: new(uint64(1))}}}))
	// What is removed and made again has one again, also as it was before.
	require.EqualValues(t, 3, puts(LogWrite{Group: a, Remove: true}, write(a, 1, 4)))
	st, ok, err := l.Load(a)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, LogState{Hard: HardState{Term: 1, Commit: 4}, Last: 1}, st)
	require.EqualValues(t, 2, puts(write(a, 2, 5), LogWrite{Group: a, Remove: true}))
	_, ok, err = l.Load(a)
	require.NoError(t, err)
	require.False(t, ok)
}

// BenchmarkLogWrite is what the writes of four turns of so many groups, which share a sync, cost beside the disk.
func BenchmarkLogWrite(b *testing.B) {
	for _, groups := range []int{1, 14, 57} {
		b.Run(fmt.Sprint(groups), func(b *testing.B) {
			l, err := OpenLog(options(b, vfs.NewMem(), "log"))
			require.NoError(b, err)
			defer func() { require.NoError(b, l.Close()) }()
			data, index := make([]byte, 400), uint64(0)
			b.ReportAllocs()
			for b.Loop() {
				var writes []LogWrite
				for range 4 {
					index++
					for g := range groups {
						writes = append(writes, LogWrite{
							Group: kv.Group{Shard: kv.ShardID(g + 1), Replica: 1}, Hard: &HardState{Term: 1, Commit: kv.Index(index - 1)},
							Entries: []*raftpb.Entry{{Index: new(index), Term: new(uint64(1)), Data: data}},
						})
					}
				}
				require.NoError(b, l.Write(writes, true))
			}
		})
	}
}
