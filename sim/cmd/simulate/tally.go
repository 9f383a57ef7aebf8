package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kvdstore/kvd/sim"
)

// tally is what came of all seeds so far.
type tally struct {
	out         io.Writer
	began       time.Time
	build       build
	pebble      bool
	failuresMax int
	keep        io.Writer // nil for none.

	seeds  int
	total  sim.Stats
	failed []result
	err    error // Of keeping.
}

func (t *tally) add(r result) {
	t.seeds++
	t.total.Add(r.Stats)
	if r.Error == "" {
		return
	}
	t.failed = append(t.failed, r)
	t.print("seed %d failed: %s\n  replay: %s\n", r.Seed, r.Error, t.build.replay(r.Seed, t.pebble))
	if t.keep != nil {
		_, err := fmt.Fprintf(t.keep, "%d\t%s\t%s\n", r.Seed, t.build, firstLine(r.Error))
		t.err = errors.Join(t.err, err)
	}
}

// full tells that there are failing seeds enough.
func (t *tally) full() bool { return len(t.failed) >= t.failuresMax }

// enoughSeeds are so many that everything must have happened in one of them.
const enoughSeeds = 1000

// lacking tells what never happened in a run without failures that was long enough for it.
func (t *tally) lacking() error {
	if t.seeds < enoughSeeds || len(t.failed) > 0 {
		return nil
	}
	return t.total.Enough()
}

func (t *tally) progress() {
	t.print("%v: %s\n", time.Since(t.began).Round(time.Second), t.figures())
}

func (t *tally) figures() string {
	virtual := time.Duration(t.total.VirtualMilli) * time.Millisecond
	return fmt.Sprintf("%d seeds, %.1f a second, %.2f virtual hours, %d failed",
		t.seeds, float64(t.seeds)/max(time.Since(t.began).Seconds(), 1e-3), virtual.Hours(), len(t.failed))
}

func (t *tally) summary() {
	t.print("\n%s, in %v, of %s\n", t.figures(), time.Since(t.began).Round(time.Second/10), t.build)
	table := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	for name, n := range fields(t.total) {
		if _, err := fmt.Fprintf(table, "  %s\t%v\n", name, n); err != nil {
			t.err = errors.Join(t.err, err)
		}
	}
	t.err = errors.Join(t.err, table.Flush())
	for _, r := range t.failed {
		t.print("FAIL seed %d: %s\n  %s\n", r.Seed, firstLine(r.Error), t.build.replay(r.Seed, t.pebble))
	}
	if err := t.lacking(); err != nil {
		t.print("FAIL %v\n", err)
	}
}

func (t *tally) print(format string, args ...any) {
	if _, err := fmt.Fprintf(t.out, format, args...); err != nil {
		t.err = errors.Join(t.err, err)
	}
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}
