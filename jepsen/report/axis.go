package report

import (
	"fmt"
	"math"
	"time"
)

// The measures of a panel, in pixels of its own: what is drawn lies between left and left+wide.
const (
	left  = 92
	wide  = 880
	right = 8
	full  = left + wide + right
	above = 18 // Room for labels.
	below = 22 // Room for the time.
)

// x is where a moment lies.
func (t *timeline) x(at int64) float64 {
	return left + wide*float64(min(max(at, 0), t.end))/float64(t.end)
}

// steps of a time axis and of buckets.
var steps = []time.Duration{
	time.Microsecond, 10 * time.Microsecond, 100 * time.Microsecond,
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second,
	30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour,
}

// step is the shortest step that cuts a time into at most so many, and that is not below the least.
func step(end int64, most int, least time.Duration) int64 {
	for _, s := range steps {
		if s >= least && end/int64(s) < int64(most) {
			return int64(s)
		}
	}
	return end/int64(most) + 1
}

// tick labels a moment of the time axis.
func tick(at int64) string {
	d := time.Duration(at)
	switch {
	case d >= time.Hour:
		return fmt.Sprintf("%d:%02d:%02d", int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60)
	case d >= time.Minute:
		return fmt.Sprintf("%d:%02d", int(d.Minutes()), int(d.Seconds())%60)
	case d == 0:
		return "0 s"
	}
	return length(d)
}

// decades gives the powers of ten, in nanoseconds, that hold all latencies: at least two of them.
func decades(least, most int64) (low, high int) {
	low = max(int(math.Floor(math.Log10(float64(max(least, 1))))), 3)
	high = int(math.Ceil(math.Log10(float64(max(most, 1)))))
	return low, max(high, low+1)
}

// ceiling is a round number that is not below x.
func ceiling(x float64) float64 {
	if !(x > 0) || math.IsInf(x, 0) {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(x)))
	for _, m := range []float64{1, 2, 3, 4, 5, 6, 8} {
		if m*unit >= x {
			return m * unit
		}
	}
	return 10 * unit
}
