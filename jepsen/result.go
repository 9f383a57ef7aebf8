package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/jepsen/nemesis"
	"github.com/kvdstore/kvd/jepsen/workload"
)

const (
	// rateLeast is how many operations a second must be done in the times without a fault.
	rateLeast = 100
	// shownMost bounds how many of a kind are told.
	shownMost = 5
)

// result is a run's, and what summary.json holds.
type result struct {
	Workload string   `json:"workload"`
	Faults   []string `json:"faults"`
	Nodes    int      `json:"nodes"`
	Seed     uint64   `json:"seed"`
	Tags     []string `json:"tags,omitempty"`
	// Namespaces: the nodes had some; else the proxy.
	Namespaces bool      `json:"namespaces"`
	Ended      time.Time `json:"ended"`
	// Seconds that clients were at work, and Rate that they were to have.
	Seconds float64 `json:"seconds"`
	Rate    float64 `json:"rate"`

	Valid bool `json:"valid"`
	// Reasons why it is not.
	Reasons    []string `json:"reasons,omitempty"`
	Violations []string `json:"violations,omitempty"`
	Note       string   `json:"note,omitempty"`

	Operations int `json:"operations"`
	OK         int `json:"ok"`
	Failed     int `json:"failed"`
	Unknown    int `json:"unknown"`
	// QuietSeconds are without a fault, and QuietRate is how many operations a second were done then.
	QuietSeconds float64 `json:"quiet_seconds"`
	QuietRate    float64 `json:"quiet_rate"`
	// OutageSeconds is the longest time in which nothing of the workload was done.
	OutageSeconds float64        `json:"longest_outage_seconds"`
	Injected      map[string]int `json:"injected"`
	// NotInjected counts those that could not be when their time had come.
	NotInjected int                `json:"not_injected"`
	P50Millis   float64            `json:"p50_ms"`
	P99Millis   float64            `json:"p99_ms"`
	MaxMillis   float64            `json:"max_ms"`
	Figures     map[string]float64 `json:"figures,omitempty"`
	// PeakMemory of each node's processes, in bytes.
	PeakMemory map[string]int64 `json:"peak_memory_bytes"`
}

func (t *trial) result(v workload.Verdict, events []check.Event) *result {
	millis := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
	r := &result{
		Workload: t.row.workload, Faults: t.faults, Nodes: t.nodes, Seed: t.seed, Tags: t.h.tags, Namespaces: t.h.namespaced, Ended: time.Now().UTC().Truncate(time.Second),
		Seconds: float64(t.drive.To-t.drive.From) / 1e9, Rate: t.rate, Note: v.Note,
		Operations: v.Operations, OK: v.OK, Failed: v.Failed, Unknown: v.Unknown, Injected: t.nemesis.Injected(),
		P50Millis: millis(v.P50), P99Millis: millis(v.P99), MaxMillis: millis(v.Max), Figures: v.Figures, PeakMemory: map[string]int64{},
	}
	done := doneAt(events)
	r.OutageSeconds = float64(longestGap(done, t.drive)) / 1e9
	r.QuietSeconds, r.QuietRate = rateIn(done, t.nemesis.Quiet())
	for i := range events {
		if e := &events[i]; e.Process == check.Nemesis && strings.Contains(string(e.Value), `"not injected"`) {
			r.NotInjected++
		}
	}
	for _, n := range t.cluster.Nodes() {
		r.PeakMemory[n.Name()] = n.PeakMemory()
	}
	r.judge(v, t)
	return r
}

// judge collects what is not as it must be.
func (r *result) judge(v workload.Verdict, t *trial) {
	for _, violation := range v.Violations {
		r.Violations = append(r.Violations, violation.Error())
	}
	if n := len(v.Violations); n > 0 {
		r.Reasons = append(r.Reasons, fmt.Sprintf("%d violations, the first: %v", n, v.Violations[0]))
	}
	if t.whole != nil {
		r.Reasons = append(r.Reasons, t.whole.Error())
	}
	r.Reasons = append(r.Reasons, first(t.cluster.Surprises())...)
	r.Reasons = append(r.Reasons, first(t.outcries())...)
	if least := min(rateLeast, t.rate/2); r.QuietRate < least {
		r.Reasons = append(r.Reasons, fmt.Sprintf("%.0f operations a second were done in the %.0f s without a fault, and %.0f is the least that counts", r.QuietRate, r.QuietSeconds, least))
	}
	r.Valid = len(r.Reasons) == 0
}

func first(list []string) []string {
	if len(list) <= shownMost {
		return list
	}
	return append(list[:shownMost:shownMost], fmt.Sprintf("and %d more", len(list)-shownMost))
}

// doneAt are the moments at which operations of clients were done, in their order.
func doneAt(events []check.Event) (list []int64) {
	for i := range events {
		if e := &events[i]; e.Process != check.Nemesis && e.Type == check.OK {
			list = append(list, e.Time)
		}
	}
	return list
}

// longestGap is the longest time within a window in which nothing was done, in nanoseconds.
func longestGap(done []int64, w nemesis.Window) (longest int64) {
	last := w.From
	for _, at := range done {
		if at > w.From && at < w.To {
			longest, last = max(longest, at-last), at
		}
	}
	return max(longest, w.To-last)
}

// rateIn is how long the windows are together, in seconds, and how many a second were done in them.
func rateIn(done []int64, windows []nemesis.Window) (seconds, rate float64) {
	n := 0
	for _, w := range windows {
		seconds += float64(w.To-w.From) / 1e9
		from, _ := slices.BinarySearch(done, w.From)
		to, _ := slices.BinarySearch(done, w.To)
		n += to - from
	}
	if seconds == 0 {
		return 0, math.Inf(1)
	}
	return seconds, float64(n) / seconds
}

// leave writes what a run leaves.
func (t *trial) leave(r *result, v workload.Verdict, events []check.Event) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	err = write(filepath.Join(t.dir, "summary.json"), func(f *bufio.Writer) error {
		_, err := f.Write(append(text, '\n'))
		return err
	})
	if err != nil {
		return err
	}
	for _, violation := range v.Violations {
		if violation.Key != "" {
			return write(filepath.Join(t.dir, "violation.html"), func(f *bufio.Writer) error { return workload.Visualize(f, events, violation.Key) })
		}
	}
	return nil
}

// print tells the result to people.
func (r *result) print(w io.Writer) {
	verdict := "VALID"
	if !r.Valid {
		verdict = "NOT VALID"
	}
	_, _ = fmt.Fprintf(w, "%s: %s with %s on %d nodes, seed %d\n", verdict, r.Workload, r.faults(), r.Nodes, r.Seed)
	_, _ = fmt.Fprintf(w, "  %d operations in %.0f s: %d done, %d not done, %d unknown; of all done p50 %.1f ms, p99 %.1f ms, longest %.0f ms\n", r.Operations, r.Seconds, r.OK, r.Failed, r.Unknown, r.P50Millis, r.P99Millis, r.MaxMillis)
	_, _ = fmt.Fprintf(w, "  %.0f a second in %.0f s without a fault; longest outage %.2f s; injected: %s\n", r.QuietRate, r.QuietSeconds, r.OutageSeconds, r.injected())
	for _, name := range slices.Sorted(maps.Keys(r.Figures)) {
		_, _ = fmt.Fprintf(w, "  %s: %g\n", name, r.Figures[name])
	}
	for _, reason := range r.Reasons {
		_, _ = fmt.Fprintf(w, "  - %s\n", reason)
	}
	if r.Note != "" {
		_, _ = fmt.Fprintf(w, "  note: %s\n", r.Note)
	}
}

func (r *result) faults() string {
	if len(r.Faults) == 0 {
		return "no faults"
	}
	return strings.Join(r.Faults, " + ")
}

func (r *result) injected() string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(r.Injected)) {
		list = append(list, fmt.Sprintf("%s %d", name, r.Injected[name]))
	}
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}
