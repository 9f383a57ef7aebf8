package storage

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kvdstore/kvd/kv"
)

// MemLog is a log store in memory, for the simulator: what was not synced is lost in a Crash.
type MemLog struct {
	mu sync.Mutex
	// now is what readers see: durable, and then the writes of unsynced.
	now, durable map[kv.Group]*memGroup
	unsynced     [][]LogWrite
}

var (
	_ Log     = (*MemLog)(nil)
	_ Crasher = (*MemLog)(nil)
)

// memGroup is one group's log. Entries lie above truncated, without a gap.
type memGroup struct {
	hard      HardState
	truncated Point
	entries   []*raftpb.Entry
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
	if !ok {
		return LogState{}, false, nil
	}
	return LogState{Hard: g.hard, Truncated: g.truncated, Last: g.last()}, true, nil
}

func (g *memGroup) last() kv.Index { return g.truncated.Index + kv.Index(len(g.entries)) }

// Entries reads the entries [lo, hi) as far as they fit in maxBytes of payload, at least one.
func (l *MemLog) Entries(id kv.Group, lo, hi kv.Index, maxBytes uint64) ([]*raftpb.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.now[id]
	if g == nil || lo <= g.truncated.Index || hi > g.last()+1 || lo >= hi {
		return nil, missingEntries(id, lo, hi)
	}
	entries := g.entries[lo-g.truncated.Index-1 : hi-g.truncated.Index-1]
	size := uint64(0)
	for i, e := range entries {
		size += uint64(len(e.GetData()))
		if i > 0 && size > maxBytes {
			entries = entries[:i]
			break
		}
	}
	return slices.Clone(entries), nil
}

// Write makes all of it take effect; with sync it and everything before is durable.
func (l *MemLog) Write(writes []LogWrite, sync bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := applyWrites(l.now, writes); err != nil {
		return err
	}
	l.unsynced = append(l.unsynced, slices.Clone(writes))
	if sync {
		return l.keep(len(l.unsynced))
	}
	return nil
}

// keep makes the first n unsynced writes durable.
func (l *MemLog) keep(n int) error {
	for _, writes := range l.unsynced[:n] {
		if err := applyWrites(l.durable, writes); err != nil {
			return err
		}
	}
	l.unsynced = slices.Delete(l.unsynced, 0, n)
	return nil
}

// Crash forgets what was not synced, but for a beginning of it.
func (l *MemLog) Crash(keep func(n int) int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.keep(keep(len(l.unsynced))); err != nil {
		return err
	}
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

func applyWrites(groups map[kv.Group]*memGroup, writes []LogWrite) error {
	for i := range writes {
		w := &writes[i]
		if w.Remove {
			delete(groups, w.Group)
		}
		if w.Reset == nil && w.Truncate == nil && len(w.Entries) == 0 && w.Hard == nil {
			continue
		}
		g := groups[w.Group]
		if g == nil {
			g = &memGroup{}
			groups[w.Group] = g
		}
		if err := g.apply(w); err != nil {
			return err
		}
	}
	return nil
}

func (g *memGroup) apply(w *LogWrite) error {
	if w.Reset != nil {
		g.truncated, g.entries = *w.Reset, nil
	}
	if t := w.Truncate; t != nil && t.Index > g.truncated.Index {
		if t.Index > g.last() {
			return pastEnd(w.Group, t.Index, g.last())
		}
		g.entries = slices.Clone(g.entries[t.Index-g.truncated.Index:])
		g.truncated = *t
	}
	if len(w.Entries) > 0 {
		if err := checkEntries(w, g.truncated.Index, g.last()); err != nil {
			return err
		}
		kept := kv.Index(w.Entries[0].GetIndex()) - g.truncated.Index - 1
		g.entries = append(g.entries[:kept:kept], w.Entries...)
	}
	if w.Hard != nil {
		g.hard = *w.Hard
	}
	return nil
}

// checkEntries refuses entries that leave a gap, in themselves or to a log that holds (truncated, last].
func checkEntries(w *LogWrite, truncated, last kv.Index) error {
	first := kv.Index(w.Entries[0].GetIndex())
	if first <= truncated || first > last+1 {
		return fmt.Errorf("%v: entries from %d on do not fit a log of (%d, %d]", w.Group, first, truncated, last)
	}
	for i, e := range w.Entries {
		if kv.Index(e.GetIndex()) != first+kv.Index(i) {
			return fmt.Errorf("%v: entry %d follows entry %d", w.Group, e.GetIndex(), first+kv.Index(i)-1)
		}
	}
	return nil
}

func pastEnd(id kv.Group, index, last kv.Index) error {
	return fmt.Errorf("%v: truncating at %d a log that ends at %d", id, index, last)
}

func missingEntries(id kv.Group, lo, hi kv.Index) error {
	return fmt.Errorf("%v: the log store does not hold all entries of [%d, %d)", id, lo, hi)
}

func compareGroups(a, b kv.Group) int {
	if a.Shard != b.Shard {
		if a.Shard < b.Shard {
			return -1
		}
		return 1
	}
	switch {
	case a.Replica < b.Replica:
		return -1
	case a.Replica > b.Replica:
		return 1
	}
	return 0
}

// hashLog is a checksum over what a log store holds.
func hashLog(l Log) (uint64, error) {
	groups, err := l.Groups()
	if err != nil {
		return 0, err
	}
	h := xxhash.New()
	add := func(numbers ...uint64) {
		for _, n := range numbers {
			_, _ = h.Write(binary.BigEndian.AppendUint64(nil, n))
		}
	}
	for _, id := range groups {
		st, _, err := l.Load(id)
		if err != nil {
			return 0, err
		}
		add(uint64(id.Shard), uint64(id.Replica), uint64(st.Hard.Term), uint64(st.Hard.Vote), uint64(st.Hard.Commit),
			uint64(st.Truncated.Index), uint64(st.Truncated.Term), uint64(st.Last))
		for lo := st.Truncated.Index + 1; lo <= st.Last; {
			entries, err := l.Entries(id, lo, st.Last+1, 1<<20)
			if err != nil {
				return 0, err
			}
			for _, e := range entries {
				add(e.GetIndex(), e.GetTerm(), uint64(e.GetType()), uint64(len(e.GetData())))
				_, _ = h.Write(e.GetData())
			}
			lo += kv.Index(len(entries))
		}
	}
	return h.Sum64(), nil
}
