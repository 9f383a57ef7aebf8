package workload

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/internal/wait"
)

// thread does one operation at a time. Everything of it belongs to the goroutine that runs it.
type thread struct {
	run     *Run
	process int // A new one after an operation whose end is unknown.
	client  *client.Client
	rng     *rand.Rand
	due     int64 // When its next operation should have begun; 0: when it does.
	closed  bool  // Its client was closed.
}

// dropped is what is recorded of an operation that could not begin in time.
const dropped = "dropped"

// late tells whether the next operation should have ended by now.
func (t *thread) late() bool { return t.run.Recorder.Since() > time.Duration(t.due)+t.run.Timeout }

// drop records that the operation did not begin: who has waited for so long has given up.
func (t *thread) drop() {
	t.run.Recorder.Record(check.Event{Process: t.process, Type: check.Invoked, F: dropped}, check.Intent{Due: t.due})
	t.run.Recorder.Record(check.Event{Process: t.process, Type: check.Failed, F: dropped, Error: "all processes were busy until its time was over"}, nil)
}

// asks is the value of an operation's beginning: it embeds check.Intent.
type asks interface{ Meant(due int64) }

// read does an operation that changes nothing. An error says that it was not done.
func (t *thread) read(ctx context.Context, f string, asked asks, call func(ctx context.Context) (told any, err error)) error {
	return t.do(ctx, f, check.Failed, asked, call)
}

// write does an operation that may change something.
func (t *thread) write(ctx context.Context, f string, asked asks, call func(ctx context.Context) (told any, err error)) error {
	return t.do(ctx, f, check.Info, asked, call)
}

// do records an operation. doubtful is how it ended if that is not known.
func (t *thread) do(ctx context.Context, f string, doubtful check.EventType, asked asks, call func(ctx context.Context) (told any, err error)) error {
	asked.Meant(t.due)
	t.due = 0
	t.run.Recorder.Record(check.Event{Process: t.process, Type: check.Invoked, F: f}, asked)
	ctx, cancel := context.WithTimeout(ctx, t.run.Timeout)
	defer cancel()
	told, err := call(ctx)
	end := check.Event{Process: t.process, Type: check.OK, F: f}
	if err != nil {
		told, end.Error, end.Type = nil, err.Error(), doubtful
		if errors.Is(err, client.ErrNotDone) || errors.Is(err, errConditions) {
			end.Type = check.Failed
		}
	}
	t.run.Recorder.Record(end, told)
	if end.Type == check.Info {
		t.process += t.run.Processes
	}
	t.closed = t.closed || errors.Is(err, client.ErrClosed)
	return err
}

// all calls f for every thread side by side, and gives the first error.
func (r *Run) all(f func(t *thread) error) error {
	errs := make([]error, len(r.threads))
	var running sync.WaitGroup
	for i, t := range r.threads {
		running.Go(func() { errs[i] = f(t) })
	}
	running.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// each calls f for 0 to n-1, on threads side by side, each again until it is done or the context ends; an operation under way
// is waited for.
func (r *Run) each(ctx context.Context, n int, f func(ctx context.Context, t *thread, i int) error) error {
	var next atomic.Int64
	return r.all(func(t *thread) error {
		for {
			i := int(next.Add(1)) - 1
			if i >= n {
				return nil
			}
			for {
				err := f(context.WithoutCancel(ctx), t, i)
				if err == nil {
					break
				}
				if pause(ctx) != nil {
					return err
				}
			}
		}
	})
}

// pauseBetween is before something is tried again.
const pauseBetween = 50 * time.Millisecond

// pause waits; an error says that the context has ended.
func pause(ctx context.Context) error { return wait.For(ctx, pauseBetween) }

// pace gives out the moments at which operations should begin, evenly, whatever becomes of the operations.
type pace struct {
	run   *Run
	began time.Duration
	every float64 // Nanoseconds.
	taken atomic.Int64
}

func newPace(r *Run) *pace {
	return &pace{run: r, began: r.Recorder.Since(), every: float64(time.Second) / r.Rate}
}

// next waits for the next moment, and gives it; ok is false when the context has ended.
func (p *pace) next(ctx context.Context) (due int64, ok bool) {
	at := p.began + time.Duration(float64(p.taken.Add(1))*p.every)
	return int64(at), wait.For(ctx, at-p.run.Recorder.Since()) == nil
}
