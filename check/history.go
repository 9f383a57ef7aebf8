package check

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kvdstore/kvd/kv"
)

// Kind is what an operation does.
type Kind uint8

const (
	// Get reads a key.
	Get Kind = iota + 1
	// Put writes Value.
	Put
	// CAS writes Value if the key's revision is Expect; with Expect 0, if the key is absent.
	CAS
	// Delete removes a key, if Expect is set only at that revision. One whose condition failed is recorded as the CAS
	// that it would have been.
	Delete
	// Increment adds Delta to a decimal counter; absent counts as 0.
	Increment
	// Clear removes a key if it is there, and does not tell whether it was, as a delete of a range does of each key. Its
	// revision is that of the write command, which counts also where nothing was.
	Clear

	// expire is a key's time that has come. No client asks for it: Expiry adds it to what it searches.
	expire
)

var kindNames = [...]string{Get: "get", Put: "put", CAS: "cas", Delete: "delete", Increment: "increment", Clear: "clear"}

func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return "kind " + strconv.Itoa(int(k))
}

// writes reports whether the operation may change its key.
func (k Kind) writes() bool { return k != Get }

// Outcome is what the client knows of an operation.
type Outcome uint8

const (
	// Done: answered. A CAS whose condition failed is done too, see Succeeded.
	Done Outcome = iota + 1
	// NotDone: refused; nothing was or will be written.
	NotDone
	// Unknown: it may have been done, or may still be. For a read it says nothing.
	Unknown
)

// In histories these are Jepsen's words for a completion.
var outcomeNames = [...]string{Done: "ok", NotDone: "fail", Unknown: "info"}

func (o Outcome) String() string {
	if int(o) < len(outcomeNames) && outcomeNames[o] != "" {
		return outcomeNames[o]
	}
	return "outcome " + strconv.Itoa(int(o))
}

// Operation is one call of one client, and what came of it.
type Operation struct {
	// Process is the client's thread; it does one operation at a time.
	Process int
	Kind    Kind
	Key     string

	Value  string      // Put, CAS: what to write.
	Expect kv.Revision // CAS; Delete, 0 for any.
	Delta  int64       // Increment; CAS, for Counts: what it adds to the counter that its client had read.
	// TTL and ExpireAt of a Put and a CAS are what was asked for, in the unit and on the clock of Call and Return; at
	// most one is set. ExpireAt of a Get that found the key is what it was told. 0 is never.
	TTL, ExpireAt int64

	// Call and Return are moments of one clock, in any unit. Return is not before Call, and means nothing for an
	// unknown operation: its effect may come at any time after Call.
	Call, Return int64
	Outcome      Outcome

	// What was observed, when the operation is done.

	// Found tells of a Get and of a Delete whether the key was there.
	Found bool
	// Succeeded tells of a CAS whether its condition held.
	Succeeded bool
	// Observed is the value that a Get found, and the counter after an Increment.
	Observed string
	// Revision of the key: as a Get found it, as a write left it, or as a CAS whose condition failed met it.
	// 0 when the key was absent, or when the client was not told; a CAS whose condition failed is always told.
	Revision kv.Revision
}

// wrote reports whether the operation is known to have had its effect: a Clear may have found nothing to remove.
func (o *Operation) wrote() bool {
	if o.Outcome != Done {
		return false
	}
	switch o.Kind {
	case Put, Increment, Clear:
		return true
	case CAS:
		return o.Succeeded
	case Delete:
		return o.Found
	}
	return false
}

// mayHaveWritten reports whether the client does not know if the operation changed its key.
func (o *Operation) mayHaveWritten() bool { return o.Outcome == Unknown && o.Kind.writes() }

// expires reports whether the operation asks for an expiry, or tells one.
func (o *Operation) expires() bool { return o.TTL != 0 || o.ExpireAt != 0 }

// revision is the key's, as far as the operation tells: 0 when it does not, or when the key was absent.
func (o *Operation) revision() kv.Revision {
	absent := !o.Found && (o.Kind == Get || o.Kind == Delete)
	if o.Outcome != Done || absent {
		return 0
	}
	return o.Revision
}

// left is the value that a done write left behind, and whether it left one.
func (o *Operation) left() (value string, present bool) {
	switch o.Kind {
	case Put, CAS:
		return o.Value, true
	case Increment:
		return o.Observed, true
	}
	return "", false
}

// String describes the operation in a line.
func (o *Operation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[%d, %s] process %d: %v %s", o.Call, o.until(), o.Process, o.Kind, kv.FormatKey([]byte(o.Key)))
	switch o.Kind {
	case Put:
		fmt.Fprintf(&b, " = %s", brief(o.Value))
	case CAS:
		fmt.Fprintf(&b, " = %s if revision is %d", brief(o.Value), o.Expect)
	case Delete:
		if o.Expect != 0 {
			fmt.Fprintf(&b, " if revision is %d", o.Expect)
		}
	case Increment:
		fmt.Fprintf(&b, " by %d", o.Delta)
	}
	if o.TTL != 0 {
		fmt.Fprintf(&b, " for %d", o.TTL)
	}
	if o.ExpireAt != 0 {
		fmt.Fprintf(&b, " until %d", o.ExpireAt)
	}
	b.WriteString(" -> ")
	b.WriteString(o.answer())
	return b.String()
}

func (o *Operation) until() string {
	if o.Outcome == Unknown {
		return "?"
	}
	return strconv.FormatInt(o.Return, 10)
}

func (o *Operation) answer() string {
	switch {
	case o.Outcome == NotDone:
		return "not done"
	case o.Outcome == Unknown:
		return "unknown"
	case o.Kind == Get && !o.Found:
		return "not found"
	case o.Kind == Get:
		return fmt.Sprintf("%s @%d", brief(o.Observed), o.Revision)
	case o.Kind == Increment:
		return fmt.Sprintf("%s @%d", o.Observed, o.Revision)
	case o.Kind == CAS && !o.Succeeded && o.Revision == 0:
		return "condition failed, the key is absent"
	case o.Kind == CAS && !o.Succeeded:
		return fmt.Sprintf("condition failed, the revision is %d", o.Revision)
	case o.Kind == Delete && !o.Found:
		return "was not there"
	}
	return fmt.Sprintf("done @%d", o.Revision)
}

// brief shortens a value for people.
func brief(value string) string {
	const most = 40
	if len(value) > most {
		return strconv.Quote(value[:most]) + fmt.Sprintf("... (%d bytes)", len(value))
	}
	return strconv.Quote(value)
}

// History is what clients did, in any order.
type History []Operation

// Validate refuses a history that no recorder could have written, naming the operation and the field.
func (h History) Validate() error {
	for i := range h {
		if err := h[i].validate(); err != nil {
			return fmt.Errorf("operation %d: %w", i+1, err)
		}
	}
	return nil
}

func (o *Operation) validate() error {
	switch {
	case o.Kind < Get || o.Kind > Clear:
		return &kv.InvalidError{Field: "f", Bound: "one of get, put, cas, delete, increment, clear"}
	case o.Outcome < Done || o.Outcome > Unknown:
		return &kv.InvalidError{Field: "type", Bound: "one of ok, fail, info"}
	case o.Key == "":
		return &kv.InvalidError{Field: "key", Bound: "at least 1 byte"}
	case o.TTL < 0:
		return &kv.InvalidError{Field: "ttl", Bound: fmt.Sprintf("0 or more, is %d", o.TTL)}
	case o.ExpireAt < 0 || o.ExpireAt != 0 && o.TTL != 0:
		return &kv.InvalidError{Field: "expire_at", Bound: fmt.Sprintf("0 or more, and not beside ttl, is %d", o.ExpireAt)}
	case o.expires() && o.Kind != Put && o.Kind != CAS && (o.Kind != Get || o.TTL != 0 || !o.Found):
		return &kv.InvalidError{Field: "expire_at", Bound: "only of a put, a cas, and a get that found the key"}
	case o.Kind == Delete && o.Expect != 0 && o.Outcome == Done && !o.Found:
		return &kv.InvalidError{Field: "expect", Bound: "0 for a delete that did not find the key"}
	case o.expires() && o.wrote() && o.Revision == 0:
		return &kv.InvalidError{Field: "revision", Bound: "above 0 for a write with an expiry"}
	case o.Outcome != Unknown && o.Return < o.Call:
		return &kv.InvalidError{Field: "return", Bound: fmt.Sprintf("not before call (%d), is %d", o.Call, o.Return)}
	}
	return nil
}

// Ended adds a read of every key, at a moment after all else: what is left at the end, when the cluster is whole again.
// With it Linearizable and Expiry judge the end too. final holds every key that is there, and no others.
func (h History) Ended(moment int64, final map[string]Final) History {
	keys := map[string]bool{}
	process := 0
	for i := range h {
		keys[h[i].Key] = true
		process = max(process, h[i].Process+1)
	}
	for key := range final {
		keys[key] = true
	}
	moment = max(moment, h.end()+1)
	ended := slices.Clone(h)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		f, found := final[key]
		ended = append(ended, Operation{
			Process: process, Kind: Get, Key: key, Call: moment, Return: moment, Outcome: Done,
			Found: found, Observed: f.Value, Revision: f.Revision, ExpireAt: f.ExpireAt,
		})
	}
	return ended
}

// end is the last moment that the history names.
func (h History) end() int64 {
	var end int64
	for i := range h {
		end = max(end, h[i].Call)
		if h[i].Outcome != Unknown {
			end = max(end, h[i].Return)
		}
	}
	return end
}

// byKey groups pointers to the operations by key, in the order of the history, with the keys sorted.
func (h History) byKey() []keyHistory {
	index := map[string]int{}
	var keys []keyHistory
	for i := range h {
		n, ok := index[h[i].Key]
		if !ok {
			n = len(keys)
			index[h[i].Key] = n
			keys = append(keys, keyHistory{key: h[i].Key})
		}
		keys[n].ops = append(keys[n].ops, &h[i])
	}
	sortByKey(keys)
	return keys
}

// keyHistory is what was done to one key.
type keyHistory struct {
	key string
	ops []*Operation
}
