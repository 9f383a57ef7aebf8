package check

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

// Linearizable looks, key by key, for an order of the operations that explains every answer and in which each
// operation takes effect between its call and its return (porcupine does the search). Operations that were not
// done are left out, so that seeing one's value is a violation. Unknown ones may have happened at any time after
// their call, or never.
//
// The search is exponential at worst; timeout bounds all of it together, 0 means no bound. A key for which it ends
// without an answer counts as a violation (TimedOut). Each violation names the operation whose return made the
// history impossible, then those that overlap it, then the last ones before.
func Linearizable(h History, timeout time.Duration) []Violation {
	if bad := refuse(h); bad != nil {
		return bad
	}
	var deadline time.Time
	if timeout > 0 {
		deadline = time.Now().Add(timeout)
	}
	var found []Violation
	for _, k := range h.byKey() {
		switch search(k.ops, deadline) {
		case porcupine.Illegal:
			found = append(found, explain(k, deadline))
		case porcupine.Unknown:
			found = append(found, violation(TimedOut, k.key, fmt.Sprintf("no answer for %d operations within %v in all", len(k.ops), timeout)))
		}
	}
	return found
}

// search asks porcupine about one key.
func search(ops []*Operation, deadline time.Time) porcupine.CheckResult {
	var left time.Duration
	if !deadline.IsZero() {
		// Porcupine takes 0 for no bound.
		left = max(time.Until(deadline), time.Nanosecond)
	}
	return porcupine.CheckOperationsTimeout(model, plan(ops), left)
}

// explain finds the first return after which there is no order any more. A prefix of a linearizable history is
// linearizable, so a binary search does it.
func explain(k keyHistory, deadline time.Time) Violation {
	returns := slices.DeleteFunc(slices.Clone(k.ops), func(o *Operation) bool { return o.Outcome != Done })
	slices.SortStableFunc(returns, func(a, b *Operation) int { return cmp.Compare(a.Return, b.Return) })
	n := sort.Search(len(returns), func(i int) bool {
		return search(until(k.ops, returns[i].Return), deadline) == porcupine.Illegal
	})
	if n == len(returns) { // The searches ran out of time.
		return violation(NotLinearizable, k.key, fmt.Sprintf("no order of the %d operations explains their answers", len(k.ops)), k.ops...)
	}
	text := fmt.Sprintf("no order of the operations explains their answers once this one has returned (%d of %d had returned before)", n, len(returns))
	return violation(NotLinearizable, k.key, text, around(k.ops, returns, n)...)
}

// until is what a client that stopped looking at a moment would have recorded.
func until(ops []*Operation, moment int64) []*Operation {
	var prefix []*Operation
	for _, o := range ops {
		switch {
		case o.Call > moment:
		case o.Outcome == Done && o.Return > moment:
			pending := *o
			pending.Outcome = Unknown
			prefix = append(prefix, &pending)
		default:
			prefix = append(prefix, o)
		}
	}
	return prefix
}

const (
	// overlapsShown and earlierShown bound what a violation shows beside the operation itself.
	overlapsShown = 8
	earlierShown  = 4
)

func around(ops, returns []*Operation, n int) []*Operation {
	o := returns[n]
	shown := []*Operation{o}
	for _, p := range ops {
		overlaps := p.Call <= o.Return && (p.Outcome == Unknown || p.Return >= o.Call)
		if p != o && p.Outcome != NotDone && overlaps && len(shown) <= overlapsShown {
			shown = append(shown, p)
		}
	}
	earlier := 0
	for i := n - 1; i >= 0 && earlier < earlierShown; i-- {
		if returns[i].Return < o.Call {
			shown = append(shown, returns[i])
			earlier++
		}
	}
	return shown
}
