package hitrate

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/bench/load"
)

func keys(names string) (list [][]byte) {
	for _, c := range names {
		list = append(list, []byte(string(c)))
	}
	return list
}

// TestLRU: by hand.
func TestLRU(t *testing.T) {
	require.Equal(t, Rates{Hits: 2.0 / 8}, LRU(keys("abacbaca"), 2, 0)) // The second a and the last.
	require.Equal(t, Rates{Hits: 5.0 / 8}, LRU(keys("abacbaca"), 3, 0))
	require.Equal(t, Rates{}, LRU(nil, 2, 0))
	require.Equal(t, Rates{}, LRU(keys("aaaa"), 2, 100), "nothing is read")
}

// TestSized: there is room for as many entries as were asked for.
func TestSized(t *testing.T) {
	for _, n := range []int{1, 100, 1000, 5000, 100_000} {
		s, each, err := sized(n)
		require.NoError(t, err)
		require.GreaterOrEqual(t, each, int64(entryBytes))
		require.InEpsilon(t, float64(n), float64(s.Metrics().Store.CapacityBytes)/float64(each), 0.005)
		s.Close()
	}
}

// TestCache: what fits is found again; of what does not, no more than there is room for.
func TestCache(t *testing.T) {
	var some, many [][]byte
	for i := range 20_000 {
		some = append(some, fmt.Appendf(nil, "k%d", i%100))
		many = append(many, fmt.Appendf(nil, "k%d", i%4000))
	}
	r, err := Cache(some, 1000, 0)
	require.NoError(t, err)
	require.InDelta(t, 0.99, r.Hits, 0.01)
	require.Zero(t, r.Stale)
	r, err = Cache(many, 1000, 0)
	require.NoError(t, err)
	require.LessOrEqual(t, r.Hits, 0.25)
	require.Zero(t, LRU(many, 1000, 0).Hits)
	r, err = Cache(some, 1000, 10)
	require.NoError(t, err)
	require.InDelta(t, 0.99, r.Hits, 0.02)
}

// TestAgainstLRU: kvd's cache has more than an LRU, of keys that are read a few times within a short while and never again, and
// of keys some of which are read often, among others that are read once.
func TestAgainstLRU(t *testing.T) {
	const accesses, entries = 150_000, 1000
	rnd := rand.New(rand.NewPCG(1, 2))
	var recent, frequent [][]byte
	zipf := rand.NewZipf(rnd, 1.2, 10, 20_000)
	for i := range accesses {
		recent = append(recent, fmt.Appendf(nil, "r%d", max(i/4-rnd.IntN(200), 0)))
		key := fmt.Appendf(nil, "z%d", zipf.Uint64())
		if i%2 == 0 {
			key = fmt.Appendf(nil, "once%d", i)
		}
		frequent = append(frequent, key)
	}
	for name, c := range map[string]struct {
		trace  [][]byte
		better float64
	}{"recent": {recent, -0.01}, "frequent": {frequent, 0.02}} {
		ours, err := Cache(c.trace, entries, 0)
		require.NoError(t, err)
		lru := LRU(c.trace, entries, 0)
		t.Logf("%s: %.4f, LRU %.4f", name, ours.Hits, lru.Hits)
		require.Greater(t, ours.Hits, lru.Hits+c.better, name)
	}
}

// TestFalseMisses: with as many stripes as a cache opens with, less than 1 % of the reads miss because of writes to other keys.
func TestFalseMisses(t *testing.T) {
	f, err := Zipfian(20_000, 10, 4)
	require.NoError(t, err)
	require.Less(t, f.Misses, 0.01)
	require.NotZero(t, f.Misses, "nothing was written")
	f, err = Zipfian(2000, 0, 1)
	require.NoError(t, err)
	require.Zero(t, f.Misses)
}

// readTrace skips the test where there are no traces.
func readTrace(t *testing.T, name string) [][]byte {
	dir := os.Getenv("KVD_TRACES")
	if dir == "" {
		t.Skip("KVD_TRACES names no directory with traces")
	}
	trace, err := load.ReadTrace(filepath.Join(dir, name))
	require.NoError(t, err)
	return trace
}

// TestTraces: kvd's cache has more than an LRU of the traces that docs/performance.md tells of.
func TestTraces(t *testing.T) {
	for _, name := range []string{"web12.gz", "arc-oltp.gz"} {
		trace := readTrace(t, name)
		for _, entries := range []int{1000, 5000, 10_000} {
			ours, err := Cache(trace, entries, 0)
			require.NoError(t, err)
			require.Greater(t, ours.Hits, LRU(trace, entries, 0).Hits, "%s with %d entries", name, entries)
		}
	}
}

// TestWeb: the LRU's rates are those that are known of the trace.
func TestWeb(t *testing.T) {
	trace := readTrace(t, "web12.gz")
	require.Len(t, trace, 95_607)
	require.InDelta(t, 0.6473, LRU(trace, 1000, 0).Hits, 0.0001)
	require.InDelta(t, 0.8070, LRU(trace, 5000, 0).Hits, 0.0001)
}
