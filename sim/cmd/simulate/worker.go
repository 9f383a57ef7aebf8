package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"

	"github.com/kvdstore/kvd/sim"
)

// result is what came of a seed.
type result struct {
	Seed  uint64    `json:"seed"`
	Trace uint64    `json:"trace"`
	Stats sim.Stats `json:"stats"`
	// Error is empty if nothing was wrong.
	Error string `json:"error,omitempty"`
}

// simulateSeed runs a seed.
func simulateSeed(seed uint64, pebble bool) result {
	plan := sim.Swarm(seed)
	plan.Pebble = pebble
	trace, stats, err := sim.Run(seed, plan)
	r := result{Seed: seed, Trace: trace, Stats: stats}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// work runs the seeds that the input names, a line each, and writes the result of each in a line of JSON. The parent
// decides when it ends: by closing the input, so that Ctrl-C, which all the terminal's processes get, does not cost the
// seeds under way.
func work(in io.Reader, out io.Writer, pebble bool) error {
	signal.Ignore(os.Interrupt)
	// A world runs in one goroutine. Other threads would only collect its garbage, and the cores are other workers'.
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(400)
	lines, results := bufio.NewScanner(in), json.NewEncoder(out)
	for lines.Scan() {
		seed, err := strconv.ParseUint(lines.Text(), 10, 64)
		if err != nil {
			return fmt.Errorf("a worker's input: %w", err)
		}
		if err := results.Encode(simulateSeed(seed, pebble)); err != nil {
			return fmt.Errorf("a worker's output: %w", err)
		}
	}
	return lines.Err()
}
