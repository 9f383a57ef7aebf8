package check

import (
	"cmp"
	"math"
	"slices"
	"strconv"

	"github.com/anishathalye/porcupine"

	"github.com/kvdstore/kvd/kv"
)

// An unknown operation may take effect at any later time or never, and every one doubles what the search has to
// try. What follows takes most of that out, and changes no answer:
//
//   - a write whose effect nobody can have met is dropped. With it in some order, the operations between it and
//     the next write saw nothing of it, so the order explains as much without it. One with an expiry may be why a key is gone, so it
//     stays if something met no key, or may have, after the earliest moment of that expiry;
//   - of the reads that met one revision, only the first to return and the last to be called are kept: a key has a revision for one
//     stretch of time, and if that reaches into those two it reaches into what lies between;
//   - an expiry is dropped if another write had taken the key's place for sure before its earliest moment;
//   - a write of a value that no other operation writes took effect before the first return of a read of that
//     value, and at the revision that the read saw;
//   - an unknown operation is tried only where it changes something. What is left over when all else has had its
//     turn (the end, an operation of its own) never happened;
//   - unknown deletes (with the same condition) are interchangeable, so are unknown increments by the same number, and so are unknown puts
//     (with the same condition) of values that nobody read. They are tried only in the order of their calls;
//   - an unknown write of which nothing shows by when it was done is tried only right before an operation that meets
//     it. If the next one overwrites it, the order explains as much without it;
//   - revisions rise, so what is known to have had or met a lower revision comes first.

// planned is an operation as the model takes it, or the expiry of one.
type planned struct {
	*Operation
	// Kind is the operation's, or expire.
	Kind Kind
	// at is the revision that an unknown write is known to have had, 0 otherwise.
	at kv.Revision
	// class and turn say that this is the turn-th of some interchangeable unknown operations; class is -1 for
	// one that is like no other.
	class int
	turn  uint8
	// before counts the operations that are known to have had or met a lower revision; -1 if this one's own is
	// not known.
	before int
	// loose says that an unknown write may as well never have happened, as far as it alone is concerned.
	loose bool
}

// theEnd comes after all operations whose return is known. It has no operation.
var theEnd = &planned{class: -1, before: -1}

func planOf(o *Operation) *planned {
	return &planned{Operation: o, Kind: o.Kind, class: -1, before: -1}
}

// classesMax is how many kinds of interchangeable operations the model's state counts.
const classesMax = 8

// plan prepares the operations on one key for porcupine.
func plan(ops []*Operation, bounds Bounds) []porcupine.Operation {
	seen := witness(ops)
	var classes classes
	var prepared []porcupine.Operation
	last := int64(math.MinInt64)
	for _, o := range slices.SortedStableFunc(slices.Values(ops), func(a, b *Operation) int { return cmp.Compare(a.Call, b.Call) }) {
		if o.Outcome == NotDone || o.Outcome == Unknown && !o.Kind.writes() || seen.nobodyMet(o, bounds) || seen.between(o) {
			continue
		}
		input, end := planOf(o), o.Return
		if o.Outcome == Unknown {
			input.at, end = seen.bounds(o)
			input.loose = end == math.MaxInt64
			classes.assign(input, seen.class(o))
		}
		if last = max(last, o.Call); end != math.MaxInt64 {
			last = max(last, end)
		}
		prepared = append(prepared, porcupine.Operation{ClientId: o.Process, Input: input, Call: o.Call, Return: end})
	}
	rank(prepared)
	prepared = append(prepared, seen.expiries(prepared, last, bounds)...)
	last = min(last, math.MaxInt64-2)
	return append(prepared, porcupine.Operation{Input: theEnd, Call: last + 1, Return: last + 1})
}

// rank counts, for each operation whose revision is known, those with a lower one.
func rank(prepared []porcupine.Operation) {
	var known []*planned
	for i := range prepared {
		if p := prepared[i].Input.(*planned); p.known() != 0 {
			known = append(known, p)
		}
	}
	slices.SortFunc(known, func(a, b *planned) int { return cmp.Compare(a.known(), b.known()) })
	for i, p := range known {
		p.before = i
		if i > 0 && known[i-1].known() == p.known() {
			p.before = known[i-1].before
		}
	}
}

// known is the revision that the operation had or met; 0 when that is not known.
func (p *planned) known() kv.Revision {
	if p.Outcome == Unknown {
		return p.at
	}
	return p.revision()
}

// witnesses is what the answers to the operations on one key tell of its unknown writes.
type witnesses struct {
	// reads are the gets that found a value, the first to return of each.
	reads map[string]*Operation
	// writers counts who may have written a value, by put or conditional put.
	writers map[string]int
	// met are who saw the key at a revision after its write; at 0, who may have seen it at any.
	met map[kv.Revision][]*Operation
	// replaced are acknowledged writes that left nothing of what was there, by rising revisions.
	replaced []replacement
	// stretches are the reads of each content at a revision.
	stretches map[sight]stretch
	// told is the expiry that reads were told, by the revision that they met.
	told map[kv.Revision]int64
	// absent is the last moment at which something may have met no key.
	absent int64
	// counters: there are increments, so a number may have been written by one of those too, or met by it.
	counters bool
	// indirect: some answer tells that a key was there without telling its value, and no read or acknowledged
	// write accounts for it.
	indirect bool
}

// replacement is a write that left nothing of what was there before.
type replacement struct {
	revision kv.Revision
	// end is by when it was done, or one with a greater revision.
	end int64
}

// sight is what a read tells of a key that is there.
type sight struct {
	revision kv.Revision
	value    string
	expireAt int64
}

func (o *Operation) sight() sight { return sight{o.Revision, o.Observed, o.ExpireAt} }

// stretch is, of the reads that tell the same, the first to return and the last to be called.
type stretch struct{ first, last *Operation }

func (s stretch) with(o *Operation) stretch {
	if s.first == nil || o.Return < s.first.Return {
		s.first = o
	}
	if s.last == nil || o.Call > s.last.Call {
		s.last = o
	}
	return s
}

func witness(ops []*Operation) witnesses {
	w := witnesses{
		reads: map[string]*Operation{}, writers: map[string]int{}, stretches: map[sight]stretch{}, told: map[kv.Revision]int64{},
		met: map[kv.Revision][]*Operation{}, absent: math.MinInt64,
	}
	known := map[kv.Revision]bool{}
	for _, o := range ops {
		switch {
		case o.Outcome == NotDone:
		case o.Kind == Get && o.Outcome == Done && o.Found:
			if first := w.reads[o.Observed]; first == nil || o.Return < first.Return {
				w.reads[o.Observed] = o
			}
			known[o.Revision] = true
			w.told[o.Revision] = o.ExpireAt
			w.stretches[o.sight()] = w.stretches[o.sight()].with(o)
		case o.Kind == Put || o.Kind == CAS && (o.Outcome == Unknown || o.Succeeded):
			w.writers[o.Value]++
			known[o.Revision] = known[o.Revision] || o.wrote()
		case o.Kind == Increment:
			w.counters = true
		}
	}
	delete(known, 0)
	delete(w.told, 0)
	for _, o := range ops {
		if revision, ok := o.meets(); ok {
			w.met[revision] = append(w.met[revision], o)
		}
		if o.wrote() && o.Kind != Increment && o.Revision != 0 {
			w.replaced = append(w.replaced, replacement{o.Revision, o.Return})
		}
		w.absent = max(w.absent, o.foundNone())
		w.indirect = w.indirect || o.hints(known)
	}
	slices.SortFunc(w.replaced, func(a, b replacement) int { return cmp.Compare(a.revision, b.revision) })
	for i := len(w.replaced) - 2; i >= 0; i-- {
		w.replaced[i].end = min(w.replaced[i].end, w.replaced[i+1].end)
	}
	return w
}

// mayHaveMet reports whether an operation that does not tell at which revision it saw the key may have seen what was written at one, or
// what increments had made of that. Those are 0 where they are not known.
func (w *witnesses) mayHaveMet(o *Operation, written kv.Revision) bool {
	if o.Revision == 0 || written == 0 {
		return true
	}
	next := w.replacedAfter(written)
	return o.Revision > written && (len(next) == 0 || next[0].revision >= o.Revision)
}

// replacedAfter gives the replacements with a greater revision.
func (w *witnesses) replacedAfter(written kv.Revision) []replacement {
	i, _ := slices.BinarySearchFunc(w.replaced, written+1, func(r replacement, revision kv.Revision) int { return cmp.Compare(r.revision, revision) })
	return w.replaced[i:]
}

// goneBy reports whether what was written at a revision had been replaced by a moment, for sure. The revision is 0 if it is not known.
func (w *witnesses) goneBy(written kv.Revision, moment int64) bool {
	next := w.replacedAfter(written)
	return written != 0 && len(next) > 0 && next[0].end < moment
}

// meets gives the revision at which an operation has seen the key as it was before, 0 if that is not known.
func (o *Operation) meets() (revision kv.Revision, ok bool) {
	switch {
	case o.Outcome != Done:
		return 0, false
	case o.Kind == Get:
		return o.Revision, o.Found
	case o.Kind == Delete:
		return o.Expect, o.Found
	case o.Kind == CAS && o.Succeeded:
		return o.Expect, o.Expect != 0
	case o.Kind == CAS:
		return o.Revision, o.Revision != 0
	}
	return 0, o.Kind == Increment
}

// hints reports whether an answer, or a condition, speaks of a state of the key that no read or acknowledged write
// accounts for.
func (o *Operation) hints(known map[kv.Revision]bool) bool {
	switch {
	case o.Kind == Delete && o.Outcome == Done:
		return o.Found
	case o.Kind == Delete && o.Outcome == Unknown:
		return o.Expect != 0 && !known[o.Expect]
	case o.Kind == CAS && o.Outcome != NotDone:
		return o.Expect != 0 && !known[o.Expect] || o.Outcome == Done && !o.Succeeded && o.Revision != 0 && !known[o.Revision]
	}
	return false
}

// between reports whether a read adds nothing to what others tell.
func (w *witnesses) between(o *Operation) bool {
	if o.Kind != Get || o.Outcome != Done || o.revision() == 0 {
		return false
	}
	s := w.stretches[o.sight()]
	return o != s.first && o != s.last
}

// foundNone gives the last moment at which an operation may have met no key, the earliest of all if it cannot have.
func (o *Operation) foundNone() int64 {
	switch {
	case o.Outcome == Unknown && (o.Kind == Increment || o.Kind == CAS && o.Expect == 0):
		return math.MaxInt64
	case o.absent() || o.Outcome == Done && o.Kind == Increment:
		return o.Return
	}
	return math.MinInt64
}

// unread reports whether an unknown write's value was met by no operation.
func (w *witnesses) unread(o *Operation) bool {
	return (o.Kind == Put || o.Kind == CAS) && !w.counts(o.Value) && w.reads[o.Value] == nil
}

// counts reports whether an increment may have written or met the value.
func (w *witnesses) counts(value string) bool {
	_, err := strconv.ParseInt(value, 10, 64)
	return w.counters && err == nil
}

// nobodyMet reports whether an unknown write can be left out.
func (w *witnesses) nobodyMet(o *Operation, b Bounds) bool {
	if o.Outcome != Unknown || !w.unread(o) || w.indirect {
		return false
	}
	least, _ := o.due(math.MaxInt64, b)
	return !o.expires() || w.absent < expiresFrom(o, least, b)
}

// bounds gives what is known of an unknown write: its revision, and by when it was done.
func (w *witnesses) bounds(o *Operation) (at kv.Revision, end int64) {
	read := w.reads[o.Value]
	if o.Kind != Put && o.Kind != CAS || w.counts(o.Value) || w.writers[o.Value] != 1 || read == nil {
		return 0, math.MaxInt64
	}
	// A read that returned before the call shows that something is wrong; the search will find it.
	return read.Revision, max(read.Return, o.Call)
}

// class names the unknown operations with which this one is interchangeable; it is empty for one that is not.
func (w *witnesses) class(o *Operation) string {
	switch {
	case o.Kind == Delete || o.Kind == Clear:
		return o.Kind.String() + strconv.FormatUint(uint64(o.Expect), 10)
	case o.Kind == Increment:
		return o.Kind.String() + strconv.FormatInt(o.Delta, 10)
	case w.unread(o) && !o.expires():
		return o.Kind.String() + strconv.FormatUint(uint64(o.Expect), 10)
	}
	return ""
}

// classes numbers interchangeable unknown operations.
type classes struct {
	names [classesMax]string
	count [classesMax]uint8
}

// assign gives an operation its turn in its class. There is no place for more than a few classes; further ones
// only make the search longer.
func (c *classes) assign(p *planned, name string) {
	if name == "" {
		return
	}
	for i := range c.names {
		if c.names[i] == "" {
			c.names[i] = name
		}
		if c.names[i] == name && c.count[i] < math.MaxUint8 {
			p.class, p.turn = i, c.count[i]
			c.count[i]++
			return
		}
	}
}
