// Changes measures what clients see of splits, merges, moves and hand-overs: nothing, but for short pauses.
//
//	go run ./bench/changes                                   # a cluster of its own, 200 changes
//	go run ./bench/changes --endpoints 127.0.0.1:7400 --kinds split,merge
//
// It starts nodes on loopback, or takes the given ones, and loads keys under a prefix of its own. Then come a quiet run and
// one as long in which the shards of those keys are changed, a series for each kind. All the while 8 writers, 8 readers
// and a scanner that counts go through the Go client, and everything that they saw is kept:
//
//	workers ── history ──┬── package check: no acknowledged write lost, no stale read, nothing doubled, revisions rise
//	                     └── latencies, of the quiet run and around the changes of each kind
//
// The exit code is 0 only if no error reached a client, the history holds, every change was made and the bounds on the 99th
// percentile hold.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/kvdstore/kvd/bench/local"
	"github.com/kvdstore/kvd/kv"
)

// settings are the flags.
type settings struct {
	nodes, changes, keys, rate, atOnce int
	kinds, endpoints                   []string
	dir                                string
	seed                               uint64
	run, slow                          time.Duration
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, pflag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "changes:", err)
		os.Exit(1)
	}
}

func parse(args []string) (*settings, error) {
	s := &settings{}
	f := pflag.NewFlagSet("changes", pflag.ContinueOnError)
	f.IntVar(&s.nodes, "nodes", 4, "nodes to start, 1 to 9; a move needs one more than there are replicas, which are 3")
	f.IntVar(&s.changes, "changes", 200, "changes in all, shared among the kinds")
	f.StringSliceVar(&s.kinds, "kinds", kinds, "kinds of changes, in this order")
	f.StringSliceVar(&s.endpoints, "endpoints", nil, "HOST:PORT of a running cluster, instead of starting one; its settings of splits, merges and balance are changed for the time")
	f.StringVar(&s.dir, "dir", "", "directory for the data and the logs of the nodes; it stays (default: a temporary one)")
	f.Uint64Var(&s.seed, "seed", 1, "of keys, values and changes")
	f.IntVar(&s.keys, "keys", 20000, "keys to load, 100 to 200000")
	f.IntVar(&s.rate, "rate", 4000, "operations a second of all workers, at most 5000: all are kept in memory")
	f.IntVar(&s.atOnce, "at-once", 4, "changes under way at one moment, 1 to 16")
	f.DurationVar(&s.run, "run", 150*time.Second, "length of the quiet run, and of the other as far as the changes keep up, 1s to 10m")
	f.DurationVar(&s.slow, "slow", 0, "tell of each operation around a change that took longer; 0 for none")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	return s, s.check(f.Args())
}

func (s *settings) check(args []string) error {
	within := func(field string, n, least, most int) error {
		if n < least || n > most {
			return &kv.InvalidError{Field: field, Bound: fmt.Sprintf("%d to %d, is %d", least, most, n)}
		}
		return nil
	}
	errs := []error{
		within("nodes", s.nodes, 1, 9), within("changes", s.changes, len(s.kinds), 10000), within("keys", s.keys, 100, 200_000),
		within("rate", s.rate, 100, 5000), within("at-once", s.atOnce, 1, 16),
	}
	if s.run < time.Second || s.run > 10*time.Minute {
		errs = append(errs, &kv.InvalidError{Field: "run", Bound: fmt.Sprintf("1s to 10m, is %v", s.run)})
	}
	if len(args) > 0 {
		errs = append(errs, fmt.Errorf("it takes flags only, and %q is none", args[0]))
	}
	for _, k := range s.kinds {
		if !slices.Contains(kinds, k) {
			errs = append(errs, &kv.InvalidError{Field: "kinds", Bound: fmt.Sprintf("of %s, one is %q", strings.Join(kinds, ", "), k)})
		}
	}
	if len(s.kinds) == 0 {
		errs = append(errs, &kv.InvalidError{Field: "kinds", Bound: "at least one"})
	}
	return errors.Join(errs...)
}

// command does everything. What it gives says what did not hold.
func command(ctx context.Context, args []string) (err error) {
	s, err := parse(args)
	if err != nil {
		return err
	}
	if len(s.endpoints) == 0 {
		c, startErr := local.Start(ctx, local.Config{Name: "changes", Nodes: s.nodes, Dir: s.dir})
		if c != nil {
			defer func() { err = errors.Join(err, c.Stop(err == nil && s.dir == "")) }()
		}
		if startErr != nil {
			return startErr
		}
		s.endpoints = c.Addresses()
	}
	t, err := newTrial(s, fmt.Sprintf("bench/changes/%d/", time.Now().UnixNano()))
	if err != nil {
		return err
	}
	defer t.close()
	if err := t.run(ctx); err != nil {
		return err
	}
	summary := t.measure()
	summary.print(os.Stdout, t)
	t.tellSlow()
	return errors.Join(t.verdict(ctx), summary.tooSlow())
}
