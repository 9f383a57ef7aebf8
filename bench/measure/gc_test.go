package measure

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// gcText is what a server tells that has used so much, and had so many short and long pauses and gets.
func gcText(cpu, gc, idle float64, short, long, over int) string {
	text := ""
	for name, n := range map[string]float64{cpuMetric: cpu, gcCPUMetric: gc, gcIdleMetric: idle} {
		text += fmt.Sprintf("# TYPE %s counter\n%s %v\n", name, name, n)
	}
	for name, label := range map[string]string{pausesMetric: "", waitsMetric: "", callsMetric: `method="/kvd.v1.KV/Get",`} {
		text += fmt.Sprintf("# TYPE %s histogram\n", name)
		for i, n := range []int{short, short, short + long, short + long + over} {
			text += fmt.Sprintf("%s_bucket{%sle=%q} %d\n", name, label, []string{"0.000131072", "0.001048576", "0.00131072", "+Inf"}[i], n)
		}
		text += fmt.Sprintf("%s_sum{%s} 1\n%s_count{%s} %d\n", name, strings.TrimSuffix(label, ","), name, strings.TrimSuffix(label, ","), short+long+over)
	}
	return text
}

func metricsOf(t *testing.T, text string) Metrics {
	m, err := parseMetrics(strings.NewReader(text))
	require.NoError(t, err)
	return m
}

// TestGC: what was there before does not count, and the servers are taken together.
func TestGC(t *testing.T) {
	before := []Metrics{metricsOf(t, gcText(100, 50, 10, 3000, 1000, 1000)), metricsOf(t, gcText(7, 1, 1, 0, 0, 0))}
	after := []Metrics{metricsOf(t, gcText(110, 51, 10.5, 3999, 1000, 1000)), metricsOf(t, gcText(17, 2, 1, 1000, 1, 0))}
	g, err := gcOf(before, after)
	require.NoError(t, err)
	require.InDelta(t, 0.1, g.Share, 1e-9)
	require.InDelta(t, 0.025, g.Idle, 1e-9)
	require.EqualValues(t, 2000, g.Pauses)
	require.EqualValues(t, 1, g.LongPauses)
	require.InDelta(t, 0.131072, g.PauseP50, 1e-9)
	require.InDelta(t, 0.131072, g.PauseP999, 1e-9)
	require.InDelta(t, 1.31072, g.PauseMost, 1e-9)
	require.InDelta(t, 0.131072, g.WaitP999, 1e-9)
	require.InDelta(t, 0.131072, g.GetP999, 1e-9)
	require.Zero(t, g.PutP999)

	g, err = gcOf(before[:1], []Metrics{metricsOf(t, gcText(110, 50, 10, 3000, 1000, 1001))})
	require.NoError(t, err)
	require.EqualValues(t, beyondBuckets, g.PauseMost)
	require.EqualValues(t, 1, g.LongPauses)

	_, err = gcOf(before[:1], []Metrics{metricsOf(t, "# TYPE x counter\nx 1\n")})
	require.ErrorContains(t, err, "no metric "+cpuMetric)
}
