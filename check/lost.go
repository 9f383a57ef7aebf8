package check

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/kvdstore/kvd/kv"
)

// Final is what a key holds at the end, when all operations have returned and the cluster is whole again.
type Final struct {
	Value string
	// Revision is 0 when it is not known.
	Revision kv.Revision
	// ExpireAt is when it goes away, on the clock of the history; 0 is never.
	ExpireAt int64
}

// NoLostWrites compares what is left at the end with the writes that were acknowledged, or read: a key's revision is
// at least the last of them; if it is the same one, so is the value; if it is a later one, an unknown write of that
// value accounts for it. A key that was only ever incremented holds the sum, where each
// unknown increment counts once or not at all.
//
// A key with an expiry may be gone; whether it may be gone already is for Expiry to say.
//
// final holds every key that is there, and no others; keys that the history does not know are violations too.
func NoLostWrites(h History, final map[string]Final) []Violation {
	if bad := refuse(h); bad != nil {
		return bad
	}
	var found []Violation
	known := map[string]bool{}
	for _, k := range h.byKey() {
		known[k.key] = true
		end, present := final[k.key]
		if v, wrong := writesOf(k).judge(end, present); wrong {
			found = append(found, v)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(final)) {
		if !known[key] {
			found = append(found, violation(PhantomWrite, key, "no operation of the history names this key"))
		}
	}
	return found
}

// keyWrites are the writes of one key.
type keyWrites struct {
	key string
	// done were acknowledged, in the order of revisions; those without one come first.
	done, unknown []*Operation
	// expiring: some operation speaks of an expiry.
	expiring bool
	// read is the read with the highest revision; nil if there is none.
	read *Operation
}

func writesOf(k keyHistory) *keyWrites {
	w := &keyWrites{key: k.key}
	for _, o := range k.ops {
		w.expiring = w.expiring || o.expires()
		switch {
		case o.wrote():
			w.done = append(w.done, o)
		case o.mayHaveWritten():
			w.unknown = append(w.unknown, o)
		case o.Kind == Get && o.revision() != 0 && (w.read == nil || o.Revision > w.read.Revision):
			w.read = o
		}
	}
	slices.SortStableFunc(w.done, func(a, b *Operation) int { return cmp.Compare(a.Revision, b.Revision) })
	return w
}

// judge compares with what is left of the key.
func (w *keyWrites) judge(end Final, present bool) (Violation, bool) {
	if !present {
		return w.judgeAbsent()
	}
	if v, wrong := w.judgeLast(end); wrong {
		return v, true
	}
	if len(w.done)+len(w.unknown) > 0 && w.onlyIncrements() {
		return w.judgeCounter(end)
	}
	return Violation{}, false
}

// last is the acknowledged write with the highest revision, or a read if it met a higher one, which then was
// unknown; nil when there is none, or revisions are not known.
func (w *keyWrites) last() *Operation {
	n := len(w.done)
	switch {
	case n > 0 && w.done[0].Revision == 0:
		return nil
	case n == 0 || w.read != nil && w.read.Revision > w.done[n-1].Revision:
		return w.read
	}
	return w.done[n-1]
}

func (w *keyWrites) judgeAbsent() (Violation, bool) {
	deletes := func(o *Operation) bool { return o.Kind == Delete || o.Kind == Clear }
	last := w.last()
	switch {
	case w.expiring || slices.ContainsFunc(w.unknown, deletes) || last != nil && deletes(last):
		return Violation{}, false
	case last != nil:
	case len(w.done) == 0 || slices.ContainsFunc(w.done, deletes):
		return Violation{}, false
	default:
		last = w.done[len(w.done)-1]
	}
	return violation(LostWrite, w.key, "the key is gone, and nobody deleted it", last), true
}

func (w *keyWrites) judgeLast(end Final) (Violation, bool) {
	left := fmt.Sprintf("at the end it holds %s @%d", brief(end.Value), end.Revision)
	last := w.last()
	switch {
	case last == nil || end.Revision == 0:
		// Without revisions any of the writes may be the last.
		return w.judgeValue(end, left, w.done)
	case end.Revision < last.Revision:
		return violation(LostWrite, w.key, left+", below its last write that was acknowledged or read", last), true
	case end.Revision > last.Revision:
		return w.judgeValue(end, left, nil)
	}
	if last.seen() != (content{end.Value, true}) {
		return violation(LostWrite, w.key, left+", which is not what that revision held", last), true
	}
	return Violation{}, false
}

// judgeValue asks who may have written the value: one of the candidates, or an unknown write.
func (w *keyWrites) judgeValue(end Final, left string, candidates []*Operation) (Violation, bool) {
	for _, o := range slices.Concat(candidates, w.unknown) {
		value, present := o.left()
		if present && (value == end.Value || o.Kind == Increment && o.Outcome == Unknown) {
			return Violation{}, false
		}
	}
	var last []*Operation
	if n := len(w.done); n > 0 {
		last = w.done[n-1:]
	}
	return violation(PhantomWrite, w.key, left+", and no write accounts for that", last...), true
}

func (w *keyWrites) onlyIncrements() bool {
	other := func(o *Operation) bool { return o.Kind != Increment }
	return !slices.ContainsFunc(w.done, other) && !slices.ContainsFunc(w.unknown, other)
}

func (w *keyWrites) judgeCounter(end Final) (Violation, bool) {
	t := tallyOf(w.done, w.unknown)
	n, err := strconv.ParseInt(end.Value, 10, 64)
	if err == nil && t.allows(n) {
		return Violation{}, false
	}
	text := fmt.Sprintf("it holds %s; %d acknowledged increments sum to %v, and with %d unknown ones it may hold %v to %v",
		brief(end.Value), len(w.done), &t.sure, len(w.unknown), &t.least, &t.most)
	return violation(WrongCount, w.key, text, slices.Concat(w.unknown, w.done)[:min(earlierShown, len(w.unknown)+len(w.done))]...), true
}
