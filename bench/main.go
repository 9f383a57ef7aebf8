// Bench measures kvd, and beside it what a user would take instead.
//
//	go run ./bench run --target kvd --endpoints 127.0.0.1:7400 --workload a --clients 64 --time 20s
//	go run ./bench compare --only kvd-3,etcd-3,echo-3,get-256,put-256
//	go run ./bench echo --listen 127.0.0.1:7500        # the server that stores nothing
//
// docs/performance.md says how to measure, and what the figures mean.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/pflag"
)

// gcPercent lets the heap of the callers' process grow: the collector on a small heap takes a third of what gRPC could do,
// and it is the servers that are to be measured.
const gcPercent = 400

// command is one of the program.
type command struct {
	name, short string
	run         func(ctx context.Context, args []string, out io.Writer) error
}

var commands = []command{
	{"run", "measure a store that runs", runCommand},
	{"compare", "start kvd and its peers, and measure them in turn", compareCommand},
	{"shards", "measure what many shards cost", shardsCommand},
	{"keys", "measure what many keys cost", keysCommand},
	{"gc", "measure what a large cache costs the collector", gcCommand},
	{"micro", "run the packages' benchmarks, and compare with an earlier run", microCommand},
	{"traces", "hit rates of kvd's cache and of an LRU", tracesCommand},
	{"report", "tell again what compare has found", reportCommand},
	{"echo", "serve the ceiling: gRPC that stores nothing", echoCommand},
}

func main() {
	debug.SetGCPercent(gcPercent)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := bench(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, pflag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench does what the arguments say.
func bench(ctx context.Context, args []string, out io.Writer) error {
	if len(args) > 0 {
		for _, c := range commands {
			if c.name == args[0] {
				return c.run(ctx, args[1:], out)
			}
		}
	}
	text := "one of these is needed, each has --help:"
	for _, c := range commands {
		text += fmt.Sprintf("\n  %-10s %s", c.name, c.short)
	}
	return errors.New(text)
}

// noMore refuses arguments that are no flags.
func noMore(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("it takes flags only, and %q is none", args[0])
	}
	return nil
}
