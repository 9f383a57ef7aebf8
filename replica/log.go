package replica

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kvdstore/kvd/kv"
)

// Store reads the entries of a group that were written to the log store.
type Store interface {
	// Entries reads [lo, hi) as far as they fit in maxBytes of payload, at least one. The entries are the caller's.
	Entries(g kv.Group, lo, hi kv.Index, maxBytes uint64) ([]*raftpb.Entry, error)
}

// Log is the log of one group as raft reads it (raft.Storage): a stored part, and in front of it the newest
// entries, decoded, in memory.
//
// An entry enters the tail when raft hands it out to be written, before it is on disk. That is no promise:
// raft keeps reading its own unstable copy until the write is done, and applies only what is stable (T5). It
// leaves the tail when it was applied, and so written, and is not wanted for a follower.
type Log struct {
	group kv.Group
	store Store
	hard  *raftpb.HardState
	conf  *raftpb.ConfState

	truncated     kv.Index
	truncatedTerm kv.Term
	last          kv.Index

	tail      []*raftpb.Entry // Consecutive, up to last; may be empty.
	tailBytes uint64
	// terms tells the terms of the entries from the first's index up to last, also where they left the tail: raft asks for the
	// one before what it sends or takes each time.
	terms []termStart

	// snapshot describes the state machine as it is applied now, or says that none can be sent.
	snapshot func() (*raftpb.Snapshot, error)
}

var _ raft.Storage = (*Log)(nil)

// LogStart is what a Log begins with: what the stores hold of the group.
type LogStart struct {
	Group         kv.Group
	Store         Store
	Hard          *raftpb.HardState
	Conf          *raftpb.ConfState
	Truncated     kv.Index
	TruncatedTerm kv.Term
	Last          kv.Index
	Snapshot      func() (*raftpb.Snapshot, error)
}

// termStart says that the entries from an index on, up to the next one's, are of a term.
type termStart struct {
	from kv.Index
	term uint64
}

// termStartsMax bounds the terms that a log remembers: for older entries the store is asked.
const termStartsMax = 16

// NewLog makes the log of a group. Nothing is read from the store yet.
func NewLog(s LogStart) *Log {
	return &Log{
		group: s.Group, store: s.Store, hard: s.Hard, conf: s.Conf,
		truncated: s.Truncated, truncatedTerm: s.TruncatedTerm, last: s.Last, snapshot: s.Snapshot,
	}
}

// InitialState is raft's question at its start.
func (l *Log) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	return l.hard, raftpb.EnsureConfState(l.conf), nil
}

// FirstIndex is the index of the first entry that is not truncated.
func (l *Log) FirstIndex() (uint64, error) { return uint64(l.truncated) + 1, nil }

// LastIndex is the index of the last entry, or the truncated index when there is none.
func (l *Log) LastIndex() (uint64, error) { return uint64(l.last), nil }

// Snapshot describes what a follower that is too far behind is sent instead of entries.
func (l *Log) Snapshot() (*raftpb.Snapshot, error) { return l.snapshot() }

// Term is the term of the entry at i, which lies from the truncated index to the last.
func (l *Log) Term(i uint64) (uint64, error) {
	index := kv.Index(i)
	switch {
	case index < l.truncated:
		return 0, raft.ErrCompacted
	case index == l.truncated:
		return uint64(l.truncatedTerm), nil
	case index > l.last:
		return 0, raft.ErrUnavailable
	case index >= l.tailFirst():
		return l.tail[index-l.tailFirst()].GetTerm(), nil
	}
	for _, start := range slices.Backward(l.terms) {
		if index >= start.from {
			return start.term, nil
		}
	}
	entries, err := l.stored(index, index+1, 0)
	if err != nil {
		return 0, err
	}
	return entries[0].GetTerm(), nil
}

// Entries gives [lo, hi) as far as they fit in maxBytes, at least one.
func (l *Log) Entries(lo, hi, maxBytes uint64) ([]*raftpb.Entry, error) {
	if kv.Index(lo) <= l.truncated {
		return nil, raft.ErrCompacted
	}
	if lo >= hi || kv.Index(hi) > l.last+1 {
		return nil, raft.ErrUnavailable
	}
	first := l.tailFirst()
	if kv.Index(lo) < first {
		return l.stored(kv.Index(lo), min(kv.Index(hi), first), maxBytes)
	}
	entries := l.tail[kv.Index(lo)-first : kv.Index(hi)-first]
	size := uint64(0)
	for i, e := range entries {
		size += uint64(len(e.GetData()))
		if i > 0 && size > maxBytes {
			entries = entries[:i]
			break
		}
	}
	return entries[:len(entries):len(entries)], nil
}

// stored reads what lies below the tail, and checks that the store kept it.
func (l *Log) stored(lo, hi kv.Index, maxBytes uint64) ([]*raftpb.Entry, error) {
	entries, err := l.store.Entries(l.group, lo, hi, maxBytes)
	if err != nil {
		return nil, fmt.Errorf("read entries [%d, %d) of %v: %w", lo, hi, l.group, err)
	}
	if len(entries) == 0 || kv.Index(entries[0].GetIndex()) != lo {
		return nil, fmt.Errorf("read entries [%d, %d) of %v: the store has a gap", lo, hi, l.group)
	}
	return entries, nil
}

// tailFirst is the index of the first entry of the tail, or of the next entry when it is empty.
func (l *Log) tailFirst() kv.Index { return l.last + 1 - kv.Index(len(l.tail)) }

// Append takes what raft handed out to be written: entries that follow the log without a gap, or replace its
// end from their first index on. The entries are shared with raft and never changed.
func (l *Log) Append(entries []*raftpb.Entry) {
	if len(entries) == 0 {
		return
	}
	first := kv.Index(entries[0].GetIndex())
	if first <= l.truncated || first > l.last+1 {
		panic(fmt.Sprintf("%v: appending at %d to a log of (%d, %d]", l.group, first, l.truncated, l.last))
	}
	if tailFirst := l.tailFirst(); first < tailFirst {
		l.tail, l.tailBytes = nil, 0
	} else if kept := first - tailFirst; kept < kv.Index(len(l.tail)) {
		for _, e := range l.tail[kept:] {
			l.tailBytes -= uint64(len(e.GetData()))
		}
		// Slices that Entries gave out share the array: what replaces them goes into another.
		l.tail = l.tail[:kept:kept]
	}
	l.tail = append(l.tail, entries...)
	for len(l.terms) > 0 && l.terms[len(l.terms)-1].from >= first {
		l.terms = l.terms[:len(l.terms)-1]
	}
	for _, e := range entries {
		l.tailBytes += uint64(len(e.GetData()))
		if n := len(l.terms); n == 0 || l.terms[n-1].term != e.GetTerm() {
			l.terms = append(l.terms, termStart{kv.Index(e.GetIndex()), e.GetTerm()})
		}
	}
	l.terms = slices.Delete(l.terms, 0, max(len(l.terms)-termStartsMax, 0))
	l.last = kv.Index(entries[len(entries)-1].GetIndex())
}

// Release drops from memory the entries at or below applied, which are on disk: those at or below wanted at
// once, the rest of them while the tail is above its bound (kv.LogTailBytesMax).
func (l *Log) Release(applied, wanted kv.Index) {
	n := 0
	for first := l.tailFirst(); n < len(l.tail); n++ {
		index := first + kv.Index(n)
		if index > applied || index > wanted && l.tailBytes <= kv.LogTailBytesMax {
			break
		}
		l.tailBytes -= uint64(len(l.tail[n].GetData()))
	}
	if n == 0 {
		return
	}
	l.tail = append(make([]*raftpb.Entry, 0, len(l.tail)-n), l.tail[n:]...)
}

// Truncate forgets the entries at or below index, whose term is term. The caller has asked that what replaces
// them is durable in the state store (T6), and writes the same to the log store.
func (l *Log) Truncate(index kv.Index, term kv.Term) {
	if index <= l.truncated {
		return
	}
	if index > l.last {
		panic(fmt.Sprintf("%v: truncating at %d a log of (%d, %d]", l.group, index, l.truncated, l.last))
	}
	l.Release(index, index)
	l.truncated, l.truncatedTerm = index, term
}

// Reset empties the log: the state is a snapshot at this point (D2).
func (l *Log) Reset(index kv.Index, term kv.Term) {
	l.tail, l.tailBytes, l.terms = nil, 0, nil
	l.truncated, l.truncatedTerm, l.last = index, term, index
}

// TailBytes is the payload that the tail keeps in memory.
func (l *Log) TailBytes() uint64 { return l.tailBytes }
