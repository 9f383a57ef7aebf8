package check

import (
	"github.com/anishathalye/porcupine"

	"github.com/kvdstore/kvd/kv"
)

// register is one key as the model has it: what it holds, and what is known of its revision. The revision of an
// unknown write is not known until somebody reads it.
type register struct {
	content
	// revision is the key's if exact; otherwise the key's is greater. Of an absent key it is never exact: the
	// next write has a greater one.
	revision kv.Revision
	exact    bool
	// due is the write whose expiry the key has; nil when it has none. An increment keeps it.
	due *Operation
	// turns counts the interchangeable unknown operations that have had their turn, by class.
	turns [classesMax]uint8
	// ranked counts the operations of known revision that have had their turn: those with the lowest ones.
	ranked int
	// unmet: the last operation was a loose one. The next has to be one that makes a difference to.
	// It covered the value before, if the key was there already; tied, it needed that at its revision.
	unmet, covered, tied bool
	// ended: all operations whose return is known are done. The unknown ones that are left never happened.
	ended bool
}

// model is the register in porcupine's terms.
var model = porcupine.Model{
	Init: func() any { return register{} },
	Step: func(state, input, _ any) (bool, any) {
		r, p := state.(register), input.(*planned)
		next, ok := r.step(p)
		return ok, next
	},
}

// step gives the key after an operation; ok is false if the operation cannot come next.
func (r register) step(p *planned) (next register, ok bool) {
	switch {
	case r.ended:
		return r, true
	case r.unmet && p.ignores(r.covered):
		return r, false
	case p == theEnd:
		return register{ended: true}, true
	case p.before > r.ranked:
		return r, false
	case p.before >= 0 && p.Kind != expire:
		r.ranked++
	}
	if p.Kind == expire {
		return r.expire(p)
	}
	r.unmet, r.covered, r.tied = p.loose, p.loose && r.present, p.loose && p.Kind == CAS && p.Expect != 0
	if p.Outcome == Unknown {
		return r.maybe(p)
	}
	switch p.Kind {
	case Get:
		return r.get(p.Operation)
	case Put:
		return r.put(p.Operation, p.Revision)
	case CAS:
		return r.cas(p.Operation)
	case Delete:
		return r.delete(p.Operation)
	case Clear:
		return r.clear(p.Revision)
	}
	value, ok := r.sum(p.Delta)
	if !ok || p.Observed != "" && p.Observed != value {
		return r, false
	}
	return r.write(value, p.Revision)
}

// ignores reports whether the operation comes to the same without the loose one before it.
func (p *planned) ignores(covered bool) bool {
	return p == theEnd || p.Kind == Put || p.Kind == Clear ||
		p.Kind == Delete && p.Expect == 0 && (p.Outcome == Unknown || p.Found && covered)
}

// maybe is an unknown write that takes effect now. Where it would change nothing it does not come next: it may as
// well come at the end.
func (r register) maybe(p *planned) (register, bool) {
	if p.class >= 0 {
		if r.turns[p.class] != p.turn {
			return r, false
		}
		r.turns[p.class]++
	}
	switch p.Kind {
	case Put:
		return r.put(p.Operation, p.at)
	case Clear:
		return r.remove(0)
	case Delete:
		r, ok := r.at(p.Expect)
		if !ok {
			return r, false
		}
		return r.remove(0)
	case CAS:
		r, holds := r.meets(p.Expect)
		if !holds {
			return r, false
		}
		return r.put(p.Operation, p.at)
	}
	value, ok := r.sum(p.Delta)
	if !ok {
		return r, false
	}
	return r.write(value, 0)
}

func (r register) get(o *Operation) (register, bool) {
	if !o.Found {
		return r, !r.present
	}
	r, ok := r.at(o.Revision)
	return r, ok && r.present && r.value == o.Observed && r.tells(o.ExpireAt)
}

// tells reports whether a read may be told an expiry.
func (r register) tells(expireAt int64) bool {
	switch {
	case r.due == nil:
		return expireAt == 0
	case r.due.TTL == 0:
		return expireAt == r.due.ExpireAt
	}
	return expireAt != 0
}

func (r register) cas(o *Operation) (register, bool) {
	if o.Succeeded {
		r, holds := r.meets(o.Expect)
		if !holds {
			return r, false
		}
		return r.put(o, o.Revision)
	}
	if o.Revision == 0 {
		return r, !r.present && o.Expect != 0
	}
	r, ok := r.at(o.Revision)
	return r, ok && r.present && o.Revision != o.Expect
}

func (r register) delete(o *Operation) (register, bool) {
	if !o.Found {
		return r, !r.present
	}
	r, ok := r.at(o.Expect)
	if !ok {
		return r, false
	}
	return r.remove(o.Revision)
}

// clear leaves nothing, whether or not the key was there.
func (r register) clear(revision kv.Revision) (register, bool) {
	if r.present {
		return r.remove(revision)
	}
	ok := revision == 0 || revision > r.revision
	r.revision = max(r.revision, revision)
	return r, ok
}

// meets reports whether the condition of a CAS can hold, and what is known of the key when it does.
func (r register) meets(expect kv.Revision) (register, bool) {
	if expect == 0 {
		return r, !r.present
	}
	r, ok := r.at(expect)
	return r, ok && r.present
}

// at is the key when its revision turns out to be this one; 0 tells nothing.
func (r register) at(revision kv.Revision) (register, bool) {
	switch {
	case revision == 0:
		return r, true
	case r.exact:
		return r, r.revision == revision
	}
	ok := revision > r.revision
	r.revision, r.exact = revision, r.present
	return r, ok
}

// expire is the expiry of a write that comes true, if the key still has it. One that may never have been written need not come true,
// and does not where it would leave things as they were before that write.
//
// One that does nothing does not come right after a loose operation: before it, where it may take the key away, it explains as much.
// That is not so if the loose one needed the key.
func (r register) expire(p *planned) (register, bool) {
	if r.due != p.Operation {
		swaps := r.unmet && !r.tied
		r.unmet, r.covered, r.tied = false, false, false
		return r, !p.loose && !swaps
	}
	if p.loose && r.unmet && !r.covered {
		return r, false
	}
	r.unmet, r.covered, r.tied = p.loose, false, false
	return r.remove(0)
}

// put writes an operation's value at a revision, 0 when that is not known.
func (r register) put(o *Operation, revision kv.Revision) (register, bool) {
	r, ok := r.write(o.Value, revision)
	r.due = nil
	if o.expires() {
		r.due = o
	}
	return r, ok
}

// write puts a value at a revision, 0 when that is not known.
func (r register) write(value string, revision kv.Revision) (register, bool) {
	ok := revision == 0 || revision > r.revision
	r.content = content{value, true}
	r.revision, r.exact = max(r.revision, revision), revision != 0
	return r, ok
}

// remove deletes the key, which is there, at a revision, 0 when that is not known.
func (r register) remove(revision kv.Revision) (register, bool) {
	ok := r.present && (revision == 0 || revision > r.revision)
	r.content, r.due = content{}, nil
	r.revision, r.exact = max(r.revision, revision), false
	return r, ok
}
