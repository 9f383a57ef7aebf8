package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/kvdstore/kvd/bench/hitrate"
	"github.com/kvdstore/kvd/bench/load"
	"github.com/kvdstore/kvd/kv"
)

// tracesCommand tells how often kvd's cache has what traces ask for, beside an LRU.
func tracesCommand(ctx context.Context, args []string, out io.Writer) error {
	f := pflag.NewFlagSet("bench traces", pflag.ContinueOnError)
	files := f.StringSlice("file", nil, "traces: one key a line, gzipped if the name ends in .gz")
	entries := f.IntSlice("entries", []int{1000, 5000, 10_000}, fmt.Sprintf("sizes of the cache, 1 to %d", hitrate.EntriesMax))
	percent := f.Int("writes", 0, "accesses that are taken for writes, in percent")
	if err := f.Parse(args); err != nil {
		return err
	}
	errs := []error{noMore(f.Args())}
	if len(*files) == 0 {
		errs = append(errs, &kv.InvalidError{Field: "file", Bound: "at least one trace"})
	}
	for _, n := range *entries {
		if n < 1 || n > hitrate.EntriesMax {
			errs = append(errs, &kv.InvalidError{Field: "entries", Bound: fmt.Sprintf("1 to %d, one is %d", hitrate.EntriesMax, n)})
		}
	}
	if *percent < 0 || *percent > 100 {
		errs = append(errs, &kv.InvalidError{Field: "writes", Bound: fmt.Sprintf("0 to 100, is %d", *percent)})
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "trace\taccesses\tentries\tkvd %\tLRU %\tstale % of reads\tdropped\t")
	for _, name := range *files {
		trace, err := load.ReadTrace(name)
		if err != nil {
			return err
		}
		for _, n := range *entries {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			ours, err := hitrate.Cache(trace, n, *percent)
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "%s\t%d\t%d\t%.2f\t%.2f\t%.3f\t%d\t\n", filepath.Base(name), len(trace), n, 100*ours.Hits, 100*hitrate.LRU(trace, n, *percent).Hits, 100*ours.Stale, ours.Dropped)
		}
	}
	return w.Flush()
}
