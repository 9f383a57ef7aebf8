package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/kvdstore/kvd/bench/load"
	"github.com/kvdstore/kvd/bench/local"
	"github.com/kvdstore/kvd/bench/report"
	"github.com/kvdstore/kvd/bench/turns"
	"github.com/kvdstore/kvd/kv"
)

// What has grown is measured beside what has not: clusters of kvd alone, in turns, over some rounds.

// portsMax is the highest port that --ports takes.
const portsMax = 60_000

// seriesFlags are those that all such commands have.
type seriesFlags struct {
	rounds, ports      int
	length, warm, idle time.Duration
	settle             time.Duration
	loads              []string
	out                string
	keep               bool
	seed               uint64
}

func (s *seriesFlags) add(f *pflag.FlagSet) {
	f.IntVar(&s.rounds, "rounds", 3, "of everything, 1 to 100")
	f.DurationVar(&s.length, "time", 10*time.Second, "length of each run")
	f.DurationVar(&s.warm, "warm", 3*time.Second, "length of the same load before it, which does not count")
	f.DurationVar(&s.settle, "settle", 5*time.Minute, "the most to wait after a start until all shards sleep, 0 to 1h")
	f.DurationVar(&s.idle, "idle", 10*time.Second, "for how long the idle servers are looked at, 100ms to 1h")
	f.IntVar(&s.ports, "ports", 21000, "the nodes' ports are the free ones from here on, 1024 to 60000")
	f.Uint64Var(&s.seed, "seed", 1, "of all chances")
	f.StringVar(&s.out, "out", "bench-out", "directory for the file of runs, and the servers' data and logs")
	f.BoolVar(&s.keep, "keep", false, "keep the servers' data and logs")
}

func (s *seriesFlags) addLoads(f *pflag.FlagSet, loads ...string) {
	f.StringSliceVar(&s.loads, "loads", loads, "cases of compare with gets or puts: "+strings.Join(plainLoads(), ", "))
}

// check tells of everything that is wrong at once.
func (s *seriesFlags) check() error {
	errs := []error{
		within("rounds", s.rounds, 1, roundsMax), within("ports", s.ports, 1024, portsMax), lasts("time", s.length, time.Millisecond, load.LengthMax),
		lasts("warm", s.warm, 0, warmMax), lasts("settle", s.settle, 0, time.Hour), lasts("idle", s.idle, 100*time.Millisecond, time.Hour),
	}
	return errors.Join(errs...)
}

func (s *seriesFlags) checkLoads() error {
	var errs []error
	if len(s.loads) == 0 {
		errs = append(errs, &kv.InvalidError{Field: "loads", Bound: "at least one"})
	}
	for _, name := range s.loads {
		if !slices.Contains(plainLoads(), name) {
			errs = append(errs, &kv.InvalidError{Field: "loads", Bound: fmt.Sprintf("some of %v, one is %q", plainLoads(), name)})
		}
	}
	return errors.Join(errs...)
}

func within(field string, n, least, most int) error {
	if n < least || n > most {
		return &kv.InvalidError{Field: field, Bound: fmt.Sprintf("%d to %d, is %d", least, most, n)}
	}
	return nil
}

func lasts(field string, d, least, most time.Duration) error {
	if d < least || d > most {
		return &kv.InvalidError{Field: field, Bound: fmt.Sprintf("%v to %v, is %v", least, most, d)}
	}
	return nil
}

// plainLoads are the cases of compare that any number of keys and shards can have: gets and puts of short values.
func plainLoads() (list []string) {
	for _, c := range comparisons {
		if (c.workload == "get" || c.workload == "put") && c.value == 0 && c.name != killCase {
			list = append(list, c.name)
		}
	}
	return list
}

// series measures some systems in turns.
type series struct {
	*seriesFlags
	*journal
	clusters []*cluster
	systems  []*system
	// trial makes one of a load; tell prints what was found, and gives what missed its goal.
	trial func(load string, x *system) (*trial, error)
	tell  func(out io.Writer, runs []*report.Run) (missed []string, err error)
}

// cluster is what some systems run on.
type cluster struct {
	*turns.Cluster
	config local.Config
}

// system is one of those that are compared: a cluster, and a way to use it. Each turn has a start of its own, so that none
// comes when others have already brought a process to its speed.
type system struct {
	name string
	on   *cluster
	// records are the keys; which workload it is, and its mix, are the loads'.
	records load.Workload
	// again puts the records anew in every turn, which also brings them into memory; else they are put once. Gets as fast as
	// they can be had, by the records' distribution, bring in each turn for a time into memory what belongs there.
	again bool
	heat  time.Duration
	// files has the nodes' files read before each load.
	files bool
}

// cluster adds a cluster with so many shards, whose keys are those of gets and puts.
func (s *series) cluster(nodes, shards int, memory string) (*cluster, error) {
	w := load.Workload{Name: "put", Keys: 1, ReadPercent: -1}
	if err := w.Prepare(); err != nil {
		return nil, err
	}
	c := &cluster{config: local.Config{
		Name: "bench", Nodes: nodes, Dir: filepath.Join(s.data, strconv.Itoa(len(s.clusters)+1)), Ports: s.ports, Memory: memory, Cuts: w.Cuts(shards),
	}}
	s.clusters = append(s.clusters, c)
	return c, nil
}

// plainTrial makes a trial of a case of compare and the records of a system.
func (s *seriesFlags) plainTrial(name string, x *system) (*trial, error) {
	c := comparisons[slices.Index(caseNames(), name)]
	t := &trial{clients: c.clients, depth: max(c.depth, 1), warm: s.warm, length: s.length, workload: x.records}
	t.workload.Name, t.workload.ReadPercent, t.workload.Seed = c.workload, -1, s.seed
	t.target.Kind, t.target.Pipelined, t.target.Endpoints = "kvd", c.pipelined, []string{"127.0.0.1:1"} // Until there is a cluster.
	return t, t.prepare()
}

// run founds all clusters, and measures the systems in turns; each round begins with another.
func (s *series) run(ctx context.Context) (err error) {
	defer func() {
		for _, c := range s.clusters {
			if c.Cluster != nil {
				err = errors.Join(err, c.Down())
			}
		}
	}()
	binary := filepath.Join(s.data, "kvd")
	if err := local.Build(ctx, binary); err != nil {
		return err
	}
	for i, c := range s.clusters {
		c.config.Binary = binary
		s.say("founding cluster %d of %d: %d nodes, %d shards", i+1, len(s.clusters), c.config.Nodes, len(c.config.Cuts)+1)
		if c.Cluster, err = turns.Found(ctx, c.config); err != nil {
			return err
		}
	}
	for _, x := range s.systems {
		if x.again {
			continue
		}
		if err := errors.Join(s.putOnce(ctx, x), x.on.Down()); err != nil {
			return fmt.Errorf("%s: %w", x.name, err)
		}
	}
	for round := range s.rounds {
		for i := range s.systems {
			x := s.systems[(i+round)%len(s.systems)]
			if err := errors.Join(s.turn(ctx, x, round+1), x.on.Down()); err != nil {
				return fmt.Errorf("%s, round %d: %w", x.name, round+1, err)
			}
		}
	}
	return nil
}

// putOnce puts the records of a system before all turns.
func (s *series) putOnce(ctx context.Context, x *system) error {
	if _, err := x.on.Up(ctx); err != nil {
		return err
	}
	began := time.Now()
	if err := s.ready(ctx, x, true, 0); err != nil {
		return err
	}
	s.say("%s: put in %.1f s", x.name, time.Since(began).Seconds())
	return nil
}

// turn measures a system once.
func (s *series) turn(ctx context.Context, x *system, round int) error {
	standing, err := x.on.Up(ctx)
	if err != nil {
		return err
	}
	if err := s.settled(ctx, x, standing); err != nil {
		return err
	}
	s.say("%-18s round %d  %-13s started in %.2f s; %d of %d shards asleep, %.3f cores, %d MiB", "idle", round, x.name, standing.Start,
		standing.Asleep, standing.Shards, standing.Cores, standing.Resident>>20)
	if err := s.ready(ctx, x, x.again, x.heat); err != nil {
		return err
	}
	if standing.Cached, err = x.on.Cached(ctx); err != nil {
		return err
	}
	for _, name := range s.loads {
		t, err := s.trial(name, x)
		if err != nil {
			return err
		}
		if x.files {
			if err := x.on.ReadFiles(ctx); err != nil {
				return err
			}
		}
		t.target.Endpoints, t.metrics, t.pids, t.standing = x.on.Endpoints(), x.on.Metrics(), x.on.PIDs(), standing
		if err := s.one(ctx, t, name, x.name, round); err != nil {
			return err
		}
	}
	return nil
}

// settled spreads the leaderships, which wakes shards, and looks at the idle cluster when they sleep again.
func (s *series) settled(ctx context.Context, x *system, standing *report.Standing) error {
	w := x.records
	w.Name, w.ReadPercent = "put", -1
	if err := w.Prepare(); err != nil {
		return err
	}
	if err := x.on.Even(ctx, places(&w)); err != nil {
		return err
	}
	return x.on.Settle(ctx, s.settle, s.idle, standing)
}

// ready puts the records if that is wanted, and brings them into memory for a time.
func (s *series) ready(ctx context.Context, x *system, fill bool, heat time.Duration) error {
	t, err := s.plainTrial("packed-get", x)
	if err != nil {
		return err
	}
	t.target.Endpoints, t.fill, t.warm = x.on.Endpoints(), fill, heat
	if err := t.putRecords(ctx); err != nil {
		return err
	}
	return t.heat(ctx)
}

// places are some keys, of which each shard that carries the load has one; none if all shards do.
func places(w *load.Workload) (list [][]byte) {
	g := w.Generator(0, 1)
	for i := range min(w.Used, w.Keys) {
		list = append(list, w.Fill(g, i).Key)
	}
	return list
}

// command runs a series and tells of it.
func (s *series) command(ctx context.Context) error {
	err := s.run(ctx)
	var missed []string
	if len(s.runs) > 0 {
		var telling error
		s.say("")
		missed, telling = s.tell(s.told, s.runs)
		err = errors.Join(err, telling)
	}
	err = s.close(s.keep, err)
	s.say("\nwritten: %s", s.file.Name())
	if len(missed) > 0 {
		err = errors.Join(err, fmt.Errorf("missed: %s", strings.Join(missed, "; ")))
	}
	return err
}

// counts are numbers as flags give them, each once and in order.
func counts(field string, list []int, least, most int) error {
	if len(list) == 0 || !slices.IsSorted(list) || len(slices.Compact(slices.Clone(list))) < len(list) || list[0] < least || list[len(list)-1] > most {
		return &kv.InvalidError{Field: field, Bound: fmt.Sprintf("some of %d to %d, rising, is %v", least, most, list)}
	}
	return nil
}

// many names a number of things: 20000000 is 20M.
func many(n int) string {
	switch {
	case n >= 1_000_000 && n%100_000 == 0:
		return strconv.FormatFloat(float64(n)/1e6, 'g', -1, 64) + "M"
	case n >= 1000 && n%100 == 0:
		return strconv.FormatFloat(float64(n)/1e3, 'g', -1, 64) + "k"
	}
	return strconv.Itoa(n)
}

// newSeries opens the journal of a series, whose loads are compare's.
func newSeries(flags *seriesFlags, file string, told io.Writer, goals []report.Goal) (*series, error) {
	j, err := openJournal(flags.out, file, told)
	return &series{
		seriesFlags: flags, journal: j, trial: flags.plainTrial,
		tell: func(out io.Writer, runs []*report.Run) ([]string, error) { return report.TellGrowth(out, runs, goals) },
	}, err
}
