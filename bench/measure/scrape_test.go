package measure

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const someMetrics = `# HELP kvd_log_syncs_total Syncs.
# TYPE kvd_log_syncs_total counter
kvd_log_syncs_total 1.5e+06
# TYPE leaders gauge
leaders 3
# TYPE labelled counter
labelled{a="b"} 7
# TYPE call_seconds histogram
call_seconds_bucket{method="Get",code="OK",le="0.001"} 90
call_seconds_bucket{method="Get",code="OK",le="0.002"} 99
call_seconds_bucket{method="Get",code="OK",le="+Inf"} 100
call_seconds_sum{method="Get",code="OK"} 1
call_seconds_count{method="Get",code="OK"} 100
call_seconds_bucket{method="Get",code="NotFound",le="0.001"} 10
call_seconds_bucket{method="Get",code="NotFound",le="0.002"} 10
call_seconds_bucket{method="Get",code="NotFound",le="+Inf"} 10
call_seconds_sum{method="Get",code="NotFound"} 1
call_seconds_count{method="Get",code="NotFound"} 10
call_seconds_bucket{method="Put",code="OK",le="0.001"} 0
call_seconds_bucket{method="Put",code="OK",le="0.002"} 5
call_seconds_bucket{method="Put",code="OK",le="+Inf"} 5
call_seconds_sum{method="Put",code="OK"} 1
call_seconds_count{method="Put",code="OK"} 5
`

// TestScrape: what is told is found, by its whole name; what is not is an error, and so is an answer without metrics.
func TestScrape(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			http.NotFound(w, r)
			return
		}
		_, _ = fmt.Fprint(w, someMetrics)
	}))
	defer s.Close()
	m, err := Scrape(t.Context(), s.URL+"/metrics")
	require.NoError(t, err)
	for name, want := range map[string]float64{syncsMetric: 1_500_000, "leaders": 3} {
		n, err := m.Value(name)
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	for _, name := range []string{"kvd_log_syncs", "labelled", "call_seconds"} {
		_, err := m.Value(name)
		require.ErrorContains(t, err, "no metric "+name)
	}
	_, err = Scrape(t.Context(), s.URL+"/other")
	require.ErrorContains(t, err, "404")
	require.EqualValues(t, 1_500_000, *syncs(t.Context(), []string{s.URL + "/metrics"}))
	require.Nil(t, syncs(t.Context(), []string{s.URL + "/metrics", s.URL + "/other"}), "one does not tell")
}

// TestBuckets: those of one label are added up, and what was there before is taken away.
func TestBuckets(t *testing.T) {
	m, err := parseMetrics(strings.NewReader(someMetrics))
	require.NoError(t, err)
	inf := math.Inf(1)
	gets := m.Histogram("call_seconds", "method", "Get")
	require.Equal(t, Buckets{{0.001, 100}, {0.002, 9}, {inf, 1}}, gets)
	all := m.Histogram("call_seconds", "", "")
	require.EqualValues(t, 115, all.Count())
	require.Equal(t, Buckets{{0.001, 0}, {0.002, 5}, {inf, 0}}, all.Since(gets))
	require.Equal(t, Buckets{{0.001, 100}, {0.002, 9}, {inf, 1}}, gets, "the histogram is as it was")
	require.Equal(t, all, all.Since(nil))
	require.Empty(t, m.Histogram("call_seconds", "method", "Scan"))

	for share, want := range map[float64]float64{0: 0.001, 0.5: 0.001, 0.909: 0.001, 0.92: 0.002, 0.99: 0.002, 0.999: inf, 1: inf} {
		require.Equal(t, want, gets.Quantile(share), share)
	}
	require.Equal(t, 0.002, all.Since(gets).Quantile(0), "the first that has a value")
	require.Zero(t, Buckets(nil).Quantile(0.5))
	require.EqualValues(t, 10, gets.Over(0.001))
	require.EqualValues(t, 1, gets.Over(0.002))
	require.EqualValues(t, 1, gets.Over(9))
}
