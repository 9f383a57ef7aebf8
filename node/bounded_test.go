package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestBounded: a context that was made late ends like one of the library, for those who wait on it and for its children.
func TestBounded(t *testing.T) {
	type key struct{}
	for name, c := range map[string]struct {
		end  func(parent context.CancelFunc, b *Bounded)
		took time.Duration
		err  error
	}{
		"at its deadline":  {func(context.CancelFunc, *Bounded) { time.Sleep(3 * time.Second) }, 2 * time.Second, context.DeadlineExceeded},
		"with its parent":  {func(cancel context.CancelFunc, _ *Bounded) { cancel() }, 0, context.Canceled},
		"by End":           {func(_ context.CancelFunc, b *Bounded) { b.End() }, 0, context.Canceled},
		"by End, and late": {func(_ context.CancelFunc, b *Bounded) { b.End(); time.Sleep(3 * time.Second) }, 0, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				parent, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, 7))
				defer cancel()
				b, began := Bound(parent, 2*time.Second), time.Now()
				at, ok := b.Deadline()
				require.True(t, ok)
				require.Equal(t, 2*time.Second, at.Sub(began))
				child, leave := context.WithCancel(b)
				defer leave()
				require.Equal(t, 7, b.Value(key{}))
				require.NoError(t, b.Err())
				ended := make(chan time.Duration, 2)
				for _, ctx := range []context.Context{b, child} {
					go func() { <-ctx.Done(); ended <- time.Since(began) }()
				}
				c.end(cancel, b)
				require.Equal(t, []time.Duration{c.took, c.took}, []time.Duration{<-ended, <-ended})
				require.ErrorIs(t, b.Err(), c.err)
				require.ErrorIs(t, child.Err(), c.err)
			})
		})
	}
}
