package workload

import (
	"context"
	"slices"
	"time"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/client"
)

// staleKeys are written, and read at any replica.
const staleKeys = 48

// stale reads what any replica holds: old perhaps, but never made up, and never from the future.
type stale struct {
	run  *Run
	keys []string
}

func newStale(r *Run) driver {
	d := &stale{run: r}
	for i := range staleKeys {
		d.keys = append(d.keys, spread(r.Prefix, i))
	}
	return d
}

func (d *stale) setup(context.Context) error { return nil }

func (d *stale) step(ctx context.Context, t *thread) {
	key := d.keys[t.rng.IntN(len(d.keys))]
	if t.rng.IntN(3) == 0 {
		_, _ = t.put(ctx, key, check.Asked{Value: t.value()})
		return
	}
	_ = t.read(ctx, check.EventualName, &check.Asked{Key: key}, func(ctx context.Context) (any, error) {
		item, found, err := t.client.Get(ctx, []byte(key), client.Eventual())
		return check.Told{Found: found, Observed: string(item.Record.Value), Revision: item.Record.Revision}, err
	})
}

func (d *stale) readBack(ctx context.Context) error { return d.run.readKeys(ctx, d.keys) }

func judgeStale(j *judging) {
	k := j.operations()
	reads, failed, err := check.EventualOf(j.calls)
	j.failed(err)
	violations, ages := check.Eventual(k.History, reads)
	j.found(violations...)
	j.found(check.Revisions(k.History)...)
	j.found(k.NoLostWrites()...)
	if len(reads) == 0 {
		j.verdict.Note = "EVENTUAL reads were not served, so nothing is known of them: " + j.refusal(check.EventualName)
	}
	f := j.verdict.Figures
	f["eventual_reads"], f["eventual_reads_failed"] = float64(len(reads)), float64(failed)
	j.ages(ages)
}

// refusal is why the last operation of a name was refused.
func (j *judging) refusal(name string) string {
	for _, c := range slices.Backward(j.calls) {
		if c.Invoke.F == name && c.Type() == check.Failed {
			return c.Done.Error
		}
	}
	return "none was asked for"
}

// ageEvery is what one point of the series of ages stands for.
const ageEvery = 100 * time.Millisecond

// ages makes figures and series of how old reads were.
func (j *judging) ages(ages []check.Age) {
	if len(ages) == 0 {
		return
	}
	type sum struct {
		n, total, oldest float64
	}
	sums := map[int64]*sum{}
	all := make([]float64, len(ages))
	stale := 0
	for i, a := range ages {
		ms := float64(a.Age) / 1e6
		if all[i] = ms; ms > 0 {
			stale++
		}
		at := a.At / int64(ageEvery) * int64(ageEvery)
		if sums[at] == nil {
			sums[at] = &sum{}
		}
		s := sums[at]
		s.n, s.total, s.oldest = s.n+1, s.total+ms, max(s.oldest, ms)
	}
	slices.Sort(all)
	f := j.verdict.Figures
	f["stale_reads"], f["staleness_p99_ms"], f["staleness_max_ms"] = float64(stale), all[len(all)*99/100], all[len(all)-1]
	var mean, oldest []Point
	for at, s := range sums {
		mean = append(mean, Point{at, s.total / s.n})
		oldest = append(oldest, Point{at, s.oldest})
	}
	for _, series := range [][]Point{mean, oldest} {
		slices.SortFunc(series, func(a, b Point) int { return int(a.At - b.At) })
	}
	j.verdict.Series["staleness_mean_ms"], j.verdict.Series["staleness_max_ms"] = mean, oldest
}
