package check

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/kvdstore/kvd/kv"
)

// EventualName is the F of events of reads of what any replica holds; their values are those of a get.
const EventualName = "get-eventual"

// EventualOf gives the done reads of what any replica holds, as gets, and how many of all were not done.
func EventualOf(calls []Call) (reads []Operation, failed int, err error) {
	for i := range calls {
		c := &calls[i]
		if c.Invoke.F != EventualName {
			continue
		}
		o, _, err := operation(c, Get)
		if err != nil {
			return nil, 0, err
		}
		if o.Outcome != Done {
			failed++
			continue
		}
		reads = append(reads, o)
	}
	return reads, failed, nil
}

// Age is how old an eventual read was at least.
type Age struct {
	// At is when it began.
	At int64
	// Age is for how long, when it began, a later write of the key had been acknowledged; 0 for none.
	Age time.Duration
}

// Eventual judges reads of what any replica holds. They may be old, by any time, and may miss a key; but what they show was
// written: by an operation that had begun, and at that revision. h has the writes; each value is written once, and no key
// expires or is deleted. It gives the reads' ages too, in their order.
func Eventual(h History, reads []Operation) ([]Violation, []Age) {
	if bad := refuse(h); bad != nil {
		return bad, nil
	}
	keys := map[string]*keyValues{}
	for _, k := range h.byKey() {
		keys[k.key] = valuesOf(k)
	}
	var found []Violation
	ages := make([]Age, len(reads))
	for i := range reads {
		o := &reads[i]
		k := keys[o.Key]
		if k == nil {
			k = &keyValues{}
		}
		ages[i] = Age{o.Call, k.age(o)}
		if v, wrong := k.judge(o); wrong {
			found = append(found, v)
		}
	}
	return found, ages
}

// keyValues is what was written to one key.
type keyValues struct {
	writers map[string]*Operation
	// done are the acknowledged writes by revision, and first the earliest return from each on.
	done  []*Operation
	first []int64
	at    map[kv.Revision]*Operation
}

func valuesOf(k keyHistory) *keyValues {
	v := &keyValues{writers: map[string]*Operation{}, at: map[kv.Revision]*Operation{}}
	for _, o := range k.ops {
		value, left := o.left()
		if !left || o.Kind == CAS && o.Outcome == Done && !o.Succeeded {
			continue
		}
		v.writers[value] = o
		if o.wrote() {
			v.at[o.Revision] = o
			v.done = append(v.done, o)
		}
	}
	slices.SortStableFunc(v.done, func(a, b *Operation) int { return cmp.Compare(a.Revision, b.Revision) })
	v.first = make([]int64, len(v.done))
	for i := len(v.done) - 1; i >= 0; i-- {
		v.first[i] = v.done[i].Return
		if i+1 < len(v.done) {
			v.first[i] = min(v.first[i], v.first[i+1])
		}
	}
	return v
}

func (v *keyValues) judge(o *Operation) (Violation, bool) {
	if !o.Found {
		return Violation{}, false
	}
	w := v.writers[o.Observed]
	switch other := v.at[o.Revision]; {
	case w == nil:
		return violation(PhantomWrite, o.Key, "nobody wrote what was read", o), true
	case w.Outcome == NotDone:
		return violation(PhantomWrite, o.Key, "what was read was refused when it was written", o, w), true
	case w.Call > o.Return:
		return violation(FutureRead, o.Key, "it was read before anybody wrote it", o, w), true
	case w.wrote() && w.Revision != o.Revision, other != nil && other != w:
		return violation(ValueChanged, o.Key, fmt.Sprintf("what was read was not written at revision %d", o.Revision), o, w), true
	}
	return Violation{}, false
}

func (v *keyValues) age(o *Operation) time.Duration {
	n, _ := slices.BinarySearchFunc(v.done, o.revision()+1, func(w *Operation, r kv.Revision) int { return cmp.Compare(w.Revision, r) })
	if n == len(v.done) {
		return 0
	}
	return time.Duration(max(0, o.Call-v.first[n]))
}
