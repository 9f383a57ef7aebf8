package workload

import (
	"context"
	"strconv"

	"github.com/kvdstore/kvd/check"
)

// counters are keys that are added to: by increments, and by reading a counter and writing the sum if it has not changed
// since. Nothing counts twice, and nothing is lost.
type counters struct {
	run  *Run
	keys *pool
}

// addMax is the most that is added at once.
const addMax = 9

func newCounter(r *Run) driver { return &counters{r, newPool(r.Prefix, r.keysInUse(), keyUsesMax)} }

func (d *counters) setup(context.Context) error { return nil }

func (d *counters) step(ctx context.Context, t *thread) {
	key, _ := d.keys.pick(t.rng)
	delta := 1 + t.rng.Int64N(addMax)
	var told check.Told
	var err error
	switch n := t.rng.IntN(10); {
	case n < 4:
		told, err = t.increment(ctx, key, delta)
	case n < 6:
		told, err = t.get(ctx, key, check.Asked{})
	default:
		told, err = d.add(ctx, t, key, delta)
	}
	d.keys.note(key, told, err)
}

// add reads a counter, and writes the sum on the condition that nobody else did.
func (d *counters) add(ctx context.Context, t *thread, key string, delta int64) (check.Told, error) {
	told, err := t.get(ctx, key, check.Asked{})
	if err != nil {
		return told, err
	}
	n, _ := strconv.ParseInt(told.Observed, 10, 64) // What is no number, Counts will find.
	return t.cas(ctx, key, check.Asked{Value: strconv.FormatInt(n+delta, 10), Expect: told.Revision, Delta: delta})
}

func (d *counters) readBack(ctx context.Context) error { return d.run.readKeys(ctx, d.keys.all()) }

func judgeCounter(j *judging) {
	k := j.operations()
	j.found(check.Counts(k.History)...)
	j.found(check.Revisions(k.History)...)
	j.found(k.NoLostWrites()...)
	j.found(check.Linearizable(k.History, searchMax)...)
}
