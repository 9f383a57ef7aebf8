package storage

import (
	"cmp"
	"fmt"

	"github.com/kvdstore/kvd/kv"
)

// onlyRemoves reports whether a write leaves nothing of its group, or as much as there was.
func (w *LogWrite) onlyRemoves() bool {
	return w.Reset == nil && w.Truncate == nil && len(w.Entries) == 0 && w.Hard == nil
}

// after is what a group's state is after a write, its Remove aside. A write that would leave a gap is refused.
func (st LogState) after(w *LogWrite) (LogState, error) {
	if w.Reset != nil {
		st = st.resetTo(*w.Reset)
	}
	if t := w.Truncate; t != nil && t.Index > st.Truncated.Index {
		if t.Index > st.Last {
			return st, fmt.Errorf("%v: truncating at %d a log that ends at %d", w.Group, t.Index, st.Last)
		}
		st.Truncated = *t
	}
	if len(w.Entries) > 0 {
		if err := checkEntries(w, st); err != nil {
			return st, err
		}
		st.Last = kv.Index(w.Entries[len(w.Entries)-1].GetIndex())
	}
	if w.Hard != nil {
		st.Hard = *w.Hard
	}
	return st, nil
}

// resetTo is what a group's state is after a reset: no entry is left (D2).
func (st LogState) resetTo(p Point) LogState {
	last := p.Index
	if mutantOldTailKept && st.Truncated.Index <= p.Index {
		last = max(last, st.Last)
	}
	return LogState{Hard: st.Hard, Truncated: p, Last: last}
}

// checkEntries refuses entries that leave a gap, in themselves or to what is stored.
func checkEntries(w *LogWrite, st LogState) error {
	first := kv.Index(w.Entries[0].GetIndex())
	if first <= st.Truncated.Index || first > st.Last+1 {
		return fmt.Errorf("%v: entries from %d on do not fit a log of (%d, %d]", w.Group, first, st.Truncated.Index, st.Last)
	}
	for i, e := range w.Entries {
		if kv.Index(e.GetIndex()) != first+kv.Index(i) {
			return fmt.Errorf("%v: entry %d follows entry %d", w.Group, e.GetIndex(), first+kv.Index(i)-1)
		}
	}
	return nil
}

func missingEntries(id kv.Group, lo, hi kv.Index) error {
	return fmt.Errorf("%v: the log store does not hold all entries of [%d, %d)", id, lo, hi)
}

func compareGroups(a, b kv.Group) int {
	return cmp.Or(cmp.Compare(a.Shard, b.Shard), cmp.Compare(a.Replica, b.Replica))
}
