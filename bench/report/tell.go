package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// Tell prints a run for people.
func Tell(out io.Writer, r *Run) error {
	mode := "closed loop"
	if r.Rate > 0 {
		mode = fmt.Sprintf("open loop at %.0f/s", r.Rate)
	}
	fmt.Fprintf(out, "%s, %d servers: workload %s, %d clients, depth %d, %s, %d keys, values of %d B, %.1f s\n",
		r.Target, r.Servers, r.Workload, r.Clients, r.Depth, mode, r.Keys, r.Value, r.Seconds)
	fmt.Fprintf(out, "%.0f operations/s, %d done, %d missed, %d not sent in time, longest gap of a caller %.0f ms\n", r.PerSecond, r.Done, r.Missed, r.Unsent, r.Gap)
	for _, kind := range slices.Sorted(maps.Keys(r.Errors)) {
		fmt.Fprintf(out, "errors, %s: %d\n", kind, r.Errors[kind])
	}
	if len(r.Shown) > 0 {
		fmt.Fprintf(out, "among them: %s\n", strings.Join(r.Shown, "\n            "))
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "milliseconds\tcount\tmean\tp50\tp90\tp99\tp99.9\tp99.99\tmax\t")
	for _, kind := range slices.Sorted(maps.Keys(r.ByKind)) {
		tellLatency(w, kind, r.ByKind[kind])
	}
	tellLatency(w, "all", r.Latency)
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprint(out, "by second:")
	for _, s := range r.Timeline {
		fmt.Fprintf(out, " %d", s.Done)
	}
	fmt.Fprintf(out, "\ncallers' process: %.2f cores\n", r.ClientCores)
	for _, p := range r.Processes {
		fmt.Fprintf(out, "%s (%d): %.2f cores, %d MiB%s\n", p.Name, p.PID, p.Cores, p.ResidentMax>>20, written(p.Written))
	}
	if r.WrittenByPut != nil {
		fmt.Fprintf(out, "%.1f bytes written by byte put\n", *r.WrittenByPut)
	}
	if r.SyncsPerSecond != nil {
		fmt.Fprintf(out, "%.0f syncs/s\n", *r.SyncsPerSecond)
	}
	return nil
}

func written(n *uint64) string {
	if n == nil {
		return ""
	}
	return fmt.Sprintf(", %d MiB written", *n>>20)
}

func tellLatency(w io.Writer, name string, l Latency) {
	fmt.Fprintf(w, "%s\t%d\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t\n", name, l.Count, l.Mean, l.P50, l.P90, l.P99, l.P999, l.P9999, l.Max)
}
