// Package report makes a page out of a run's history: the verdict, the figures, and what clients saw, on one time axis with
// the faults and the changes of the map. The page needs nothing but itself: no script, no font, no style from elsewhere. It
// also makes the table of many runs.
//
//	events ── timeline ──┬── Measure: figures
//	                     ├── panels: latency, rates, faults, what a workload measures besides
//	                     └── violations, each with the operations around it
//
// It is pure: the same run gives the same page, and nothing is read or written but what is handed over. However long a
// history is, its page has a bound: points are drawn once a pixel, and tables and lists are cut.
package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/jepsen/workload"
)

// Run is what there is to tell of a run.
type Run struct {
	Title string
	// Faults are those that were asked for.
	Faults []string
	Seed   uint64
	// Nodes is how many the cluster had.
	Nodes int
	// Commit is of the code under test, Began when the run began, Command what repeats it; each may be missing.
	Commit, Command string
	Began           time.Time
	Events          []check.Event
	Verdict         workload.Verdict
	// Reasons tell why the run does not count as passed although its history is valid.
	Reasons []string
	Links   []Link
}

// Link leads to a file beside the page, such as porcupine's of one key.
type Link struct{ Text, Href string }

// Passed tells that nothing is wrong with the run.
func (r *Run) Passed() bool { return r.Verdict.Valid && len(r.Reasons) == 0 }

//go:embed page.gohtml
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// view is what the page shows.
type view struct {
	*Run
	Facts, Figures []pair
	Panels         []*panel
	Faulty         []band
	FaultyLeft     int // So many are not listed.
	Table          []slot
	Violations     []shown
	ViolationsLeft int
}

// pair is a name and what it has.
type pair struct{ Name, Value string }

// Write writes the page. It fails if no recorder can have written the history.
func Write(w io.Writer, r Run) error {
	t, err := newTimeline(r.Events)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	v := &view{Run: &r, Facts: r.facts(), Figures: append(figurePairs(t.measure()), verdictPairs(r.Verdict)...), Table: t.table()}
	v.Violations, v.ViolationsLeft = t.show(r.Verdict.Violations)
	v.Panels = t.panels(v.Violations, r.Verdict.Series)
	v.Faulty, v.FaultyLeft = cut(t.bands, faultsListed)
	if err := page.Execute(w, v); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// faultsListed and the like bound what the page lists.
const (
	faultsListed     = 200
	violationsListed = 50
	operationsListed = 40
)

func cut[T any](list []T, most int) (some []T, left int) {
	n := min(len(list), most)
	return list[:n], len(list) - n
}

func (r *Run) facts() []pair {
	faults := strings.Join(r.Faults, ", ")
	if faults == "" {
		faults = "none"
	}
	facts := []pair{
		{"Workload", r.Verdict.Workload}, {"Faults", faults}, {"Nodes", fmt.Sprint(r.Nodes)}, {"Seed", fmt.Sprint(r.Seed)},
	}
	if !r.Began.IsZero() {
		facts = append(facts, pair{"Began", r.Began.UTC().Format(time.RFC3339)})
	}
	if r.Commit != "" {
		facts = append(facts, pair{"Commit", r.Commit})
	}
	return facts
}
