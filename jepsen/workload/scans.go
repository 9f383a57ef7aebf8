package workload

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/kv"
)

// scan reads a span in order, and records it as check.ScansOf reads it.
func (t *thread) scan(ctx context.Context, asked check.ScanAsked) error {
	o := client.ScanOptions{Span: kv.Span{Start: []byte(asked.From), End: []byte(asked.To)}, Limit: asked.Limit, KeysOnly: asked.KeysOnly}
	return t.read(ctx, check.ScanName, &asked, func(ctx context.Context) (any, error) {
		items := []check.ScanItem{}
		for item, err := range t.client.Scan(ctx, o) {
			if err != nil {
				return nil, err
			}
			items = append(items, check.ScanItem{Key: string(item.Key), Value: string(item.Record.Value), Revision: item.Record.Revision})
		}
		return items, nil
	})
}

// bucketSpan holds buckets [from, to) under the prefix.
func bucketSpan(prefix string, from, to int) (string, string) {
	if to >= buckets {
		return bucketed(prefix, from), string(kv.PrefixSpan([]byte(prefix)).End)
	}
	return bucketed(prefix, from), bucketed(prefix, to)
}

// occasion comes every so often, for whoever asks first.
type occasion struct {
	every time.Duration
	next  atomic.Int64
}

func (o *occasion) due(now time.Duration) bool {
	next := o.next.Load()
	return int64(now) >= next && o.next.CompareAndSwap(next, int64(now+o.every))
}

// readBuckets scans everything at the end, so many buckets at a time.
func (r *Run) readBuckets(ctx context.Context, width int) error {
	return r.each(ctx, (buckets+width-1)/width, func(ctx context.Context, t *thread, i int) error {
		from, to := bucketSpan(r.Prefix, i*width, (i+1)*width)
		return t.scan(ctx, check.ScanAsked{From: from, To: to})
	})
}

// scans are those of the history, with the operations beside them.
func (j *judging) scans() (check.History, []check.Scan) {
	k := j.operations()
	scans, err := check.ScansOf(j.calls)
	j.failed(err)
	keys := 0
	for i := range scans {
		keys += len(scans[i].Items)
	}
	j.verdict.Figures["scans"], j.verdict.Figures["keys_scanned"] = float64(len(scans)), float64(keys)
	return k.History, scans
}
