package load

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// near tells that a count is as likely as six standard deviations allow.
func near(t *testing.T, what string, count, draws int, share float64) {
	t.Helper()
	want := share * float64(draws)
	require.InDelta(t, want, float64(count), 6*math.Sqrt(want*(1-share))+1, what)
}

func counts(draws int, n uint64, draw func() uint64) []int {
	list := make([]int, n)
	for range draws {
		list[draw()]++
	}
	return list
}

// TestZipfian: the shares are 1/i^theta. The method is exact for the first two and near for the rest: of the others the
// sum is compared, within what an integral in place of a sum can lose.
func TestZipfian(t *testing.T) {
	const n, draws = 1000, 400_000
	rng := rand.New(rand.NewPCG(1, 1))
	z := NewZipfian(n, theta)
	list := counts(draws, n, func() uint64 { return z.Draw(rng) })
	zeta, sums := 0.0, make([]float64, n+1)
	for i := range n {
		zeta += math.Pow(float64(i+1), -theta)
		sums[i+1] = zeta
	}
	near(t, "the first", list[0], draws, 1/zeta)
	near(t, "the second", list[1], draws, math.Pow(2, -theta)/zeta)
	for _, to := range []int{10, 100, 500} {
		sum := 0
		for _, c := range list[:to] {
			sum += c
		}
		require.InDelta(t, sums[to]/zeta, float64(sum)/draws, 0.02, "the first %d", to)
	}
}

// TestZipfianGrows: one that grew is one that began so.
func TestZipfianGrows(t *testing.T) {
	grown, whole := NewZipfian(10, theta), NewZipfian(5000, theta)
	grown.Grow(5000)
	require.InDelta(t, whole.zeta, grown.zeta, 1e-9)
	require.InDelta(t, whole.eta, grown.eta, 1e-9)
	grown.Grow(3)
	require.EqualValues(t, 5000, grown.n)
	for _, n := range []uint64{1, 2} {
		rng, small := rand.New(rand.NewPCG(1, 2)), NewZipfian(n, theta)
		for range 1000 {
			require.Less(t, small.Draw(rng), n)
		}
	}
}

// TestZeta: beyond what is added up term by term the sum is the same. The last is the constant that YCSB has for its own.
func TestZeta(t *testing.T) {
	sum := 0.0
	for i := range 1_000_000 {
		sum += math.Pow(float64(i+1), -theta)
	}
	require.InDelta(t, sum, NewZipfian(1_000_000, theta).zeta, 1e-9)
	require.InDelta(t, 26.46902820178302, newScrambled().zeta, 1e-9)
}

// TestScrambled: the most popular record has its share of the large draw, and the popular ones are spread evenly over the
// records.
func TestScrambled(t *testing.T) {
	const records, draws, parts = 10_000, 200_000, 10
	rng := rand.New(rand.NewPCG(1, 3))
	s := newScrambled()
	list := counts(draws, records, func() uint64 { return s.choose(rng, records) })
	first := scatter(0) % records
	require.Greater(t, first, uint64(0))
	require.GreaterOrEqual(t, float64(list[first]), 0.9*draws/s.zeta)
	for i, c := range list {
		require.LessOrEqual(t, c, list[first], "record %d", i)
	}
	// Without the twenty most popular, which fall where they fall, each tenth has about as much as the others.
	rest := make([]int, parts)
	popular := map[uint64]bool{}
	for i := range uint64(20) {
		popular[scatter(i)%records] = true
	}
	all := 0
	for i, c := range list {
		if !popular[uint64(i)] {
			rest[i*parts/records] += c
			all += c
		}
	}
	for i, c := range rest {
		require.InDelta(t, 1.0/parts, float64(c)/float64(all), 0.03, "part %d", i)
	}
}

// TestSkewed: the first record is the most popular, and all are chosen.
func TestSkewed(t *testing.T) {
	const records, draws = 1000, 200_000
	rng := rand.New(rand.NewPCG(1, 6))
	c := newChoice(Skewed, records)
	list := counts(draws, records, func() uint64 { return c.choose(rng, records) })
	near(t, "the first", list[0], draws, 1/NewZipfian(records, theta).zeta)
	require.Positive(t, slices.Min(list))
}

// TestLatest: the newest record is the most popular, also when there are more by and by.
func TestLatest(t *testing.T) {
	const draws = 100_000
	rng := rand.New(rand.NewPCG(1, 4))
	l := latest{NewZipfian(100, theta)}
	for _, records := range []uint64{100, 150, 1000} {
		list := counts(draws, records, func() uint64 { return l.choose(rng, records) })
		near(t, "the newest", list[records-1], draws, 1/l.zeta)
		near(t, "the one before", list[records-2], draws, math.Pow(2, -theta)/l.zeta)
		require.EqualValues(t, records, l.n)
	}
}

// TestUniform: no record is preferred.
func TestUniform(t *testing.T) {
	const draws, records = 100_000, 10
	rng := rand.New(rand.NewPCG(1, 5))
	for _, c := range counts(draws, records, func() uint64 { return uniform{}.choose(rng, records) }) {
		near(t, "each", c, draws, 1.0/records)
	}
}

// TestFrontier: a record is read when it and all before it are there.
func TestFrontier(t *testing.T) {
	f := newFrontier(5)
	require.EqualValues(t, 5, f.begin())
	require.EqualValues(t, 6, f.begin())
	require.EqualValues(t, 7, f.begin())
	f.end(6)
	require.EqualValues(t, 5, f.read.Load())
	f.end(5)
	require.EqualValues(t, 7, f.read.Load())
	require.Empty(t, f.ended)
	f.end(7)
	require.EqualValues(t, 8, f.read.Load())
}
