package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/bench/measure"
)

func runOf(name, system string, round int, rate, p50 float64) *Run {
	return &Run{
		System: system, Case: name, Round: round, Target: "kvd", Workload: "get", Clients: 64, Keys: 10, Value: 128, PerSecond: rate,
		Latency: Latency{P50: p50, P90: 2 * p50, P99: 4 * p50, P999: 8 * p50, P9999: 16 * p50}, Gap: p50,
		Timeline: []Second{{Done: 10}, {Done: 20}, {Done: 15}},
	}
}

// drift is a machine that is twice as fast in the second round.
func drift() []*Run {
	return []*Run{
		runOf("get", "kvd-3", 1, 300, 1), runOf("get", "etcd-3", 1, 100, 2), runOf("get", "echo-3", 1, 400, 0.5),
		runOf("get", "kvd-3", 2, 600, 1), runOf("get", "etcd-3", 2, 200, 4), runOf("get", "echo-3", 2, 600, 0.5),
		runOf("get", "kvd-3", 3, 330, 1), runOf("get", "etcd-3", 3, 110, 4),
		runOf("put", "kvd-3", 1, 50, 1),
	}
}

// TestRatios: they are of runs in the same round, so that drift is none of their business.
func TestRatios(t *testing.T) {
	list := Ratios(Groups(drift()), PerSecond)
	require.Len(t, list, 2)
	require.Equal(t, Compared{"get", "kvd-3", "etcd-3", Spread{3, 3, 3}}, list[0])
	require.Equal(t, Compared{"get", "kvd-3", "echo-3", Spread{0.875, 0.75, 1}}, list[1])
	require.Equal(t, Spread{0.25, 0.25, 0.5}, Ratios(Groups(drift()), P50)[0].Spread)
	require.Equal(t, Spread{330, 300, 600}, Of(Groups(drift()), "get", "kvd-3").Spread(PerSecond))
	require.Empty(t, Ratios(Groups([]*Run{runOf("get", "kvd-3", 1, 1, 1), runOf("get", "etcd-3", 2, 1, 1), runOf("get", "echo-3", 1, 0, 1)}), PerSecond),
		"neither without a common round, nor to nothing")
}

func TestMedian(t *testing.T) {
	require.Zero(t, Median(nil))
	list := []float64{5, 1, 3}
	require.EqualValues(t, 3, Median(list))
	require.Equal(t, []float64{5, 1, 3}, list, "the list is as it was")
	require.EqualValues(t, 2, Median([]float64{3, 1}))
}

// TestLines: what was written is read.
func TestLines(t *testing.T) {
	var b bytes.Buffer
	x := 1.5
	r := runOf("get", "kvd-3", 1, 300, 1)
	r.SyncsPerSecond, r.Began = &x, time.Unix(1, 0).UTC()
	r.Processes = []measure.Process{{PID: 1, Name: "kvd", Cores: 0.5, ResidentMax: 1 << 20}}
	r.Errors = map[string]uint64{measure.Unknown: 3}
	require.NoError(t, r.Write(&b))
	require.NoError(t, runOf("get", "redis", 1, 1, 1).Write(&b))
	require.Equal(t, 2, strings.Count(b.String(), "\n"))
	require.NotContains(t, strings.Split(b.String(), "\n")[1], "syncs_per_second", "what nobody tells is left out")
	list, err := Read(&b)
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, r, list[0])
	_, err = Read(strings.NewReader("{"))
	require.Error(t, err)
}

// TestLatency: a histogram's figures in milliseconds; those of none are zero.
func TestLatency(t *testing.T) {
	h := measure.NewHistogram()
	for i := range int64(1000) {
		require.NoError(t, h.RecordValue((i+1)*10_000))
	}
	l := LatencyOf(h)
	require.EqualValues(t, 1000, l.Count)
	require.InEpsilon(t, 5.0, l.P50, 0.002)
	require.InEpsilon(t, 9.9, l.P99, 0.002)
	require.InEpsilon(t, 10.0, l.Max, 0.002)
	require.Equal(t, Latency{}, LatencyOf(measure.NewHistogram()))
}

// TestTellAll: medians, spread, and ratios that name both; what is not known is blank.
func TestTellAll(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, TellAll(&b, drift()))
	lines := strings.Split(b.String(), "\n")
	fields := func(prefix ...string) []string {
		for _, l := range lines {
			if f := strings.Fields(l); len(f) > len(prefix) && strings.Join(f[:len(prefix)], " ") == strings.Join(prefix, " ") {
				return f[len(prefix):]
			}
		}
		return nil
	}
	require.Equal(t, []string{"330", "300", "to", "600"}, fields("get", "kvd-3")[:4])
	at := strings.Index(b.String(), "operations/s, as a ratio")
	require.Positive(t, at)
	lines = strings.Split(b.String()[at:], "\n")
	require.Equal(t, []string{"/", "kvd-3", "/", "etcd-3", "/", "echo-3"}, fields("case", "system"))
	require.Equal(t, []string{"3.00", "0.88", "(0.75", "to", "1.00)"}, fields("get", "kvd-3"))
	require.Nil(t, fields("put", "kvd-3"), "nothing to compare with")
}

// TestPage: it has each case, the fastest system first, plots of all, and no names that could become tags.
func TestPage(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, Page(&b, "of <now>", append(drift(), runOf("get", "<odd>", 1, 5, 0))))
	text := b.String()
	require.NotContains(t, text, "<odd>")
	require.Contains(t, text, "of &lt;now&gt;")
	require.Contains(t, text, `<h2 id="get">`)
	require.Contains(t, text, `<h2 id="put">`)
	require.Less(t, strings.Index(text, "<td>echo-3"), strings.Index(text, "<td>kvd-3"))
	require.Contains(t, text, "<td>0.88<td>0.75<td>1.00")
	for _, class := range []string{"bars", "tails", "course"} {
		require.Equal(t, 2, strings.Count(text, `<svg class="`+class), class)
	}
	require.NotContains(t, text, "NaN")
	require.NotContains(t, text, "Inf")
	for rest := text; ; {
		_, after, found := strings.Cut(rest, "<svg")
		if !found {
			break
		}
		drawing, more, _ := strings.Cut(after, "</svg>")
		wellFormed(t, "<svg"+drawing+"</svg>")
		rest = more
	}
	require.NotContains(t, text, "http", "it needs nothing from elsewhere")
}

// TestPicture: one image with the plots of each case, within its bounds, and no names that could become tags.
func TestPicture(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, Picture(&b, append(drift(), runOf("get", "<odd>", 1, 5, 0))))
	text := b.String()
	wellFormed(t, text)
	require.NotContains(t, text, "<odd>")
	require.NotContains(t, text, "NaN")
	for _, class := range []string{"bars", "tails"} {
		require.Equal(t, 2, strings.Count(text, `class="`+class), class)
	}
	height, lowest := 0, 0
	_, err := fmt.Sscanf(text[strings.Index(text, " height="):], ` height="%d"`, &height)
	require.NoError(t, err)
	for _, part := range strings.Split(text, "<svg y=")[1:] {
		var y, width, high int
		var class string
		_, err := fmt.Sscanf(part, `"%d" class=%q width="%d" height="%d"`, &y, &class, &width, &high)
		require.NoError(t, err)
		require.GreaterOrEqual(t, y, lowest, "they overlap")
		lowest = y + high
	}
	require.Equal(t, height, lowest)
}

func wellFormed(t *testing.T, text string) {
	t.Helper()
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else {
			require.NoError(t, err, text)
		}
	}
}
