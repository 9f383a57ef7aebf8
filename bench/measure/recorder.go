package measure

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// latencyMin and latencyMax bound what a histogram tells apart, in nanoseconds; what is outside counts as the bound.
	latencyMin, latencyMax = 1000, int64(2 * time.Minute)
	// digits are the significant ones of a latency.
	digits = 3
	// lanesMax is how many workers at a time can note something without waiting for each other.
	lanesMax = 16
	// shownMax bounds the texts of errors that are kept.
	shownMax = 10
)

// Error kinds. What was not done may be repeated, what is unknown may have been done.
const (
	NotDone = "not done"
	Unknown = "unknown"
	Other   = "other"
)

// NewHistogram makes an empty histogram of latencies in nanoseconds.
func NewHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(latencyMin, latencyMax, digits) }

// Interval is what was noted between two calls of Take.
type Interval struct {
	// Latencies of what succeeded, by kind of operation.
	Latencies map[string]*hdrhistogram.Histogram
	// Errors by their kind, and some different texts.
	Errors map[string]uint64
	Shown  []string
	// Missed counts reads that found nothing.
	Missed uint64
}

// NewInterval makes an empty one.
func NewInterval() *Interval {
	return &Interval{Latencies: map[string]*hdrhistogram.Histogram{}, Errors: map[string]uint64{}}
}

// Merge adds what another one holds, which is not changed.
func (i *Interval) Merge(o *Interval) {
	for kind, h := range o.Latencies {
		i.of(kind).Merge(h)
	}
	for kind, n := range o.Errors {
		i.Errors[kind] += n
	}
	for _, text := range o.Shown {
		i.show(text)
	}
	i.Missed += o.Missed
}

// show keeps a text that is not kept yet.
func (i *Interval) show(text string) {
	if len(i.Shown) < shownMax && !slices.Contains(i.Shown, text) {
		i.Shown = append(i.Shown, text)
	}
}

// of is the histogram of a kind.
func (i *Interval) of(kind string) *hdrhistogram.Histogram {
	h := i.Latencies[kind]
	if h == nil {
		h = NewHistogram()
		i.Latencies[kind] = h
	}
	return h
}

// All gives the latencies of all kinds together.
func (i *Interval) All() *hdrhistogram.Histogram {
	all := NewHistogram()
	for _, kind := range slices.Sorted(maps.Keys(i.Latencies)) {
		all.Merge(i.Latencies[kind])
	}
	return all
}

// Failed counts the errors.
func (i *Interval) Failed() (n uint64) {
	for _, e := range i.Errors {
		n += e
	}
	return n
}

// Recorder collects from many goroutines.
type Recorder struct {
	lanes [lanesMax]struct {
		mu  sync.Mutex
		now *Interval
		_   [64]byte // Lanes do not share a cache line.
	}
}

// NewRecorder makes an empty one.
func NewRecorder() *Recorder {
	r := &Recorder{}
	for i := range r.lanes {
		r.lanes[i].now = NewInterval()
	}
	return r
}

// Done notes that an operation of a worker succeeded; missed tells that it read what was not there.
func (r *Recorder) Done(worker int, kind string, took time.Duration, missed bool) {
	l := &r.lanes[worker%lanesMax]
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.now.of(kind).RecordValue(min(max(took.Nanoseconds(), latencyMin), latencyMax)) // Within its bounds it is always taken.
	if missed {
		l.now.Missed++
	}
}

// Failed notes that an operation of a worker failed.
func (r *Recorder) Failed(worker int, kind string, err error) {
	l := &r.lanes[worker%lanesMax]
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now.Errors[kind]++
	l.now.show(kind + ": " + err.Error())
}

// Take gives what was noted since it was last called.
func (r *Recorder) Take() *Interval {
	sum := NewInterval()
	for i := range r.lanes {
		l := &r.lanes[i]
		fresh := NewInterval()
		l.mu.Lock()
		old := l.now
		l.now = fresh
		l.mu.Unlock()
		sum.Merge(old)
	}
	return sum
}
