// Package report is what runs of a benchmark are told in: a JSON line for each, tables with medians, spread and ratios, and
// a page with plots.
package report

import (
	"encoding/json"
	"io"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/kvdstore/kvd/bench/measure"
)

// Run is one run: its line in runs.jsonl. Times are in milliseconds unless their name says otherwise.
type Run struct {
	// System is the store with its servers and Case what was compared, as compare names them; Target is the kind of store.
	System  string `json:"system,omitempty"`
	Target  string `json:"target"`
	Servers int    `json:"servers"`
	Case    string `json:"case,omitempty"`
	Round   int    `json:"round,omitempty"`

	Workload  string  `json:"workload"`
	Clients   int     `json:"clients"`
	Depth     int     `json:"depth"`
	Pipelined bool    `json:"pipelined"`
	Rate      float64 `json:"rate,omitempty"`
	Keys      int     `json:"keys"`
	Value     int     `json:"value"`
	// Distribution of the keys that are chosen.
	Distribution string `json:"distribution,omitempty"`
	// Nice is how the kernel favours the servers.
	Nice int    `json:"nice,omitempty"`
	Seed uint64 `json:"seed"`

	Began   time.Time `json:"began"`
	Seconds float64   `json:"seconds"`
	// Done counts operations that succeeded, Missed those of them that read what was not there.
	Done      uint64  `json:"done"`
	Missed    uint64  `json:"missed,omitempty"`
	PerSecond float64 `json:"per_second"`
	// Errors by kind, and some of their texts.
	Errors map[string]uint64 `json:"errors,omitempty"`
	Shown  []string          `json:"shown,omitempty"`
	// Unsent operations of an open loop were due and did not leave before the end.
	Unsent uint64 `json:"unsent,omitempty"`
	// Gap is the longest time in which some caller had no success.
	Gap float64 `json:"gap"`

	Latency  Latency            `json:"latency"`
	ByKind   map[string]Latency `json:"by_kind,omitempty"`
	Timeline []Second           `json:"timeline,omitempty"`

	// Processes are the servers; nothing where nobody named them. What is nil nobody tells.
	Processes      []measure.Process `json:"processes,omitempty"`
	SyncsPerSecond *float64          `json:"syncs_per_second,omitempty"`
	WrittenByPut   *float64          `json:"written_by_put,omitempty"`
	ClientCores    float64           `json:"client_cores"`

	// Standing is how the servers were before the load, and GC what their collectors did during it, where that was looked at.
	Standing *Standing   `json:"standing,omitempty"`
	GC       *measure.GC `json:"gc,omitempty"`
}

// Standing is what servers of kvd take that nobody asks anything, all together.
type Standing struct {
	Shards int `json:"shards"`
	// Start is the time in seconds from the start of the processes, with all data, until every shard had a leader.
	Start float64 `json:"start"`
	// Cores is processor time by time, with so many shards asleep, and Resident the memory, in bytes.
	Cores    float64 `json:"cores"`
	Asleep   int     `json:"asleep"`
	Resident uint64  `json:"resident"`
	// Disk are the bytes of all stores, and Cached the bytes that the caches hold.
	Disk   uint64 `json:"disk"`
	Cached uint64 `json:"cached"`
}

// Latency of some operations, in milliseconds.
type Latency struct {
	Count uint64  `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p99.9"`
	P9999 float64 `json:"p99.99"`
	Max   float64 `json:"max"`
}

// LatencyOf sums up a histogram of nanoseconds.
func LatencyOf(h *hdrhistogram.Histogram) Latency {
	if h.TotalCount() == 0 {
		return Latency{}
	}
	at := func(percent float64) float64 { return float64(h.ValueAtQuantile(percent)) / 1e6 }
	return Latency{
		Count: uint64(h.TotalCount()), Mean: h.Mean() / 1e6, P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), P9999: at(99.99),
		Max: float64(h.Max()) / 1e6,
	}
}

// Second is one of a run.
type Second struct {
	Done   uint64  `json:"done"`
	Failed uint64  `json:"failed,omitempty"`
	P50    float64 `json:"p50"`
	P99    float64 `json:"p99"`
	Max    float64 `json:"max"`
}

// SecondOf sums up an interval of a second.
func SecondOf(i *measure.Interval) Second {
	l := LatencyOf(i.All())
	return Second{Done: l.Count, Failed: i.Failed(), P50: l.P50, P99: l.P99, Max: l.Max}
}

// Write writes the run as one line.
func (r *Run) Write(w io.Writer) error { return json.NewEncoder(w).Encode(r) }

// Read reads all lines.
func Read(in io.Reader) (list []*Run, err error) {
	for d := json.NewDecoder(in); ; {
		r := &Run{}
		if err := d.Decode(r); err == io.EOF {
			return list, nil
		} else if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
}
