package overload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvdstore/kvd/internal/wait"
	"github.com/kvdstore/kvd/kv"
)

// What a cluster must keep to.
const (
	// AcceptedMax bounds the 99th percentile of the latencies of what was accepted in the storm, and RefusedMax that of refusals.
	AcceptedMax, RefusedMax = 2 * time.Second, 500 * time.Millisecond
	// OtherMost is the share of operations of the storm that may end in another way than done or refused.
	OtherMost = 0.01
	// AfterLeast is how much of what was done before the storm must be done after it.
	AfterLeast = 0.8
	// OfferedLeast is how many times the capacity must have been offered at least, for the storm to count as one.
	OfferedLeast = 4
)

const (
	// factor is how many times the capacity the storm is to offer.
	factor = 5
	// threads measure the capacity.
	threads = 128
	// openMost bounds the operations under way in the storm: one more is not begun, which is counted.
	openMost = 30_000
	// operationMax bounds an operation.
	operationMax = 10 * time.Second
	// tick is how often the storm begins operations.
	tick = 2 * time.Millisecond
	// settle is waited after the storm, for what is still under way, and to be compacted.
	settle = 10 * time.Second
)

// Config is what a trial needs.
type Config struct {
	// Do does the n-th operation, once, and gives its error as gRPC has it, or a Refused.
	Do func(ctx context.Context, n int) error
	// Measure is how long the capacity is measured, before and after, and Storm how long that lasts; each above 0.
	Measure, Storm time.Duration
	// Say is told what comes; nil for nobody.
	Say func(format string, args ...any)
}

func (c *Config) validate() error {
	var errs []error
	if c.Measure <= 0 {
		errs = append(errs, &kv.InvalidError{Field: "measure", Bound: "above 0"})
	}
	if c.Storm <= 0 {
		errs = append(errs, &kv.InvalidError{Field: "storm", Bound: "above 0"})
	}
	return errors.Join(errs...)
}

// Figures are of a trial. Rates are operations a second, latencies in nanoseconds.
type Figures struct {
	Capacity float64 `json:"capacity"`
	// Offered, Done and Refused are of the storm; Other ended in another way, Unbegun were too many at a time.
	Offered       float64  `json:"offered"`
	Done          float64  `json:"done"`
	Refused       float64  `json:"refused"`
	Other         int      `json:"other"`
	OtherShare    float64  `json:"other_share"`
	OtherExamples []string `json:"other_examples,omitempty"`
	Unbegun       int      `json:"unbegun"`
	// Hintless refusals do not tell when to come again.
	Hintless    int           `json:"hintless"`
	AcceptedP50 time.Duration `json:"accepted_p50_ns"`
	AcceptedP99 time.Duration `json:"accepted_p99_ns"`
	AcceptedMax time.Duration `json:"accepted_max_ns"`
	RefusedP50  time.Duration `json:"refused_p50_ns"`
	RefusedP99  time.Duration `json:"refused_p99_ns"`
	// After is the capacity after the storm.
	After float64 `json:"after"`
}

// Reasons tell what of the figures is not as it must be; none if all is. That too little was offered is ErrTooSlow.
func (f *Figures) Reasons() (list []string) {
	bad := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if f.AcceptedP99 > AcceptedMax {
		bad("of what was accepted the 99th percentile took %v, and %v is the most that counts", f.AcceptedP99, AcceptedMax)
	}
	if f.RefusedP99 > RefusedMax {
		bad("of what was refused the 99th percentile took %v, and %v is the most that counts as at once", f.RefusedP99, RefusedMax)
	}
	if f.Hintless > 0 {
		bad("%d refusals had no hint when to come again", f.Hintless)
	}
	if f.OtherShare > OtherMost {
		bad("%.1f %% were neither done nor refused, such as: %v", 100*f.OtherShare, f.OtherExamples)
	}
	if f.Refused == 0 {
		bad("nothing was refused")
	}
	if f.After < AfterLeast*f.Capacity {
		bad("%.0f a second were done after the storm, and %.0f before", f.After, f.Capacity)
	}
	return list
}

// ErrTooSlow tells that this machine could not offer enough for a storm.
var ErrTooSlow = errors.New("too little could be offered")

// Run makes a trial.
func Run(ctx context.Context, c Config) (*Figures, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.Say == nil {
		c.Say = func(string, ...any) {}
	}
	t := &trial{c}
	f := &Figures{}
	f.Capacity = t.capacity(ctx)
	c.Say("the cluster does %.0f operations a second; the storm begins, %v long", f.Capacity, c.Storm)
	t.storm(ctx, f)
	c.Say("%.0f a second were offered, %.0f done, %.0f refused; now as before", f.Offered, f.Done, f.Refused)
	if err := wait.For(ctx, settle); err != nil {
		return nil, err
	}
	f.After = t.capacity(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if f.Offered < OfferedLeast*f.Capacity {
		return f, fmt.Errorf("%w: %.0f a second, and the cluster does %.0f", ErrTooSlow, f.Offered, f.Capacity)
	}
	return f, nil
}

// trial is one under way.
type trial struct{ Config }

// capacity is what is done a second once the load has lasted as long as it is measured: caches are full then, and as much is
// compacted as is written.
func (t *trial) capacity(ctx context.Context) float64 {
	t.steady(ctx, t.Measure)
	return t.steady(ctx, t.Measure)
}

// steady has threads do what they can, and gives what was done a second.
func (t *trial) steady(ctx context.Context, length time.Duration) float64 {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var all sync.WaitGroup
	counts := make([]int, threads)
	for i := range threads {
		all.Go(func() {
			for n := i; ctx.Err() == nil; n += threads {
				if err := t.Do(ctx, n); err == nil {
					counts[i]++
				} else {
					_ = wait.For(ctx, 10*time.Millisecond) // As clients do who heed the hint.
				}
			}
		})
	}
	all.Wait()
	done := 0
	for _, n := range counts {
		done += n
	}
	return float64(done) / length.Seconds()
}

// ending is how an operation of the storm ended.
type ending struct {
	took time.Duration
	err  error
}

// storm begins operations at the rate of the storm, and counts how they end.
func (t *trial) storm(ctx context.Context, f *Figures) {
	rate := factor * f.Capacity
	endings := make(chan ending, openMost)
	places := make(chan struct{}, openMost)
	var counted, open sync.WaitGroup
	l := &ledger{}
	counted.Go(func() {
		for e := range endings {
			l.add(e)
		}
	})
	began := time.Now()
	begun := 0
	for n := 0; ctx.Err() == nil && time.Since(began) < t.Storm; {
		for due := int(rate * time.Since(began).Seconds()); n < due; n++ {
			select {
			case places <- struct{}{}:
			default:
				f.Unbegun++
				continue
			}
			begun++
			number := n
			open.Go(func() {
				defer func() { <-places }()
				ctx, cancel := context.WithTimeout(ctx, operationMax)
				defer cancel()
				from := time.Now()
				err := t.Do(ctx, number)
				endings <- ending{time.Since(from), err}
			})
		}
		_ = wait.For(ctx, tick)
	}
	length := time.Since(began).Seconds()
	open.Wait()
	close(endings)
	counted.Wait()
	f.Offered = float64(begun) / length
	l.sum(f, length)
}

// ledger counts endings.
type ledger struct {
	accepted, refused []time.Duration
	hintless, other   int
	examples          []string
}

const examplesMost = 3

func (l *ledger) add(e ending) {
	refused, hint := refusal(e.err)
	switch {
	case e.err == nil:
		l.accepted = append(l.accepted, e.took)
	case refused:
		l.refused = append(l.refused, e.took)
		if !hint {
			l.hintless++
		}
	default:
		if l.other++; len(l.examples) < examplesMost {
			l.examples = append(l.examples, e.err.Error())
		}
	}
}

// Refused is the answer that there is too much to do.
type Refused struct {
	// Hint is when to come again; 0 if that was not told.
	Hint time.Duration
}

func (r *Refused) Error() string { return "refused" }

// refusal tells whether an error refuses for overload, and whether it has a hint when to come again.
func refusal(err error) (refused, hint bool) {
	if r, ok := errors.AsType[*Refused](err); ok {
		return true, r.Hint > 0
	}
	s, ok := status.FromError(err)
	if !ok || s.Code() != codes.ResourceExhausted {
		return false, false
	}
	for _, d := range s.Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			hint = hint || r.GetRetryDelay().AsDuration() > 0
		}
	}
	return true, hint
}

func (l *ledger) sum(f *Figures, seconds float64) {
	f.Done, f.Refused = float64(len(l.accepted))/seconds, float64(len(l.refused))/seconds
	f.Other, f.OtherExamples, f.Hintless = l.other, l.examples, l.hintless
	if n := len(l.accepted) + len(l.refused) + l.other; n > 0 {
		f.OtherShare = float64(l.other) / float64(n)
	}
	f.AcceptedP50, f.AcceptedP99, f.AcceptedMax = at(l.accepted, 50), at(l.accepted, 99), at(l.accepted, 100)
	f.RefusedP50, f.RefusedP99 = at(l.refused, 50), at(l.refused, 99)
}

// at gives a percentile, and sorts.
func at(list []time.Duration, percent int) time.Duration {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[min(len(list)-1, len(list)*percent/100)]
}
