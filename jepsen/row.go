package main

import (
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/kvdstore/kvd/jepsen/nemesis"
)

// row is one run.
type row struct {
	workload  string
	faults    []string
	nodes     int
	length    time.Duration
	rate      float64
	processes int
	keys      int
	shards    int
	idle      int
	seed      uint64
	dir       string
	// name is what the table of many calls the faults.
	name string
	// hasty has one round of faults follow the other soon.
	hasty bool
}

func (r *row) pace() nemesis.Pace {
	if r.hasty {
		return nemesis.Hasty
	}
	return nemesis.Calm
}

// schedule draws the row's faults.
func (r *row) schedule() []nemesis.Round {
	return nemesis.Schedule(r.seed, r.faults, r.length, r.pace())
}

// command repeats the row.
func (r *row) command(tags []string) string {
	c := fmt.Sprintf("go run ./jepsen --workload %s --nodes %d --time %v --rate %v --processes %d --seed %d", r.workload, r.nodes, r.length, r.rate, r.processes, r.seed)
	if len(r.faults) > 0 {
		c += " --faults " + strings.Join(r.faults, ",")
	}
	if r.keys > 0 {
		c += fmt.Sprintf(" --keys %d", r.keys)
	}
	if r.shards != shardsBefore {
		c += fmt.Sprintf(" --shards %d", r.shards)
	}
	if r.idle > 0 {
		c += fmt.Sprintf(" --idle-shards %d", r.idle)
	}
	if r.hasty {
		c += " --hasty"
	}
	if len(tags) > 0 {
		c += " --tags " + strings.Join(tags, ",")
	}
	return c
}

// commit is that of the harness, and so of the kvd that it built; empty if it is not known.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}
