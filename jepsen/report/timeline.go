package report

import (
	"cmp"
	"encoding/json"
	"slices"

	"github.com/kvdstore/kvd/check"
)

// timeline is a history in the order of time. All times are in nanoseconds since the run began.
type timeline struct {
	calls []call
	bands []band // Faults and changes, by their beginnings.
	// from and to hold what a workload did at its pace: neither what it wrote before nor what it read back.
	from, to int64
	end      int64 // Of everything; at least 1.
}

// call is an operation of a client; to is the end of the history if it never ended.
type call struct {
	check.Call
	from, to int64
	how      int // ok, failed or unknown.
}

// How calls end, best first.
const (
	ok = iota
	failed
	unknown
	hows
)

func newTimeline(events []check.Event) (*timeline, error) {
	calls, err := check.Calls(events)
	if err != nil {
		return nil, err
	}
	t := &timeline{end: 1}
	for i := range events {
		t.end = max(t.end, events[i].Time)
	}
	t.from, t.to = t.end, 0
	for i := range calls {
		c := call{Call: calls[i], from: calls[i].Began(), to: t.end, how: unknown}
		if c.Done != nil {
			c.to = c.Done.Time
		}
		switch c.Type() {
		case check.OK:
			c.how = ok
		case check.Failed:
			c.how = failed
		}
		if paced(&c.Call) {
			t.from, t.to = min(t.from, c.from), max(t.to, c.Invoke.Time)
		}
		t.calls = append(t.calls, c)
	}
	if t.from >= t.to {
		t.from, t.to = 0, t.end
	}
	t.bands = bandsOf(events, t.end)
	return t, nil
}

// paced tells whether the operation had a moment at which it was meant to begin.
func paced(c *check.Call) bool {
	var i check.Intent
	return json.Unmarshal(c.Invoke.Value, &i) == nil && i.Due > 0
}

// band is a fault or a change: for a while, or at a moment, then it ends as it begins.
type band struct {
	Name, Node string
	From, To   int64
	// Moment tells that it had no length, Open that the history has no end of it, Not that it was due and could not be.
	Moment, Open, Not bool
	// Detail is what was recorded with its beginning, in JSON.
	Detail string
}

// detailMax bounds Detail, in bytes.
const detailMax = 300

// changes are the names of what operators and the plan do to a cluster; every other is a fault.
var changes = []string{"split", "merge", "move", "repair", "transfer", "drain", "undrain", "join", "remove", "replace"}

// change tells a change from a fault.
func (b *band) change() bool { return slices.Contains(changes, b.Name) }

// Begin and End tell the times.
func (b band) Begin() string { return seconds(b.From) }

// End is empty for a moment.
func (b band) End() string {
	switch {
	case b.Moment:
		return ""
	case b.Open:
		return "never"
	}
	return seconds(b.To)
}

// details are the parts of a nemesis' value that matter here.
type details struct {
	Phase string `json:"phase"`
	// Not is why a fault could not be.
	Not string `json:"not injected"`
	// By is "cluster" for what the cluster has told of itself, some time after At.
	By string          `json:"by"`
	At json.RawMessage `json:"at"`
}

// moment is when something happened that was recorded at a time.
func (d *details) moment(recorded int64) int64 {
	var at int64
	if d.By != "cluster" || json.Unmarshal(d.At, &at) != nil {
		return recorded
	}
	return min(max(at, 0), recorded) // A cluster's clock may be wrong.
}

// bandsOf pairs the nemesis' beginnings and ends: by name and node, and what has no such pair with the oldest of that name.
func bandsOf(events []check.Event, end int64) []band {
	var bands []band
	open := map[string][]int{} // By name, oldest first.
	for i := range events {
		e := &events[i]
		if e.Process != check.Nemesis {
			continue
		}
		var v details
		_ = json.Unmarshal(e.Value, &v) // What has no phase is a moment.
		at := v.moment(e.Time)
		b := band{Name: e.F, Node: e.Node, From: at, To: at, Moment: true, Not: v.Not != "", Detail: shorten(string(e.Value), detailMax)}
		switch v.Phase {
		case "begin":
			b.Moment, b.Open, b.To = false, true, end
			open[e.F] = append(open[e.F], len(bands))
		case "end":
			if list := open[e.F]; len(list) > 0 {
				at := max(slices.IndexFunc(list, func(i int) bool { return bands[i].Node == e.Node }), 0)
				bands[list[at]].To, bands[list[at]].Open = e.Time, false
				open[e.F] = slices.Delete(list, at, at+1)
				continue
			}
		}
		bands = append(bands, b)
	}
	slices.SortStableFunc(bands, func(a, b band) int { return cmp.Compare(a.From, b.From) })
	return bands
}

// lasting gives the bands that have a length.
func (t *timeline) lasting() []band {
	return slices.DeleteFunc(slices.Clone(t.bands), func(b band) bool { return b.Moment })
}

// shorten cuts a text to so many bytes, at a character.
func shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && text[most]&0xC0 == 0x80 {
		most--
	}
	return text[:most] + "…"
}
