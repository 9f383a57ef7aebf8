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
// their call, or never. Keys with an expiry are refused: Expiry judges them.
//
// The search is exponential at worst; timeout bounds all of it together, 0 means no bound. A hard key, which may
// need a third of that, leaves time for the others. A key for which it ends without an answer counts as a violation
// (TimedOut). Each violation names the operation whose return made the history impossible, then those that overlap
// it, then the last ones before.
func Linearizable(h History, timeout time.Duration) []Violation {
	if bad := refuse(h); bad != nil {
		return bad
	}
	var found []Violation
	var left []keyHistory
	for _, k := range h.byKey() {
		if o := k.expiring(); o != nil {
			found = append(found, violation(BadHistory, k.key, "there are operations with an expiry, which Expiry judges", o))
			continue
		}
		left = append(left, k)
	}
	return append(found, newSearch(Bounds{}, timeout).judge(left)...)
}

// search looks for orders until its time is up.
type search struct {
	bounds   Bounds
	timeout  time.Duration
	deadline time.Time // Zero for no bound.
}

func newSearch(bounds Bounds, timeout time.Duration) *search {
	s := &search{bounds: bounds, timeout: timeout}
	if timeout > 0 {
		s.deadline = time.Now().Add(timeout)
	}
	return s
}

// judge looks at each key for a small share of the time, and then again and again for twice as long at those that are left: an easy one
// does not wait for a hard one, and no more time is lost than is used. What is wrong is explained when all were looked at.
func (s *search) judge(keys []keyHistory) (found []Violation) {
	var wrong []keyHistory
	for share := s.timeout / time.Duration(firstShares*max(len(keys), 1)); ; share = min(2*share, s.timeout) {
		wrong, keys = s.look(wrong, keys, share)
		if len(keys) == 0 || share >= s.timeout || !time.Now().Before(s.deadline) {
			break
		}
	}
	for _, k := range wrong {
		found = append(found, s.explain(k))
	}
	for _, k := range keys {
		found = append(found, violation(TimedOut, k.key, fmt.Sprintf("no answer for %d operations within %v in all", len(k.ops), s.timeout)))
	}
	return found
}

// firstShares is how often the first shares of all keys go into the whole time.
const firstShares = 16

// look takes so long for a key at most. It adds those that are wrong, and gives those for which that was too little.
func (s *search) look(wrong, keys []keyHistory, most time.Duration) (_, undecided []keyHistory) {
	for _, k := range keys {
		switch s.order(k.ops, most) {
		case porcupine.Illegal:
			wrong = append(wrong, k)
		case porcupine.Unknown:
			undecided = append(undecided, k)
		}
	}
	return wrong, undecided
}

// order asks porcupine about one key, for so long at most.
func (s *search) order(ops []*Operation, most time.Duration) porcupine.CheckResult {
	if s.timeout > 0 {
		// Porcupine takes 0 for no bound.
		most = max(min(most, time.Until(s.deadline)), time.Nanosecond)
	}
	return porcupine.CheckOperationsTimeout(model, plan(ops, s.bounds), most)
}

// explain finds the first return after which there is no order any more. A prefix of a linearizable history is
// linearizable, so a binary search does it.
func (s *search) explain(k keyHistory) Violation {
	returns := slices.DeleteFunc(slices.Clone(k.ops), func(o *Operation) bool { return o.Outcome != Done })
	slices.SortStableFunc(returns, func(a, b *Operation) int { return cmp.Compare(a.Return, b.Return) })
	n := sort.Search(len(returns), func(i int) bool {
		return s.order(until(k.ops, returns[i].Return), s.timeout) == porcupine.Illegal
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
