package replica

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"pgregory.net/rapid"

	"github.com/kvdstore/kvd/kv"
)

// written is a store that holds what the log was given, as the log writer would have written it.
type written map[kv.Index]*raftpb.Entry

func (w written) Entries(_ kv.Group, lo, hi kv.Index, maxBytes uint64) ([]*raftpb.Entry, error) {
	var entries []*raftpb.Entry
	size := uint64(0)
	for i := lo; i < hi; i++ {
		e, ok := w[i]
		if !ok {
			return nil, fmt.Errorf("no entry at %d", i)
		}
		if size += uint64(len(e.GetData())); len(entries) > 0 && size > maxBytes {
			break
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func newEntry(index kv.Index, term kv.Term, size int) *raftpb.Entry {
	return &raftpb.Entry{Index: new(uint64(index)), Term: new(uint64(term)), Data: make([]byte, size)}
}

// TestLogAgainstModel does what a replica does to a log, in any order, and compares every answer with a plain list.
func TestLogAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := written{}
		log := NewLog(LogStart{Store: store, Truncated: kv.BirthIndex, TruncatedTerm: kv.BirthTerm, Last: kv.BirthIndex})
		model := map[kv.Index]kv.Term{kv.BirthIndex: kv.BirthTerm}
		truncated, last, applied, term := kv.BirthIndex, kv.BirthIndex, kv.BirthIndex, kv.BirthTerm
		type given struct{ slice, copied []*raftpb.Entry }
		var out []given
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				first := kv.Index(rapid.Uint64Range(uint64(applied)+1, uint64(last)+1).Draw(t, "first"))
				term += kv.Term(rapid.IntRange(0, 1).Draw(t, "new term"))
				var entries []*raftpb.Entry
				for i := range kv.Index(rapid.IntRange(1, 4).Draw(t, "n")) {
					entries = append(entries, newEntry(first+i, term, rapid.IntRange(0, 9).Draw(t, "size")))
				}
				log.Append(entries)
				for i := first; i <= last; i++ {
					delete(store, i)
					delete(model, i)
				}
				for _, e := range entries {
					last = kv.Index(e.GetIndex())
					store[last], model[last] = e, kv.Term(e.GetTerm())
				}
			},
			"apply": func(t *rapid.T) {
				applied = kv.Index(rapid.Uint64Range(uint64(applied), uint64(last)).Draw(t, "applied"))
				wanted := kv.Index(rapid.Uint64Range(uint64(truncated), uint64(last)).Draw(t, "wanted"))
				log.Release(applied, wanted)
			},
			"truncate": func(t *rapid.T) {
				truncated = kv.Index(rapid.Uint64Range(uint64(truncated), uint64(applied)).Draw(t, "truncated"))
				log.Truncate(truncated, model[truncated])
				for i := range store {
					if i <= truncated {
						delete(store, i)
					}
				}
			},
			"reset": func(t *rapid.T) {
				last += kv.Index(rapid.IntRange(1, 5).Draw(t, "ahead"))
				truncated, applied = last, last
				clear(store)
				model = map[kv.Index]kv.Term{last: term}
				log.Reset(last, term)
			},
			"read": func(t *rapid.T) {
				if truncated == last {
					return
				}
				lo := rapid.Uint64Range(uint64(truncated)+1, uint64(last)).Draw(t, "lo")
				hi := rapid.Uint64Range(lo+1, uint64(last)+1).Draw(t, "hi")
				most := rapid.Uint64Range(0, 40).Draw(t, "bytes")
				entries, err := log.Entries(lo, hi, most)
				if err != nil || len(entries) == 0 {
					t.Fatalf("Entries(%d, %d) = %v, %v", lo, hi, entries, err)
				}
				size := 0
				for i, e := range entries {
					if size += len(e.GetData()); e != store[kv.Index(lo)+kv.Index(i)] || i > 0 && uint64(size) > most {
						t.Fatalf("entry %d of [%d, %d) in %d bytes is %v", i, lo, hi, most, e)
					}
				}
				out = append(out, given{entries, slices.Clone(entries)})
			},
			"": func(t *rapid.T) {
				firstIndex, _ := log.FirstIndex()
				lastIndex, _ := log.LastIndex()
				if kv.Index(firstIndex) != truncated+1 || kv.Index(lastIndex) != last {
					t.Fatalf("the log is [%d, %d], not [%d, %d]", firstIndex, lastIndex, truncated+1, last)
				}
				for i := truncated; i <= last; i++ {
					if got, err := log.Term(uint64(i)); err != nil || kv.Term(got) != model[i] {
						t.Fatalf("Term(%d) = %d, %v, not %d", i, got, err, model[i])
					}
				}
				if _, err := log.Term(uint64(truncated) - 1); !errors.Is(err, raft.ErrCompacted) {
					t.Fatalf("below the log: %v", err)
				}
				if _, err := log.Term(uint64(last) + 1); !errors.Is(err, raft.ErrUnavailable) {
					t.Fatalf("past the log: %v", err)
				}
				for _, g := range out {
					if !slices.Equal(g.slice, g.copied) {
						t.Fatal("entries that were given out have changed")
					}
				}
				size := uint64(0)
				for _, e := range log.tail {
					size += uint64(len(e.GetData()))
				}
				if size != log.TailBytes() {
					t.Fatalf("the tail has %d bytes and counts %d", size, log.TailBytes())
				}
			},
		})
	})
}

// TestLogReportsGap: a store that lost an entry is an error, never a shorter log.
func TestLogReportsGap(t *testing.T) {
	log := NewLog(LogStart{Store: written{}, Truncated: 10, TruncatedTerm: 5, Last: 12})
	if _, err := log.Entries(11, 13, 100); err == nil {
		t.Error("a missing entry went unnoticed")
	}
	if _, err := log.Term(12); err == nil {
		t.Error("the term of a missing entry went unnoticed")
	}
}

// TestTermsOfReleasedEntries: raft asks for the term of the entry before what it sends or takes each time, and by then that has left
// the memory. The store is not asked.
func TestTermsOfReleasedEntries(t *testing.T) {
	log := NewLog(LogStart{Store: written{}, Truncated: kv.BirthIndex, TruncatedTerm: kv.BirthTerm, Last: kv.BirthIndex + 5})
	_, err := log.Term(uint64(kv.BirthIndex + 3))
	require.ErrorContains(t, err, "no entry")
	index, term := kv.BirthIndex+5, kv.BirthTerm
	for range 3 * termStartsMax {
		term++
		for range 4 {
			index++
			log.Append([]*raftpb.Entry{newEntry(index, term, 9)})
			log.Release(index, index)
			got, err := log.Term(uint64(index))
			require.NoError(t, err)
			require.Equal(t, uint64(term), got)
		}
	}
	for i := range kv.Index(4 * termStartsMax) {
		got, err := log.Term(uint64(index - i))
		require.NoError(t, err)
		require.Equal(t, uint64(term)-uint64(i/4), got)
	}
	_, err = log.Term(uint64(index - 4*termStartsMax))
	require.ErrorContains(t, err, "no entry", "what is remembered is bounded")
}
