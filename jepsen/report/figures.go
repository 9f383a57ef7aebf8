package report

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/jepsen/workload"
)

// Figures measure a history.
type Figures struct {
	Operations, OK, Failed, Unknown int
	// Length is how long the workload kept its pace. The rates are of operations done, a second; QuietRate of the times
	// without a fault, 0 if there were none.
	Length          time.Duration
	Rate, QuietRate float64
	// Latencies of what was done, from when it was meant to begin.
	P50, P99, Max time.Duration
	// Outage is the longest time in which nothing was done.
	Outage time.Duration
	// Faults and Changes count what befell the cluster. A change that was asked for and told of counts once.
	Faults, Changes int
}

// Measure measures a history. It fails if no recorder can have written it.
func Measure(events []check.Event) (Figures, error) {
	t, err := newTimeline(events)
	if err != nil {
		return Figures{}, fmt.Errorf("measure: %w", err)
	}
	return t.measure(), nil
}

func (t *timeline) measure() Figures {
	f := Figures{Operations: len(t.calls), Length: time.Duration(t.to - t.from)}
	var latencies, ends []int64
	for i := range t.calls {
		switch c := &t.calls[i]; c.how {
		case ok:
			f.OK++
			latencies = append(latencies, c.to-c.from)
			if t.from <= c.to && c.to <= t.to {
				ends = append(ends, c.to)
			}
		case failed:
			f.Failed++
		default:
			f.Unknown++
		}
	}
	f.Faults, f.Changes = t.befell()
	f.P50, f.P99, f.Max = quantiles(latencies)
	slices.Sort(ends)
	f.Outage = outage(ends, t.from, t.to)
	f.Rate = float64(len(ends)) / f.Length.Seconds()
	f.QuietRate = t.quietRate(ends)
	return f
}

// befell counts faults and changes.
func (t *timeline) befell() (faults, happened int) {
	asked, told := map[string]int{}, map[string]int{}
	for i := range t.bands {
		switch b := &t.bands[i]; {
		case b.Not:
		case !b.change():
			faults++
		case b.Moment:
			told[b.Name]++
		default:
			asked[b.Name]++
		}
	}
	for _, name := range changes {
		happened += max(asked[name], told[name])
	}
	return faults, happened
}

// quantiles sorts latencies and gives the median, the 99th percentile and the longest.
func quantiles(latencies []int64) (p50, p99, longest time.Duration) {
	n := len(latencies)
	if n == 0 {
		return 0, 0, 0
	}
	slices.Sort(latencies)
	return time.Duration(latencies[n/2]), time.Duration(latencies[n*99/100]), time.Duration(latencies[n-1])
}

// outage is the longest time between two ends.
func outage(ends []int64, from, to int64) time.Duration {
	var longest int64
	before := from
	for _, e := range append(slices.Clone(ends), to) {
		longest = max(longest, e-before)
		before = e
	}
	return time.Duration(longest)
}

// quietRate counts the ends in the times without a fault.
func (t *timeline) quietRate(ends []int64) float64 {
	var quiet, before int64 = 0, t.from
	n := 0
	add := func(from, to int64) { // The ends in [from, to).
		if from < to {
			first, _ := slices.BinarySearch(ends, from)
			last, _ := slices.BinarySearch(ends, to)
			quiet += to - from
			n += last - first
		}
	}
	for _, b := range t.lasting() {
		if b.change() {
			continue
		}
		add(before, min(b.From, t.to))
		before = max(before, b.To)
	}
	add(before, t.to)
	if quiet == 0 {
		return 0
	}
	return float64(n) / time.Duration(quiet).Seconds()
}

// figurePairs names the figures for people.
func figurePairs(f Figures) []pair {
	return []pair{
		{"Operations", grouped(f.Operations)},
		{"Done (ok)", share(f.OK, f.Operations)},
		{"Refused (fail)", share(f.Failed, f.Operations)},
		{"Unknown (info)", share(f.Unknown, f.Operations)},
		{"At pace for", length(f.Length)},
		{"Done a second", decimal(f.Rate)},
		{"… without a fault", decimal(f.QuietRate)},
		{"Latency p50", length(f.P50)},
		{"Latency p99", length(f.P99)},
		{"Latency, longest", length(f.Max)},
		{"Longest outage", length(f.Outage)},
		{"Faults", grouped(f.Faults)},
		{"Changes of the map and of nodes", grouped(f.Changes)},
	}
}

// verdictPairs are what a workload measures besides.
func verdictPairs(v workload.Verdict) (pairs []pair) {
	for _, name := range slices.Sorted(maps.Keys(v.Figures)) {
		pairs = append(pairs, pair{name, decimal(v.Figures[name])})
	}
	return pairs
}

func share(n, of int) string {
	if of == 0 {
		return "0"
	}
	return fmt.Sprintf("%s (%.2f %%)", grouped(n), 100*float64(n)/float64(of))
}

// grouped writes a number with its thousands apart.
func grouped(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// decimal writes a number as exactly as people need it.
func decimal(x float64) string {
	switch {
	case x == float64(int64(x)):
		return grouped(int(x))
	case x >= 100 || x <= -100:
		return grouped(int(x + 0.5))
	}
	return strconv.FormatFloat(x, 'g', 3, 64)
}

// length writes a time with three digits.
func length(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{time.Second, "s"}, {time.Millisecond, "ms"}, {time.Microsecond, "µs"}} {
		if d >= u.unit {
			x := float64(d) / float64(u.unit)
			if x >= 100 {
				return fmt.Sprintf("%.0f %s", x, u.name)
			}
			return strconv.FormatFloat(x, 'g', 3, 64) + " " + u.name
		}
	}
	return fmt.Sprintf("%d ns", d)
}

// seconds writes a moment.
func seconds(ns int64) string { return fmt.Sprintf("%.3f s", float64(ns)/1e9) }
