package report

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/kvdstore/kvd/bench/measure"
)

// TellGC prints what the collectors of servers did under a load, and what the load saw of it: medians over the rounds, and the
// worst of the rounds where that is told. entryBytes is what a record takes in the caches, goal what the 99.9th percentile of
// the pauses is to stay below, in milliseconds, in every round. It gives the systems that missed it.
func TellGC(out io.Writer, runs []*Run, entryBytes int, goal float64) (missed []string, err error) {
	groups := Groups(runs)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "case\tsystem\tin memory\tMiB\toperations/s\tp50\tp99\tp99.9\tmax ms\tservers' get p99.9\tput p99.9 ms\tservers' cores\terrors\tnot sent")
	for _, name := range Cases(groups) {
		for _, g := range groups {
			if g.Case == name {
				tellSeen(w, g, entryBytes)
			}
		}
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "\npauses of the collector, below %v ms at the 99.9th percentile wanted; bounds of buckets, up to a quarter above the truth\n", goal)
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "case\tsystem\tof the processor time %\tat idle processors %\tpauses\tp50\tp99.9 ms\tlongest\tof the rounds' p99.9 the worst\tlongest\tabove 1 ms\twait for a processor p99.9 ms\t")
	for _, name := range Cases(groups) {
		for _, g := range groups {
			if g.Case == name && g.Runs[0].GC != nil {
				missed = append(missed, tellPauses(w, g, goal)...)
			}
		}
	}
	return missed, w.Flush()
}

// tellSeen prints what the load saw.
func tellSeen(w io.Writer, g *Group, entryBytes int) {
	cached := g.Spread(standing(func(s *Standing) float64 { return float64(s.Cached) })).Median / float64(max(entryBytes, 1))
	fmt.Fprintf(w, "%s\t%s\t%.0f\t%.0f\t%.0f\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%.2f\t%d\t%.0f\n", g.Case, g.System, cached, g.Spread(resident).Median/(1<<20),
		g.Spread(PerSecond).Median, g.Spread(P50).Median, g.Spread(P99).Median, g.Spread(P999).Median,
		g.Spread(func(r *Run) float64 { return r.Latency.Max }).Median, g.gc(func(c *measure.GC) float64 { return c.GetP999 }).Median,
		g.gc(func(c *measure.GC) float64 { return c.PutP999 }).Median, g.Spread(cores).Median, g.failed(),
		g.Spread(func(r *Run) float64 { return float64(r.Unsent) }).Median)
}

// tellPauses prints what the collectors did.
func tellPauses(w io.Writer, g *Group, goal float64) (missed []string) {
	figure := func(f func(*measure.GC) float64) Spread { return g.gc(f) }
	tail, most := figure(func(c *measure.GC) float64 { return c.PauseP999 }), figure(func(c *measure.GC) float64 { return c.PauseMost })
	verdict := "met"
	if tail.Most >= goal {
		verdict = "missed"
		missed = append(missed, fmt.Sprintf("%s: the 99.9th percentile of the pauses with %s is up to %.3f ms, wanted less than %v", g.Case, g.System, tail.Most, goal))
	}
	fmt.Fprintf(w, "%s\t%s\t%.2f\t%.2f\t%.0f\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%.0f\t%.3f\t%s\n", g.Case, g.System,
		figure(func(c *measure.GC) float64 { return 100 * c.Share }).Median, figure(func(c *measure.GC) float64 { return 100 * c.Idle }).Median,
		figure(func(c *measure.GC) float64 { return float64(c.Pauses) }).Median, figure(func(c *measure.GC) float64 { return c.PauseP50 }).Median,
		tail.Median, most.Median, tail.Most, most.Most, figure(func(c *measure.GC) float64 { return float64(c.LongPauses) }).Median,
		figure(func(c *measure.GC) float64 { return c.WaitP999 }).Median, verdict)
	return missed
}

// gc is a figure of the collectors over the rounds.
func (g *Group) gc(f func(*measure.GC) float64) Spread {
	return g.Spread(func(r *Run) float64 {
		if r.GC == nil {
			return 0
		}
		return f(r.GC)
	})
}
