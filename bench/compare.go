package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/kvdstore/kvd/bench/load"
	"github.com/kvdstore/kvd/bench/peers"
	"github.com/kvdstore/kvd/bench/report"
	"github.com/kvdstore/kvd/internal/wait"
	"github.com/kvdstore/kvd/kv"
)

// settings are those of compare.
type settings struct {
	only         []string
	rounds       int
	length, warm time.Duration
	keys, shards int
	seed         uint64
	out, memory  string
	keep         bool
}

const (
	// roundsMax and shardsMax bound a comparison.
	roundsMax, shardsMax = 100, 1000
	// runsFile and pageFile are what it leaves.
	runsFile, pageFile = "runs.jsonl", "report.html"
)

func parseCompare(args []string) (*settings, error) {
	s := &settings{}
	f := pflag.NewFlagSet("bench compare", pflag.ContinueOnError)
	f.StringSliceVar(&s.only, "only", nil, "stores and cases, of "+strings.Join(peers.Names(), ", ")+"; "+strings.Join(caseNames(), ", ")+" (default: all, but etcd36 only by name)")
	f.IntVar(&s.rounds, "rounds", 3, "of each case, 1 to 100")
	f.DurationVar(&s.length, "time", 10*time.Second, "length of each run")
	f.DurationVar(&s.warm, "warm", 2*time.Second, "length of the same load before it, which does not count")
	f.IntVar(&s.keys, "keys", 100_000, "records of each workload")
	f.IntVar(&s.shards, "shards", 3, "of kvd, for each of the key spaces of the workloads, 1 to 1000")
	f.Uint64Var(&s.seed, "seed", 1, "of all chances")
	f.StringVar(&s.memory, "memory", "512MiB", "of each node of kvd")
	f.StringVar(&s.out, "out", "bench-out", "directory for runs.jsonl, report.html, and the servers' data and logs")
	f.BoolVar(&s.keep, "keep", false, "keep the servers' data and logs")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	return s, errors.Join(noMore(f.Args()), s.check())
}

// check tells of everything that is wrong at once.
func (s *settings) check() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, &kv.InvalidError{Field: field, Bound: fmt.Sprintf(format, args...)})
	}
	for _, name := range s.only {
		if !slices.Contains(peers.Names(), name) && !slices.Contains(caseNames(), name) {
			bad("only", "some of %v and %v, one is %q", peers.Names(), caseNames(), name)
		}
	}
	if s.rounds < 1 || s.rounds > roundsMax {
		bad("rounds", "1 to %d, is %d", roundsMax, s.rounds)
	}
	if s.shards < 1 || s.shards > shardsMax {
		bad("shards", "1 to %d, is %d", shardsMax, s.shards)
	}
	if s.keys < s.shards || s.keys > load.KeysMax {
		bad("keys", "as many as shards, to %d, is %d", load.KeysMax, s.keys)
	}
	if s.length <= 0 || s.length > load.LengthMax {
		bad("time", "above 0 to %v, is %v", load.LengthMax, s.length)
	}
	if s.warm < 0 || s.warm > warmMax {
		bad("warm", "0s to %v, is %v", warmMax, s.warm)
	}
	return errors.Join(errs...)
}

// compareCommand starts everything, compares, and writes the report.
func compareCommand(ctx context.Context, args []string, out io.Writer) error {
	s, err := parseCompare(args)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := &contest{settings: s, self: self, filled: map[string]bool{}}
	if c.journal, err = openJournal(s.out, runsFile, out); err != nil {
		return err
	}
	return c.close(s.keep, c.compare(ctx))
}

// contest is a comparison that is under way.
type contest struct {
	*settings
	*journal
	self   string
	stores []*peers.Store
	filled map[string]bool // Stores with records, by name and kind of records.
}

func (c *contest) compare(ctx context.Context) error {
	err := errors.Join(c.all(ctx), c.stop())
	if len(c.runs) > 0 {
		err = errors.Join(err, report.TellAll(c.told, c.runs), c.page())
	}
	return err
}

func (c *contest) page() error {
	name := filepath.Join(c.settings.out, pageFile)
	c.say("\nwritten: %s, %s", name, c.file.Name())
	return writePage(name, c.runs)
}

func writePage(name string, runs []*report.Run) error {
	return writeFile(name, func(w io.Writer) error { return report.Page(w, "kvd beside what one would take instead", runs) })
}

func writeFile(name string, write func(io.Writer) error) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return write(f)
}

// reportCommand tells again what a comparison has found.
func reportCommand(_ context.Context, args []string, out io.Writer) error {
	f := pflag.NewFlagSet("bench report", pflag.ContinueOnError)
	from := f.StringSlice("from", []string{filepath.Join("bench-out", runsFile)}, "files of runs")
	page := f.String("page", "", "file for the page (default: none)")
	picture := f.String("picture", "", "file for the plots as an SVG image (default: none)")
	if err := f.Parse(args); err != nil {
		return err
	}
	if err := noMore(f.Args()); err != nil {
		return err
	}
	var runs []*report.Run
	for _, name := range *from {
		list, err := readRuns(name)
		if err != nil {
			return err
		}
		runs = append(runs, list...)
	}
	err := report.TellAll(out, runs)
	if *page != "" {
		err = errors.Join(err, writePage(*page, runs))
	}
	if *picture != "" {
		err = errors.Join(err, writeFile(*picture, func(w io.Writer) error { return report.Picture(w, runs) }))
	}
	return err
}

func readRuns(name string) ([]*report.Run, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	list, err := report.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return list, nil
}

// all starts the stores and runs all cases.
func (c *contest) all(ctx context.Context) error {
	cuts, err := c.cuts()
	if err != nil {
		return err
	}
	how := peers.Config{Dir: c.data, Binaries: c.data, Self: c.self, Cuts: cuts, Memory: c.memory}
	cases := c.chosenCases()
	if !slices.Equal(cases, []string{killCase}) {
		if err := c.start(ctx, how); err != nil {
			return err
		}
	}
	for i := range comparisons {
		x := &comparisons[i]
		if !slices.Contains(cases, x.name) {
			continue
		}
		for round := range c.rounds {
			if x.name == killCase {
				err = c.killRound(ctx, x, how, round+1)
			} else {
				err = c.round(ctx, x, round+1)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *contest) chosenCases() []string { return c.chosen(caseNames(), caseNames()) }

// start starts all stores. One whose program is not installed is left out.
func (c *contest) start(ctx context.Context, how peers.Config) error {
	for _, name := range c.settings.stores() {
		s, err := peers.Start(ctx, how, name)
		if missing, ok := errors.AsType[*peers.MissingError](err); ok {
			c.say("left out %s: %v", name, missing)
			continue
		}
		if s != nil {
			c.stores = append(c.stores, s)
		}
		if err != nil {
			return err
		}
		c.say("started %s at %s", name, strings.Join(s.Endpoints, ", "))
	}
	return nil
}

// stop stops all stores.
func (c *contest) stop() error {
	var errs []error
	for _, s := range c.stores {
		errs = append(errs, s.Stop())
	}
	return errors.Join(errs...)
}

// round runs a case once with each store; each round begins with another of them.
func (c *contest) round(ctx context.Context, x *comparison, round int) error {
	for i := range c.stores {
		s := c.stores[(i+round-1)%len(c.stores)]
		t, ok := x.trial(c.settings, s.Name, s.Kind)
		if !ok {
			continue
		}
		t.target.Endpoints, t.metrics, t.pids = s.Endpoints, s.Metrics, s.PIDs()
		t.fill = c.toFill(s.Name, t)
		if err := c.one(ctx, t, x.name, s.Name, round); err != nil {
			return err
		}
	}
	return nil
}

// toFill tells whether a store is still to be given the records of a trial.
func (c *contest) toFill(store string, t *trial) bool {
	family := "plain"
	if t.workload.Name == "geo" || len(t.workload.Name) == 1 {
		family = "ycsb"
		if t.workload.Ordered() {
			family = t.workload.Name
		}
	}
	key := fmt.Sprint(store, family, t.workload.Value)
	if c.filled[key] {
		return false
	}
	c.filled[key] = true
	return true
}

// killRound kills the leader of stores that were started for that, a third into the run.
func (c *contest) killRound(ctx context.Context, x *comparison, how peers.Config, round int) error {
	for _, name := range c.settings.stores() {
		t, ok := x.trial(c.settings, name, peers.KindOf(name))
		if !ok {
			continue
		}
		how.Dir = filepath.Join(c.data, fmt.Sprintf("%s-%d", killCase, round))
		s, err := peers.Start(ctx, how, name)
		if err == nil {
			err = c.killOnce(ctx, x, t, s, round)
		}
		if s != nil {
			err = errors.Join(err, s.Stop())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *contest) killOnce(ctx context.Context, x *comparison, t *trial, s *peers.Store, round int) error {
	t.target.Endpoints, t.fill = s.Endpoints, true
	var killed error
	t.during = func(ctx context.Context) {
		if wait.For(ctx, t.length/3) != nil {
			return
		}
		p, err := s.Leader(ctx)
		if err == nil {
			err = p.Kill()
		}
		killed = err
	}
	return errors.Join(c.one(ctx, t, x.name, s.Name, round), killed)
}
