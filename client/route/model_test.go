package route

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/kvdstore/kvd/kv"
)

// model is the rule of Learn said slowly: one cell a key.
type model struct {
	epochs map[kv.ShardID]kv.Epoch
	cells  [cells]*kv.Descriptor
	last   [cells]uint64 // The version that was last known, also of a cell that is in a gap now.
}

// The keys of the models: one letter each.
const cells = 8

func cell(i int) []byte {
	if i == 0 {
		return nil // The first key of all.
	}
	return []byte{byte('a' + i)}
}

func (m *model) learn(d *kv.Descriptor) {
	if Older(d.Epoch, m.epochs[d.Shard]) {
		return
	}
	for i, old := range m.cells {
		if d.Span.Contains(cell(i)) && (old == nil || old.Shard != d.Shard) && m.last[i] > d.Epoch.Version {
			return
		}
	}
	gone := map[kv.ShardID]bool{d.Shard: true}
	for i, old := range m.cells {
		if old != nil && d.Span.Contains(cell(i)) {
			gone[old.Shard] = true
		}
	}
	m.epochs[d.Shard] = d.Epoch
	for i, old := range m.cells {
		switch {
		case d.Span.Contains(cell(i)):
			m.cells[i], m.last[i] = d, d.Epoch.Version
		case old != nil && gone[old.Shard]:
			m.cells[i] = nil
		}
	}
}

func span(start, end int) kv.Span {
	s := kv.Span{Start: cell(start)}
	if end < cells {
		s.End = cell(end)
	}
	return s
}

// TestAgainstModel: any descriptors, also such as no cluster would give, in any order.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, slow := New(), &model{epochs: map[kv.ShardID]kv.Epoch{}}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			start := rapid.IntRange(0, cells-1).Draw(t, "start")
			d := &kv.Descriptor{
				Shard: kv.ShardID(rapid.IntRange(1, 5).Draw(t, "shard")), Span: span(start, rapid.IntRange(start+1, cells).Draw(t, "end")),
				Epoch: kv.Epoch{Version: rapid.Uint64Range(1, 5).Draw(t, "version"), Config: rapid.Uint64Range(1, 3).Draw(t, "config")},
			}
			m.Learn(d)
			slow.learn(d)
			if err := m.check(); err != nil {
				t.Fatal(err)
			}
			for i := range cells {
				if got := m.Find(cell(i)); got != slow.cells[i] {
					t.Fatalf("key %q is in %v, should be in %v", cell(i), got, slow.cells[i])
				}
			}
		}
	})
}

// history splits, merges and moves shards as a cluster does. It gives every descriptor that ever was, and the last map.
func history(t *rapid.T) (all, last []*kv.Descriptor) {
	next := kv.ShardID(2)
	last = []*kv.Descriptor{{Shard: 1, Span: span(0, cells), Epoch: kv.Epoch{Version: 1, Config: 1}}}
	all = append(all, last[0])
	put := func(i, n int, with ...*kv.Descriptor) {
		last = append(append(append([]*kv.Descriptor{}, last[:i]...), with...), last[i+n:]...)
		all = append(all, with...)
	}
	for range rapid.IntRange(0, 15).Draw(t, "changes") {
		i := rapid.IntRange(0, len(last)-1).Draw(t, "which")
		d := *last[i]
		switch rapid.SampledFrom([]string{"split", "merge", "move"}).Draw(t, "change") {
		case "split":
			at := cell(rapid.IntRange(1, cells-1).Draw(t, "at"))
			if !d.Span.Contains(at) || bytes.Equal(at, d.Span.Start) {
				continue
			}
			d.Epoch.Version++
			child := &kv.Descriptor{Shard: next, Span: kv.Span{Start: at, End: d.Span.End}, Epoch: d.Epoch}
			next++
			d.Span.End = at
			put(i, 1, &d, child)
		case "merge":
			if i+1 == len(last) {
				continue
			}
			d.Epoch.Version = max(d.Epoch.Version, last[i+1].Epoch.Version) + 1
			d.Span.End = last[i+1].Span.End
			put(i, 2, &d)
		case "move":
			d.Epoch.Config++
			put(i, 1, &d)
		}
	}
	return all, last
}

// TestHistoryInAnyOrder: answers of a true history come late, twice and in any order. A key is never routed by something
// older than before, and once the last map has come everything is as it is.
func TestHistoryInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all, last := history(t)
		m := New()
		var seen [cells]uint64
		for range rapid.IntRange(0, 3*len(all)).Draw(t, "answers") {
			m.Learn(rapid.SampledFrom(all).Draw(t, "answer"))
			if err := m.check(); err != nil {
				t.Fatal(err)
			}
			for i := range cells {
				d := m.Find(cell(i))
				if d == nil {
					continue
				}
				if d.Epoch.Version < seen[i] {
					t.Fatalf("key %q went from version %d back to %d", cell(i), seen[i], d.Epoch.Version)
				}
				seen[i] = d.Epoch.Version
			}
		}
		m.Replace(7, last, nil, nil)
		for i := range rapid.IntRange(0, len(all)).Draw(t, "late") {
			m.Learn(all[i])
		}
		if len(m.pieces) != len(last) {
			t.Fatalf("%d pieces are known, there are %d shards", len(m.pieces), len(last))
		}
		for i, d := range last {
			if m.pieces[i].shard != d {
				t.Fatalf("%v is known, it is %v", m.pieces[i].shard, d)
			}
		}
	})
}
