package server

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/tap"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// gate refuses calls of clients before they have cost more than their headers: a node that has more to do than it can
// must not spend its time on what it will not do, nor its memory on what waits. What operators and other nodes call always
// passes. Pipelines do, too: flow control bounds their operations, and writes among them are refused one by one. Safe for concurrent use.
type gate struct {
	// most bounds the calls under way, which calls counts.
	most  int64
	calls *atomic.Int64
	// writesFull reports whether a write would be refused that this node carries out itself. One that it would pass on is
	// refused then, too: its client may ask the other node.
	writesFull func() bool
	// lag is how long the node's event loop has been busy with what came before.
	lag func() time.Duration

	byCalls, byLag, byWrites refusal
}

// refusal is one reason to refuse: the answer, made once, and its count.
type refusal struct {
	err   error
	count prometheus.Counter
}

func newGate(most int64, calls *atomic.Int64, b Backend, registry *prometheus.Registry) *gate {
	g := &gate{most: most, calls: calls, writesFull: b.BusyHere, lag: b.Lag}
	counts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kvd_calls_refused_total", Help: "Calls refused before they were read, by what there was too much of.",
	}, []string{"reason"})
	registry.MustRegister(counts)
	because := func(what, reason string) refusal {
		// Which operation it was makes no difference: it was not begun.
		return refusal{wire.StatusError(wire.Write, &kv.OverloadError{What: what, RetryAfter: kv.RetryAfter}, nil), counts.WithLabelValues(reason)}
	}
	g.byCalls = because("the number of calls", "calls")
	g.byLag = because("the work of the event loop", "loop")
	g.byWrites = because("the queue of writes", "writes")
	return g
}

// check is nil for a call that may pass.
func (g *gate) check(m *method) error {
	switch {
	case m == nil || !m.gated:
		return nil
	case g.calls.Load() >= g.most:
		return g.byCalls.refuse()
	case m.writes && g.lag() > kv.LoopLagMax:
		return g.byLag.refuse()
	case m.writes && g.writesFull():
		return g.byWrites.refuse()
	}
	return nil
}

func (r *refusal) refuse() error {
	r.count.Inc()
	return r.err
}

// tap is asked with the headers of each call.
func (s *Server) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	return ctx, s.gate.check(s.methods[info.FullMethodName])
}

// writing are the calls that go through the log.
var writing = []string{
	kvdv1.KV_Put_FullMethodName, kvdv1.KV_Delete_FullMethodName, kvdv1.KV_Increment_FullMethodName, kvdv1.KV_Txn_FullMethodName, kvdv1.KV_DeleteRange_FullMethodName,
}
