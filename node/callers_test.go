package node

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
)

// TestCallersEnd: who waits is told its answer at once, and at most lookEvery late that its time is over or its context has ended. The
// goroutine that looks is there as often as it is needed, and ends.
func TestCallersEnd(t *testing.T) {
	answer := kv.Result{Status: kv.Done, Revision: 7}
	for name, c := range map[string]struct {
		bound time.Duration // 0 for a context of the library.
		ends  func(cancel context.CancelFunc, tell func(kv.Result, error))
		after time.Duration
		late  time.Duration
		err   error
	}{
		"by an answer":            {2 * time.Second, func(_ context.CancelFunc, tell func(kv.Result, error)) { tell(answer, nil) }, time.Second, 0, nil},
		"by a refusal":            {2 * time.Second, func(_ context.CancelFunc, tell func(kv.Result, error)) { tell(kv.Result{}, errBusy) }, 0, 0, errBusy},
		"at its deadline":         {2 * time.Second, nil, 2 * time.Second, lookEvery, context.DeadlineExceeded},
		"with its parent":         {2 * time.Second, func(cancel context.CancelFunc, _ func(kv.Result, error)) { cancel() }, time.Second, lookEvery, context.Canceled},
		"with its context":        {0, func(cancel context.CancelFunc, _ func(kv.Result, error)) { cancel() }, 7 * time.Second, lookEvery, context.Canceled},
		"by an answer, unbounded": {0, func(_ context.CancelFunc, tell func(kv.Result, error)) { tell(answer, nil) }, time.Hour, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newCallers()
				for range 3 {
					ctx, cancel := context.WithCancel(t.Context())
					caller, began := w.caller(), time.Now()
					if c.ends != nil {
						time.AfterFunc(c.after, func() { c.ends(cancel, caller.tell) })
						synctest.Wait()
					}
					waits := ctx
					if c.bound != 0 {
						waits = Bound(ctx, c.bound)
					}
					result, err := w.wait(waits, caller)
					took := time.Since(began)
					require.ErrorIs(t, err, c.err)
					require.GreaterOrEqual(t, took, c.after)
					require.LessOrEqual(t, took, c.after+c.late)
					if err == nil {
						require.Equal(t, answer, result)
					}
					cancel()
					time.Sleep(2 * idleLooks * lookEvery)
					require.False(t, w.awake.Load())
				}
			})
		})
	}
}

// TestComesAsTheLastGoes: who begins to wait in the moment in which the goroutine that looks has seen nobody for long enough is looked at.
func TestComesAsTheLastGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCallers()
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		for range 20_000 {
			_, err := w.wait(gone, w.caller())
			require.ErrorIs(t, err, context.Canceled)
			time.Sleep(idleLooks * lookEvery)
			_, err = w.wait(gone, w.caller())
			require.ErrorIs(t, err, context.Canceled)
			time.Sleep(2 * idleLooks * lookEvery)
		}
	})
}

// TestLateAnswer: an answer that comes after its caller's end, or with it, is nobody else's.
func TestLateAnswer(t *testing.T) {
	w := newCallers()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	late := w.caller()
	_, err := w.wait(gone, late)
	require.ErrorIs(t, err, context.Canceled)
	late.tell(kv.Result{Revision: 1}, nil)
	for n := range kv.Revision(100) {
		c := w.caller()
		require.NotSame(t, late, c)
		c.tell(kv.Result{Revision: n}, nil)
		result, err := w.wait(t.Context(), c)
		require.NoError(t, err)
		require.Equal(t, n, result.Revision)
	}

	both := w.caller()
	w.add(both, gone)
	both.tell(kv.Result{Revision: 2}, nil)
	w.look(time.Now())
	require.Equal(t, kv.Revision(2), (<-both.told).result.Revision)
	require.True(t, w.remove(both), "it is used again, and holds an end")
}

// TestCallersAtOnce: of many that wait, are answered and give up side by side, each is told its own answer or its own end.
func TestCallersAtOnce(t *testing.T) {
	w := newCallers()
	var waiting sync.WaitGroup
	for g := range kv.Revision(64) {
		waiting.Go(func() {
			for i := range kv.Revision(300) {
				own := g*1000 + i
				ctx := Bound(t.Context(), time.Duration(own%50)*time.Millisecond)
				c := w.caller()
				go func() {
					if own%3 == 0 {
						time.Sleep(time.Duration(own%60) * time.Millisecond / 10)
					}
					c.tell(kv.Result{Revision: own}, nil)
				}()
				result, err := w.wait(ctx, c)
				if err == nil && result.Revision != own || err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%d was told %d, %v", own, result.Revision, err)
				}
			}
		})
	}
	waiting.Wait()
	require.False(t, w.look(time.Now()), "somebody waits for ever")
}

// BenchmarkWait is a wait for an answer that another goroutine gives, as a call's handler waits for the loop.
func BenchmarkWait(b *testing.B) {
	w := newCallers()
	ask := make(chan *caller, 1024)
	go func() {
		for c := range ask {
			c.tell(kv.Result{}, nil)
		}
	}()
	defer close(ask)
	b.ReportAllocs()
	b.SetParallelism(64)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			ctx, c := Bound(b.Context(), time.Minute), w.caller()
			ask <- c
			if _, err := w.wait(ctx, c); err != nil {
				b.Error(err)
			}
		}
	})
}
