package measure

import (
	"context"
	"errors"
	"math"
)

// The metrics of kvd that tell of Go's collector, and of what it may delay.
const (
	gcCPUMetric   = "go_cpu_classes_gc_total_cpu_seconds_total"
	gcIdleMetric  = "go_cpu_classes_gc_mark_idle_cpu_seconds_total"
	cpuMetric     = "process_cpu_seconds_total"
	pausesMetric  = "kvd_gc_pause_seconds"
	waitsMetric   = "kvd_sched_latency_seconds"
	callsMetric   = "kvd_call_seconds"
	getMethod     = "/kvd.v1.KV/Get"
	putMethod     = "/kvd.v1.KV/Put"
	pauseTooLong  = 1048576e-9 // The bound of a bucket, in seconds: a millisecond.
	beyondBuckets = 1e6
)

// GC is what the collectors of some servers of kvd did in a time. Its times are in milliseconds and the bounds of buckets: of
// pauses and waits at most a quarter above the true value, of calls at most twice; a million where a histogram ends below.
type GC struct {
	// Share is that of the servers' processor time, Idle that part of it for which there was nothing else to do.
	Share float64 `json:"share"`
	Idle  float64 `json:"idle"`
	// Pauses are the times in which nothing ran (two a collection), and LongPauses those over a millisecond (1.049 ms).
	Pauses     uint64  `json:"pauses"`
	LongPauses uint64  `json:"long_pauses"`
	PauseP50   float64 `json:"pause_p50"`
	PauseP999  float64 `json:"pause_p99.9"`
	PauseMost  float64 `json:"pause_most"`
	// WaitP999 is how long goroutines waited for a processor.
	WaitP999 float64 `json:"wait_p99.9"`
	// GetP999 and PutP999 are of the servers' own times for unary calls.
	GetP999 float64 `json:"get_p99.9"`
	PutP999 float64 `json:"put_p99.9"`
}

// GCWatch follows the collectors of some servers from a moment on.
type GCWatch struct {
	urls   []string
	before []Metrics
}

// NewGCWatch begins to follow the servers with the /metrics at some URLs.
func NewGCWatch(ctx context.Context, urls []string) (w *GCWatch, err error) {
	w = &GCWatch{urls: urls}
	w.before, err = scrapeAll(ctx, urls)
	return w, err
}

// End gives what the collectors have done since.
func (w *GCWatch) End(ctx context.Context) (*GC, error) {
	after, err := scrapeAll(ctx, w.urls)
	if err != nil {
		return nil, err
	}
	return gcOf(w.before, after)
}

func scrapeAll(ctx context.Context, urls []string) (list []Metrics, err error) {
	for _, url := range urls {
		m, err := Scrape(ctx, url)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// gcOf compares what servers told before and after.
func gcOf(before, after []Metrics) (*GC, error) {
	var errs []error
	grown := func(name string) (sum float64) {
		for i := range after {
			from, err := before[i].Value(name)
			to, more := after[i].Value(name)
			sum, errs = sum+to-from, append(errs, err, more)
		}
		return sum
	}
	come := func(name, label, value string) (b Buckets) {
		for i := range after {
			b = b.plus(after[i].Histogram(name, label, value).Since(before[i].Histogram(name, label, value)))
		}
		return b
	}
	g := &GC{}
	if cpu := grown(cpuMetric); cpu > 0 {
		g.Share, g.Idle = grown(gcCPUMetric)/cpu, grown(gcIdleMetric)/cpu
	}
	pauses := come(pausesMetric, "", "")
	g.Pauses, g.LongPauses = pauses.Count(), pauses.Over(pauseTooLong)
	g.PauseP50, g.PauseP999, g.PauseMost = milliseconds(pauses.Quantile(0.5)), milliseconds(pauses.Quantile(0.999)), milliseconds(pauses.Quantile(1))
	g.WaitP999 = milliseconds(come(waitsMetric, "", "").Quantile(0.999))
	g.GetP999 = milliseconds(come(callsMetric, "method", getMethod).Quantile(0.999))
	g.PutP999 = milliseconds(come(callsMetric, "method", putMethod).Quantile(0.999))
	return g, errors.Join(errs...)
}

func milliseconds(seconds float64) float64 {
	if math.IsInf(seconds, 1) {
		return beyondBuckets
	}
	return seconds * 1000
}
