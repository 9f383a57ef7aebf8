package workload

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/kvdstore/kvd/check"
)

const (
	// setScanEvery is between two scans, which are of about setScanKeys keys.
	setScanEvery = 40 * time.Millisecond
	setScanKeys  = 200
	// setLastKeys are what a scan at the end has, about: a line of a history has its bound.
	setLastKeys = 2000
)

// set is one that only grows: each element is a key that is written once. Scans of parts of it lack nothing that had been
// acknowledged, or seen, before they began, and give nothing twice.
type set struct {
	run   *Run
	next  atomic.Int64
	scans occasion
}

func newSet(r *Run) driver { return &set{run: r, scans: occasion{every: setScanEvery}} }

func (d *set) setup(context.Context) error { return nil }

func (d *set) step(ctx context.Context, t *thread) {
	if d.scans.due(d.run.Recorder.Since()) {
		width := d.width(setScanKeys)
		first := t.rng.IntN(buckets - width + 1)
		from, to := bucketSpan(d.run.Prefix, first, first+width)
		_ = t.scan(ctx, check.ScanAsked{From: from, To: to, KeysOnly: t.rng.IntN(2) == 0})
		return
	}
	_, _ = t.cas(ctx, spread(d.run.Prefix, int(d.next.Add(1))), check.Asked{Value: t.value()})
}

// width is how many buckets hold so many keys, about.
func (d *set) width(keys int) int {
	return max(1, min(buckets, keys*buckets/(int(d.next.Load())+1)))
}

func (d *set) readBack(ctx context.Context) error {
	return d.run.readBuckets(ctx, d.width(setLastKeys))
}

func judgeSet(j *judging) {
	h, scans := j.scans()
	j.found(check.Scans(h, scans)...)
	read := check.Scanned(h, scans)
	j.found(check.Revisions(read)...)
	// An insert is refused only if the key is there.
	refused := map[string]bool{}
	for i := range h {
		if o := &h[i]; o.Kind == check.CAS && o.Outcome == check.Done && !o.Succeeded {
			refused[o.Key] = true
		}
	}
	j.found(check.Linearizable(read.Of(refused), searchMax)...)
}
