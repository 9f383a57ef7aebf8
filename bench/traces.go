package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
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
	percent := f.Int("writes", 0, "accesses of traces that are taken for writes, in percent")
	zipfian := f.IntSlice("zipfian", []int{10_000, 100_000}, "numbers of keys, read and written as zipfian choices of them, all in the cache")
	if err := f.Parse(args); err != nil {
		return err
	}
	errs := []error{noMore(f.Args())}
	if len(*files) == 0 && len(*zipfian) == 0 {
		errs = append(errs, &kv.InvalidError{Field: "file", Bound: "at least one trace, or zipfian keys"})
	}
	for field, list := range map[string][]int{"entries": *entries, "zipfian": *zipfian} {
		if i := slices.IndexFunc(list, func(n int) bool { return n < 1 || n > hitrate.EntriesMax }); i >= 0 {
			errs = append(errs, &kv.InvalidError{Field: field, Bound: fmt.Sprintf("1 to %d, one is %d", hitrate.EntriesMax, list[i])})
		}
	}
	if *percent < 0 || *percent > 100 {
		errs = append(errs, &kv.InvalidError{Field: "writes", Bound: fmt.Sprintf("0 to 100, is %d", *percent)})
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for i, name := range *files {
		if i == 0 {
			fmt.Fprintln(w, "trace\taccesses\tentries\tkvd %\tLRU %\tstale % of reads\tdropped\t")
		}
		if err := tellTrace(ctx, w, name, *entries, *percent); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return tellZipfian(ctx, out, *zipfian)
}

func tellTrace(ctx context.Context, w io.Writer, name string, entries []int, percent int) error {
	trace, err := load.ReadTrace(name)
	if err != nil {
		return err
	}
	for _, n := range entries {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		ours, err := hitrate.Cache(trace, n, percent)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%.2f\t%.2f\t%.3f\t%d\t\n", filepath.Base(name), len(trace), n, 100*ours.Hits, 100*hitrate.LRU(trace, n, percent).Hits, 100*ours.Stale, ours.Dropped)
	}
	return nil
}

// tellZipfian tells how often reads miss because of writes to other keys.
func tellZipfian(ctx context.Context, out io.Writer, sizes []int) error {
	const percent, workers = 10, 8
	if len(sizes) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "zipfian keys\twrites %\tworkers\tstripes\tfalse misses % of reads\t")
	for _, n := range sizes {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f, err := hitrate.Zipfian(n, percent, workers)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%.3f\t\n", n, percent, workers, f.Stripes, 100*f.Misses)
	}
	return w.Flush()
}
