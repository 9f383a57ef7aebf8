package report

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Goal is what one system's operations a second are to be, as a share of another's in the same rounds.
type Goal struct {
	System, Base string
	Least        float64
}

// TellGrowth prints what becomes of a load when something grows: medians and spread, each system's share of the first's, and what
// the servers take that stand idle. It gives the goals that were missed, in any case of the runs.
func TellGrowth(out io.Writer, runs []*Run, goals []Goal) (missed []string, err error) {
	groups := Groups(runs)
	if err := tellLoads(out, groups); err != nil {
		return nil, err
	}
	if err := tellStanding(out, groups); err != nil {
		return nil, err
	}
	return tellGoals(out, groups, goals)
}

func tellLoads(out io.Writer, groups []*Group) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "case\tsystem\toperations/s\tleast to most\tshare of the first's\tp50\tp99\tp99.9 ms\terrors\tservers' cores\tMiB\tsyncs/s")
	for _, name := range Cases(groups) {
		var first *Group
		for _, g := range groups {
			if g.Case != name {
				continue
			}
			if first == nil {
				first = g
			}
			rate, syncs := g.Spread(PerSecond), ""
			if x, ok := g.known(func(r *Run) *float64 { return r.SyncsPerSecond }); ok {
				syncs = fmt.Sprintf("%.0f", x)
			}
			fmt.Fprintf(w, "%s\t%s\t%.0f\t%.0f to %.0f\t%s\t%.3f\t%.3f\t%.3f\t%d\t%.2f\t%.0f\t%s\n", g.Case, g.System, rate.Median, rate.Least, rate.Most,
				cell(groups, g, first.System, PerSecond), g.Spread(P50).Median, g.Spread(P99).Median, g.Spread(P999).Median, g.failed(),
				g.Spread(cores).Median, g.Spread(resident).Median/(1<<20), syncs)
		}
	}
	return w.Flush()
}

// tellStanding prints what the systems take before the load, and what each further shard adds to that of the one with the fewest.
func tellStanding(out io.Writer, groups []*Group) error {
	var list []*Group
	for _, g := range groups {
		if g.Case == groups[0].Case && g.Runs[0].Standing != nil {
			list = append(list, g)
		}
	}
	if len(list) == 0 {
		return nil
	}
	least := list[0]
	for _, g := range list {
		if g.Runs[0].Standing.Shards < least.Runs[0].Standing.Shards {
			least = g
		}
	}
	fmt.Fprintln(out, "\nidle, all servers together: medians, least to most, and what a shard adds (all of its replicas)")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "system\tshards\tasleep\tstart s\tleast to most\tcores\tleast to most\tMiB\tdisk MiB\tcached MiB\tmicro-cores a shard\tKiB a shard")
	for _, g := range list {
		start, busy, held := g.Spread(standing(func(s *Standing) float64 { return s.Start })), g.Spread(idleCores), g.Spread(idleResident)
		more := float64(g.Runs[0].Standing.Shards - least.Runs[0].Standing.Shards)
		byShard := "\t"
		if more > 0 {
			byShard = fmt.Sprintf("%.1f\t%.1f", (busy.Median-least.Spread(idleCores).Median)/more*1e6, (held.Median-least.Spread(idleResident).Median)/more/(1<<10))
		}
		fmt.Fprintf(w, "%s\t%d\t%.0f\t%.2f\t%.2f to %.2f\t%.3f\t%.3f to %.3f\t%.0f\t%.0f\t%.0f\t%s\n", g.System, g.Runs[0].Standing.Shards,
			g.Spread(standing(func(s *Standing) float64 { return float64(s.Asleep) })).Median, start.Median, start.Least, start.Most,
			busy.Median, busy.Least, busy.Most, held.Median/(1<<20), g.Spread(standing(func(s *Standing) float64 { return float64(s.Disk) })).Median/(1<<20),
			g.Spread(standing(func(s *Standing) float64 { return float64(s.Cached) })).Median/(1<<20), byShard)
	}
	return w.Flush()
}

// standing is a figure of the idle servers; 0 where nobody looked.
func standing(f func(*Standing) float64) Figure {
	return func(r *Run) float64 {
		if r.Standing == nil {
			return 0
		}
		return f(r.Standing)
	}
}

var (
	idleCores    = standing(func(s *Standing) float64 { return s.Cores })
	idleResident = standing(func(s *Standing) float64 { return float64(s.Resident) })
)

func tellGoals(out io.Writer, groups []*Group, goals []Goal) (missed []string, err error) {
	if len(goals) == 0 {
		return nil, nil
	}
	fmt.Fprintln(out, "\noperations/s as a share, median over the rounds")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "case\tsystem\tof that of\tshare\twanted\t")
	for _, name := range Cases(groups) {
		for _, goal := range goals {
			a, b := Of(groups, name, goal.System), Of(groups, name, goal.Base)
			if a == nil || b == nil {
				continue
			}
			share, ok := Ratio(a, b, PerSecond)
			if !ok {
				continue
			}
			verdict := "met"
			if share.Median < goal.Least {
				verdict = "missed"
				missed = append(missed, fmt.Sprintf("%s: %s is at %.2f of %s, wanted %.2f", name, goal.System, share.Median, goal.Base, goal.Least))
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%.2f (%.2f to %.2f)\t%.2f\t%s\n", name, goal.System, goal.Base, share.Median, share.Least, share.Most, goal.Least, verdict)
		}
	}
	return missed, w.Flush()
}
