package check

import (
	"fmt"
	"math/big"
	"strconv"
)

// sum is the value of a counter after an increment; ok is false if the key holds no number, or the sum overflows.
func (r register) sum(delta int64) (value string, ok bool) {
	var counter int64
	if r.present {
		n, err := strconv.ParseInt(r.value, 10, 64)
		if err != nil {
			return "", false
		}
		counter = n
	}
	sum := counter + delta
	if (sum > counter) != (delta > 0) && delta != 0 {
		return "", false
	}
	return strconv.FormatInt(sum, 10), true
}

// tally is what a counter may hold that was only ever incremented.
type tally struct {
	// sure is the sum of the acknowledged increments; least and most add the unknown ones that lower and raise it.
	sure, least, most big.Int
	// step divides every unknown increment, so also the distance of the counter from sure; 0 when there are none.
	step big.Int
}

func tallyOf(done, unknown []*Operation) *tally {
	var t tally
	for _, o := range done {
		t.sure.Add(&t.sure, big.NewInt(o.Delta))
	}
	t.least.Set(&t.sure)
	t.most.Set(&t.sure)
	for _, o := range unknown {
		delta := big.NewInt(o.Delta)
		if o.Delta < 0 {
			t.least.Add(&t.least, delta)
		} else {
			t.most.Add(&t.most, delta)
		}
		t.step.GCD(nil, nil, &t.step, delta.Abs(delta))
	}
	return &t
}

// allows reports whether the counter may hold n.
func (t *tally) allows(n int64) bool {
	value := big.NewInt(n)
	if value.Cmp(&t.least) < 0 || value.Cmp(&t.most) > 0 {
		return false
	}
	if t.step.Sign() == 0 {
		return true // least and most are the same.
	}
	distance := new(big.Int).Sub(value, &t.sure)
	return distance.Rem(distance, &t.step).Sign() == 0
}

// Counts looks at counters: keys that are written by increments only, and by conditional puts that name in Delta what they
// add to the value that their client had read. Whoever reads one sees the sum of all that was acknowledged before, and
// nothing that was asked for after; what overlaps, or is unknown, counts once or not at all. So a lost and a double count
// are told as such, without a search for an order.
func Counts(h History) []Violation {
	if bad := refuse(h); bad != nil {
		return bad
	}
	var found []Violation
	for _, k := range h.byKey() {
		for _, o := range k.ops {
			if o.Kind.writes() && o.Kind != Increment && (o.Kind != CAS || o.Delta == 0) {
				found = append(found, violation(BadHistory, k.key, "it is written by other than increments", o))
				break
			}
			found = append(found, k.count(o)...)
		}
	}
	return found
}

// count judges what an operation saw of a counter.
func (k keyHistory) count(o *Operation) []Violation {
	if o.Outcome != Done || o.Kind == CAS {
		return nil
	}
	seen := o.Observed
	if o.Kind == Get && !o.Found {
		seen = "0"
	}
	var done, open []*Operation
	for _, p := range k.ops {
		adds := p.wrote() || p.mayHaveWritten()
		switch {
		case p == o || adds && p.Outcome == Done && p.Return < o.Call:
			done = append(done, p)
		case adds && p.Call <= o.Return:
			open = append(open, p)
		}
	}
	t := tallyOf(done, open)
	n, err := strconv.ParseInt(seen, 10, 64)
	if err == nil && t.allows(n) {
		return nil
	}
	text := fmt.Sprintf("it is seen as %s; what was acknowledged before sums to %v, and with what was under way it may be %v to %v", brief(seen), &t.sure, &t.least, &t.most)
	return []Violation{violation(WrongCount, k.key, text, o)}
}
