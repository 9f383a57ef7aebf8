package server

import (
	"math"
	"regexp"
	"runtime/metrics"

	"github.com/prometheus/client_golang/prometheus"
)

// What the Go runtime tells of waiting. Prometheus' own collector has these histograms in powers of ten, which do not say by
// how much a pause missed a millisecond; here each power of two has the runtime's four buckets.

const (
	// pauseMetric has the times for which a collection stopped the world, from the decision until everything ran again, and
	// latencyMetric those that a goroutine was ready to run and did not.
	pauseMetric   = "/sched/pauses/total/gc:seconds"
	latencyMetric = "/sched/latencies:seconds"
	// waitLeast and waitMost bound what is told apart, in seconds.
	waitLeast, waitMost = 1e-6, 4
)

// gcCPU matches the processor time that collections took, by its kind.
var gcCPU = regexp.MustCompile(`^/cpu/classes/gc/.*`)

var (
	gcPauses     = prometheus.NewDesc("kvd_gc_pause_seconds", "Times for which a garbage collection stopped everything.", nil, nil)
	schedLatency = prometheus.NewDesc("kvd_sched_latency_seconds", "Times that goroutines waited for a processor.", nil, nil)
)

// runtimeCollector gives the runtime's histograms to Prometheus.
type runtimeCollector struct{}

// Describe says nothing: the collector is unchecked.
func (runtimeCollector) Describe(chan<- *prometheus.Desc) {}

// Collect reads the histograms. None stops the world.
func (runtimeCollector) Collect(out chan<- prometheus.Metric) {
	samples := []metrics.Sample{{Name: pauseMetric}, {Name: latencyMetric}}
	metrics.Read(samples)
	for i, desc := range []*prometheus.Desc{gcPauses, schedLatency} {
		if v := samples[i].Value; v.Kind() == metrics.KindFloat64Histogram {
			count, sum, buckets := cumulative(v.Float64Histogram())
			out <- prometheus.MustNewConstHistogram(desc, count, sum, buckets)
		}
	}
}

// cumulative makes a histogram of Prometheus of one of the runtime: how many values lie at or below each upper bound, within
// waitLeast and waitMost; what is above counts in the whole alone. The sum is that of the buckets' lower bounds: the runtime
// keeps none.
func cumulative(h *metrics.Float64Histogram) (count uint64, sum float64, buckets map[float64]uint64) {
	buckets = map[float64]uint64{}
	for i, n := range h.Counts {
		count += n
		sum += float64(n) * max(h.Buckets[i], 0)
		if to := h.Buckets[i+1]; to >= waitLeast && to <= waitMost && !math.IsInf(to, 1) {
			buckets[to] = count
		}
	}
	return count, sum, buckets
}
