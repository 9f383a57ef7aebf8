package main

import (
	"fmt"
	"io"
	"iter"
	"reflect"
	"time"

	"github.com/kvdstore/kvd/sim"
)

// replay runs a seed twice, tells its plan and what came of it, and gives the exit code. A second run that differs is a
// failure too: then the seed does not decide everything.
func replay(out io.Writer, s *settings) int {
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format, args...) }
	p("seed %d\n", s.replay)
	for name, value := range fields(sim.Swarm(s.replay)) {
		p("  %-20s %v\n", name, value)
	}
	began := time.Now()
	r := simulateSeed(s.replay, s.pebble)
	p("after %v, %v of virtual time: trace %016x\n", time.Since(began).Round(time.Millisecond),
		time.Duration(r.Stats.VirtualMilli)*time.Millisecond, r.Trace)
	for name, n := range fields(r.Stats) {
		p("  %-20s %v\n", name, n)
	}
	code := exitNone
	if r.Error != "" {
		p("FAIL: %s\n", r.Error)
		code = exitFailed
	}
	if again := simulateSeed(s.replay, s.pebble); again.Trace != r.Trace || again.Stats != r.Stats {
		p("FAIL: a second run differed: trace %016x\n", again.Trace)
		code = exitFailed
	}
	return code
}

// fields gives the names and values of a struct's fields that are not zero.
func fields(of any) iter.Seq2[string, any] {
	v := reflect.ValueOf(of)
	return func(yield func(string, any) bool) {
		for i := range v.NumField() {
			if f := v.Field(i); !f.IsZero() && !yield(v.Type().Field(i).Name, f.Interface()) {
				return
			}
		}
	}
}
