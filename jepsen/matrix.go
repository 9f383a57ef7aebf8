package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kvdstore/kvd/jepsen/nemesis"
	"github.com/kvdstore/kvd/jepsen/report"
	"github.com/kvdstore/kvd/jepsen/workload"
)

const (
	// singleLength is how long a row with one fault runs, and togetherLength one with all.
	singleLength, togetherLength = 20 * time.Second, time.Minute
	// together names the row with all faults.
	together = "all together"
	// short is of the form for CI.
	shortNodes, shortLength, shortRate = 3, 12 * time.Second, 500
)

var shortFaults = []string{"kill", "pause", "partition", "split"}

// matrix lists the rows: each workload with each fault, and with all. Each has a seed of its own.
func (s *settings) matrix() (rows []row) {
	add := func(w, name string, faults []string, length time.Duration) {
		r := row{workload: w, name: name, faults: faults, nodes: s.nodes, length: length, rate: s.rate, processes: s.processes, keys: s.keys, shards: s.shards, idle: s.idle}
		r.seed = s.seed*1000 + uint64(len(rows))
		r.dir = filepath.Join(s.out, w+"-"+strings.ReplaceAll(name, " ", "-"))
		rows = append(rows, r)
	}
	for _, w := range workload.Names() {
		if s.short {
			add(w, "short", shortFaults, shortLength)
			continue
		}
		for _, f := range fitting(s.nodes) {
			add(w, f, []string{f}, singleLength)
		}
		add(w, together, fitting(s.nodes), togetherLength)
	}
	return slices.DeleteFunc(rows, func(r row) bool { return !s.wanted(r) })
}

// wanted tells whether a row is one of those that --only names: by a part of "workload/fault".
func (s *settings) wanted(r row) bool {
	return len(s.only) == 0 || slices.ContainsFunc(s.only, func(part string) bool { return strings.Contains(r.workload+"/"+r.name, part) })
}

// all makes the runs of the matrix, one after the other, and a table of them.
func (h *harness) all(ctx context.Context) error {
	rows := h.matrix()
	if len(rows) == 0 {
		return fmt.Errorf("no row of the matrix fits %s", strings.Join(h.only, ", "))
	}
	var table report.Table
	var bad []string
	for i, r := range rows {
		say("%d of %d: %s with %s, seed %d", i+1, len(rows), r.workload, r.name, r.seed)
		result, err := h.again(ctx, r)
		if err != nil {
			return errors.Join(fmt.Errorf("%s with %s: %w", r.workload, r.name, err), h.tabulate(table))
		}
		verdict := "valid"
		if !result.Valid {
			verdict = strings.Join(result.Reasons, "; ")
			bad = append(bad, r.workload+" with "+r.name)
			result.print(os.Stderr)
			say("%s; logs: %s", result.Command, r.dir)
		}
		table = append(table, report.Row{Workload: r.workload, Faults: r.named(), Nodes: r.nodes, Figures: result.Measured, Verdict: brief(verdict)})
		if err := h.tabulate(table); err != nil {
			return err
		}
	}
	if err := table.Text(os.Stdout); err != nil {
		return err
	}
	say("the table, and a directory for each row: %s", h.out)
	if len(bad) > 0 {
		return fmt.Errorf("%w: %d of %d rows: %s", errInvalid, len(bad), len(rows), strings.Join(bad, "; "))
	}
	return nil
}

// startsMost is how often a row is begun: on a busy machine the nodes may not be ready in time, which tells nothing of kvd's safety.
const startsMost = 2

// named are the faults for the table.
func (r *row) named() []string {
	if r.name == together {
		return []string{together}
	}
	return r.faults
}

// again makes a run, and once more if it could not be begun.
func (h *harness) again(ctx context.Context, r row) (result *result, err error) {
	dir := r.dir
	for i := range startsMost {
		if i > 0 {
			say("begun again: %v", err)
			r.dir = fmt.Sprintf("%s-%d", dir, i+1)
		}
		if result, err = h.run(ctx, r); ctx.Err() != nil || !errors.As(err, new(unbegun)) {
			break
		}
	}
	return result, err
}

// brief cuts what a column of the table has no room for.
func brief(verdict string) string {
	const most = 80
	line, _, _ := strings.Cut(verdict, "\n")
	if runes := []rune(line); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return line
}

// tabulate writes the table as far as it is.
func (h *harness) tabulate(t report.Table) error {
	return write(filepath.Join(h.out, "table.md"), func(f *bufio.Writer) error {
		_, err := fmt.Fprintf(f, "%s, commit %s\n\n", time.Now().UTC().Format(time.DateOnly), commit())
		if err != nil {
			return err
		}
		return t.Markdown(f)
	})
}

// fitting are the faults that a number of nodes can have, without shapes of others.
func fitting(nodes int) (list []string) {
	for _, name := range nemesis.Names() {
		if !strings.Contains(name, ":") && nemesis.Parse([]string{name}, nodes) == nil {
			list = append(list, name)
		}
	}
	return list
}
