package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/jepsen/workload"
)

// script makes histories; times in it are in milliseconds.
type script struct {
	t      testing.TB
	events []check.Event
}

func (s *script) add(ms float64, e check.Event, value any) {
	text, err := json.Marshal(value)
	require.NoError(s.t, err)
	e.Index, e.Time, e.Value = len(s.events), int64(ms*1e6), text
	s.events = append(s.events, e)
}

func (s *script) nemesis(ms float64, f, node, phase string) {
	s.add(ms, check.Event{Process: check.Nemesis, Type: check.Info, F: f, Node: node}, map[string]string{"phase": phase})
}

// operation is due at its call.
func (s *script) operation(from, to float64, process int, how check.EventType, key string) {
	s.add(from, check.Event{Process: process, Type: check.Invoked, F: "put"}, check.Asked{Intent: check.Intent{Due: int64(from * 1e6)}, Key: key, Value: "v"})
	s.add(to, check.Event{Process: process, Type: how, F: "put"}, nil)
}

// element is one of a page.
type element struct {
	name     string
	attrs    map[string]string
	text     string
	children []*element
}

func (e *element) all(match func(*element) bool) (list []*element) {
	if match(e) {
		list = append(list, e)
	}
	for _, c := range e.children {
		list = append(list, c.all(match)...)
	}
	return list
}

func named(name, class string) func(*element) bool {
	return func(e *element) bool {
		return e.name == name && (class == "" || slices.Contains(strings.Fields(e.attrs["class"]), class))
	}
}

func withID(id string) func(*element) bool {
	return func(e *element) bool { return e.attrs["id"] == id }
}

// deepText is all that is written in an element.
func (e *element) deepText() string {
	text := e.text
	for _, c := range e.children {
		text += " " + c.deepText()
	}
	return text
}

// parse reads a page, which is to be well-formed XML too.
func parse(t testing.TB, text string) *element {
	d := xml.NewDecoder(strings.NewReader(text))
	d.Entity = xml.HTMLEntity
	root := &element{}
	open := []*element{root}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			require.Len(t, open, 1)
			return root
		}
		require.NoError(t, err)
		top := open[len(open)-1]
		switch token := token.(type) {
		case xml.StartElement:
			e := &element{name: token.Name.Local, attrs: map[string]string{}}
			for _, a := range token.Attr {
				e.attrs[a.Name.Local] = a.Value
			}
			top.children = append(top.children, e)
			open = append(open, e)
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			top.text += string(token)
		}
	}
}

func pageOf(t testing.TB, r Run) *element {
	var b bytes.Buffer
	require.NoError(t, Write(&b, r))
	return parse(t, b.String())
}

func (e *element) one(t testing.TB, match func(*element) bool) *element {
	list := e.all(match)
	require.Len(t, list, 1)
	return list[0]
}

// plot finds a panel by its name.
func (e *element) plot(t testing.TB, id string) *element {
	return e.one(t, func(x *element) bool {
		return x.name == "svg" && strings.HasPrefix(x.attrs["aria-labelledby"], id+"-title ")
	})
}

// TestFaultsAreShaded: each that lasts is a band in every plot and in its lane, with its name; a moment is a mark.
func TestFaultsAreShaded(t *testing.T) {
	s := &script{t: t}
	s.operation(1, 2, 0, check.OK, "k")
	s.nemesis(1000, "kill", "n1", "begin")
	s.nemesis(1500, "kill", "n2", "begin")
	s.nemesis(2000, "kill", "n2", "end")
	s.nemesis(3000, "split", "", "once")
	s.nemesis(4000, "kill", "", "end") // The one that is left.
	s.nemesis(5000, "pause", "n3", "begin")
	s.nemesis(6000, "drain", "n4", "begin") // No fault, though it lasts.
	s.nemesis(7000, "drain", "n4", "end")
	s.operation(9000, 10000, 0, check.OK, "k")
	root := pageOf(t, Run{Title: "x", Events: s.events})

	for _, id := range []string{"latency", "throughput", "errors"} {
		require.Len(t, root.plot(t, id).all(named("rect", "shade")), 3, id)
	}
	lanes := root.plot(t, "faults")
	var tips []string
	for _, b := range lanes.all(named("rect", "band")) {
		tips = append(tips, b.children[0].text)
	}
	require.Equal(t, []string{"kill n1, 1.000 s to 4.000 s", "kill n2, 1.500 s to 2.000 s", "pause n3, 5.000 s to never"}, tips)
	done := lanes.all(named("rect", "change"))
	require.Len(t, done, 2)
	require.Equal(t, "split, at 3.000 s", done[0].children[0].text)
	require.Equal(t, "drain n4, 6.000 s to 7.000 s", done[1].children[0].text)
	require.Contains(t, lanes.deepText(), "kill")
	require.Contains(t, lanes.deepText(), "split")
	var labels []string
	for _, x := range root.plot(t, "latency").all(named("text", "small")) {
		labels = append(labels, x.text)
	}
	require.Equal(t, []string{"kill", "kill", "pause"}, labels)
	require.Contains(t, root.one(t, withID("bands")).deepText(), "never")

	// Half of the axis is half of the plot.
	band := lanes.all(named("rect", "band"))[2]
	require.Equal(t, fmt.Sprintf("%.1f", left+wide/2.0), band.attrs["x"])
	require.Equal(t, fmt.Sprintf("%.1f", wide/2.0), band.attrs["width"])
}

// TestPointsByType: each way to end has a sign of its own.
func TestPointsByType(t *testing.T) {
	s := &script{t: t}
	s.operation(10, 11, 0, check.OK, "k")
	s.operation(20, 21, 0, check.Failed, "k")
	s.operation(500, 501, 0, check.Failed, "k")
	s.operation(600, 700, 1, check.Info, "k")
	s.operation(900, 1000, 0, check.Info, "k")
	root := pageOf(t, Run{Title: "x", Events: s.events})
	latency := root.plot(t, "latency")
	require.Equal(t, 1, strings.Count(latency.one(t, named("path", "few")).attrs["d"], "M"))
	require.Equal(t, 2, strings.Count(latency.one(t, named("path", "fail")).attrs["d"], "M"))
	require.Equal(t, 2, strings.Count(latency.one(t, named("path", "info")).attrs["d"], "M"))
	require.Contains(t, latency.deepText(), "10 ms")
	require.Len(t, root.plot(t, "throughput").all(named("path", "ok")), 2) // An area and its edge.
	require.Len(t, root.plot(t, "errors").all(named("path", "fail")), 2)
	require.Len(t, root.plot(t, "errors").all(named("path", "info")), 2)
}

// TestWhoCannotSee has the plots' names, what they show, and the figures in tables.
func TestWhoCannotSee(t *testing.T) {
	s := &script{t: t}
	for i := range 20 {
		s.operation(float64(i)*100, float64(i)*100+float64(i%10+1), 0, check.OK, "k")
	}
	s.nemesis(2000, "split", "", "once")
	root := pageOf(t, Run{Title: "x", Events: s.events, Verdict: workload.Verdict{Series: map[string][]workload.Point{"age_ms": {{At: 1e9, Value: 3}}}}})
	plots := root.all(named("svg", ""))
	require.Len(t, plots, 5)
	for _, p := range plots {
		require.Equal(t, "img", p.attrs["role"])
		for id := range strings.FieldsSeq(p.attrs["aria-labelledby"]) {
			require.NotEmpty(t, root.one(t, withID(id)).text)
		}
	}
	rows := root.one(t, withID("slots")).all(named("tr", ""))
	require.Len(t, rows, 9) // Its head, and 2 s in steps of 250 ms.
	require.Equal(t, "12", rows[1].children[2].text)
	require.Equal(t, "8", rows[8].children[2].text)
	require.Contains(t, rows[8].deepText(), "split")
}

// TestHostileTextIsText: whatever keys, values, errors and names hold, nothing of it becomes a part of the page.
func TestHostileTextIsText(t *testing.T) {
	const hostile = `</title></svg><script>alert("1")</script><img src=x onerror='a' />&amp; ]]>`
	s := &script{t: t}
	s.nemesis(0, hostile, hostile, "begin")
	s.add(1, check.Event{Process: 0, Type: check.Invoked, F: hostile}, check.Asked{Key: hostile, Value: hostile})
	s.add(2, check.Event{Process: 0, Type: check.Info, F: hostile, Error: hostile}, nil)
	o := check.Operation{Kind: check.Put, Key: hostile, Value: hostile, Call: 1e6, Return: 2e6, Outcome: check.Done}
	root := pageOf(t, Run{
		Title: hostile, Faults: []string{hostile}, Command: hostile, Commit: hostile, Events: s.events, Reasons: []string{hostile},
		Links: []Link{{hostile, "javascript:alert(1)"}, {"key", "key.html"}},
		Verdict: workload.Verdict{
			Workload: hostile, Note: hostile, Figures: map[string]float64{hostile: 1}, Series: map[string][]workload.Point{hostile: {{At: 1, Value: 2}}},
			Violations: []check.Violation{{Rule: hostile, Key: hostile, Text: hostile, Operations: []check.Operation{o}}},
		},
	})
	require.Empty(t, root.all(named("script", "")))
	require.Empty(t, root.all(named("img", "")))
	require.Empty(t, root.all(func(e *element) bool { return e.attrs["onerror"] != "" }))
	require.Equal(t, hostile, root.one(t, named("h1", "")).text)
	require.Equal(t, hostile, root.one(t, withID("command")).text)
	var links []string
	for _, a := range root.all(named("a", "")) {
		links = append(links, a.attrs["href"])
	}
	require.Len(t, links, 2)
	require.NotContains(t, links[0], "javascript")
	require.Equal(t, "key.html", links[1])
	require.Contains(t, root.one(t, withID("violation-0")).deepText(), `<script>`)
}

// TestNothingFromElsewhere: the page loads nothing.
func TestNothingFromElsewhere(t *testing.T) {
	for _, bad := range []string{"http:", "https:", "@import", "url(", "src=", "<link", "<script"} {
		require.NotContains(t, pageText, bad)
	}
}

// TestVerdictComesFirst: whether the run passed is told before anything else, and why it did not.
func TestVerdictComesFirst(t *testing.T) {
	for _, c := range []struct {
		run   Run
		want  string
		title string
	}{
		{Run{Verdict: workload.Verdict{Valid: true}}, "Passed.", "passed: "},
		{Run{Verdict: workload.Verdict{Valid: true}, Reasons: []string{"under 100 a second"}}, "under 100 a second", "not passed: "},
		{Run{Verdict: workload.Verdict{Violations: []check.Violation{{Rule: check.LostWrite, Text: "gone"}}}}, "Invalid.", "INVALID: "},
	} {
		root := pageOf(t, c.run)
		require.Contains(t, root.one(t, withID("verdict")).deepText(), c.want)
		require.True(t, strings.HasPrefix(root.one(t, named("head", "")).one(t, named("title", "")).text, c.title))
		require.Equal(t, c.title != "passed: ", len(root.all(named("div", "bad"))) == 1)
	}
}

// TestViolationsComeWithTheirOperations: those that show it, those around it on the same key, and what befell the cluster.
func TestViolationsComeWithTheirOperations(t *testing.T) {
	s := &script{t: t}
	for i := range 100 {
		s.operation(float64(i*10), float64(i*10+5), 0, check.OK, "a")
		s.operation(float64(i*10+6), float64(i*10+7), 0, check.OK, "b")
		if i == 49 {
			s.nemesis(499, "kill", "n1", "begin")
		}
	}
	bad := check.Operation{Process: 0, Kind: check.Get, Key: "a", Found: true, Observed: "old", Revision: 3, Call: 500e6, Return: 505e6, Outcome: check.Done}
	list := []check.Violation{{Rule: check.RevisionWentBack, Key: "a", Text: "it went back", Operations: []check.Operation{bad}}}
	for range violationsListed + 6 {
		list = append(list, check.Violation{Rule: check.LostWrite, Text: "another"})
	}
	root := pageOf(t, Run{Events: s.events, Verdict: workload.Verdict{Violations: list}})
	require.Len(t, root.all(named("section", "violation")), violationsListed)
	require.Contains(t, root.deepText(), "And 7 more.")
	v := root.one(t, withID("violation-0"))
	require.Contains(t, v.deepText(), "it went back")
	require.Contains(t, v.deepText(), "During: kill")
	rows := v.all(named("tr", "ok"))
	require.Len(t, rows, 1+operationsListed)
	require.Contains(t, rows[0].deepText(), `get a`)
	require.NotContains(t, v.deepText(), `"key":"b"`)
	for _, row := range rows[1:] { // Those nearest to it.
		var at float64
		_, err := fmt.Sscanf(row.children[0].text, "%f s", &at)
		require.NoError(t, err)
		require.InDelta(t, 0.5, at, 0.22)
	}
	wrong := root.plot(t, "latency").all(named("path", "wrong"))
	require.Len(t, wrong, 1)
	require.True(t, strings.HasPrefix(wrong[0].attrs["d"], fmt.Sprintf("M%.1f ", left+wide*500.0/997)))
}

func TestMeasure(t *testing.T) {
	s := &script{t: t}
	s.add(0, check.Event{Process: 9, Type: check.Invoked, F: "put"}, check.Asked{Key: "setup"}) // Before the pace begins.
	s.add(500, check.Event{Process: 9, Type: check.OK, F: "put"}, nil)
	for i := range 10 {
		s.operation(1000+float64(i)*100, 1000+float64(i)*100+float64(i+1), 0, check.OK, "k")
	}
	s.nemesis(2000, "kill", "n1", "begin")
	s.nemesis(2100, "split", "", "once")
	s.operation(2500, 2600, 0, check.Failed, "k")
	s.operation(2700, 2701, 1, check.Info, "k")
	s.nemesis(4000, "kill", "n1", "end")
	for i := range 10 {
		s.operation(4500+float64(i)*50, 4500+float64(i)*50+20, 0, check.OK, "k")
	}
	s.operation(5000, 5020, 0, check.OK, "k")
	f, err := Measure(s.events)
	require.NoError(t, err)
	require.InDelta(t, 5.0, f.Rate, 0.01) // 20 in 4 s; the last ends after the pace.
	require.InDelta(t, 10.0, f.QuietRate, 0.01)
	f.Rate, f.QuietRate = 0, 0
	require.Equal(t, Figures{
		Operations: 24, OK: 22, Failed: 1, Unknown: 1, Length: 4 * time.Second, P50: 20 * time.Millisecond, P99: 500 * time.Millisecond,
		Max: 500 * time.Millisecond, Outage: 4520*time.Millisecond - 1910*time.Millisecond, Faults: 1, Changes: 1,
	}, f)
}

// TestAChangeCountsOnce: asked for by an operator and told by the cluster, later than it was made. What could not be counts
// for nothing, and is listed.
func TestAChangeCountsOnce(t *testing.T) {
	s := &script{t: t}
	s.nemesis(1000, "split", "", "begin")
	s.nemesis(2000, "split", "", "end")
	tell := func(ms float64, name string, at any) {
		s.add(ms, check.Event{Process: check.Nemesis, Type: check.Info, F: name}, map[string]any{"phase": "once", "by": "cluster", "at": at})
	}
	tell(3000, "split", 1500e6)
	tell(3000, "merge", 9000e6) // Its clock is ahead.
	tell(3000, "merge", "never")
	s.add(3500, check.Event{Process: check.Nemesis, Type: check.Info, F: "kill"}, map[string]any{"phase": "once", "not injected": "no node is alive"})
	s.operation(4000, 4100, 0, check.OK, "k")
	f, err := Measure(s.events)
	require.NoError(t, err)
	require.Equal(t, 0, f.Faults)
	require.Equal(t, 3, f.Changes)
	root := pageOf(t, Run{Events: s.events})
	var tips []string
	for _, b := range root.plot(t, "faults").all(named("rect", "change")) {
		tips = append(tips, b.children[0].text)
	}
	require.Equal(t, []string{"split, 1.000 s to 2.000 s", "split, at 1.500 s", "merge, at 3.000 s"}, tips)
	require.NotContains(t, root.plot(t, "faults").deepText(), "kill")
	require.Contains(t, root.one(t, withID("bands")).deepText(), "no node is alive")
}

// TestSeriesWithOutliers: what lies near 0 is seen beside them.
func TestSeriesWithOutliers(t *testing.T) {
	s := &script{t: t}
	s.operation(1, 1000, 0, check.OK, "k")
	heights := func(values ...float64) (rows int) {
		var points []workload.Point
		for i, v := range values {
			points = append(points, workload.Point{At: int64(i) * 1e8, Value: v})
		}
		root := pageOf(t, Run{Events: s.events, Verdict: workload.Verdict{Series: map[string][]workload.Point{"age": points}}})
		seen := map[string]bool{}
		for _, p := range root.plot(t, "series-age").all(named("path", "ok")) {
			for point := range strings.SplitSeq(strings.TrimPrefix(p.attrs["d"], "M"), "M") {
				if _, y, some := strings.Cut(point, " "); some {
					seen[y] = true
				}
			}
		}
		return len(seen)
	}
	require.Equal(t, 3, heights(1, 2, 3))
	require.Equal(t, 4, heights(0.5, 2, 8, 5000))
	require.Equal(t, 2, heights(0, 5000))
	require.Equal(t, 1, heights(0, 0))
	require.Equal(t, 1, heights(-1, math.NaN()))
}

// TestLatencyCountsFromWhenItWasDue: clients that a slow cluster keeps waiting do not make it look fast.
func TestLatencyCountsFromWhenItWasDue(t *testing.T) {
	s := &script{t: t}
	s.add(100, check.Event{Type: check.Invoked, F: "get"}, check.Asked{Intent: check.Intent{Due: 40e6}})
	s.add(101, check.Event{Type: check.OK, F: "get"}, nil)
	f, err := Measure(s.events)
	require.NoError(t, err)
	require.Equal(t, 61*time.Millisecond, f.Max)
}

func TestAHistoryThatNobodyRecordedIsRefused(t *testing.T) {
	events := []check.Event{{Type: check.OK, F: "get"}}
	require.Error(t, Write(io.Discard, Run{Events: events}))
	_, err := Measure(events)
	require.Error(t, err)
}

// TestEmptyHistory: there is a page also of a run that came to nothing.
func TestEmptyHistory(t *testing.T) {
	require.Contains(t, pageOf(t, Run{Reasons: []string{"no cluster"}}).deepText(), "no cluster")
}

// TestAMillionEventsFitOnAPage: however long a run is, its page can be opened.
func TestAMillionEventsFitOnAPage(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	value, moment := json.RawMessage(`{"due":1,"key":"k"}`), json.RawMessage(`{"phase":"once"}`)
	events := make([]check.Event, 0, 1_000_000)
	begin, end := json.RawMessage(`{"phase":"begin"}`), json.RawMessage(`{"phase":"end"}`)
	for len(events) < 1_000_000 {
		at := int64(len(events)) * 60_000
		took := int64(100_000 * r.ExpFloat64() * float64(1+r.IntN(5000)))
		how := []check.EventType{check.OK, check.OK, check.OK, check.Failed, check.Info}[r.IntN(5)]
		n := len(events)
		events = append(events,
			check.Event{Index: n, Process: n, Type: check.Invoked, F: "put", Value: value, Time: at + took},
			check.Event{Index: n + 1, Process: n, Type: how, F: "put", Time: at + took})
		if n%100 == 0 {
			events = append(events,
				check.Event{Index: n + 2, Process: check.Nemesis, Type: check.Info, F: "split", Value: moment, Time: at},
				check.Event{Index: n + 3, Process: check.Nemesis, Type: check.Info, F: fmt.Sprint("fault", r.IntN(40)), Value: begin, Time: at},
				check.Event{Index: n + 4, Process: check.Nemesis, Type: check.Info, F: "other", Value: end, Time: at})
		}
	}
	var points []workload.Point
	for range 100_000 {
		points = append(points, workload.Point{At: r.Int64N(60e9), Value: r.Float64()})
	}
	bad := check.Violation{Rule: check.LostWrite, Key: strings.Repeat("k", 4096), Text: strings.Repeat("t", 1<<20)}
	for range 1000 {
		bad.Operations = append(bad.Operations, check.Operation{Kind: check.Put, Key: bad.Key, Value: strings.Repeat("v", 1<<16), Outcome: check.Unknown})
	}
	var b bytes.Buffer
	require.NoError(t, Write(&b, Run{Events: events, Verdict: workload.Verdict{
		Violations: slices.Repeat([]check.Violation{bad}, 1000), Series: map[string][]workload.Point{"age": points},
	}}))
	t.Logf("%d bytes", b.Len())
	require.Less(t, b.Len(), 8<<20)
}
