package client_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/kv"
)

// A tick is how late the client may be with a time of its own.
const tick = 50 * time.Millisecond

// TestSilentReadGoesElsewhere: after a second, whether the caller has a deadline or not; and the node is told that nobody waits.
func TestSilentReadGoesElsewhere(t *testing.T) {
	for name, with := range map[string]time.Duration{"no deadline": 0, "a deadline": time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newNetwork(t)
				one, two := w.node("n1:1"), w.node("n2:1")
				defer w.stop()
				var silent atomic.Pointer[fakeNode] // The first that was asked.
				given := make(chan time.Duration, 10)
				for _, n := range []*fakeNode{one, two} {
					n.get = func(ctx context.Context, _ *kvdv1.GetRequest) (*kvdv1.GetResponse, error) {
						if !silent.CompareAndSwap(nil, n) && silent.Load() != n {
							return &kvdv1.GetResponse{Found: true}, nil
						}
						began := time.Now()
						<-ctx.Done()
						given <- time.Since(began)
						return nil, ctx.Err()
					}
				}
				c := w.connect(nil, "n1:1", "n2:1")
				ctx := t.Context()
				if with != 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, with)
					defer cancel()
				}
				_, found, err := c.Get(ctx, b("k"))
				require.NoError(t, err)
				require.True(t, found)
				for range len(given) {
					took := <-given
					require.GreaterOrEqual(t, took, time.Second, "it was not given a second")
					require.LessOrEqual(t, took, time.Second+2*tick)
				}
				synctest.Wait()
				require.NoError(t, c.Close())
			})
		})
	}
}

// TestTimeWithoutADeadline: a call whose caller has no deadline ends after kv.RequestTimeout, and says the right thing; while a
// write waits its node is asked whether it is alive.
func TestTimeWithoutADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		n := w.node("n1:1")
		defer w.stop()
		n.put = func(ctx context.Context, _ int, _ *kvdv1.PutRequest) (*kvdv1.PutResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		n.get = func(ctx context.Context, _ *kvdv1.GetRequest) (*kvdv1.GetResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		c := w.connect(nil, "n1:1")
		for _, x := range []struct {
			call         func() error
			outcome, not error
			asked        int
		}{
			{func() error { _, err := c.Put(t.Context(), b("k"), b("v")); return err }, client.ErrUnknown, client.ErrNotDone, 8},
			{func() error { _, _, err := c.Get(t.Context(), b("k")); return err }, client.ErrNotDone, client.ErrUnknown, 1},
		} {
			began, asked := time.Now(), n.asked()
			err := x.call()
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorIs(t, err, x.outcome)
			require.NotErrorIs(t, err, x.not)
			require.GreaterOrEqual(t, time.Since(began), kv.RequestTimeout-time.Second, "it gave up early")
			require.LessOrEqual(t, time.Since(began), kv.RequestTimeout+2*tick)
			require.GreaterOrEqual(t, n.asked()-asked, x.asked, "the node was not asked whether it is alive")
		}
		require.NoError(t, c.Close())
	})
}

// TestNodesKeepNoTimer: a node is told of a caller's deadline, and of no time that is the client's own.
func TestNodesKeepNoTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		n := w.node("n1:1")
		defer w.stop()
		told := make(chan time.Duration, 10)
		tell := func(ctx context.Context) {
			var left time.Duration
			if deadline, ok := ctx.Deadline(); ok {
				left = time.Until(deadline)
			}
			told <- left
		}
		n.put = func(ctx context.Context, _ int, _ *kvdv1.PutRequest) (*kvdv1.PutResponse, error) {
			tell(ctx)
			return &kvdv1.PutResponse{}, nil
		}
		n.get = func(ctx context.Context, _ *kvdv1.GetRequest) (*kvdv1.GetResponse, error) {
			tell(ctx)
			return &kvdv1.GetResponse{}, nil
		}
		c := w.connect(nil, "n1:1")
		for _, with := range []time.Duration{0, 100 * time.Millisecond, time.Minute} {
			ctx := t.Context()
			if with != 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, with)
				defer cancel()
			}
			_, err := c.Put(ctx, b("k"), b("v"))
			require.NoError(t, err)
			require.Equal(t, with, <-told)
			_, _, err = c.Get(ctx, b("k"))
			require.NoError(t, err)
			require.Equal(t, with, <-told)
		}
		require.NoError(t, c.Close())
	})
}
