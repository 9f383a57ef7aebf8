package measure

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// metricsMax bounds how long an answer of /metrics is waited for, metricsBytes how long it may be.
const (
	metricsMax   = 2 * time.Second
	metricsBytes = 8 << 20
)

// Metrics are what a process told at its /metrics at one moment, by name.
type Metrics map[string]*dto.MetricFamily

// Scrape asks for metrics.
func Scrape(ctx context.Context, url string) (Metrics, error) {
	ctx, cancel := context.WithTimeout(ctx, metricsMax)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return parseMetrics(io.LimitReader(resp.Body, metricsBytes))
}

func parseMetrics(in io.Reader) (Metrics, error) {
	p := expfmt.NewTextParser(model.LegacyValidation)
	return p.TextToMetricFamilies(in)
}

// Value is a counter or a gauge without labels. An error says that nobody tells it.
func (m Metrics) Value(name string) (float64, error) {
	for _, x := range m[name].GetMetric() {
		switch {
		case len(x.GetLabel()) > 0:
		case x.Counter != nil:
			return x.Counter.GetValue(), nil
		case x.Gauge != nil:
			return x.Gauge.GetValue(), nil
		case x.Untyped != nil:
			return x.Untyped.GetValue(), nil
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}

// Histogram is one of all those of a name whose label has a value; of all there are with an empty label. It is empty where there
// is none.
func (m Metrics) Histogram(name, label, value string) (b Buckets) {
	for _, x := range m[name].GetMetric() {
		matches := label == "" || slices.ContainsFunc(x.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == label && l.GetValue() == value })
		if h := x.GetHistogram(); h != nil && matches {
			b = b.plus(bucketsOf(h))
		}
	}
	return b
}

// Bucket counts values that lie at or below a bound and above that of the bucket before.
type Bucket struct {
	To float64
	N  uint64
}

// Buckets are a histogram in the order of its bounds; the last is infinite.
type Buckets []Bucket

func bucketsOf(h *dto.Histogram) (b Buckets) {
	last := uint64(0)
	for _, x := range h.GetBucket() {
		if !math.IsInf(x.GetUpperBound(), 1) {
			b = append(b, Bucket{x.GetUpperBound(), x.GetCumulativeCount() - last})
			last = x.GetCumulativeCount()
		}
	}
	return append(b, Bucket{math.Inf(1), h.GetSampleCount() - last})
}

// plus adds a histogram with the same bounds.
func (b Buckets) plus(o Buckets) Buckets {
	if b == nil {
		return slices.Clone(o)
	}
	for i := range min(len(b), len(o)) {
		b[i].N += o[i].N
	}
	return b
}

// Since is what has come since an earlier look; all of it if there was nothing then.
func (b Buckets) Since(earlier Buckets) Buckets {
	b = slices.Clone(b)
	for i := range min(len(b), len(earlier)) {
		b[i].N -= earlier[i].N
	}
	return b
}

// Count is how many values there are.
func (b Buckets) Count() (n uint64) {
	for _, x := range b {
		n += x.N
	}
	return n
}

// Over counts the values above a bound, for one that is a bucket's; else also those of the bucket that it lies in.
func (b Buckets) Over(bound float64) (n uint64) {
	for _, x := range b {
		if x.To > bound {
			n += x.N
		}
	}
	return n
}

// Quantile is a bound that so large a share of the values does not exceed, from 0 to 1: that of a bucket, so the value itself
// lies between it and the one before. With 1 it bounds the largest. It is 0 without values, and infinite where only that is known.
func (b Buckets) Quantile(share float64) float64 {
	wanted, n := uint64(math.Ceil(share*float64(b.Count()))), uint64(0)
	for _, x := range b {
		if n += x.N; x.N > 0 && n >= wanted {
			return x.To
		}
	}
	return 0
}
