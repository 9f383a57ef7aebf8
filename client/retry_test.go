package client_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/kv"
)

// putBothWays runs f with a put of one call, and with one of a pipeline.
func putBothWays(t *testing.T, f func(t *testing.T, n *fakeNode, put func(ctx context.Context) error)) {
	for name, way := range map[string]func(c *client.Client, ctx context.Context) error{
		"call": func(c *client.Client, ctx context.Context) error { _, err := c.Put(ctx, b("k"), b("v")); return err },
		"pipeline": func(c *client.Client, ctx context.Context) error {
			_, err := c.Pipeline().Put(ctx, b("k"), b("v"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newNetwork(t)
				n := w.node("n1:1")
				defer w.stop()
				c := w.connect(nil, "n1:1")
				f(t, n, func(ctx context.Context) error { return way(c, ctx) })
				require.NoError(t, c.Close())
			})
		})
	}
}

// TestOnlyWhatWasNotDoneIsRepeated: of the answers that a write may get.
func TestOnlyWhatWasNotDoneIsRepeated(t *testing.T) {
	for name, x := range map[string]struct {
		err      error // Of the first attempt; the second is done.
		repeated bool
		outcome  error
	}{
		"no leader":            {refusal(wire.Write, noLeader), true, nil},
		"no map":               {refusal(wire.Write, kv.ErrNoMap), true, nil},
		"a full queue":         {refusal(wire.Write, &kv.OverloadError{What: "the queue", RetryAfter: kv.RetryAfter}), true, nil},
		"a node going down":    {refusal(wire.Write, kv.ErrStopping), true, nil},
		"a bound":              {refusal(wire.Write, &kv.InvalidError{Field: "key", Bound: "a bound"}), false, client.ErrNotDone},
		"several shards":       {refusal(wire.Write, &kv.CrossShardError{Shards: []kv.ShardID{1, 2}}), false, client.ErrNotDone},
		"no number":            {refusal(wire.Write, kv.ErrNotANumber), false, client.ErrNotDone},
		"unknown":              {refusal(wire.Write, kv.ErrUnknown), false, client.ErrUnknown},
		"the node's deadline":  {refusal(wire.Write, context.DeadlineExceeded), false, client.ErrUnknown},
		"unavailable, no word": {status.Error(codes.Unavailable, "a proxy says so"), false, client.ErrUnknown},
		"exhausted, no word":   {status.Error(codes.ResourceExhausted, "a proxy says so"), false, client.ErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			putBothWays(t, func(t *testing.T, n *fakeNode, put func(ctx context.Context) error) {
				n.put = func(_ context.Context, i int, _ *kvdv1.PutRequest) (*kvdv1.PutResponse, error) {
					if i == 0 {
						return nil, x.err
					}
					return &kvdv1.PutResponse{Succeeded: true}, nil
				}
				err := put(t.Context())
				synctest.Wait()
				if x.repeated {
					require.NoError(t, err)
					require.Len(t, n.came(), 2)
					return
				}
				require.ErrorIs(t, err, x.outcome)
				require.NotEqual(t, errors.Is(err, client.ErrUnknown), errors.Is(err, client.ErrNotDone), "both, or neither: %v", err)
				require.Len(t, n.came(), 1)
			})
		})
	}
}

// TestDeadlineAndPauses: what is refused for ever ends at its deadline and not later, after attempts whose pauses grow, are
// bounded, and differ from one time to the next.
func TestDeadlineAndPauses(t *testing.T) {
	putBothWays(t, func(t *testing.T, n *fakeNode, put func(ctx context.Context) error) {
		var times []time.Time
		n.put = func(context.Context, int, *kvdv1.PutRequest) (*kvdv1.PutResponse, error) {
			n.mu.Lock()
			times = append(times, time.Now())
			n.mu.Unlock()
			// Without a word on how long to wait.
			return nil, wire.Status(&kvdv1.PipelineError{
				Code: int32(codes.Unavailable), Message: "no leader", Detail: &kvdv1.ErrorDetail{Outcome: kvdv1.ErrorDetail_NOT_DONE, Reason: kvdv1.ErrorDetail_NOT_LEADER, Shard: 1},
			})
		}
		pauses := func() (list []time.Duration) {
			times = nil
			began := time.Now()
			ctx, cancel := context.WithDeadline(t.Context(), began.Add(5*time.Second))
			defer cancel()
			err := put(ctx)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorIs(t, err, client.ErrNotDone)
			require.ErrorContains(t, err, "no leader", "the reason is not told")
			require.LessOrEqual(t, time.Since(began), 5*time.Second)
			require.Greater(t, time.Since(began), 4*time.Second, "it gave up early")
			for i := range times[1:] {
				list = append(list, times[i+1].Sub(times[i]))
			}
			return list
		}
		first, second := pauses(), pauses()
		require.NotEqual(t, first, second, "there is no chance in the pauses")
		for _, list := range [][]time.Duration{first, second} {
			require.Less(t, list[0], 10*time.Millisecond)
			require.Greater(t, list[len(list)-1], 100*time.Millisecond, "the pauses do not grow")
			for _, d := range list {
				require.Less(t, d, 400*time.Millisecond)
			}
		}
	})
}

// TestAskedPause: a pause that the node asks for is kept, and a deadline within it is not waited for.
func TestAskedPause(t *testing.T) {
	putBothWays(t, func(t *testing.T, n *fakeNode, put func(ctx context.Context) error) {
		const asked = 3 * time.Second
		n.put = func(_ context.Context, i int, _ *kvdv1.PutRequest) (*kvdv1.PutResponse, error) {
			if i == 1 {
				return &kvdv1.PutResponse{Succeeded: true}, nil
			}
			return nil, refusal(wire.Write, &kv.OverloadError{What: "the queue", RetryAfter: asked})
		}
		began := time.Now()
		require.NoError(t, put(t.Context()))
		require.GreaterOrEqual(t, time.Since(began), asked)
		require.Len(t, n.came(), 2)

		began = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), asked-1)
		defer cancel()
		err := put(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, client.ErrNotDone)
		require.Less(t, time.Since(began), time.Second, "it waited for nothing")
		require.Len(t, n.came(), 3)
	})
}

// TestBrokenStream: of what a stream had when it broke, only what had not left is sent again.
func TestBrokenStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		n := w.node("n1:1")
		defer w.stop()
		hold := make(chan struct{})
		n.put = func(_ context.Context, i int, _ *kvdv1.PutRequest) (*kvdv1.PutResponse, error) {
			if i >= kv.PipelineInFlight { // On the next stream.
				return &kvdv1.PutResponse{Succeeded: true}, nil
			}
			<-hold
			return nil, status.Error(codes.Unavailable, "broken")
		}
		c := w.connect(nil, "n1:1")
		p := c.Pipeline()
		const queued = 300
		results := make(chan error, kv.PipelineInFlight+queued)
		for range kv.PipelineInFlight + queued {
			p.GoPut(t.Context(), b("k"), b("v"), func(_ client.PutResult, err error) { results <- err })
		}
		synctest.Wait()
		require.Len(t, n.came(), kv.PipelineInFlight)
		close(hold)
		var unknown, done int
		for range kv.PipelineInFlight + queued {
			switch err := <-results; {
			case err == nil:
				done++
			case errors.Is(err, client.ErrUnknown):
				unknown++
			default:
				t.Error(err)
			}
		}
		require.Equal(t, kv.PipelineInFlight, unknown)
		require.Equal(t, queued, done)
		require.Len(t, n.came(), kv.PipelineInFlight+queued)
		require.NoError(t, c.Close())
	})
}

// TestOldHints: what an answer says of the map is not taken when something newer is known.
func TestOldHints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		one, two := w.node("n1:1"), w.node("n2:1")
		defer w.stop()
		shard := func(version, config, leader uint64) *kvdv1.Descriptor {
			return &kvdv1.Descriptor{
				Shard: 1, Epoch: &kvdv1.Epoch{Version: version, Config: config}, Replicas: []*kvdv1.Replica{{Node: leader, Replica: leader}}, Leader: leader,
			}
		}
		one.know = &kvdv1.MapResponse{Version: 1, Descriptors: []*kvdv1.Descriptor{shard(1, 1, 1)}, Nodes: []*kvdv1.Node{{Node: 1, Address: "n1:1"}, {Node: 2, Address: "n2:1"}}}
		two.know = one.know // It lags behind.
		one.put = func(context.Context, int, *kvdv1.PutRequest) (*kvdv1.PutResponse, error) {
			return nil, wire.Status(&kvdv1.PipelineError{Code: int32(codes.Unavailable), Message: "stale", Detail: &kvdv1.ErrorDetail{
				Outcome: kvdv1.ErrorDetail_NOT_DONE, Reason: kvdv1.ErrorDetail_STALE_EPOCH, Descriptors: []*kvdv1.Descriptor{shard(1, 2, 2)},
			}})
		}
		two.put = func(context.Context, int, *kvdv1.PutRequest) (*kvdv1.PutResponse, error) {
			// An answer that was under way for long, or a node that is behind.
			return &kvdv1.PutResponse{Succeeded: true, Header: &kvdv1.ResponseHeader{Descriptors: []*kvdv1.Descriptor{shard(1, 1, 1)}}}, nil
		}
		c := w.connect(nil, "n1:1")
		_, err := c.Map(t.Context())
		require.NoError(t, err)
		for range 5 {
			_, err := c.Put(t.Context(), b("k"), b("v"))
			require.NoError(t, err)
			time.Sleep(time.Second) // The bubble's clock: the whole map may be asked for again.
			synctest.Wait()
			_, err = c.Map(t.Context()) // It is the old one still.
			require.NoError(t, err)
		}
		require.Len(t, one.came(), 1, "an old hint brought the client back")
		require.Len(t, two.came(), 5)
		require.NoError(t, c.Close())
	})
}

// TestGapsAreFilled: of a shard that was split an answer may tell one part only. What falls into the gap goes to any node; and the
// client asks for the map, once it may, instead of leaving it so for ever.
func TestGapsAreFilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		one, two := w.node("n1:1"), w.node("n2:1")
		defer w.stop()
		shard := func(id, version uint64, start, end string) *kvdv1.Descriptor {
			return &kvdv1.Descriptor{
				Shard: id, Epoch: &kvdv1.Epoch{Version: version, Config: 1}, Start: b(start), End: b(end), Replicas: []*kvdv1.Replica{{Node: 1, Replica: id}}, Leader: 1,
			}
		}
		nodes := []*kvdv1.Node{{Node: 1, Address: "n1:1"}, {Node: 2, Address: "n2:1"}}
		one.know = &kvdv1.MapResponse{Version: 1, Descriptors: []*kvdv1.Descriptor{shard(1, 1, "", "")}, Nodes: nodes}
		two.know = one.know
		one.put = func(_ context.Context, _ int, r *kvdv1.PutRequest) (*kvdv1.PutResponse, error) {
			h := &kvdv1.ResponseHeader{}
			if r.GetHeader().GetVersion() == 1 {
				h.Descriptors = []*kvdv1.Descriptor{shard(2, 2, "m", "")}
			}
			return &kvdv1.PutResponse{Succeeded: true, Header: h}, nil
		}
		c := w.connect(nil, "n1:1", "n2:1")
		_, err := c.Map(t.Context())
		require.NoError(t, err)
		time.Sleep(time.Second)
		_, err = c.Put(t.Context(), b("x"), b("v"))
		require.NoError(t, err)
		one.mu.Lock()
		one.know = &kvdv1.MapResponse{Version: 2, Descriptors: []*kvdv1.Descriptor{shard(1, 2, "", "m"), shard(2, 2, "m", "")}, Nodes: nodes}
		one.mu.Unlock()
		two.mu.Lock()
		two.know = one.know
		two.mu.Unlock()

		_, err = c.Put(t.Context(), b("a"), b("v"))
		require.NoError(t, err)
		synctest.Wait()
		before := len(two.came())
		for range 20 {
			_, err := c.Put(t.Context(), b("a"), b("v"))
			require.NoError(t, err)
		}
		require.Len(t, two.came(), before, "it went to any node still")
		puts := one.came()
		require.EqualValues(t, 2, puts[len(puts)-1].GetHeader().GetVersion())
		require.NoError(t, c.Close())
	})
}

// TestExpiries: what asks for an expiry has one, never before its time; what cannot be one is refused before it leaves.
func TestExpiries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		n := w.node("n1:1")
		defer w.stop()
		c := w.connect(nil, "n1:1")
		put := func(o client.WriteOption) error { _, err := c.Put(t.Context(), b("k"), b("v"), o); return err }
		last := func() *kvdv1.PutRequest { came := n.came(); return came[len(came)-1] }
		for d, want := range map[time.Duration]int64{1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, time.Hour: 3_600_000} {
			require.NoError(t, put(client.TTL(d)))
			require.Equal(t, want, last().TtlMs, d)
		}
		for at, want := range map[time.Time]int64{time.Unix(0, 1): 1, time.UnixMilli(5): 5, time.UnixMilli(5).Add(1): 6, {}: 0} {
			require.NoError(t, put(client.ExpireAt(at)))
			require.Equal(t, want, last().ExpireAtMs, at)
		}
		sent := len(n.came())
		for field, list := range map[string][]client.WriteOption{
			"ttl":       {client.TTL(0), client.TTL(-1), client.TTL(-time.Hour)},
			"expire_at": {client.ExpireAt(time.Unix(0, 0)), client.ExpireAt(time.Unix(-1, 0))},
		} {
			for _, o := range list {
				invalid := new(kv.InvalidError)
				require.ErrorAs(t, put(o), &invalid)
				require.Equal(t, field, invalid.Field)
				_, err := c.Pipeline().Put(t.Context(), b("k"), b("v"), o)
				require.ErrorAs(t, err, &invalid)
				require.ErrorIs(t, err, client.ErrNotDone)
			}
		}
		require.Len(t, n.came(), sent)
		require.NoError(t, c.Close())
	})
}
