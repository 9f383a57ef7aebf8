package server

import (
	"testing"

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

	m.lag = kv.LoopLagMax
	require.NoError(t, get())
	m.lag++
	require.NoError(t, get(), "it needs no event loop")
	refusedWith(t, put(), "the work of the event loop")
	others()
	for _, name := range []string{kvdv1.KV_Pipeline_FullMethodName, kvdv1.NodeService_Forward_FullMethodName, "/grpc.health.v1.Health/Check", "/nobody/Knows"} {
		require.NoError(t, s.gate.check(s.methods[name]), name)
	}
	m.lag = 0

	m.busy = true
	refusedWith(t, put(), "the queue of writes")
	require.NoError(t, get())
	others()
	m.busy = false
	require.NoError(t, put())
}
