package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"github.com/kvdstore/kvd/bench/load"
	"github.com/kvdstore/kvd/bench/report"
	"github.com/kvdstore/kvd/kv"
)

// What shards cost: the same load on clusters with few and with many of them. On one of them the load also keeps to as many
// shards as another has in all, so that the rest of them only stands about.

const (
	// shardsOfMax bounds the shards of a cluster: kvd founds none with more.
	shardsOfMax = 16 << 10
	// idleShare and fullShare are what the throughput on many shards is to be of that on few: with as many busy as those few
	// are, and with all of them.
	idleShare, fullShare = 0.9, 0.5
)

// shardsFlags are those of the command.
type shardsFlags struct {
	seriesFlags
	shards          []int
	busy, of, nodes int
	keys            int
	memory          string
}

func parseShards(args []string) (*shardsFlags, error) {
	s := &shardsFlags{}
	f := pflag.NewFlagSet("bench shards", pflag.ContinueOnError)
	s.add(f)
	s.addLoads(f, "get-256", "put-256", "packed-put")
	f.IntSliceVar(&s.shards, "shards", []int{1, 32, 1000, 10_000}, "of the clusters, each 1 to 16384, rising")
	f.IntVar(&s.busy, "busy", 32, "one of --shards: so many carry the load also where there are more")
	f.IntVar(&s.of, "of", 1000, "another of --shards: the cluster where there are more")
	f.IntVar(&s.nodes, "nodes", 3, "of each cluster, 1 to 9")
	f.IntVar(&s.keys, "keys", 100_000, "records")
	f.StringVar(&s.memory, "memory", "512MiB", "of each node")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	return s, errors.Join(noMore(f.Args()), s.check())
}

// check tells of everything that is wrong at once.
func (s *shardsFlags) check() error {
	errs := []error{
		s.seriesFlags.check(), s.checkLoads(), counts("shards", s.shards, 1, shardsOfMax), within("busy", s.busy, 1, shardsOfMax), within("nodes", s.nodes, 1, 9),
		within("keys", s.keys, s.busy, load.KeysMax),
	}
	if s.of <= s.busy {
		errs = append(errs, &kv.InvalidError{Field: "of", Bound: fmt.Sprintf("more than busy, which is %d, is %d", s.busy, s.of)})
	}
	return errors.Join(errs...)
}

// shardsCommand measures what shards cost.
func shardsCommand(ctx context.Context, args []string, out io.Writer) error {
	flags, err := parseShards(args)
	if err != nil {
		return err
	}
	s, err := newSeries(&flags.seriesFlags, "shards.jsonl", out, flags.goals())
	if err != nil {
		return err
	}
	for _, n := range flags.shards {
		if err := flags.systems(s, n); err != nil {
			return err
		}
	}
	return s.command(ctx)
}

// systems adds a cluster with so many shards, and how it is used.
func (s *shardsFlags) systems(to *series, n int) error {
	on, err := to.cluster(s.nodes, n, s.memory)
	if err != nil {
		return err
	}
	to.systems = append(to.systems, &system{name: shardsName(n), on: on, records: load.Workload{Keys: s.keys}, again: true})
	if n == s.of {
		to.systems = append(to.systems, &system{name: s.busyName(), on: on, records: load.Workload{Keys: s.keys, Parts: n, Used: s.busy}, again: true})
	}
	return nil
}

func shardsName(n int) string {
	if n == 1 {
		return "1 shard"
	}
	return many(n) + " shards"
}

func (s *shardsFlags) busyName() string { return fmt.Sprintf("%d of %d", s.busy, s.of) }

func (s *shardsFlags) goals() []report.Goal {
	few := shardsName(s.busy)
	return []report.Goal{{System: s.busyName(), Base: few, Least: idleShare}, {System: shardsName(s.of), Base: few, Least: fullShare}}
}
