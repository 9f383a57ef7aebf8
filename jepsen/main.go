// Jepsen proves kvd with real processes, real faults and recorded histories.
//
//	go run ./jepsen --workload register --faults kill,partition          # one run
//	go run ./jepsen --all                                                # every workload with every fault, for hours
//	go run ./jepsen --short                                              # the form for CI
//
// It builds kvd, starts nodes (in network namespaces if it may, see package cluster), drives a workload against them
// (package workload) while faults drawn from the seed are injected (package nemesis), heals, waits until the cluster is
// whole, reads everything back, and judges the history:
//
//	build ── start ── set up ──┬── drive ──┬── heal ── read back ── judge ── report
//	                           └── faults ─┘
//
// The output directory then holds report.html, history.jsonl, summary.json, porcupine's page for the first violation's key if
// there is one, and the nodes' logs. Exit codes: 0 valid; 1 invalid, also if the cluster served too little without faults, or nothing of one
// sort, if no fault was injected although some were asked for, or if a process ended by itself; 2 the run could not be made.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
)

// errInvalid is a verdict, not a failure of the harness.
var errInvalid = errors.New("not valid")

const (
	exitInvalid = 1
	exitFailed  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := command(ctx, os.Args[1:])
	stop()
	switch {
	case err == nil || errors.Is(err, pflag.ErrHelp):
	case errors.Is(err, errInvalid):
		fmt.Fprintln(os.Stderr, "jepsen:", err)
		os.Exit(exitInvalid)
	default:
		fmt.Fprintln(os.Stderr, "jepsen: could not run:", err)
		os.Exit(exitFailed)
	}
}

func command(ctx context.Context, args []string) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	h, err := newHarness(ctx, s)
	if err != nil {
		return err
	}
	switch {
	case s.all || s.short:
		return h.all(ctx)
	case s.hunt:
		return h.mutants(ctx)
	case s.workload == overloadName:
		return h.overload(ctx)
	}
	return h.one(ctx)
}
