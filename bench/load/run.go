package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvdstore/kvd/internal/wait"
	"github.com/kvdstore/kvd/kv"
)

const (
	// ClientsMax and RateMax bound a run.
	ClientsMax = 10_000
	RateMax    = 10_000_000
	LengthMax  = 24 * time.Hour
)

// Result is what became of an operation.
type Result struct {
	Err error
	// Missed tells that it read what was not there.
	Missed bool
	// Items are how many a scan gave.
	Items int
}

// Session is one caller's way to a store.
type Session interface {
	// Do does operations (not one that reads and writes: it gets the two one after the other) and sets the result of each.
	// Several are sent without waiting in between, as far as the store can.
	Do(ctx context.Context, ops []Op, results []Result)
}

// Target gives sessions.
type Target interface {
	Session(caller int) (Session, error)
}

// Recorder takes down what happened.
type Recorder interface {
	Done(worker int, kind string, took time.Duration, missed bool)
	Failed(worker int, kind string, err error)
}

// Config says how a workload is run.
type Config struct {
	Workload *Workload
	Target   Target
	Recorder Recorder
	// Judge tells the kind of an error.
	Judge func(op Op, err error) string
	// Clients are callers, Depth the operations that each has under way at a time.
	Clients, Depth int
	// Rate of operations a second, of all callers together; 0 is a closed loop.
	Rate float64
	// Length of the run.
	Length time.Duration
}

// Check tells of everything that is wrong at once.
func (c *Config) Check() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, &kv.InvalidError{Field: field, Bound: fmt.Sprintf(format, args...)})
	}
	if c.Clients < 1 || c.Clients > ClientsMax {
		bad("clients", "1 to %d, is %d", ClientsMax, c.Clients)
	}
	if c.Depth < 1 || c.Depth > DepthMax {
		bad("depth", "1 to %d, is %d", DepthMax, c.Depth)
	}
	if !(c.Rate >= 0 && c.Rate <= RateMax) {
		bad("rate", "0 (a closed loop) to %d, is %v", RateMax, c.Rate)
	}
	if c.Length <= 0 || c.Length > LengthMax {
		bad("time", "above 0 to %v, is %v", LengthMax, c.Length)
	}
	return errors.Join(errs...)
}

// Outcome is what callers alone know at the end.
type Outcome struct {
	// Unsent are operations that were due and did not leave before the end, because all callers were busy.
	Unsent uint64
	// Gap is the longest time in which some caller had no success.
	Gap time.Duration
}

// pace says when the next operations are to be sent.
type pace struct {
	began, end time.Time
	rate       float64
	depth      int
	next       atomic.Int64
}

// due gives the moment at which a caller's next operations are due; false when that is past the end. In a closed loop it
// is now.
func (p *pace) due() (time.Time, bool) {
	if p.rate == 0 {
		now := time.Now()
		return now, now.Before(p.end)
	}
	at := p.at(p.next.Add(1) - 1)
	return at, at.Before(p.end) && time.Now().Before(p.end)
}

// at is when the n-th turn is due; each sends depth operations.
func (p *pace) at(n int64) time.Time {
	return p.began.Add(time.Duration(float64(n) * float64(p.depth) / p.rate * float64(time.Second)))
}

// unsent counts what was due before the end and nobody sent: turns that were given out and refused count too.
func (p *pace) unsent(sent int64) uint64 {
	if p.rate == 0 {
		return 0
	}
	due := int64(p.end.Sub(p.began).Seconds()*p.rate) / int64(p.depth)
	return uint64(max(due-sent, 0)) * uint64(p.depth)
}

// Run runs a workload, until the time is over or the context ends, and waits for the operations under way.
func Run(ctx context.Context, c Config) (Outcome, error) {
	if err := c.Check(); err != nil {
		return Outcome{}, err
	}
	callers := make([]*caller, c.Clients)
	for i := range callers {
		s, err := c.Target.Session(i)
		if err != nil {
			return Outcome{}, err
		}
		callers[i] = &caller{
			Config: &c, number: i, session: s, generator: c.Workload.Generator(i, c.Clients),
			ops: make([]Op, c.Depth), sent: make([]Op, c.Depth), results: make([]Result, c.Depth),
		}
	}
	began := time.Now()
	p := &pace{began: began, end: began.Add(c.Length), rate: c.Rate, depth: c.Depth}
	var all sync.WaitGroup
	for _, x := range callers {
		all.Go(func() { x.run(ctx, p) })
	}
	all.Wait()
	var o Outcome
	turns := int64(0)
	for _, x := range callers {
		o.Gap = max(o.Gap, x.gap)
		turns += x.turns
	}
	o.Unsent = p.unsent(turns)
	return o, nil
}

// caller sends one turn of operations after another.
type caller struct {
	*Config
	number    int
	session   Session
	generator *Generator
	ops, sent []Op
	results   []Result

	turns int64
	last  time.Time // Of a success, or the beginning.
	gap   time.Duration
}

func (c *caller) run(ctx context.Context, p *pace) {
	c.last = p.began
	for {
		due, ok := p.due()
		if !ok || wait.For(ctx, time.Until(due)) != nil {
			break
		}
		c.turns++
		for i := range c.ops {
			c.ops[i] = c.generator.Next(due.Sub(p.began))
		}
		c.do(ctx)
		c.note(due)
	}
	c.gap = max(c.gap, time.Since(c.last))
}

// do sends the operations; of those that read and write first the reads, and then the writes of what was read.
func (c *caller) do(ctx context.Context) {
	clear(c.results)
	again := false
	for i, op := range c.ops {
		if c.sent[i] = op; op.Kind == ReadModifyWrite {
			c.sent[i].Kind, again = Read, true
		}
	}
	c.session.Do(ctx, c.sent, c.results)
	if !again {
		return
	}
	var at []int
	var writes []Op
	for i, op := range c.ops {
		if op.Kind == ReadModifyWrite && c.results[i].Err == nil {
			op.Kind = Update
			at, writes = append(at, i), append(writes, op)
		}
	}
	results := make([]Result, len(at))
	c.session.Do(ctx, writes, results)
	for i, result := range results {
		c.results[at[i]].Err = result.Err
	}
}

// note takes down what became of the operations.
func (c *caller) note(due time.Time) {
	now := time.Now()
	for i, op := range c.ops {
		result := c.results[i]
		c.generator.Ended(op, result.Missed)
		if result.Err != nil {
			c.Recorder.Failed(c.number, c.Judge(op, result.Err), result.Err)
			continue
		}
		c.Recorder.Done(c.number, op.Kind.String(), now.Sub(due), result.Missed)
		c.gap = max(c.gap, now.Sub(c.last))
		c.last = now
	}
}

// Fill puts the records that a workload begins with.
func Fill(ctx context.Context, w *Workload, t Target, callers, depth int) error {
	var next atomic.Int64
	var all sync.WaitGroup
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for i := range min(callers, w.Keys) {
		s, err := t.Session(i)
		if err != nil {
			cancel(err)
			break
		}
		all.Go(func() { fill(ctx, cancel, w, s, w.Generator(i, callers), &next, depth) })
	}
	all.Wait()
	return context.Cause(ctx)
}

// fill puts records until there are no more. A put that was not done, or of which nothing is known, is done again.
func fill(ctx context.Context, cancel context.CancelCauseFunc, w *Workload, s Session, g *Generator, next *atomic.Int64, depth int) {
	const tries = 10
	for ctx.Err() == nil {
		from := int(next.Add(int64(depth))) - depth
		var ops []Op
		for i := from; i < min(from+depth, w.Keys); i++ {
			ops = append(ops, w.Fill(g, i))
		}
		for try := 0; len(ops) > 0; try++ {
			results := make([]Result, len(ops))
			s.Do(ctx, ops, results)
			var left []Op
			for i, result := range results {
				if result.Err == nil {
					continue
				}
				if left = append(left, ops[i]); try == tries {
					cancel(fmt.Errorf("fill: %w", result.Err))
					return
				}
			}
			ops = left
		}
		if from >= w.Keys {
			return
		}
	}
}
