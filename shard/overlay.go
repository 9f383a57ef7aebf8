package shard

import (
	"bytes"
	"slices"

	"github.com/kvdstore/kvd/kv"
)

// overlayKeepMax is how many keys the overlay's table may have held and still be used for the next step; clearing a
// table costs as much as the most it ever held.
const overlayKeepMax = 4096

// found is what a look-up gave: what is stored, whether or not its time has come.
type found struct {
	rec   kv.Record // Without the value, if only the head was looked up.
	bytes int       // Of the value.
	there bool
}

// stored is what a look-up finds where a record is.
func stored(rec kv.Record) found { return found{rec, len(rec.Value), true} }

// overlay holds the keys that the step has changed so far, in the order of their first change.
type overlay struct {
	at      map[string]int // Index into the two slices.
	changes []kv.Change
	before  []found // What was stored before the step, without the value.
	order   []int   // Scratch.
	// swept is a span in which the step has left no key, nil for none: what a range of keys need not look at again.
	swept *kv.Span
}

func newOverlay() overlay { return overlay{at: map[string]int{}} }

// get looks a key up; known is false when the step has not changed it.
func (o *overlay) get(key []byte) (f found, known bool) {
	i, known := o.at[string(key)]
	if !known {
		return found{}, false
	}
	if rec := o.changes[i].Record; rec != nil {
		return stored(*rec), true
	}
	return found{}, true
}

// set notes what is stored under a key from now on, nil for nothing. old is what a look-up gave; it matters at the
// first change of the key.
func (o *overlay) set(key []byte, old found, rec *kv.Record) {
	if rec != nil && o.swept != nil && o.swept.Contains(key) {
		o.swept = nil
	}
	if i, known := o.at[string(key)]; known {
		o.changes[i].Record = rec
		return
	}
	o.at[string(key)] = len(o.changes)
	old.rec.Value = nil
	o.changes = append(o.changes, kv.Change{Key: key, Record: rec})
	o.before = append(o.before, old)
}

// within gives the changes in a span, in key order.
func (o *overlay) within(span kv.Span) []kv.Change {
	var list []kv.Change
	for _, c := range o.changes {
		if span.Contains(c.Key) {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b kv.Change) int { return bytes.Compare(a.Key, b.Key) })
	return list
}

// unswept is the part of a span that may hold keys, behind the swept one; ok is false when there is none.
func (o *overlay) unswept(span kv.Span) (rest kv.Span, ok bool) {
	if o.swept != nil && o.swept.Contains(span.Start) {
		if len(o.swept.End) == 0 {
			return kv.Span{}, false
		}
		span.Start = o.swept.End
	}
	return span, !span.Empty()
}

// sweep notes that [start, end) holds no key. Ranges that go on where the last one ended become one.
func (o *overlay) sweep(start, end []byte) {
	if o.swept != nil && len(start) > 0 && bytes.Equal(o.swept.End, start) {
		start = o.swept.Start
	}
	o.swept = &kv.Span{Start: start, End: end}
}

// write gives a step's effects to w, each key once. The index of expiries gets what is stored even if it was there
// before: an OpExpire of the step may have deleted it.
func (o *overlay) write(w Writer) {
	for _, i := range o.sorted() {
		c, old := o.changes[i], &o.before[i]
		if old.there && old.rec.ExpireAt != 0 && (c.Record == nil || c.Record.ExpireAt != old.rec.ExpireAt) {
			w.DeleteDue(kv.Due{ExpireAt: old.rec.ExpireAt, Key: c.Key})
		}
		switch {
		case c.Record != nil:
			w.Put(c.Key, *c.Record)
			if c.Record.ExpireAt != 0 {
				w.PutDue(kv.Due{ExpireAt: c.Record.ExpireAt, Key: c.Key})
			}
		case old.there:
			w.Delete(c.Key)
		}
	}
}

// sorted gives the changes by their keys: the state store inserts keys that are near each other at less cost.
func (o *overlay) sorted() []int {
	o.order = o.order[:0]
	for i := range o.changes {
		o.order = append(o.order, i)
	}
	slices.SortFunc(o.order, func(a, b int) int { return bytes.Compare(o.changes[a].Key, o.changes[b].Key) })
	return o.order
}

// reset forgets everything.
func (o *overlay) reset() {
	if len(o.at) > overlayKeepMax {
		*o = newOverlay()
		return
	}
	o.swept = nil
	clear(o.at)
	clear(o.changes)
	o.changes, o.before = o.changes[:0], o.before[:0]
}
