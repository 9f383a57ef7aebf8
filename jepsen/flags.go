package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/kvdstore/kvd/jepsen/nemesis"
	"github.com/kvdstore/kvd/jepsen/workload"
	"github.com/kvdstore/kvd/kv"
)

// settings are the flags.
type settings struct {
	workload   string
	faults     []string
	nodes      int
	length     time.Duration
	rate       float64
	processes  int
	keys       int
	shards     int
	idle       int
	seed       uint64
	out        string
	tags       []string
	namespaces string
	keep       bool
	hasty      bool
	// hunt looks for mutants.
	hunt bool
	// all and short make the matrix, as far as only wants.
	all, short bool
	only       []string
}

// allFaults stands for all.
const allFaults = "all"

func parse(args []string) (*settings, error) {
	s := &settings{}
	f := pflag.NewFlagSet("jepsen", pflag.ContinueOnError)
	f.StringVar(&s.workload, "workload", "register", "what clients do: "+strings.Join(workload.Names(), ", ")+"; or overload: five times what the cluster can do, without faults")
	f.StringSliceVar(&s.faults, "faults", nil, "faults to inject, alone and together: "+strings.Join(nemesis.Names(), ", ")+"; all for all that fit; none if empty")
	f.IntVar(&s.nodes, "nodes", 5, "nodes to start, 1 to 9")
	f.DurationVar(&s.length, "time", time.Minute, "how long the workload runs, 1s to 24h")
	f.Float64Var(&s.rate, "rate", 2000, "operations a second, 1 to 20000; all are kept in memory")
	f.IntVar(&s.processes, "processes", 128, "operations under way at most, 1 to 1024")
	f.IntVar(&s.keys, "keys", 0, "registers and counters in use at a time, 0 to 100000: 0 is as many as the processes need, or the search for an order takes long")
	f.IntVar(&s.shards, "shards", shardsBefore, "shards that the keys are cut into from the start, 1 to 256")
	f.IntVar(&s.idle, "idle-shards", 0, "shards beside these that the workload has no keys in, 0 to 256")
	f.Uint64Var(&s.seed, "seed", 1, "of the faults and of what clients do")
	f.StringVar(&s.out, "out", "", "directory for the history, the report and the nodes' data and logs; it must be new or empty (default: a temporary one)")
	f.StringSliceVar(&s.tags, "tags", nil, "build tags for kvd")
	f.StringVar(&s.namespaces, "namespaces", "auto", "network namespaces for the nodes: on, off, or auto: if this is root and they can be had")
	f.BoolVar(&s.keep, "keep-data", false, "keep the nodes' data also after a valid run")
	f.BoolVar(&s.hasty, "hasty", false, "one round of faults soon after the other; shards keep little of their logs, and sleep soon")
	f.BoolVar(&s.hunt, "mutants", false, "build kvd with each of sim's mutants and run rows that should catch it until one does, at most 10 minutes each; a table in mutants.md")
	f.BoolVar(&s.all, "all", false, "every workload with every fault for 20 s, and with all together for a minute; a table of it all, also in table.md")
	f.BoolVar(&s.short, "short", false, "the form for CI: every workload with "+strings.Join(shortFaults, ", ")+", on 3 nodes")
	f.StringSliceVar(&s.only, "only", nil, "with --all and --short: only the rows with one of these in WORKLOAD/FAULT; with --mutants: in the tag")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if s.short {
		if !f.Changed("nodes") {
			s.nodes = shortNodes
		}
		if !f.Changed("rate") {
			s.rate = shortRate
		}
	}
	return s, s.check(f.Args())
}

func (s *settings) check(args []string) error {
	var errs []error
	bad := func(field, bound string, args ...any) {
		errs = append(errs, &kv.InvalidError{Field: field, Bound: fmt.Sprintf(bound, args...)})
	}
	if len(args) > 0 {
		errs = append(errs, fmt.Errorf("it takes flags only, and %q is none", args[0]))
	}
	if !slices.Contains(append(workload.Names(), overloadName), s.workload) {
		bad("workload", "one of %s, %s, is %q", strings.Join(workload.Names(), ", "), overloadName, s.workload)
	}
	if s.workload == overloadName && len(s.faults) > 0 {
		bad("faults", "none with overload")
	}
	if s.nodes < 1 || s.nodes > 9 {
		bad("nodes", "1 to 9, is %d", s.nodes)
	}
	if s.length < time.Second || s.length > 24*time.Hour {
		bad("time", "1s to 24h, is %v", s.length)
	}
	if s.rate < 1 || s.rate > 20000 {
		bad("rate", "1 to 20000, is %v", s.rate)
	}
	if s.keys < 0 || s.keys > 100_000 {
		bad("keys", "0 to 100000, is %d", s.keys)
	}
	if s.shards < 1 || s.shards > 256 {
		bad("shards", "1 to 256, is %d", s.shards)
	}
	if s.idle < 0 || s.idle > 256 {
		bad("idle-shards", "0 to 256, is %d", s.idle)
	}
	if s.processes < 1 || s.processes > 1024 {
		bad("processes", "1 to 1024, is %d", s.processes)
	}
	if !slices.Contains([]string{"auto", "on", "off"}, s.namespaces) {
		bad("namespaces", "auto, on or off, is %q", s.namespaces)
	}
	if slices.Equal(s.faults, []string{allFaults}) {
		s.faults = fitting(s.nodes)
	}
	errs = append(errs, nemesis.Parse(s.faults, s.nodes))
	return errors.Join(errs...)
}
