package workload

import (
	"cmp"
	"context"

	"github.com/kvdstore/kvd/check"
)

const (
	// keysInUseMin are read and written at a time, more with many processes: the search for an order of the operations on
	// a key is quick while no more than about processesOfKey are under way. Each is put aside after keyUsesMax operations.
	keysInUseMin   = 24
	processesOfKey = 4
	keyUsesMax     = 200
)

func (r *Run) keysInUse() int { return cmp.Or(r.Keys, max(keysInUseMin, r.Processes/processesOfKey)) }

// registers are keys that are read, written, and written on a condition. Each is linearizable by itself.
type registers struct {
	run  *Run
	keys *pool
}

func newRegister(r *Run) driver { return &registers{r, newPool(r.Prefix, r.keysInUse(), keyUsesMax)} }

func (d *registers) setup(context.Context) error { return nil }

func (d *registers) step(ctx context.Context, t *thread) {
	key, seen := d.keys.pick(t.rng)
	var told check.Told
	var err error
	switch n := t.rng.IntN(10); {
	case n < 5:
		told, err = t.get(ctx, key, check.Asked{})
	case n < 8:
		told, err = t.put(ctx, key, check.Asked{Value: t.value()})
	default:
		told, err = t.cas(ctx, key, check.Asked{Value: t.value(), Expect: seen})
	}
	d.keys.note(key, told, err)
}

func (d *registers) readBack(ctx context.Context) error { return d.run.readKeys(ctx, d.keys.all()) }

func judgeRegister(j *judging) {
	k := j.operations()
	j.found(check.Revisions(k.History)...)
	j.found(k.NoLostWrites()...)
	j.found(check.Linearizable(k.History, searchMax)...)
}
