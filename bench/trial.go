package main

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/kvdstore/kvd/bench/load"
	"github.com/kvdstore/kvd/bench/measure"
	"github.com/kvdstore/kvd/bench/report"
	"github.com/kvdstore/kvd/bench/target"
	"github.com/kvdstore/kvd/kv"
)

const (
	// fillCallers put the records before a run.
	fillCallers = 32
	// warmMax bounds the load that does not count.
	warmMax = time.Hour
)

// trial is one measured run of one workload against one store.
type trial struct {
	target   target.Config
	workload load.Workload

	clients, depth int
	rate           float64
	warm, length   time.Duration
	fill           bool
	// pids and metrics are where the figures of the servers come from.
	pids    []int
	metrics []string
	// gc has the servers' collectors looked at, by their metrics.
	gc bool
	// nice is how the kernel favours the servers.
	nice int
	// standing is how the servers were before, if somebody has looked; it goes into the report.
	standing *report.Standing
	// during is called beside the run, if it is set, and is waited for.
	during func(context.Context)
}

// prepare checks everything and fills in what follows from the workload.
func (t *trial) prepare() error {
	if err := t.workload.Prepare(); err != nil {
		return err
	}
	t.target.Pipelined = t.target.Pipelined || t.workload.Pipelined()
	t.target.Ordered = t.workload.Ordered()
	t.target.Callers, t.target.Depth, t.target.Value = t.clients, t.depth, t.workload.Value
	c := t.config(nil, nil, t.length)
	errs := []error{c.Check(), t.target.Check()}
	if t.warm < 0 || t.warm > warmMax {
		errs = append(errs, &kv.InvalidError{Field: "warm", Bound: "0s to 1h, is " + t.warm.String()})
	}
	return errors.Join(errs...)
}

func (t *trial) config(to target.Target, r *measure.Recorder, length time.Duration) load.Config {
	c := load.Config{
		Workload: &t.workload, Target: to, Recorder: r, Clients: t.clients, Depth: t.depth, Rate: t.rate, Length: length,
	}
	if to != nil {
		c.Judge = to.Judge
	}
	return c
}

// run fills, warms up and measures.
func (t *trial) run(ctx context.Context) (r *report.Run, err error) {
	if err := t.putRecords(ctx); err != nil {
		return nil, err
	}
	to, err := target.Open(t.target)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if err := t.warmUp(ctx, to); err != nil {
		return nil, err
	}
	return t.measure(ctx, to)
}

// heat warms up, and measures nothing.
func (t *trial) heat(ctx context.Context) error {
	to, err := target.Open(t.target)
	if err != nil {
		return err
	}
	return errors.Join(t.warmUp(ctx, to), to.Close())
}

// warmUp runs the load without counting.
func (t *trial) warmUp(ctx context.Context, to target.Target) error {
	if t.warm == 0 {
		return nil
	}
	_, err := load.Run(ctx, t.config(to, measure.NewRecorder(), t.warm))
	return err
}

// putRecords puts the records, if that is wanted, in the fastest way that the store has.
func (t *trial) putRecords(ctx context.Context) (err error) {
	if !t.fill || len(t.workload.Trace) > 0 {
		return nil
	}
	to, depth, err := target.OpenToFill(t.target, fillCallers)
	if to == nil || err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	return load.Fill(ctx, &t.workload, to, fillCallers, depth)
}

// measure runs what counts.
func (t *trial) measure(ctx context.Context, to target.Target) (*report.Run, error) {
	recorder, sum := measure.NewRecorder(), measure.NewInterval()
	watch, err := measure.NewWatch(ctx, t.pids, t.metrics)
	if err != nil {
		return nil, err
	}
	var collectors *measure.GCWatch
	if t.gc {
		if collectors, err = measure.NewGCWatch(ctx, t.metrics); err != nil {
			return nil, err
		}
	}
	r := t.describe()
	own := ownCPU()
	stop := make(chan struct{})
	var beside sync.WaitGroup
	beside.Go(func() { t.follow(stop, recorder, watch, r, sum) })
	if t.during != nil {
		beside.Go(func() { t.during(ctx) })
	}
	outcome, err := load.Run(ctx, t.config(to, recorder, t.length))
	lasted := time.Since(r.Began)
	close(stop)
	beside.Wait()
	if err != nil {
		return nil, err
	}
	// Callers may wait long for their last answers; nothing was sent meanwhile.
	r.Seconds = min(lasted, t.length).Seconds()
	r.ClientCores = (ownCPU() - own).Seconds() / lasted.Seconds()
	if r.Processes, r.SyncsPerSecond, err = watch.End(ctx); err != nil {
		return nil, err
	}
	if collectors != nil {
		if r.GC, err = collectors.End(ctx); err != nil {
			return nil, err
		}
	}
	t.sumUp(r, sum, outcome)
	return r, ctx.Err()
}

func (t *trial) describe() *report.Run {
	return &report.Run{
		Target: t.target.Kind, Servers: len(t.target.Endpoints), Workload: t.workload.Name, Clients: t.clients, Depth: t.depth,
		Pipelined: t.target.Pipelined, Rate: t.rate, Keys: t.workload.Keys, Value: t.workload.Value, Distribution: t.workload.Distribution, Nice: t.nice, Seed: t.workload.Seed, Began: time.Now(), Standing: t.standing,
	}
}

// follow takes down each second, and what is left at the end.
func (t *trial) follow(stop <-chan struct{}, recorder *measure.Recorder, watch *measure.Watch, r *report.Run, sum *measure.Interval) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for last := false; !last; {
		select {
		case <-ticker.C:
		case <-stop:
			last = true
		}
		i := recorder.Take()
		sum.Merge(i)
		watch.Look()
		if s := report.SecondOf(i); !last || s.Done+s.Failed > 0 {
			r.Timeline = append(r.Timeline, s)
		}
	}
}

func (t *trial) sumUp(r *report.Run, sum *measure.Interval, outcome load.Outcome) {
	r.Latency, r.ByKind = report.LatencyOf(sum.All()), map[string]report.Latency{}
	puts := uint64(0)
	for kind, h := range sum.Latencies {
		l := report.LatencyOf(h)
		r.ByKind[kind] = l
		if kind == load.Update.String() || kind == load.Insert.String() || kind == load.ReadModifyWrite.String() {
			puts += l.Count
		}
	}
	r.Done, r.Missed, r.Errors, r.Shown = r.Latency.Count, sum.Missed, sum.Errors, sum.Shown
	r.PerSecond = float64(r.Done) / r.Seconds
	r.Unsent, r.Gap = outcome.Unsent, outcome.Gap.Seconds()*1000
	written, known := uint64(0), len(r.Processes) > 0 && puts > 0
	for _, p := range r.Processes {
		if known = known && p.Written != nil; known {
			written += *p.Written
		}
	}
	if known {
		ratio := float64(written) / float64(puts) / float64(t.workload.Value)
		r.WrittenByPut = &ratio
	}
}

// ownCPU is the processor time of this process.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
