package server

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/tap"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

const (
	// probeInterval is the time between two looks at how late goroutines run, and probes is how many of the last all must
	// have been late before anything is refused for it: one long turn of the scheduler is no overload.
	probeInterval = 10 * time.Millisecond
	probes        = 3
	// callsFew under way are no overload: an idle node does not look.
	callsFew = 16
)

// gate refuses calls of clients before they have cost more than their headers: a node that has more to do than it can
// must not spend its time on what it will not do, nor its memory on what waits. What operators and other nodes call always
// passes, and so do the operations of pipelines, whose number flow control bounds. Safe for concurrent use.
type gate struct {
	// most bounds the calls under way, which calls counts.
	most  int64
	calls *atomic.Int64
	// writesFull reports whether a write would be refused that this node carries out itself. One that it would pass on is
	// refused then, too: its client may ask the other node.
	writesFull func() bool
	// delay is how long runnable goroutines have waited for a processor, at the least of the last probes.
	delay atomic.Int64

	byCalls, byDelay, byWrites refusal
}

// refusal is one reason to refuse: the answer, made once, and its count.
type refusal struct {
	err   error
	count prometheus.Counter
}

func newGate(most int64, calls *atomic.Int64, writesFull func() bool, registry *prometheus.Registry) *gate {
	g := &gate{most: most, calls: calls, writesFull: writesFull}
	counts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kvd_calls_refused_total", Help: "Calls refused before they were read, by what there was too much of.",
	}, []string{"reason"})
	registry.MustRegister(counts, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "kvd_scheduling_delay_seconds", Help: "How long what could run has waited for a processor, at the least of the last looks.",
	}, func() float64 { return time.Duration(g.delay.Load()).Seconds() }))
	because := func(what, reason string) refusal {
		// Which operation it was makes no difference: it was not begun.
		return refusal{wire.StatusError(wire.Write, &kv.OverloadError{What: what, RetryAfter: kv.RetryAfter}, nil), counts.WithLabelValues(reason)}
	}
	g.byCalls = because("the number of calls", "calls")
	g.byDelay = because("the queue for the processors", "processors")
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
	case time.Duration(g.delay.Load()) > kv.SchedulingDelayMax:
		return g.byDelay.refuse()
	case m.writes && g.writesFull():
		return g.byWrites.refuse()
	}
	return nil
}

func (r *refusal) refuse() error {
	r.count.Inc()
	return r.err
}

// lateness are the last looks.
type lateness struct {
	last [probes]time.Duration
	next int
}

// add gives the least of the last looks.
func (l *lateness) add(late time.Duration) time.Duration {
	l.last[l.next] = late
	l.next = (l.next + 1) % probes
	return slices.Min(l.last[:])
}

// watch measures the delay until the context ends.
func (g *gate) watch(ctx context.Context) {
	ticker := time.NewTicker(probeInterval)
	defer ticker.Stop()
	var l lateness
	for {
		select {
		case <-ticker.C:
			g.delay.Store(int64(l.add(g.probe())))
		case <-ctx.Done():
			return
		}
	}
}

// probe measures how long a goroutine waits for a processor that has as many before it as a call has. The runtime lets what was
// made runnable last run next, so another one pushes the one that is measured to the end of the queue.
func (g *gate) probe() time.Duration {
	if g.calls.Load() < callsFew {
		return 0
	}
	began, took := time.Now(), make(chan time.Duration)
	go func() { took <- time.Since(began) }()
	go func() {}()
	return <-took
}

// tap is asked with the headers of each call.
func (s *Server) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	return ctx, s.gate.check(s.methods[info.FullMethodName])
}

// writing are the calls that do nothing but write.
var writing = []string{
	kvdv1.KV_Put_FullMethodName, kvdv1.KV_Delete_FullMethodName, kvdv1.KV_Increment_FullMethodName, kvdv1.KV_Txn_FullMethodName, kvdv1.KV_DeleteRange_FullMethodName,
}
