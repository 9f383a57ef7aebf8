// Hotspot measures how the map follows the load: how soon a hot spot is shared out among the nodes, and whether the map is
// still afterwards.
//
//	go run ./bench/hotspot                     # a hot spot that moves to the other side of the world every minute
//	go run ./bench/hotspot --city              # 95 % of the writes on one city: how far its cell is divided
//	go run ./bench/hotspot --onekey            # one key takes it all: no split, and why
//	go run ./bench/hotspot --zipf              # from one shard under a full load: settled within a minute, then still
//	go run ./bench/hotspot --endpoints 127.0.0.1:7400
//
// It starts nodes on loopback, or takes the given ones. Requests come at a steady rate, whether earlier ones have been
// answered or not, as those of many users do. Each second it prints how many operations each node has served, which the
// answers tell, and the busiest node's ratio to the mean. Afterwards it asks kvd why it did what it did.
//
// The exit code is 0 only if no error reached a client and the mode's targets were met.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/kvdstore/kvd/bench/local"
	"github.com/kvdstore/kvd/kv"
)

// settings are the flags.
type settings struct {
	city, oneKey, zipf bool

	nodes, rate, clients, keys, background, phases, reasons, ports int

	every, length, quiet time.Duration
	endpoints            []string
	dir                  string
	seed                 uint64
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, pflag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "hotspot:", err)
		os.Exit(1)
	}
}

func parse(args []string) (*settings, error) {
	s := &settings{}
	f := pflag.NewFlagSet("hotspot", pflag.ContinueOnError)
	f.BoolVar(&s.city, "city", false, "95 % of the writes on the cell of one city")
	f.BoolVar(&s.oneKey, "onekey", false, "all requests for one key")
	f.BoolVar(&s.zipf, "zipf", false, "a zipfian load over all keys, from one shard")
	f.IntVar(&s.nodes, "nodes", 3, "nodes to start, 1 to 9")
	f.IntVar(&s.rate, "rate", 6000, "requests a second, half of them writes, 100 to 1000000")
	f.IntVar(&s.clients, "clients", 64, "requests that may be under way at a time, 1 to 10000")
	f.IntVar(&s.keys, "keys", 1000, "keys of a hot cell, 1 to 100000")
	f.IntVar(&s.background, "background", 20000, "keys all over the world, 1000 to 1000000; with --zipf 100000 unless it is given")
	f.IntVar(&s.phases, "phases", 4, "places that the hot spot comes to, one after the other, 1 to 100")
	f.DurationVar(&s.every, "every", time.Minute, "how long it stays, 1s to 1h")
	f.DurationVar(&s.length, "run", 0, "length of the run of another mode, 1s to 24h (default: 1m, with --city 3m, with --zipf 6m)")
	f.DurationVar(&s.quiet, "quiet", 12*time.Second, "pause between loading and the load, 0 to 10m, that lets the load of the loading fade")
	f.IntVar(&s.reasons, "reasons", 4, "shards that were split whose reasons are printed, 0 to 1000")
	f.StringSliceVar(&s.endpoints, "endpoints", nil, "HOST:PORT of a running cluster, instead of starting one")
	f.IntVar(&s.ports, "ports", 0, "the nodes' ports are the free ones from here on, 0 to 60000 (default: any)")
	f.StringVar(&s.dir, "dir", "", "directory for the data and the logs of the nodes; it stays (default: a temporary one)")
	f.Uint64Var(&s.seed, "seed", 1, "of keys and requests")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if s.zipf && !f.Changed("background") {
		s.background = 100_000
	}
	if s.length == 0 {
		s.length = time.Minute
		if s.city {
			s.length = 3 * time.Minute
		}
		if s.zipf {
			s.length = 6 * time.Minute
		}
	}
	return s, s.check(f.Args())
}

// check tells everything that is wrong at once.
func (s *settings) check(args []string) error {
	within := func(field string, n, least, most int) error {
		if n < least || n > most {
			return &kv.InvalidError{Field: field, Bound: fmt.Sprintf("%d to %d, is %d", least, most, n)}
		}
		return nil
	}
	lasts := func(field string, d, least, most time.Duration) error {
		if d < least || d > most {
			return &kv.InvalidError{Field: field, Bound: fmt.Sprintf("%v to %v, is %v", least, most, d)}
		}
		return nil
	}
	errs := []error{
		within("nodes", s.nodes, 1, 9), within("rate", s.rate, 100, 1_000_000), within("clients", s.clients, 1, 10_000),
		within("keys", s.keys, 1, 100_000), within("background", s.background, 1000, 1_000_000), within("phases", s.phases, 1, 100),
		within("reasons", s.reasons, 0, 1000), within("ports", s.ports, 0, 60_000),
		lasts("every", s.every, time.Second, time.Hour), lasts("run", s.length, time.Second, 24*time.Hour), lasts("quiet", s.quiet, 0, 10*time.Minute),
	}
	modes := 0
	for _, on := range []bool{s.city, s.oneKey, s.zipf} {
		if on {
			modes++
		}
	}
	if modes > 1 {
		errs = append(errs, errors.New("of --city, --onekey and --zipf at most one can be had at a time"))
	}
	if len(args) > 0 {
		errs = append(errs, fmt.Errorf("it takes flags only, and %q is none", args[0]))
	}
	return errors.Join(errs...)
}

// command does everything. What it gives says what did not hold.
func command(ctx context.Context, args []string) (err error) {
	s, err := parse(args)
	if err != nil {
		return err
	}
	if len(s.endpoints) == 0 {
		c, startErr := local.Start(ctx, local.Config{Name: "hotspot", Nodes: s.nodes, Dir: s.dir, Ports: s.ports})
		if c != nil {
			defer func() { err = errors.Join(err, c.Stop(err == nil && s.dir == "")) }()
		}
		if startErr != nil {
			return startErr
		}
		s.endpoints = c.Addresses()
	}
	t, err := newTrial(s, os.Stdout)
	if err != nil {
		return err
	}
	defer t.close()
	return t.run(ctx)
}
