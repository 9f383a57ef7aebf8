package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/pflag"

	"github.com/kvdstore/kvd/bench/load"
	"github.com/kvdstore/kvd/bench/report"
	"github.com/kvdstore/kvd/cache"
)

// What a large cache costs: Go's collector looks at every entry. The same load on a node with few entries in memory and on
// one with many, as fast as it goes, and at a rate that leaves processors free.

const (
	// fullLoad and pacedLoad are the two.
	fullLoad, pacedLoad = "full", "paced"
	// pauseGoal is what the 99.9th percentile of the pauses is to stay below, in milliseconds.
	pauseGoal = 1.0
	// cacheShare is which part of a node's memory its cache of records has: one of so many.
	cacheShare = 3
	// memoryLeast is what a node gets at least, in bytes.
	memoryLeast = 256 << 20
)

// gcFlags are those of the command.
type gcFlags struct {
	seriesFlags
	entries        []int
	value, reads   int
	clients, nodes int
	nice           int
	rate           float64
	memory         string
	heat           time.Duration
}

func parseGC(args []string) (*gcFlags, error) {
	s := &gcFlags{}
	f := pflag.NewFlagSet("bench gc", pflag.ContinueOnError)
	s.add(f)
	f.IntSliceVar(&s.entries, "entries", []int{10_000, 10_000_000}, "records of the clusters, all of them in memory, rising")
	f.IntVar(&s.value, "value", 128, "length of a value in bytes")
	f.IntVar(&s.nodes, "nodes", 1, "of each cluster, 1 to 9")
	f.IntVar(&s.clients, "clients", 64, fmt.Sprintf("callers, 1 to %d", load.ClientsMax))
	f.IntVar(&s.reads, "read-percent", 50, "share of reads, 0 to 100; the others are writes")
	f.IntVar(&s.nice, "nice", 0, "how the kernel favours the nodes, -20 to 19: with -10, which needs root, the callers give way to them: pauses are not those of a node whose cores others have")
	f.Float64Var(&s.rate, "rate", 10_000, "operations a second of the paced load")
	f.DurationVar(&s.heat, "heat", 30*time.Second, "for how long gets bring into memory what is not there after the puts, 0 to 1h")
	f.StringVar(&s.memory, "memory", "", "of each node (default: what the entries need)")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if !f.Changed("time") {
		s.length = time.Minute
	}
	s.loads = []string{fullLoad, pacedLoad}
	return s, errors.Join(noMore(f.Args()), s.check())
}

// check tells of everything that is wrong at once.
func (s *gcFlags) check() error {
	errs := []error{s.seriesFlags.check(), counts("entries", s.entries, 1, load.KeysMax), within("nodes", s.nodes, 1, 9), within("nice", s.nice, -20, 19), lasts("heat", s.heat, 0, time.Hour)}
	if len(s.entries) > 0 {
		for _, name := range s.loads {
			_, err := s.trial(name, s.system(s.entries[0]))
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// system is what so many entries are measured on.
func (s *gcFlags) system(entries int) *system {
	return &system{name: many(entries) + " entries", records: load.Workload{Keys: entries, Value: s.value}, again: true, heat: s.heat}
}

// trial makes one of the two loads.
func (s *gcFlags) trial(name string, x *system) (*trial, error) {
	t := &trial{clients: s.clients, depth: 1, warm: s.warm, length: s.length, workload: x.records, gc: true, nice: s.nice}
	t.workload.Name, t.workload.ReadPercent, t.workload.Seed = "get", s.reads, s.seed
	t.target.Kind, t.target.Endpoints = "kvd", []string{"127.0.0.1:1"} // Until there is a cluster.
	if name == pacedLoad {
		t.rate = s.rate
	}
	return t, t.prepare()
}

// entryBytes is what a record takes in the cache, as the cache counts it.
func (s *gcFlags) entryBytes() int { return keyBytes + s.value + cache.EntryOverheadBytes }

// memoryFor is what a node needs, as a flag of kvd, to have so many records in memory: four tenths more than they take. The
// cache's stripes, counters and queue have three of these.
func (s *gcFlags) memoryFor(entries int) string {
	if s.memory != "" {
		return s.memory
	}
	return fmt.Sprint(max(cacheShare*entries*s.entryBytes()/10*14, memoryLeast))
}

// gcCommand measures what a large cache costs.
func gcCommand(ctx context.Context, args []string, out io.Writer) error {
	flags, err := parseGC(args)
	if err != nil {
		return err
	}
	s, err := newSeries(&flags.seriesFlags, "gc.jsonl", out, nil)
	if err != nil {
		return err
	}
	s.trial = flags.trial
	s.tell = func(out io.Writer, runs []*report.Run) ([]string, error) {
		return report.TellGC(out, runs, flags.entryBytes(), pauseGoal)
	}
	for _, n := range flags.entries {
		x := flags.system(n)
		if x.on, err = s.cluster(flags.nodes, shardsFor(n, flags.value), flags.memoryFor(n)); err != nil {
			return err
		}
		x.on.config.Nice = flags.nice
		s.systems = append(s.systems, x)
	}
	return s.command(ctx)
}
