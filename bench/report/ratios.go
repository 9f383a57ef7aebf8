package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Group is the runs of one case and system, over all rounds.
type Group struct {
	Case, System string
	Runs         []*Run
}

// Groups sorts runs by case and system, both in the order in which they first came.
func Groups(runs []*Run) (list []*Group) {
	for _, r := range runs {
		i := slices.IndexFunc(list, func(g *Group) bool { return g.Case == r.Case && g.System == r.System })
		if i < 0 {
			i = len(list)
			list = append(list, &Group{Case: r.Case, System: r.System})
		}
		list[i].Runs = append(list[i].Runs, r)
	}
	return list
}

// Cases are the names of the cases in their order.
func Cases(groups []*Group) (list []string) {
	for _, g := range groups {
		if !slices.Contains(list, g.Case) {
			list = append(list, g.Case)
		}
	}
	return list
}

// Of finds a group; nil when there is none.
func Of(groups []*Group, name, system string) *Group {
	for _, g := range groups {
		if g.Case == name && g.System == system {
			return g
		}
	}
	return nil
}

// Figure is one of a run.
type Figure func(*Run) float64

// The figures that are compared.
func PerSecond(r *Run) float64 { return r.PerSecond }
func P50(r *Run) float64       { return r.Latency.P50 }
func P99(r *Run) float64       { return r.Latency.P99 }
func P999(r *Run) float64      { return r.Latency.P999 }
func Gap(r *Run) float64       { return r.Gap }

// Spread is a figure over the rounds.
type Spread struct{ Median, Least, Most float64 }

// Median is that of some numbers, the mean of the middle two when they are even in number; 0 of none.
func Median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	n := len(list)
	switch {
	case n == 0:
		return 0
	case n%2 == 1:
		return list[n/2]
	}
	return (list[n/2-1] + list[n/2]) / 2
}

// Spread gives a figure over the group's rounds.
func (g *Group) Spread(f Figure) Spread {
	var list []float64
	for _, r := range g.Runs {
		list = append(list, f(r))
	}
	if len(list) == 0 {
		return Spread{}
	}
	return Spread{Median(list), slices.Min(list), slices.Max(list)}
}

// Ratio compares two groups round by round, since a machine drifts: what was measured in the same minutes belongs together.
// It is false where no round has both.
func Ratio(a, b *Group, f Figure) (Spread, bool) {
	var list []float64
	for _, x := range a.Runs {
		i := slices.IndexFunc(b.Runs, func(y *Run) bool { return y.Round == x.Round })
		if i >= 0 && f(b.Runs[i]) > 0 {
			list = append(list, f(x)/f(b.Runs[i]))
		}
	}
	if len(list) == 0 {
		return Spread{}, false
	}
	return Spread{Median(list), slices.Min(list), slices.Max(list)}, true
}

// Ratios gives those of each of kvd's systems to every other system in each case.
func Ratios(groups []*Group, f Figure) (list []Compared) {
	for _, a := range groups {
		if !strings.HasPrefix(a.System, "kvd") {
			continue
		}
		for _, b := range groups {
			if b.Case != a.Case || b.System == a.System {
				continue
			}
			if s, ok := Ratio(a, b, f); ok {
				list = append(list, Compared{a.Case, a.System, b.System, s})
			}
		}
	}
	return list
}

// Compared is a ratio of two systems.
type Compared struct {
	Case, System, Other string
	Spread
}

// TellAll prints medians, spread and ratios of all runs.
func TellAll(out io.Writer, runs []*Run) error {
	groups := Groups(runs)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "case\tsystem\toperations/s\tleast to most\tp50\tp99\tp99.9 ms\terrors\tgap ms\tservers' cores\tMiB\tbytes written by byte put\tsyncs/s")
	for _, name := range Cases(groups) {
		for _, g := range groups {
			if g.Case == name {
				tellGroup(w, g)
			}
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, x := range []struct {
		title string
		f     Figure
	}{{"operations/s, as a ratio (above 1 is more)", PerSecond}, {"p50, as a ratio (below 1 is faster)", P50}, {"p99, as a ratio", P99}, {"the longest gap of a caller, as a ratio", Gap}} {
		fmt.Fprintf(out, "\n%s: median over the rounds, and least to most where they differ\n", x.title)
		if err := tellRatios(out, groups, x.f); err != nil {
			return err
		}
	}
	return nil
}

// tellRatios prints a line for each case and system of kvd, with a column for each other system.
func tellRatios(out io.Writer, groups []*Group, f Figure) error {
	var others []string
	for _, g := range groups {
		if !slices.Contains(others, g.System) {
			others = append(others, g.System)
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "case\tsystem\t/ %s\n", strings.Join(others, "\t/ "))
	for _, name := range Cases(groups) {
		for _, system := range others {
			a := Of(groups, name, system)
			if a == nil || !strings.HasPrefix(system, "kvd") {
				continue
			}
			fmt.Fprintf(w, "%s\t%s", name, system)
			for _, other := range others {
				fmt.Fprintf(w, "\t%s", cell(groups, a, other, f))
			}
			fmt.Fprintln(w)
		}
	}
	return w.Flush()
}

func cell(groups []*Group, a *Group, other string, f Figure) string {
	b := Of(groups, a.Case, other)
	if b == nil || a == b {
		return ""
	}
	s, ok := Ratio(a, b, f)
	if !ok {
		return ""
	}
	if s.Least == s.Most {
		return fmt.Sprintf("%.2f", s.Median)
	}
	return fmt.Sprintf("%.2f (%.2f to %.2f)", s.Median, s.Least, s.Most)
}

func tellGroup(w io.Writer, g *Group) {
	rate := g.Spread(PerSecond)
	put, syncs := "", ""
	if x, ok := g.known(func(r *Run) *float64 { return r.WrittenByPut }); ok {
		put = fmt.Sprintf("%.1f", x)
	}
	if x, ok := g.known(func(r *Run) *float64 { return r.SyncsPerSecond }); ok {
		syncs = fmt.Sprintf("%.0f", x)
	}
	fmt.Fprintf(w, "%s\t%s\t%.0f\t%.0f to %.0f\t%.3f\t%.3f\t%.3f\t%d\t%.0f\t%.2f\t%.0f\t%s\t%s\n", g.Case, g.System, rate.Median, rate.Least, rate.Most,
		g.Spread(P50).Median, g.Spread(P99).Median, g.Spread(P999).Median, g.failed(), g.Spread(Gap).Median,
		g.Spread(cores).Median, g.Spread(resident).Median/(1<<20), put, syncs)
}

// failed counts the errors of all rounds.
func (g *Group) failed() (n uint64) {
	for _, r := range g.Runs {
		for _, e := range r.Errors {
			n += e
		}
	}
	return n
}

// known is the median of a figure that not everybody tells.
func (g *Group) known(f func(*Run) *float64) (float64, bool) {
	var list []float64
	for _, r := range g.Runs {
		if x := f(r); x != nil {
			list = append(list, *x)
		}
	}
	return Median(list), len(list) > 0
}

func cores(r *Run) (sum float64) {
	for _, p := range r.Processes {
		sum += p.Cores
	}
	return sum
}

func resident(r *Run) (sum float64) {
	for _, p := range r.Processes {
		sum += float64(p.ResidentMax)
	}
	return sum
}

// byRate sorts groups of a case, the fastest first.
func byRate(groups []*Group, name string) (list []*Group) {
	for _, g := range groups {
		if g.Case == name {
			list = append(list, g)
		}
	}
	slices.SortStableFunc(list, func(a, b *Group) int { return cmp.Compare(b.Spread(PerSecond).Median, a.Spread(PerSecond).Median) })
	return list
}
