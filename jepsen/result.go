package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/jepsen/report"
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
	Began      time.Time `json:"began"`
	// Command repeats it.
	Command string `json:"command"`

	Valid bool `json:"valid"`
	// Reasons why it is not.
	Reasons []string `json:"reasons,omitempty"`
	// Wrong are those that accuse kvd of a wrong answer or state, and not only of being slow or of the judge having no time.
	Wrong      []string `json:"wrong,omitempty"`
	Violations []string `json:"violations,omitempty"`
	Note       string   `json:"note,omitempty"`

	// Measured of the history. Durations are in nanoseconds.
	Measured report.Figures     `json:"measured"`
	Figures  map[string]float64 `json:"figures,omitempty"`
	Injected map[string]int     `json:"injected"`
	// Skipped are faults that could not be when their time had come.
	Skipped []string `json:"skipped,omitempty"`
	// PeakMemory of each node's processes, in bytes.
	PeakMemory map[string]int64 `json:"peak_memory_bytes"`
}

func (t *trial) result(v workload.Verdict, events []check.Event) (*result, error) {
	figures, err := report.Measure(events)
	if err != nil {
		return nil, err
	}
	r := &result{
		Workload: t.row.workload, Faults: t.faults, Nodes: t.nodes, Seed: t.seed, Tags: t.h.tagsFor(t.faults), Namespaces: t.h.namespaced, Began: t.began.UTC().Truncate(time.Second),
		Command: t.row.command(t.h.tags), Note: v.Note, Measured: figures, Figures: v.Figures, Injected: t.nemesis.Injected(), Skipped: t.nemesis.Skipped(), PeakMemory: map[string]int64{},
	}
	for _, n := range t.cluster.Nodes() {
		r.PeakMemory[n.Name()] = n.PeakMemory()
	}
	for _, violation := range v.Violations {
		r.Violations = append(r.Violations, violation.Error())
	}
	r.Wrong = t.wrong(v)
	r.Reasons = slices.Concat(r.Wrong, t.weak(v, figures))
	r.Valid = len(r.Reasons) == 0
	return r, nil
}

// wrong collects what must never be.
func (t *trial) wrong(v workload.Verdict) (list []string) {
	decided := decided(v)
	if n := len(decided); n > 0 {
		list = append(list, fmt.Sprintf("%d violations, the first: %v", n, decided[0]))
	}
	list = append(list, first(t.cluster.Surprises())...)
	list = append(list, first(t.uneven)...)
	list = append(list, first(wrongLeases(t.cluster.Leases()))...)
	list = append(list, first(brokenBonds(t.cluster.Bonds()))...)
	return append(list, first(outcries(logs(t.cluster)))...)
}

// wrongLeases tells of leases that two nodes had over a key at one moment, or that ran when another led, from what nodes of test
// builds have recorded.
func wrongLeases(files []string) []string {
	var leases []check.Lease
	var leads []check.Lead
	list := eachRecord(files, func(r io.Reader) error {
		l, d, err := check.ReadLeases(r)
		leases, leads = append(leases, l...), append(leads, d...)
		return err
	})
	for _, v := range append(check.Leases(leases), check.Leads(leads, leases)...) {
		list = append(list, v.Error())
	}
	return list
}

// brokenBonds tells of what a crash took back although others had been told of it, from what nodes of test builds have recorded.
func brokenBonds(files []string) []string {
	var found []check.Violation
	list := eachRecord(files, func(r io.Reader) error {
		bonds, err := check.ReadBonds(r)
		found = append(found, check.Bonds(bonds)...)
		return err
	})
	for _, v := range found {
		list = append(list, v.Error())
	}
	return list
}

// eachRecord reads what each node has recorded, and tells what cannot be read.
func eachRecord(files []string, read func(io.Reader) error) (unread []string) {
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			continue // Its kvd records none.
		}
		if err := read(f); err != nil {
			unread = append(unread, fmt.Sprintf("%s: %v", name, err))
		}
		_ = f.Close()
	}
	return unread
}

// decided are the violations that the judge is sure of.
func decided(v workload.Verdict) []check.Violation {
	return slices.DeleteFunc(slices.Clone(v.Violations), func(x check.Violation) bool { return x.Rule == check.TimedOut })
}

// weak collects what keeps a run from counting as passed although nothing of it was wrong.
func (t *trial) weak(v workload.Verdict, f report.Figures) (list []string) {
	if n := len(v.Violations) - len(decided(v)); n > 0 {
		list = append(list, fmt.Sprintf("%d keys were not judged in time", n))
	}
	if t.whole != nil {
		list = append(list, t.whole.Error())
	}
	for _, name := range v.Undone {
		list = append(list, fmt.Sprintf("nothing is known of it: not one %s was done", name))
	}
	if t.nemesis != nil {
		list = append(list, t.nemesis.Missed(t.faults)...)
	}
	if least := min(rateLeast, t.rate/2); f.QuietRate < least {
		list = append(list, fmt.Sprintf("%.0f operations a second were done without a fault, and %.0f is the least that counts", f.QuietRate, least))
	}
	return list
}

func first(list []string) []string {
	if len(list) <= shownMost {
		return list
	}
	return append(list[:shownMost:shownMost], fmt.Sprintf("and %d more", len(list)-shownMost))
}

// leave writes what a run leaves beside its history.
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
	page := report.Run{
		Title: r.Workload + " with " + r.faults(), Faults: t.faults, Seed: t.seed, Nodes: t.nodes, Commit: commit(), Command: r.Command, Began: t.began,
		Events: events, Verdict: v, Reasons: r.Reasons,
		Links: []report.Link{{Text: "history", Href: "history.jsonl"}, {Text: "summary", Href: "summary.json"}},
	}
	for _, violation := range v.Violations {
		if violation.Key == "" {
			continue
		}
		const name = "violation.html"
		if err := write(filepath.Join(t.dir, name), func(f *bufio.Writer) error { return workload.Visualize(f, events, violation.Key) }); err != nil {
			say("the key %s has no visualization: %v", violation.Key, err) // Not all workloads are of single keys.
			break
		}
		page.Links = append(page.Links, report.Link{Text: "porcupine's view of " + violation.Key, Href: name})
		break
	}
	return write(filepath.Join(t.dir, "report.html"), func(f *bufio.Writer) error { return report.Write(f, page) })
}

// print tells the result to people.
func (r *result) print(w io.Writer) {
	verdict := "VALID"
	if !r.Valid {
		verdict = "NOT VALID"
	}
	f := &r.Measured
	round := func(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
	_, _ = fmt.Fprintf(w, "%s: %s with %s on %d nodes, seed %d\n", verdict, r.Workload, r.faults(), r.Nodes, r.Seed)
	_, _ = fmt.Fprintf(w, "  %d operations in %.0f s: %d done, %d not done, %d unknown; of all done p50 %v, p99 %v, longest %v\n",
		f.Operations, f.Length.Seconds(), f.OK, f.Failed, f.Unknown, round(f.P50), round(f.P99), round(f.Max))
	_, _ = fmt.Fprintf(w, "  %.0f a second done, %.0f without a fault; longest outage %v; injected: %s\n", f.Rate, f.QuietRate, round(f.Outage), r.injected())
	for _, name := range sortedKeys(r.Figures) {
		_, _ = fmt.Fprintf(w, "  %s: %g\n", name, r.Figures[name])
	}
	for _, s := range first(r.Skipped) {
		_, _ = fmt.Fprintf(w, "  skipped: %s\n", s)
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
	for _, name := range sortedKeys(r.Injected) {
		list = append(list, fmt.Sprintf("%s %d", name, r.Injected[name]))
	}
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
