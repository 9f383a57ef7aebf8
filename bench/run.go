package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/kvdstore/kvd/bench/load"
	"github.com/kvdstore/kvd/bench/report"
	"github.com/kvdstore/kvd/bench/target"
)

// runCommand measures a store that somebody else has started.
func runCommand(ctx context.Context, args []string, out io.Writer) error {
	t, file, err := parseRun(args)
	if err != nil {
		return err
	}
	r, err := t.run(ctx)
	if err != nil {
		return err
	}
	if err := report.Tell(out, r); err != nil {
		return err
	}
	if file == "" {
		return nil
	}
	return appendRun(file, r)
}

// parseRun makes a trial of the flags.
func parseRun(args []string) (t *trial, file string, err error) {
	t = &trial{}
	f := pflag.NewFlagSet("bench run", pflag.ContinueOnError)
	f.StringVar(&t.target.Kind, "target", "kvd", strings.Join(target.Kinds(), ", ")+"; or HOST:PORT,… of kvd")
	f.StringSliceVar(&t.target.Endpoints, "endpoints", []string{"127.0.0.1:7400"}, "HOST:PORT of its servers")
	f.StringVar(&t.workload.Name, "workload", "a", strings.Join(load.Names(), ", "))
	f.IntVar(&t.clients, "clients", 64, fmt.Sprintf("callers, 1 to %d", load.ClientsMax))
	f.IntVar(&t.depth, "depth", 1, fmt.Sprintf("operations that each caller sends at a time, pipelined, 1 to %d", load.DepthMax))
	f.BoolVar(&t.target.Pipelined, "pipelined", false, "any workload through the store's pipeline")
	f.DurationVar(&t.length, "time", 20*time.Second, "length of the run")
	f.DurationVar(&t.warm, "warm", 2*time.Second, "length of the same load before it, which does not count")
	f.Float64Var(&t.rate, "rate", 0, "operations a second of all callers, due whether earlier ones have ended or not; 0: each caller sends the next when the last has ended")
	f.IntVar(&t.workload.Value, "value", 0, "length of a value in bytes (default: 1000 for a to f, else 128)")
	f.IntVar(&t.workload.Keys, "keys", 100_000, "records that are there from the beginning")
	f.IntVar(&t.workload.ReadPercent, "read-percent", -1, "share of reads, of get and put alone")
	f.StringVar(&t.workload.Distribution, "distribution", "", "of keys: uniform, zipfian, scrambled (as YCSB scrambles it) or latest, of get and put alone")
	f.BoolVar(&t.fill, "fill", true, "put the records first")
	f.Uint64Var(&t.workload.Seed, "seed", 1, "of all chances")
	f.IntSliceVar(&t.pids, "pids", nil, "processes of the servers, for their figures")
	f.StringSliceVar(&t.metrics, "metrics", nil, "URLs of kvd's /metrics, for its syncs")
	trace := f.String("trace", "", "file of the workload trace: one key a line, gzipped if it ends in .gz")
	f.StringVar(&file, "json", "", "file that a JSON line of the run is added to")
	if err := f.Parse(args); err != nil {
		return nil, "", err
	}
	if err := noMore(f.Args()); err != nil {
		return nil, "", err
	}
	if strings.Contains(t.target.Kind, ":") {
		t.target.Kind, t.target.Endpoints = "kvd", strings.Split(t.target.Kind, ",")
	}
	if *trace != "" {
		if t.workload.Trace, err = load.ReadTrace(*trace); err != nil {
			return nil, "", err
		}
	}
	return t, file, t.prepare()
}

// appendRun adds a line to a file.
func appendRun(name string, r *report.Run) (err error) {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return r.Write(f)
}
