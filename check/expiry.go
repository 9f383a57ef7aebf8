package check

import (
	"fmt"
	"math"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/kvdstore/kvd/kv"
)

// Bounds is how exact expiry is, in the unit of the history.
type Bounds struct {
	// Late is by how much a key may be seen after its time; the contract says 1 s.
	Late int64
	// Skew is by how much any node's clock, and so a shard's time, may differ from the history's.
	Skew int64
}

// Expiry judges histories in which keys expire, and all others just as Linearizable does: a key is never gone before
// its time, never seen later than the bounds allow, and never back again.
//
// Keys with an expiry are first looked at one rule at a time, for the sake of clear words. Then comes the search of
// Linearizable, to which every write with an expiry adds an operation that takes the key away, if it is still as that
// write left it (an increment keeps the expiry), and that takes effect in the time that the bounds leave. So what is
// gone is gone for all. How late a key may be seen is counted to the call: what goes through the log sees the key as it was when it was
// proposed, however long that takes to be committed. It is lenient in three places: of an unknown write that nobody read, the
// expiry may come true at any later time, or never; a write that may have come after its own expiry, of which no answer tells
// the revision, may be there until it has returned; and what was seen by an operation that took long may be there until that
// has returned, for others too.
//
// A write with an expiry must tell its revision, and a Get the expiry that it was told. timeout is Linearizable's.
func Expiry(h History, bounds Bounds, timeout time.Duration) []Violation {
	if bad := refuse(h); bad != nil {
		return bad
	}
	if bounds.Late < 0 || bounds.Skew < 0 {
		err := &kv.InvalidError{Field: "bounds", Bound: fmt.Sprintf("0 or more, are %+v", bounds)}
		return []Violation{{Rule: BadHistory, Text: err.Error()}}
	}
	var found []Violation
	var left []keyHistory
	for _, k := range h.byKey() {
		bad := k.expiry(bounds)
		if len(bad) == 0 {
			left = append(left, k)
		}
		found = append(found, bad...)
	}
	return append(found, newSearch(bounds, timeout).judge(left)...)
}

// expiring gives an operation that speaks of an expiry; nil if there is none.
func (k keyHistory) expiring() *Operation {
	for _, o := range k.ops {
		if o.expires() {
			return o
		}
	}
	return nil
}

// expiry looks at one rule at a time.
func (k keyHistory) expiry(b Bounds) []Violation {
	if k.expiring() == nil {
		return nil
	}
	states := statesOf(k.ops)
	var found []Violation
	for _, o := range k.ops {
		switch {
		case o.Kind == Get && o.revision() != 0:
			found = append(found, states[o.Revision].read(o, b)...)
			found = append(found, k.backAgain(o, states[o.Revision])...)
		case o.absent():
			found = append(found, k.goneEarly(o, states, b)...)
		}
	}
	return found
}

// absent reports whether the answer says that the key was not there.
func (o *Operation) absent() bool {
	switch {
	case o.Outcome != Done:
		return false
	case o.Kind == CAS && o.Succeeded:
		return o.Expect == 0
	case o.Kind == CAS:
		return o.Revision == 0
	}
	return (o.Kind == Get || o.Kind == Delete) && !o.Found
}

// state is what the history tells of a key at one revision.
type state struct {
	// seen is the first operation to return that shows that the key was there at the revision.
	seen *Operation
	// write is the acknowledged write of the revision, and told a read of it; nil if there is none.
	write, told *Operation
}

func statesOf(ops []*Operation) map[kv.Revision]*state {
	states := map[kv.Revision]*state{}
	for _, o := range ops {
		if o.revision() == 0 || o.Kind == Delete {
			continue
		}
		s := states[o.Revision]
		if s == nil {
			s = &state{seen: o}
			states[o.Revision] = s
		}
		if o.Return < s.seen.Return {
			s.seen = o
		}
		switch {
		case o.wrote():
			s.write = o
		case o.Kind == Get && s.told == nil:
			s.told = o
		}
	}
	return states
}

// read judges what a read was told of the expiry.
func (s *state) read(o *Operation, b Bounds) []Violation {
	if o.ExpireAt != s.told.ExpireAt {
		return []Violation{violation(ExpiryChanged, o.Key,
			fmt.Sprintf("revision %d expires at %d and at %d", o.Revision, o.ExpireAt, s.told.ExpireAt), o, s.told)}
	}
	if w := s.write; w != nil && w.Kind != Increment {
		if least, most := w.due(w.Return, b); o.ExpireAt < least || o.ExpireAt > most {
			return []Violation{violation(ExpiryChanged, o.Key,
				fmt.Sprintf("it expires at %d, and was written to expire between %d and %d", o.ExpireAt, least, most), o, w)}
		}
	}
	if latest := add(o.ExpireAt, b.Late, b.Skew); o.ExpireAt != 0 && o.Call > latest {
		return []Violation{violation(SeenExpired, o.Key,
			fmt.Sprintf("it is seen %d after its time, at most %d is allowed", o.Call-o.ExpireAt, latest-o.ExpireAt), o)}
	}
	return nil
}

// due gives the earliest and the latest time at which a write's expiry may be, 0 for never; end is by when the write
// was done.
func (o *Operation) due(end int64, b Bounds) (least, most int64) {
	if o.TTL == 0 {
		return o.ExpireAt, o.ExpireAt
	}
	return add(o.Call, o.TTL, -b.Skew), add(end, o.TTL, b.Skew)
}

// backAgain looks for an answer that the key was gone, after it had been seen at the revision that a read met later.
func (k keyHistory) backAgain(read *Operation, s *state) []Violation {
	for _, o := range k.ops {
		if o.absent() && s.seen.Return < o.Call && o.Return < read.Call {
			return []Violation{violation(BackAgain, k.key, fmt.Sprintf("revision %d was gone, and is back", read.Revision), read, o, s.seen)}
		}
	}
	return nil
}

// goneEarly asks of an answer that the key was gone whether its time had come, if nothing else can have taken it away.
func (k keyHistory) goneEarly(o *Operation, states map[kv.Revision]*state, b Bounds) []Violation {
	var highest kv.Revision
	for revision, s := range states {
		if s.seen.Return < o.Call {
			highest = max(highest, revision)
		}
	}
	if highest == 0 {
		return nil
	}
	for _, p := range k.ops {
		if p.Call <= o.Return && p != o && (p.mayHaveWritten() || p.wrote() && (p.Revision == 0 || p.Revision > highest)) {
			return nil
		}
	}
	s := states[highest]
	due := int64(math.MaxInt64)
	switch w := s.write; {
	case s.told != nil && s.told.ExpireAt != 0:
		due = s.told.ExpireAt
	case w != nil && w.expires():
		due, _ = w.due(w.Return, b)
	case s.told == nil && (w == nil || w.Kind != Put && w.Kind != CAS):
		return nil // It may have an expiry that nobody was told.
	}
	if o.Return >= add(due, -b.Skew) {
		return nil
	}
	text := fmt.Sprintf("revision %d never expires, and is gone", highest)
	if due != math.MaxInt64 {
		text = fmt.Sprintf("revision %d is gone at least %d before its time", highest, due-o.Return)
	}
	return []Violation{violation(GoneEarly, k.key, text, o, s.seen)}
}

// expiries gives the operations that take keys away when their time has come, as far as that is before the last
// moment of the history.
func (w *witnesses) expiries(prepared []porcupine.Operation, last int64, b Bounds) []porcupine.Operation {
	var all []porcupine.Operation
	for i := range prepared {
		write := prepared[i].Input.(*planned)
		if !write.expires() || !write.Kind.writes() || write.Outcome == Done && !write.wrote() {
			continue
		}
		least, most := write.due(prepared[i].Return, b)
		if told := w.told[write.known()]; told != 0 {
			least, most = told, told
		}
		p := planOf(write.Operation)
		p.Kind, p.loose = expire, write.loose
		if !p.loose {
			p.before = write.before + 1
		}
		from := expiresFrom(write.Operation, least, b)
		latest := add(most, b.Late, b.Skew)
		until := max(from, latest)
		for _, revision := range []kv.Revision{0, write.known()} {
			for _, o := range w.met[revision] {
				if o.Call <= latest && (revision != 0 || w.mayHaveMet(o, write.known())) {
					until = max(until, o.Return)
				}
			}
		}
		switch {
		case p.loose:
			until = math.MaxInt64
		case len(w.met[write.known()]) == 0:
			// It may have been written when its time was over, so that nobody ever saw it.
			until = max(until, prepared[i].Return)
		}
		if from <= last && !w.goneBy(write.known(), from) {
			all = append(all, porcupine.Operation{Input: p, Call: from, Return: until})
		}
	}
	return all
}

// expiresFrom is the earliest moment at which a write's expiry may come true, if that is due at this one at the earliest.
func expiresFrom(write *Operation, least int64, b Bounds) int64 {
	return max(write.Call, add(least, -b.Skew))
}

// add adds durations to a moment, and stops at the last one.
func add(moment int64, durations ...int64) int64 {
	for _, d := range durations {
		sum := moment + d
		if (sum < moment) != (d < 0) {
			return math.MaxInt64
		}
		moment = sum
	}
	return moment
}
