package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/kv"
)

// bounds of the 99th percentile around the changes of a kind. A move may hand the leadership over.
var bounds = map[string]time.Duration{
	split: 100 * time.Millisecond, transfer: 100 * time.Millisecond, move: 100 * time.Millisecond, merge: 300 * time.Millisecond,
}

// latencies of some operations, in microseconds.
type latencies struct{ *hdrhistogram.Histogram }

func newLatencies() latencies { return latencies{hdrhistogram.New(1, time.Hour.Microseconds(), 3)} }

func (l latencies) at(percent float64) time.Duration {
	return time.Duration(l.ValueAtQuantile(percent)) * time.Microsecond
}

// add notes an operation. With the time between two of its thread also those that the thread would have begun meanwhile:
// a thread that waits for one slow answer asks for nothing else, and would hide how many it concerns.
func (l latencies) add(o *check.Operation, every time.Duration) {
	_ = l.RecordCorrectedValue(max(time.Duration(o.Return-o.Call).Microseconds(), 1), every.Microseconds())
}

// row is what was measured of the quiet run or of a kind.
type row struct {
	kind string
	// length is how long it took in all; took how long each change did, as its operator sees it.
	length time.Duration
	took   []time.Duration
	// all are the operations in the windows; near those of them on the shards that are changed, as if they had been asked
	// for at a constant rate.
	all, near latencies
	longest   *check.Operation
	// pauses are the longest operation on the shards of each change.
	pauses []time.Duration
}

// summary is the table.
type summary []*row

// measure sorts the operations into the quiet run and the windows around the changes.
func (t *trial) measure() summary {
	quiet := &row{kind: "quiet", length: time.Duration(t.quiet.to - t.quiet.from), all: newLatencies(), near: newLatencies()}
	list := summary{quiet}
	every := time.Duration(writers+readers) * time.Second / time.Duration(t.rate)
	t.eachIn(t.quiet, func(o *check.Operation) {
		quiet.take(o)
		quiet.near.add(o, every)
	})
	for _, s := range t.series {
		list = append(list, t.measureSeries(s, every))
	}
	return list
}

// eachIn calls f with the operations that overlap a window. Each thread's are in order.
func (t *trial) eachIn(w window, f func(o *check.Operation)) {
	for _, x := range t.workers {
		i := sort.Search(len(x.history), func(i int) bool { return x.history[i].Return >= w.from })
		for ; i < len(x.history) && x.history[i].Call <= w.to; i++ {
			f(&x.history[i])
		}
	}
}

func (t *trial) measureSeries(s *series, every time.Duration) *row {
	r := &row{kind: s.kind, length: s.length, all: newLatencies(), near: newLatencies()}
	all, near := map[*check.Operation]bool{}, map[*check.Operation]bool{}
	for _, c := range s.changes {
		if c.err != nil {
			continue
		}
		r.took = append(r.took, time.Duration(c.to-c.from)-after)
		pause := time.Duration(0)
		t.eachIn(c.window, func(o *check.Operation) {
			all[o] = true
			if c.span.Contains([]byte(o.Key)) {
				near[o] = true
				pause = max(pause, time.Duration(o.Return-o.Call))
			}
		})
		r.pauses = append(r.pauses, pause)
	}
	slices.Sort(r.took)
	slices.Sort(r.pauses)
	for o := range all {
		r.take(o)
	}
	// A thread asks for one of those shards the more rarely the fewer they are.
	if len(near) > 0 {
		every = every * time.Duration(len(all)) / time.Duration(len(near))
	}
	for o := range near {
		r.near.add(o, every)
	}
	return r
}

func (r *row) take(o *check.Operation) {
	r.all.add(o, 0)
	if r.longest == nil || cmp.Compare(o.Return-o.Call, r.longest.Return-r.longest.Call) > 0 {
		r.longest = o
	}
}

// print prints the table.
func (s summary) print(out io.Writer, t *trial) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\t\t\ta change\t\tall keys\t\t\t\t\tchanged shards\t\t\tlongest of a change\t\t")
	fmt.Fprintln(w, "kind\tchanges\tin\tp50\tmax\toperations\tp50\tp99\tp99.9\tlongest\tp50\tp99\tp99.9\tp50\tp90\t")
	for _, r := range s {
		changes, half, most, pause, pause90 := "", "", "", "", ""
		if n := len(r.took); n > 0 {
			changes, half, most = fmt.Sprint(n), short(r.took[n/2]), short(r.took[n-1])
			pause, pause90 = short(r.pauses[n/2]), short(r.pauses[n*9/10])
		}
		longest := time.Duration(0)
		if r.longest != nil {
			longest = time.Duration(r.longest.Return - r.longest.Call)
		}
		fmt.Fprintf(w, "%s\t%s\t%.0fs\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", r.kind, changes, r.length.Seconds(), half, most, r.all.TotalCount(),
			short(r.all.at(50)), short(r.all.at(99)), short(r.all.at(99.9)), short(longest),
			short(r.near.at(50)), short(r.near.at(99)), short(r.near.at(99.9)), pause, pause90)
	}
	_ = w.Flush()
	for _, r := range s {
		if r.longest != nil {
			fmt.Fprintf(out, "longest, %s: %v of %s at %.3f s\n", r.kind, r.longest.Kind, kv.FormatKey([]byte(r.longest.Key)), float64(r.longest.Call)/1e9)
		}
	}
	fmt.Fprintf(out, "scans: %s\n", t.describeScans())
}

// tellSlow tells of each slow operation on the shards of a change.
func (t *trial) tellSlow() {
	for _, s := range t.series {
		for _, c := range s.changes {
			t.eachIn(c.window, func(o *check.Operation) {
				if t.slow > 0 && o.Return-o.Call > int64(t.slow) && c.span.Contains([]byte(o.Key)) {
					at := t.began.Add(time.Duration(o.Call))
					fmt.Fprintf(t.out, "changes: %s of %v, %.3f to %.3f s: at %.3f s (%s) process %d took %s: %v %s\n", s.kind, c.span, float64(c.from)/1e9,
						float64(c.to-int64(after))/1e9, float64(o.Call)/1e9, at.UTC().Format("15:04:05.000"), o.Process, short(time.Duration(o.Return-o.Call)), o.Kind, kv.FormatKey([]byte(o.Key)))
				}
			})
		}
	}
}

// describeScans tells how long scans took, in the quiet run and after it.
func (t *trial) describeScans() string {
	var quiet, changed []time.Duration
	for _, s := range t.scans {
		if d := time.Duration(s.to - s.from); s.from < t.quiet.to {
			quiet = append(quiet, d)
		} else {
			changed = append(changed, d)
		}
	}
	tell := func(list []time.Duration) string {
		if len(list) == 0 {
			return "none"
		}
		slices.Sort(list)
		return fmt.Sprintf("%d, p50 %s, longest %s", len(list), short(list[len(list)/2]), short(list[len(list)-1]))
	}
	return tell(quiet) + " in the quiet run; " + tell(changed) + " in that with changes"
}

// short is a time in milliseconds.
func short(d time.Duration) string { return fmt.Sprintf("%.1fms", float64(d)/1e6) }

// tooSlow tells which bounds do not hold.
func (s summary) tooSlow() error {
	var errs []error
	for _, r := range s {
		bound, ok := bounds[r.kind]
		if !ok {
			continue
		}
		if got := r.all.at(99); got > bound {
			errs = append(errs, fmt.Errorf("%s: the 99th percentile is %s, above %s", r.kind, short(got), short(bound)))
		}
		if got := r.near.at(99); got > bound {
			errs = append(errs, fmt.Errorf("%s: the 99th percentile of the changed shards is %s, above %s", r.kind, short(got), short(bound)))
		}
	}
	return errors.Join(errs...)
}
