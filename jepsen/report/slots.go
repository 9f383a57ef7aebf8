package report

import (
	"slices"
	"strings"
	"time"
)

// slot is a row of the table that tells what the plots show.
type slot struct {
	From, To           string
	Done, Failed, Info string // A second.
	P50, P99, Max      string
	During             string // Faults and changes.
}

// slotsMax bounds the rows.
const slotsMax = 60

// table cuts the history into equal times.
func (t *timeline) table() []slot {
	width := step(t.end, slotsMax, 250*time.Millisecond)
	n := t.buckets(width)
	counts := make([][hows]int, n)
	latencies := make([][]int64, n)
	for i := range t.calls {
		c := &t.calls[i]
		at := t.bucket(c.to, width)
		counts[at][c.how]++
		if c.how == ok {
			latencies[at] = append(latencies[at], c.to-c.from)
		}
	}
	var rows []slot
	for i := range counts {
		from, to := int64(i)*width, t.until(i, width)
		rate := func(how int) string {
			return decimal(float64(counts[i][how]) * float64(time.Second) / float64(to-from))
		}
		s := slot{From: tick(from), To: tick(to), Done: rate(ok), Failed: rate(failed), Info: rate(unknown), During: t.during(from, to+1)}
		if len(latencies[i]) > 0 {
			p50, p99, longest := quantiles(latencies[i])
			s.P50, s.P99, s.Max = length(p50), length(p99), length(longest)
		}
		rows = append(rows, s)
	}
	return rows
}

// during names what befell the cluster in a time.
func (t *timeline) during(from, to int64) string {
	var names []string
	for i := range t.bands {
		if b := &t.bands[i]; !b.Not && b.From < to && b.To >= from && !slices.Contains(names, b.Name) {
			names = append(names, b.Name)
		}
	}
	return shorten(strings.Join(names, ", "), detailMax)
}
