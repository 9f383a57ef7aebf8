package workload

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/kv"
)

const (
	// lastingKeys are there all the time, and written again and again; of fleetingKeys each comes and goes.
	lastingKeys, fleetingKeys = 512, 256
	// scanEvery is between two scans of a part, wholeEvery between two of everything: their reads go into the search for an
	// order, key by key.
	scanEvery  = 40 * time.Millisecond
	wholeEvery = time.Second
	// limitMax is the most keys that a scan with a limit asks for.
	limitMax = 40
)

// scanned are keys that are written, come and go while they are scanned: in spans of all kinds, by prefix, up to a limit,
// with and without values, over the bounds of shards that may move meanwhile.
type scanned struct {
	run         *Run
	part, whole occasion
}

func newScan(r *Run) driver {
	return &scanned{run: r, part: occasion{every: scanEvery}, whole: occasion{every: wholeEvery}}
}

// setup writes the keys that are to be there.
func (d *scanned) setup(ctx context.Context) error {
	return d.run.each(ctx, lastingKeys, func(ctx context.Context, t *thread, i int) error {
		_, err := t.put(ctx, spread(d.run.Prefix, i), check.Asked{Value: t.value()})
		return err
	})
}

func (d *scanned) step(ctx context.Context, t *thread) {
	now := d.run.Recorder.Since()
	switch {
	case d.whole.due(now):
		_ = t.scan(ctx, d.everything(t.rng.IntN(2) == 0))
		return
	case d.part.due(now):
		_ = t.scan(ctx, d.some(t.rng))
		return
	}
	n := t.rng.IntN(lastingKeys + fleetingKeys*2) // The fleeting ones are changed twice as often.
	if n >= lastingKeys {
		n = lastingKeys + (n-lastingKeys)/2
	}
	key := spread(d.run.Prefix, n)
	if n >= lastingKeys && t.rng.IntN(2) == 0 {
		_, _ = t.delete(ctx, key)
		return
	}
	_, _ = t.put(ctx, key, check.Asked{Value: t.value()})
}

func (d *scanned) everything(keysOnly bool) check.ScanAsked {
	span := d.run.Span()
	return check.ScanAsked{From: string(span.Start), To: string(span.End), KeysOnly: keysOnly}
}

// some is a scan of a part.
func (d *scanned) some(rng *rand.Rand) check.ScanAsked {
	asked := d.everything(rng.IntN(2) == 0)
	switch rng.IntN(3) {
	case 0: // By a prefix: a bucket, or sixteen of them.
		digits := bucketed(d.run.Prefix, rng.IntN(buckets))[len(d.run.Prefix):]
		span := kv.PrefixSpan([]byte(d.run.Prefix + digits[:1+rng.IntN(2)]))
		asked.From, asked.To = string(span.Start), string(span.End)
	case 1: // From one key to another.
		asked.From, asked.To = spread(d.run.Prefix, rng.IntN(lastingKeys)), spread(d.run.Prefix, rng.IntN(lastingKeys))
		if asked.From > asked.To {
			asked.From, asked.To = asked.To, asked.From
		}
		asked.Limit = limitMax
	default: // The next few from a key.
		asked.From = spread(d.run.Prefix, rng.IntN(lastingKeys))
		asked.Limit = 1 + rng.IntN(limitMax)
	}
	return asked
}

func (d *scanned) readBack(ctx context.Context) error { return d.run.readBuckets(ctx, buckets/16) }

func judgeScan(j *judging) {
	h, scans := j.scans()
	read := check.Scanned(h, scans)
	j.found(check.Scans(h, scans)...)
	j.found(check.Revisions(read)...)
	j.found(check.Linearizable(read, searchMax)...)
}
