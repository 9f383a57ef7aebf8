package workload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/kv"
)

const (
	// expiringUsesMax is keyUsesMax of keys with an expiry: each write has one more moment, that of its end.
	expiringUsesMax = 100
	// livesMin and livesMax bound how long a key lives.
	livesMin, livesMax = 100 * time.Millisecond, 3 * time.Second
	// clockKeys are looked at for the cluster's clocks.
	clockKeys = 8
)

// expiring are keys that go away: none before its time, none is seen more than a second after it, none comes back.
type expiring struct {
	run  *Run
	keys *pool
}

func newExpiry(r *Run) driver { return &expiring{r, newPool(r.Prefix, r.keysInUse(), expiringUsesMax)} }

// setup finds out how the clocks of the cluster stand to the one here. It is an error if they are further away than the run
// allows for: nothing could be said then.
func (d *expiring) setup(ctx context.Context) error {
	var away atomic.Int64
	err := d.run.each(ctx, clockKeys, func(ctx context.Context, t *thread, i int) error {
		return t.read(ctx, check.ClocksName, &check.Intent{}, func(ctx context.Context) (any, error) {
			told, err := t.clocks(ctx, spread(d.run.Prefix+"clock/", i))
			if told.Away() > told.Skew {
				away.Store(told.Away())
			}
			return told, err
		})
	})
	if away := time.Duration(away.Load()); err == nil && away > 0 {
		err = fmt.Errorf("a clock of the cluster is %v away from the one here, and %v is allowed for", away.Round(time.Millisecond), d.run.Skew)
	}
	return err
}

// clocks writes a key with an expiry, and looks what became of it.
func (t *thread) clocks(ctx context.Context, key string) (told check.ClocksTold, err error) {
	began := t.run.Recorder.Since()
	if _, err := t.client.Put(ctx, []byte(key), nil, client.TTL(time.Hour)); err != nil {
		return told, err
	}
	ended := t.run.Recorder.Since()
	item, found, err := t.client.Get(ctx, []byte(key))
	if err != nil {
		return told, err
	}
	if !found {
		return told, errors.New("a key that was to live for an hour is gone")
	}
	shown := t.run.moment(item.Record.ExpireAt) - int64(time.Hour)
	return check.ClocksTold{Skew: int64(t.run.Skew), AheadLeast: shown - int64(ended), AheadMost: shown - int64(began)}, nil
}

func (d *expiring) step(ctx context.Context, t *thread) {
	key, _ := d.keys.pick(t.rng)
	lives := (livesMin + time.Duration(t.rng.Int64N(int64(livesMax-livesMin)))).Truncate(time.Millisecond)
	asked := check.Asked{Value: t.value()}
	var list []client.WriteOption
	switch n := t.rng.IntN(20); {
	case n < 11:
		_, _ = t.get(ctx, key, check.Asked{})
		return
	case n < 12:
		_, err := t.delete(ctx, key)
		d.keys.note(key, check.Told{}, err)
		return
	case n < 17:
		asked.TTL = int64(lives)
		list = append(list, client.TTL(lives))
	case n < 19:
		at := time.Now().Add(lives).Truncate(time.Millisecond)
		asked.ExpireAt = d.run.moment(at.UnixMilli())
		list = append(list, client.ExpireAt(at))
	}
	_, err := t.put(ctx, key, asked, list...)
	d.keys.note(key, check.Told{}, err)
}

func (d *expiring) readBack(ctx context.Context) error { return d.run.readKeys(ctx, d.keys.all()) }

// boundsOf are those that expiry has to keep.
func boundsOf(calls []check.Call) check.Bounds {
	return check.Bounds{Late: int64(kv.ExpiryLateMax), Skew: cmp.Or(check.SkewOf(calls), int64(skewDefault))}
}

func judgeExpiry(j *judging) {
	k := j.operations()
	bounds := boundsOf(j.calls)
	j.found(check.Revisions(k.History)...)
	j.found(k.NoLostWrites()...)
	j.found(check.Expiry(k.History, bounds, searchMax)...)
	j.verdict.Figures["clock_skew_allowed_ms"] = float64(bounds.Skew) / 1e6
}
