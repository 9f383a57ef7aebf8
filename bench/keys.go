package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/spf13/pflag"

	"github.com/kvdstore/kvd/bench/load"
	"github.com/kvdstore/kvd/bench/local"
	"github.com/kvdstore/kvd/bench/report"
	"github.com/kvdstore/kvd/kv"
)

// What keys cost: the same load on clusters with few and with many of them, as many shards as kvd would make of them.

const (
	// keyBytes are those of a record's key.
	keyBytes = 16
	// manyShare is what the throughput with the most keys is to be of that with the fewest.
	manyShare = 0.8
)

// keysFlags are those of the command.
type keysFlags struct {
	seriesFlags
	keys         []int
	value, nodes int
	distribution string
	memory       string
	heat         time.Duration
	files        bool
}

func parseKeys(args []string) (*keysFlags, error) {
	s := &keysFlags{}
	f := pflag.NewFlagSet("bench keys", pflag.ContinueOnError)
	s.add(f)
	s.addLoads(f, "get-256", "put-256")
	f.IntSliceVar(&s.keys, "keys", []int{1_000_000, 5_000_000, 20_000_000}, "of the clusters, rising")
	f.IntVar(&s.value, "value", 128, "length of a value in bytes")
	f.IntVar(&s.nodes, "nodes", 1, "of each cluster, 1 to 9")
	f.StringVar(&s.distribution, "distribution", load.Skewed, "of the keys that are used: uniform, zipfian, scrambled (as YCSB scrambles it) or latest")
	f.DurationVar(&s.heat, "heat", 20*time.Second, "for how long gets bring keys into memory after a start, 0 to 1h")
	f.BoolVar(&s.files, "page-cache", false, "read the nodes' files before each load: for a kernel that takes pages of files away though there is room for them (DAMON)")
	f.StringVar(&s.memory, "memory", local.OwnMemory, "of each node (default: what kvd chooses, an eighth of the machine's)")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	return s, errors.Join(noMore(f.Args()), s.check())
}

// check tells of everything that is wrong at once.
func (s *keysFlags) check() error {
	errs := []error{
		s.seriesFlags.check(), s.checkLoads(), counts("keys", s.keys, 1, load.KeysMax), within("nodes", s.nodes, 1, 9), lasts("heat", s.heat, 0, time.Hour),
	}
	w := load.Workload{Name: "put", Keys: 1, Value: s.value, Distribution: s.distribution, ReadPercent: -1}
	return errors.Join(append(errs, w.Prepare())...)
}

// keysCommand measures what keys cost.
func keysCommand(ctx context.Context, args []string, out io.Writer) error {
	flags, err := parseKeys(args)
	if err != nil {
		return err
	}
	s, err := newSeries(&flags.seriesFlags, "keys.jsonl", out, flags.goals())
	if err != nil {
		return err
	}
	for _, n := range flags.keys {
		on, err := s.cluster(flags.nodes, shardsFor(n, flags.value), flags.memory)
		if err != nil {
			return err
		}
		s.systems = append(s.systems, &system{
			name: keysName(n), on: on, heat: flags.heat, files: flags.files, records: load.Workload{Keys: n, Value: flags.value, Distribution: flags.distribution},
		})
	}
	return s.command(ctx)
}

func keysName(n int) string { return many(n) + " keys" }

// shardsFor is how many shards kvd makes of so many records: each grew to the size at which it is split, and was, so that it holds
// somewhere between half of that and all of it.
func shardsFor(keys, value int) int {
	const each = kv.SplitBytes * 3 / 4
	return max(1, (keys*(keyBytes+value)+each/2)/each)
}

func (s *keysFlags) goals() []report.Goal {
	if len(s.keys) < 2 {
		return nil
	}
	return []report.Goal{{System: keysName(s.keys[len(s.keys)-1]), Base: keysName(s.keys[0]), Least: manyShare}}
}
