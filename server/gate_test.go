package server

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// refusedWith checks that an error is a refusal of the gate: nothing was done, and there is a hint.
func refusedWith(t *testing.T, err error, what string) {
	t.Helper()
	require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
	require.ErrorContains(t, err, what)
	d := wire.DetailOf(err)
	require.Equal(t, kvdv1.ErrorDetail_OVERLOADED, d.GetReason())
	require.Equal(t, kvdv1.ErrorDetail_NOT_DONE, d.GetOutcome())
	require.EqualValues(t, kv.RetryAfter.Milliseconds(), d.GetRetryAfterMs())
}

// TestGate: what there is too much of refuses calls of clients with a hint, and never an operator's.
func TestGate(t *testing.T) {
	m := newMemory()
	s, conn := serve(t, Config{Backend: m, CallsMax: 10})
	api, admin := kvdv1.NewKVClient(conn), kvdv1.NewAdminClient(conn)
	get := func() error {
		_, err := api.Get(t.Context(), &kvdv1.GetRequest{Key: []byte("k")})
		return err
	}
	put := func() error {
		_, err := api.Put(t.Context(), &kvdv1.PutRequest{Key: []byte("k")})
		return err
	}
	others := func() {
		_, err := admin.Status(t.Context(), &kvdv1.StatusRequest{})
		require.NotEqual(t, codes.ResourceExhausted, status.Code(err), "%v", err)
		_, err = api.Map(t.Context(), &kvdv1.MapRequest{})
		require.NotEqual(t, codes.ResourceExhausted, status.Code(err), "%v", err)
	}
	require.NoError(t, put())
	require.NoError(t, get())

	s.calls.Add(10)
	refusedWith(t, get(), "the number of calls")
	refusedWith(t, put(), "the number of calls")
	others()
	s.calls.Add(-10)

	m.busy = true
	refusedWith(t, put(), "the queue of writes")
	require.NoError(t, get())
	others()
	m.busy = false
	require.NoError(t, put())
}

// TestGateByDelay: one late look is no overload, several in a row are, and when it has passed so have the refusals.
func TestGateByDelay(t *testing.T) {
	s := New(Config{Backend: newMemory()})
	method := s.methods[kvdv1.KV_Get_FullMethodName]
	require.NotNil(t, method)
	s.gate.delay.Store(int64(kv.SchedulingDelayMax))
	require.NoError(t, s.gate.check(method))
	s.gate.delay.Store(int64(kv.SchedulingDelayMax) + 1)
	refusedWith(t, s.gate.check(method), "the queue for the processors")
	for _, name := range []string{kvdv1.KV_Pipeline_FullMethodName, kvdv1.NodeService_Forward_FullMethodName, "/grpc.health.v1.Health/Check", "/nobody/Knows"} {
		require.NoError(t, s.gate.check(s.methods[name]), name)
	}

	var l lateness
	late, soon := kv.SchedulingDelayMax*2, time.Millisecond
	for range probes - 1 {
		require.Zero(t, l.add(late), "the first ones do not count")
	}
	require.Equal(t, late, l.add(late))
	require.Equal(t, soon, l.add(soon))
	for range probes - 1 {
		require.Equal(t, soon, l.add(late))
	}
	require.Equal(t, late, l.add(late))
}

// TestProbe: goroutines that keep the only processor from all others are seen, and an idle node does not look.
func TestProbe(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	s := New(Config{Backend: newMemory()})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	// Each makes the next one, as what reads a connection does with calls.
	var call func()
	call = func() {
		for began := time.Now(); time.Since(began) < 5*time.Millisecond; {
		}
		if ctx.Err() == nil {
			all.Go(call)
		}
	}
	for range 20 {
		all.Go(call)
	}
	require.Zero(t, s.gate.probe())
	s.calls.Add(callsFew)
	all.Go(func() { s.gate.watch(ctx) })
	require.Eventually(t, func() bool { return time.Duration(s.gate.delay.Load()) > kv.SchedulingDelayMax }, 30*time.Second, time.Millisecond)
	cancel()
	all.Wait()
}
