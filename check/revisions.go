package check

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/kvdstore/kvd/kv"
)

// Revisions looks at revisions and real time alone, by sorting: an operation that began after another returned may
// not know a lower revision of the key; a write has a higher one than all that returned before it began; no two
// writes of a key share one; and a revision stands for one value.
//
// It finds most of what Linearizable finds, in no time. Operations without a revision say nothing to it.
func Revisions(h History) []Violation {
	if bad := refuse(h); bad != nil {
		return bad
	}
	var found []Violation
	for _, k := range h.byKey() {
		known := slices.DeleteFunc(k.ops, func(o *Operation) bool { return o.revision() == 0 })
		found = append(found, revisionOrder(k.key, known)...)
		found = append(found, revisionValues(k.key, known)...)
	}
	return found
}

// revisionOrder walks the operations in the order in which they began, together with the highest revision among
// those that had returned by then.
func revisionOrder(key string, ops []*Operation) []Violation {
	var found []Violation
	began := slices.SortedStableFunc(slices.Values(ops), func(a, b *Operation) int { return cmp.Compare(a.Call, b.Call) })
	returned := slices.SortedStableFunc(slices.Values(ops), func(a, b *Operation) int { return cmp.Compare(a.Return, b.Return) })
	var highest *Operation
	for _, o := range began {
		for len(returned) > 0 && returned[0].Return < o.Call {
			if highest == nil || returned[0].Revision > highest.Revision {
				highest = returned[0]
			}
			returned = returned[1:]
		}
		switch {
		case highest == nil:
		case o.Revision < highest.Revision:
			found = append(found, violation(RevisionWentBack, key,
				fmt.Sprintf("revision %d after %d had been returned", o.Revision, highest.Revision), o, highest))
		case o.Revision == highest.Revision && o.wrote():
			found = append(found, violation(RevisionWentBack, key,
				fmt.Sprintf("a write got revision %d, which had been returned before it began", o.Revision), o, highest))
		}
	}
	return found
}

// revisionValues compares what was seen at equal revisions.
func revisionValues(key string, ops []*Operation) []Violation {
	var found []Violation
	writer, witness := map[kv.Revision]*Operation{}, map[kv.Revision]*Operation{}
	for _, o := range ops {
		if o.wrote() {
			if other := writer[o.Revision]; other != nil {
				found = append(found, violation(RevisionShared, key, fmt.Sprintf("two writes have revision %d", o.Revision), o, other))
				continue
			}
			writer[o.Revision] = o
		}
		if !o.tellsValue() {
			continue
		}
		other := witness[o.Revision]
		if other == nil {
			witness[o.Revision] = o
			continue
		}
		if o.seen() != other.seen() {
			found = append(found, violation(ValueChanged, key,
				fmt.Sprintf("revision %d is %v and %v", o.Revision, o.seen(), other.seen()), o, other))
		}
	}
	return found
}

// tellsValue reports whether a done operation says what the key held at its revision. A CAS whose condition failed
// does not.
func (o *Operation) tellsValue() bool { return o.wrote() || o.Kind == Get && o.Found }

// content is what a key holds.
type content struct {
	value   string
	present bool
}

func (c content) String() string {
	if !c.present {
		return "deleted"
	}
	return brief(c.value)
}

// seen is what the key held at the operation's revision, of one that tells it.
func (o *Operation) seen() content {
	if o.Kind == Get {
		return content{o.Observed, true}
	}
	value, present := o.left()
	return content{value, present}
}
