package client_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/kv"
)

// everyCall makes each call of a client once.
func everyCall(c *client.Client) map[string]func(ctx context.Context) error {
	p := c.Pipeline()
	txn := &kvdv1.TxnRequest{Then: []*kvdv1.TxnOp{{Op: &kvdv1.TxnOp_Get{Get: &kvdv1.TxnGet{Key: b("k")}}}}}
	return map[string]func(ctx context.Context) error{
		"Get":         func(ctx context.Context) error { _, _, err := c.Get(ctx, b("k")); return err },
		"BatchGet":    func(ctx context.Context) error { _, err := c.BatchGet(ctx, [][]byte{b("k"), b("l")}); return err },
		"Put":         func(ctx context.Context) error { _, err := c.Put(ctx, b("k"), b("v")); return err },
		"Delete":      func(ctx context.Context) error { _, err := c.Delete(ctx, b("k")); return err },
		"DeleteRange": func(ctx context.Context) error { _, err := c.DeleteRange(ctx, kv.Span{}); return err },
		"Increment":   func(ctx context.Context) error { _, _, err := c.Increment(ctx, b("k"), 1); return err },
		"Txn":         func(ctx context.Context) error { _, err := c.Txn(ctx, txn); return err },
		"Scan": func(ctx context.Context) error {
			for _, err := range c.Scan(ctx, client.ScanOptions{}) {
				return err
			}
			return nil
		},
		"Map":        func(ctx context.Context) error { _, err := c.Map(ctx); return err },
		"Shards":     func(ctx context.Context) error { _, err := c.Shards(ctx); return err },
		"Nodes":      func(ctx context.Context) error { _, err := c.Nodes(ctx); return err },
		"Status":     func(ctx context.Context) error { _, err := c.Status(ctx); return err },
		"Settings":   func(ctx context.Context) error { _, err := c.Settings(ctx); return err },
		"SetSetting": func(ctx context.Context) error { _, err := c.SetSetting(ctx, "log-keep", ""); return err },

		"SplitShard":  func(ctx context.Context) error { _, err := c.SplitShard(ctx, &kvdv1.SplitShardRequest{}); return err },
		"MergeShard":  func(ctx context.Context) error { _, err := c.MergeShard(ctx, &kvdv1.MergeShardRequest{}); return err },
		"MoveReplica": func(ctx context.Context) error { _, err := c.MoveReplica(ctx, &kvdv1.MoveReplicaRequest{}); return err },
		"GoalStatus":  func(ctx context.Context) error { _, err := c.GoalStatus(ctx, &kvdv1.GoalStatusRequest{}); return err },
		"TransferLeader": func(ctx context.Context) error {
			_, err := c.TransferLeader(ctx, &kvdv1.TransferLeaderRequest{})
			return err
		},
		"SetDraining": func(ctx context.Context) error { _, err := c.SetDraining(ctx, &kvdv1.SetDrainingRequest{}); return err },
		"RemoveNode":  func(ctx context.Context) error { _, err := c.RemoveNode(ctx, &kvdv1.RemoveNodeRequest{}); return err },
		"SetRule":     func(ctx context.Context) error { _, err := c.SetRule(ctx, &kvdv1.SetRuleRequest{}); return err },
		"Why":         func(ctx context.Context) error { _, err := c.Why(ctx, &kvdv1.WhyRequest{}); return err },
		"Events":      func(ctx context.Context) error { _, err := c.Events(ctx, &kvdv1.EventsRequest{}); return err },
		"Hot":         func(ctx context.Context) error { _, err := c.Hot(ctx, &kvdv1.HotRequest{}); return err },
		"Rules":       func(ctx context.Context) error { _, err := c.Rules(ctx); return err },
		"Backup":      func(ctx context.Context) error { return c.Backup(ctx, nil) },

		"pipelined Put":       func(ctx context.Context) error { _, err := p.Put(ctx, b("k"), b("v")); return err },
		"pipelined Get":       func(ctx context.Context) error { _, _, err := p.Get(ctx, b("k")); return err },
		"pipelined Delete":    func(ctx context.Context) error { _, err := p.Delete(ctx, b("k")); return err },
		"pipelined Increment": func(ctx context.Context) error { _, err := p.Increment(ctx, b("k"), 1); return err },
		"pipelined Txn":       func(ctx context.Context) error { _, err := p.Txn(ctx, txn); return err },
	}
}

// TestEndedContext: a call whose context has ended says so, was not done, and does not even open a connection.
func TestEndedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		w.node("n1:1")
		defer w.stop()
		c := w.connect(nil, "n1:1")
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		late, cancel := context.WithDeadline(t.Context(), time.Now())
		defer cancel()
		for name, call := range everyCall(c) {
			for _, ctx := range []context.Context{canceled, late} {
				err := call(ctx)
				require.ErrorIs(t, err, ctx.Err(), name)
				require.ErrorIs(t, err, client.ErrNotDone, name)
				require.NotErrorIs(t, err, client.ErrUnknown, name)
			}
		}
		synctest.Wait()
		require.Zero(t, w.dialed(), "a call that had ended opened a connection")
		require.NoError(t, c.Close())
	})
}

// TestEndedInTheQueue: an operation that ends before it has left was not done, one that ends in flight is unknown if it
// is a write, and the places of both are free again.
func TestEndedInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		n := w.node("n1:1")
		defer w.stop()
		n.put = func(ctx context.Context, _ int, _ *kvdv1.PutRequest) (*kvdv1.PutResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		c := w.connect(nil, "n1:1")
		p := c.Pipeline()
		ctx, cancel := context.WithCancel(t.Context())
		var flown, never int
		results := make(chan error, client.InFlightMax+10)
		begun := func(err error) {
			switch {
			case errors.Is(err, client.ErrUnknown):
				flown++
			case errors.Is(err, client.ErrNotDone):
				never++
			default:
				t.Errorf("an error that says neither: %v", err)
			}
		}
		const queued = kv.PipelineInFlight + 500
		for i := range queued {
			p.GoPut(ctx, fmt.Appendf(nil, "%d", i), b("v"), func(_ client.PutResult, err error) { results <- err })
		}
		synctest.Wait() // What fits is in flight, the rest waits.
		cancel()
		for range queued {
			err := <-results
			require.ErrorIs(t, err, context.Canceled)
			begun(err)
		}
		require.Equal(t, kv.PipelineInFlight, flown)
		require.Equal(t, 500, never)
		synctest.Wait()
		require.Empty(t, results, "an operation ended twice")
		require.NoError(t, c.Close())
	})
}

// TestBytesWhileThereIsNoLeader: a shard without a leader keeps its operations waiting for another try; what they hold of
// the memory is bounded, and whoever waits for room can be called off.
func TestBytesWhileThereIsNoLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		n := w.node("n1:1")
		defer w.stop()
		n.put = func(context.Context, int, *kvdv1.PutRequest) (*kvdv1.PutResponse, error) {
			return nil, wire.Status(&kvdv1.PipelineError{Code: int32(codes.Unavailable), Message: "no leader", Detail: &kvdv1.ErrorDetail{
				Outcome: kvdv1.ErrorDetail_NOT_DONE, Reason: kvdv1.ErrorDetail_NOT_LEADER, Shard: 1, RetryAfterMs: 60_000,
			}})
		}
		c := w.connect(nil, "n1:1")
		p := c.Pipeline()
		value := make([]byte, kv.ValueBytesMax)
		const fit = client.InFlightBytesMax / kv.ValueBytesMax // With their keys one less.
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		results := make(chan error, 4*fit)
		begun := make(chan struct{}, 4*fit)
		for i := range 2 * fit {
			go func() {
				p.GoPut(ctx, fmt.Appendf(nil, "%d", i), value, func(_ client.PutResult, err error) { results <- err })
				begun <- struct{}{}
			}()
		}
		time.Sleep(time.Second) // The bubble's clock.
		synctest.Wait()
		require.Len(t, begun, fit-1, "operations of so many MiB are kept")
		require.Empty(t, results)
		small, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		_, err := p.Put(small, b("small"), b("v"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, client.ErrNotDone)
		for _, r := range n.came() {
			require.NotEqual(t, "small", string(r.Key), "a small operation went before large ones that came first")
		}

		n.mu.Lock()
		n.put = nil // There is a leader again.
		n.mu.Unlock()
		for range 2 * fit {
			require.NoError(t, <-results)
		}
		_, err = p.Put(ctx, b("small"), b("v"))
		require.NoError(t, err)
		require.NoError(t, c.Close())
	})
}
