package client_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/kv"
)

// TestCallsThatShareAContext: calls of callers without a deadline end at their own times and for their own reasons, and each
// has its own values, though their contexts are one.
func TestCallsThatShareAContext(t *testing.T) {
	for name, base := range map[string]func(context.Context) (context.Context, context.CancelFunc){
		"one that is never called off": func(context.Context) (context.Context, context.CancelFunc) {
			return context.Background(), nil
		},
		"one that can be": context.WithCancel,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newNetwork(t)
				n := w.node("n1:1")
				defer w.stop()
				silences := make(chan time.Duration, 100)
				slow := map[string]bool{}
				n.get = func(ctx context.Context, r *kvdv1.GetRequest) (*kvdv1.GetResponse, error) {
					md, _ := metadata.FromIncomingContext(ctx)
					key := string(r.Key)
					n.mu.Lock()
					silent := slow[key]
					slow[key] = false // The next time it is answered.
					n.mu.Unlock()
					if silent {
						began := time.Now()
						<-ctx.Done()
						silences <- time.Since(began)
						return nil, ctx.Err()
					}
					return &kvdv1.GetResponse{Found: true, Value: b(fmt.Sprint(md.Get("who")))}, nil
				}
				c := w.connect(nil, "n1:1")
				ctx, cancel := base(t.Context())
				results := make(chan error, 100)
				get := func(key string) {
					item, _, err := c.Get(metadata.AppendToOutgoingContext(ctx, "who", key), b(key))
					if want := fmt.Sprintf("[%s]", key); err == nil && string(item.Record.Value) != want {
						err = fmt.Errorf("the values of %s came with those of %s", item.Record.Value, want)
					}
					results <- err
				}
				const calls = 20
				for i := range calls {
					key := fmt.Sprint("k", i)
					n.mu.Lock()
					slow[key] = i%2 == 1
					n.mu.Unlock()
					go get(key)
					time.Sleep(tick / 3) // The bubble's clock.
				}
				for range calls {
					require.NoError(t, <-results)
				}
				synctest.Wait()
				require.Len(t, silences, calls/2, "a call ended that was not silent")
				for range calls / 2 {
					took := <-silences
					require.GreaterOrEqual(t, took, time.Second, "it was not given a second")
					require.LessOrEqual(t, took, time.Second+8*tick)
				}
				n.put = func(ctx context.Context, i int, _ *kvdv1.PutRequest) (*kvdv1.PutResponse, error) {
					if i == 3 {
						<-ctx.Done()
					}
					return &kvdv1.PutResponse{}, ctx.Err()
				}
				for range 3 {
					_, err := c.Put(ctx, b("k"), b("v"))
					require.NoError(t, err)
				}
				began := time.Now()
				_, err := c.Put(ctx, b("k"), b("v"))
				require.ErrorIs(t, err, client.ErrUnknown)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.GreaterOrEqual(t, time.Since(began), kv.RequestTimeout)
				require.LessOrEqual(t, time.Since(began), kv.RequestTimeout+8*tick)
				if cancel != nil {
					n.mu.Lock()
					slow["last"] = true
					n.mu.Unlock()
					for range 3 { // Then there is a context that is shared.
						get("k0")
						require.NoError(t, <-results)
					}
					began := time.Now()
					go get("last")
					synctest.Wait()
					cancel()
					err := <-results
					require.ErrorIs(t, err, context.Canceled)
					require.ErrorIs(t, err, client.ErrNotDone)
					require.Zero(t, time.Since(began))
				}
				require.NoError(t, c.Close())
			})
		})
	}
}
