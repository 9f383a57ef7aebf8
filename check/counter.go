package check

import (
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
