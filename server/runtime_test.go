package server

import (
	"math"
	"runtime"
	"runtime/metrics"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCumulative: each value is in all buckets above it, once, and what is beyond the bounds is in the whole.
func TestCumulative(t *testing.T) {
	count, sum, buckets := cumulative(&metrics.Float64Histogram{
		Counts:  []uint64{1, 2, 3, 4, 5},
		Buckets: []float64{math.Inf(-1), 1e-9, 1e-3, 2e-3, 8, math.Inf(1)},
	})
	require.EqualValues(t, 15, count)
	require.Equal(t, map[float64]uint64{1e-3: 3, 2e-3: 6}, buckets)
	require.InDelta(t, 2e-9+3e-3+4*2e-3+5*8, sum, 1e-9)
}

// TestRuntimeMetrics: after a collection there is a pause, and what it took of the processors.
func TestRuntimeMetrics(t *testing.T) {
	runtime.GC()
	s := New(Config{Backend: newMemory()})
	found, err := s.registry.Gather()
	require.NoError(t, err)
	names := map[string]bool{}
	for _, family := range found {
		names[family.GetName()] = true
		if family.GetName() != "kvd_gc_pause_seconds" {
			continue
		}
		h := family.GetMetric()[0].GetHistogram()
		require.Positive(t, h.GetSampleCount())
		fine := 0
		for _, b := range h.GetBucket() {
			if b.GetUpperBound() > 0.5e-3 && b.GetUpperBound() <= 2e-3 {
				fine++
			}
		}
		require.GreaterOrEqual(t, fine, 8, "what lies around a millisecond is told apart")
	}
	for _, want := range []string{
		"kvd_gc_pause_seconds", "kvd_sched_latency_seconds", "go_cpu_classes_gc_total_cpu_seconds_total", "go_cpu_classes_gc_mark_idle_cpu_seconds_total",
		"process_cpu_seconds_total",
	} {
		require.True(t, names[want], want)
	}
}
