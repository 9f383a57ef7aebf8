package storage

import (
	"bytes"
	"maps"
	"slices"
	"sync"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kvdstore/kvd/kv"
)

// MemLog is a log store in memory, for the simulator: what was not synced is lost in a Crash. It shares no memory with
// its callers.
type MemLog struct {
	mu sync.Mutex
	// now is what readers see: durable, and then the writes of unsynced.
	now, durable map[kv.Group]*memGroup
	unsynced     [][]memWrite
}

var (
	_ Log     = (*MemLog)(nil)
	_ Crasher = (*MemLog)(nil)
)

// memGroup is one group's log. Entries lie above truncated, without a gap.
type memGroup struct {
	hard      HardState
	truncated Point
	entries   []memEntry
}

// memEntry is an entry without its index. Its data is never changed.
type memEntry struct {
	kind raftpb.EntryType
	term uint64
	data []byte
}

// memWrite is a LogWrite with entries of the store's own.
type memWrite struct {
	LogWrite
	first   kv.Index
	entries []memEntry
}

// NewMemLog makes an empty log store.
func NewMemLog() *MemLog {
	return &MemLog{now: map[kv.Group]*memGroup{}, durable: map[kv.Group]*memGroup{}}
}

// Groups lists the groups that the store holds anything of, in order.
func (l *MemLog) Groups() ([]kv.Group, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.SortedFunc(maps.Keys(l.now), compareGroups), nil
}

// Load reads a group's state.
func (l *MemLog) Load(id kv.Group) (LogState, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g, ok := l.now[id]
	return g.state(), ok, nil
}

func (g *memGroup) state() LogState {
	if g == nil {
		return LogState{}
	}
	return LogState{Hard: g.hard, Truncated: g.truncated, Last: g.truncated.Index + kv.Index(len(g.entries))}
}

// Entries reads the entries [lo, hi) as far as they fit in maxBytes of payload, at least one.
func (l *MemLog) Entries(id kv.Group, lo, hi kv.Index, maxBytes uint64) ([]*raftpb.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.now[id]
	if st := g.state(); lo <= st.Truncated.Index || hi > st.Last+1 || lo >= hi {
		return nil, missingEntries(id, lo, hi)
	}
	var entries []*raftpb.Entry
	size := uint64(0)
	for i, e := range g.entries[lo-g.truncated.Index-1 : hi-g.truncated.Index-1] {
		if size += uint64(len(e.data)); i > 0 && size > maxBytes {
			break
		}
		entries = append(entries, &raftpb.Entry{
			Type: e.kind.Enum(), Index: new(uint64(lo) + uint64(i)), Term: new(e.term), Data: bytes.Clone(e.data),
		})
	}
	return entries, nil
}

// Write makes all of it take effect; with sync it and everything before is durable. A refused one changes nothing.
func (l *MemLog) Write(writes []LogWrite, sync bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.check(writes); err != nil {
		return err
	}
	own := make([]memWrite, len(writes))
	for i, w := range writes {
		own[i] = ownWrite(w)
	}
	applyWrites(l.now, own)
	l.unsynced = append(l.unsynced, own)
	if sync {
		l.keep(len(l.unsynced))
	}
	return nil
}

// check refuses what would leave a gap.
func (l *MemLog) check(writes []LogWrite) error {
	states := map[kv.Group]LogState{}
	for i := range writes {
		w := &writes[i]
		st, seen := states[w.Group]
		if !seen {
			st = l.now[w.Group].state()
		}
		if w.Remove {
			st = LogState{}
		}
		next, err := st.after(w)
		if err != nil {
			return err
		}
		states[w.Group] = next
	}
	return nil
}

// ownWrite copies a write's entries.
func ownWrite(w LogWrite) memWrite {
	own := memWrite{LogWrite: w}
	if len(w.Entries) > 0 {
		own.first = kv.Index(w.Entries[0].GetIndex())
		own.entries = make([]memEntry, len(w.Entries))
	}
	for i, e := range w.Entries {
		own.entries[i] = memEntry{kind: e.GetType(), term: e.GetTerm()}
		if len(e.GetData()) > 0 {
			own.entries[i].data = bytes.Clone(e.GetData())
		}
	}
	own.Entries = nil
	if w.Hard != nil {
		own.Hard = new(*w.Hard)
	}
	if w.Reset != nil {
		own.Reset = new(*w.Reset)
	}
	if w.Truncate != nil {
		own.Truncate = new(*w.Truncate)
	}
	return own
}

// keep makes the first n unsynced writes durable.
func (l *MemLog) keep(n int) {
	for _, writes := range l.unsynced[:n] {
		applyWrites(l.durable, writes)
	}
	l.unsynced = slices.Delete(l.unsynced, 0, n)
}

// Crash forgets what was not synced, but for a beginning of it.
func (l *MemLog) Crash(keep func(n int) int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keep(keep(len(l.unsynced)))
	l.unsynced = nil
	l.now = map[kv.Group]*memGroup{}
	for id, g := range l.durable {
		l.now[id] = &memGroup{hard: g.hard, truncated: g.truncated, entries: slices.Clone(g.entries)}
	}
	return nil
}

// Hash is a checksum over the contents.
func (l *MemLog) Hash() (uint64, error) { return hashLog(l) }

// Close does nothing.
func (l *MemLog) Close() error { return nil }

func applyWrites(groups map[kv.Group]*memGroup, writes []memWrite) {
	for i := range writes {
		w := &writes[i]
		if w.Remove {
			delete(groups, w.Group)
		}
		if len(w.entries) == 0 && w.onlyRemoves() {
			continue
		}
		g := groups[w.Group]
		if g == nil {
			g = &memGroup{}
			groups[w.Group] = g
		}
		g.apply(w)
	}
}

func (g *memGroup) apply(w *memWrite) {
	if w.Reset != nil {
		kept := g.state().resetTo(*w.Reset).Last - w.Reset.Index
		g.truncated, g.entries = *w.Reset, slices.Clone(g.entries[len(g.entries)-int(kept):])
	}
	if t := w.Truncate; t != nil && t.Index > g.truncated.Index {
		g.entries = slices.Clone(g.entries[t.Index-g.truncated.Index:])
		g.truncated = *t
	}
	if len(w.entries) > 0 {
		g.entries = append(g.entries[:w.first-g.truncated.Index-1], w.entries...)
	}
	if w.Hard != nil {
		g.hard = *w.Hard
	}
}
