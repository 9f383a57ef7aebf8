package workload

import (
	"fmt"
	"slices"
	"time"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/kv"
)

// searchMax bounds a judge's search for an order of operations.
const searchMax = 2 * time.Minute

// Point is one of a series.
type Point struct {
	// At is in nanoseconds since the run began.
	At    int64   `json:"at"`
	Value float64 `json:"value"`
}

// Verdict is what a judge says of a history.
type Verdict struct {
	Workload string
	// Valid is false if there are violations. See Undecided.
	Valid      bool
	Violations []check.Violation
	// Operations of the clients: OK, Failed and Unknown together.
	Operations, OK, Failed, Unknown int
	// Latencies of the operations that were done, from the moments at which they should have begun.
	P50, P99, Max time.Duration
	// Figures are what a workload counts and measures besides; the names end with the unit, or count something.
	Figures map[string]float64
	// Series are for plots.
	Series map[string][]Point
	// Undone names what a run of the workload does and was never done here: a valid history tells nothing of that.
	Undone []string
	// Note tells what the judge could not look at; empty if nothing.
	Note string
}

// Undecided reports whether nothing is wrong but that the search for an order took too long: the history may be valid.
func (v *Verdict) Undecided() bool {
	other := func(x check.Violation) bool { return x.Rule != check.TimedOut }
	return !v.Valid && !slices.ContainsFunc(v.Violations, other)
}

// judging is a judge's work.
type judging struct {
	events  []check.Event
	calls   []check.Call
	verdict Verdict
	err     error
}

// Judge looks at a run's history, from a Recorder or from a file. It is an error if no recorder of that workload can have
// written it.
func Judge(name string, events []check.Event) (Verdict, error) {
	k, known := find(name)
	if !known {
		return Verdict{}, &kv.InvalidError{Field: "workload", Bound: fmt.Sprintf("one of %v, is %q", Names(), name)}
	}
	calls, err := check.Calls(events)
	if err != nil {
		return Verdict{}, fmt.Errorf("judge %s: %w", name, err)
	}
	j := &judging{events: events, calls: calls, verdict: Verdict{Workload: name, Figures: map[string]float64{}, Series: map[string][]Point{}}}
	j.count()
	if k.judge(j); j.err != nil {
		return Verdict{}, fmt.Errorf("judge %s: %w", name, j.err)
	}
	j.verdict.Undone = undone(j.calls, k.deeds)
	j.verdict.Valid = len(j.verdict.Violations) == 0
	return j.verdict, nil
}

// count counts the operations by their ends, and measures them.
func (j *judging) count() {
	v := &j.verdict
	var done []time.Duration
	for i := range j.calls {
		c := &j.calls[i]
		v.Operations++
		switch c.Type() {
		case check.OK:
			v.OK++
			latency, _ := c.Latency()
			done = append(done, latency)
		case check.Failed:
			v.Failed++
		default:
			v.Unknown++
		}
		if c.Invoke.F == dropped {
			v.Figures["dropped"]++
		}
	}
	if n := len(done); n > 0 {
		slices.Sort(done)
		v.P50, v.P99, v.Max = done[n/2], done[n*99/100], done[n-1]
	}
}

// found notes violations.
func (j *judging) found(list ...check.Violation) {
	j.verdict.Violations = append(j.verdict.Violations, list...)
}

// operations are those on one key.
func (j *judging) operations() *check.Keys {
	k, err := check.Operations(j.calls)
	if j.failed(err); err != nil {
		return &check.Keys{}
	}
	return k
}

// failed notes that the history makes no sense.
func (j *judging) failed(err error) {
	if j.err == nil {
		j.err = err
	}
}
