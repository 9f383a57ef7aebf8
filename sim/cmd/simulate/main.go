// Simulate runs the simulator at scale: a process for each core, one seed after the other.
//
//	go run ./sim/cmd/simulate --for 10m
//	go run ./sim/cmd/simulate --seeds 20000 --from 100000 --keep failing.txt
//	go run ./sim/cmd/simulate --replay 4711
//
// The simulator sets the source of chance of its whole process, so that one process runs one seed at a time. This one
// starts itself as workers, hands out seeds and gathers what came of them:
//
//	seeds ── seed\n ──> worker (--worker) ── a JSON line ──> tally: totals, failing seeds
//
// A worker that dies, or that is not done with a seed in time, costs its seed, which counts as failed, and is replaced.
// The exit code is 0 if no seed failed, 1 if one did, and 2 if nothing could be run.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/kvdstore/kvd/kv"
)

// Exit codes.
const (
	exitNone   = 0
	exitFailed = 1
	exitUnable = 2
)

// workersMax bounds the processes, failuresMax the failing seeds after which a run may end.
const (
	workersMax  = 1024
	failuresMax = 10_000
)

// settings are the flags.
type settings struct {
	length, limit     time.Duration
	seeds, from       uint64
	workers, failures int
	keep              string
	replay            uint64
	pebble, worker    bool
	replaying         bool // There is a seed to replay; 0 is one too.
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := command(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func parse(args []string) (*settings, error) {
	s := &settings{}
	f := pflag.NewFlagSet("simulate", pflag.ContinueOnError)
	f.DurationVar(&s.length, "for", 0, "how long to hand out seeds (default: 1m, or without end if --seeds bounds them)")
	f.Uint64Var(&s.seeds, "seeds", 0, "how many seeds to run; 0 for no bound")
	f.Uint64Var(&s.from, "from", 1, "the first seed")
	f.IntVar(&s.workers, "workers", runtime.GOMAXPROCS(0), fmt.Sprintf("processes, 1 to %d", workersMax))
	f.IntVar(&s.failures, "failures", 20, fmt.Sprintf("end after so many failing seeds, 1 to %d", failuresMax))
	f.DurationVar(&s.limit, "limit", 5*time.Minute, "a seed that takes longer has failed; at least 1s")
	f.StringVar(&s.keep, "keep", "", "file to append failing seeds to, a line each: seed, commit, error")
	f.BoolVar(&s.pebble, "pebble", false, "put the stores on Pebble, as in production; slower")
	f.Uint64Var(&s.replay, "replay", 0, "run this seed, twice, and tell all of it")
	f.BoolVar(&s.worker, "worker", false, "run the seeds that standard input names")
	if err := f.MarkHidden("worker"); err != nil {
		return nil, err
	}
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	s.replaying = f.Changed("replay")
	if !f.Changed("for") && s.seeds == 0 {
		s.length = time.Minute
	}
	return s, s.check(f.Args(), f.Changed("for"))
}

func (s *settings) check(args []string, bounded bool) error {
	within := func(field string, n, least, most int) error {
		if n < least || n > most {
			return &kv.InvalidError{Field: field, Bound: fmt.Sprintf("%d to %d, is %d", least, most, n)}
		}
		return nil
	}
	errs := []error{within("workers", s.workers, 1, workersMax), within("failures", s.failures, 1, failuresMax)}
	if bounded && s.length <= 0 {
		errs = append(errs, &kv.InvalidError{Field: "for", Bound: fmt.Sprintf("more than 0, is %v", s.length)})
	}
	if s.limit < time.Second {
		errs = append(errs, &kv.InvalidError{Field: "limit", Bound: fmt.Sprintf("at least 1s, is %v", s.limit)})
	}
	if len(args) > 0 {
		errs = append(errs, fmt.Errorf("it takes flags only, and %q is none", args[0]))
	}
	return errors.Join(errs...)
}

// command does everything, and gives the exit code.
func command(ctx context.Context, args []string, in io.Reader, out, log io.Writer) int {
	s, err := parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return exitNone
	case err != nil:
	case s.worker:
		err = work(in, out, s.pebble)
	case s.replaying:
		return replay(out, s)
	default:
		var failed bool
		if failed, err = s.simulate(ctx, out); err == nil && failed {
			return exitFailed
		}
	}
	if err != nil {
		_, _ = fmt.Fprintln(log, "simulate:", err)
		return exitUnable
	}
	return exitNone
}

// simulate runs seeds until their time is up, and tells whether one failed.
func (s *settings) simulate(ctx context.Context, out io.Writer) (failed bool, err error) {
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	args := []string{"--worker"}
	if s.pebble {
		args = append(args, "--pebble")
	}
	t := &tally{out: out, began: time.Now(), build: buildOf(ctx), pebble: s.pebble, failuresMax: s.failures}
	if s.keep != "" {
		file, err := os.OpenFile(s.keep, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return false, err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		t.keep = file
	}
	handing := ctx
	if s.length > 0 {
		var stop context.CancelFunc
		handing, stop = context.WithTimeout(ctx, s.length)
		defer stop()
	}
	f := &farm{workers: s.workers, limit: s.limit, worker: func(ctx context.Context) *exec.Cmd {
		return exec.CommandContext(ctx, self, args...)
	}}
	err = f.run(ctx, newSeeds(handing, s.from, s.seeds), t)
	t.summary()
	return len(t.failed) > 0 || t.lacking() != nil, errors.Join(err, t.err)
}
