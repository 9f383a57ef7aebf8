package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/kvdstore/kvd/kv"
)

// Rule names what a history breaks.
type Rule string

const (
	// NotLinearizable: no order of the key's operations explains their answers.
	NotLinearizable Rule = "not linearizable"
	// TimedOut: the search for an order took too long, so nothing was shown. It counts as a failure.
	TimedOut Rule = "linearizability not decided in time"
	// RevisionWentBack: an operation that began after another returned saw a lower revision.
	RevisionWentBack Rule = "revision went back"
	// RevisionShared: two writes of a key have one revision.
	RevisionShared Rule = "revision shared by two writes"
	// ValueChanged: one revision of a key was seen with two values.
	ValueChanged Rule = "one revision with two values"
	// LostWrite: what is left at the end lacks an acknowledged write.
	LostWrite Rule = "acknowledged write lost"
	// PhantomWrite: what is left at the end was written by nobody.
	PhantomWrite Rule = "value that nobody wrote"
	// WrongCount: a counter is not the sum of its increments.
	WrongCount Rule = "counter differs from its increments"
	// BadHistory: the history itself makes no sense.
	BadHistory Rule = "history refused"
)

// Violation is one thing that is wrong with one key.
type Violation struct {
	Rule Rule
	Key  string
	// Text explains in a sentence.
	Text string
	// Operations are those that show it, the worst first.
	Operations []Operation
}

// Error describes the violation in a line, and each operation in one more.
func (v Violation) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: key %s: %s", v.Rule, kv.FormatKey([]byte(v.Key)), v.Text)
	for i := range v.Operations {
		b.WriteString("\n  ")
		b.WriteString(v.Operations[i].String())
	}
	return b.String()
}

func violation(rule Rule, key, text string, ops ...*Operation) Violation {
	v := Violation{Rule: rule, Key: key, Text: text}
	for _, o := range ops {
		v.Operations = append(v.Operations, *o)
	}
	return v
}

func sortByKey(keys []keyHistory) {
	slices.SortFunc(keys, func(a, b keyHistory) int { return cmp.Compare(a.key, b.key) })
}

// refuse gives the violations of a history that makes no sense.
func refuse(h History) []Violation {
	if err := h.Validate(); err != nil {
		return []Violation{{Rule: BadHistory, Text: err.Error()}}
	}
	return nil
}
