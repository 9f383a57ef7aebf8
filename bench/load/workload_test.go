package load

import (
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/geo"
	"github.com/kvdstore/kvd/kv"
)

func prepared(t *testing.T, w Workload) *Workload {
	t.Helper()
	if w.Keys == 0 {
		w.Keys = 1000
	}
	if w.Name != "get" && w.Name != "put" {
		w.ReadPercent = -1
	}
	require.NoError(t, w.Prepare())
	return &w
}

// TestMixes: each workload has its published shares, its values their length, and its keys are those that were put.
func TestMixes(t *testing.T) {
	const draws = 20_000
	for name, want := range map[string]map[Kind]float64{
		"a": {Read: 0.5, Update: 0.5}, "b": {Read: 0.95, Update: 0.05}, "c": {Read: 1}, "d": {Read: 0.95, Insert: 0.05},
		"e": {Scan: 0.95, Insert: 0.05}, "f": {Read: 0.5, ReadModifyWrite: 0.5},
	} {
		w := prepared(t, Workload{Name: name})
		g := w.Generator(0, 1)
		known := map[string]bool{}
		for i := range w.Keys {
			op := w.Fill(g, i)
			known[string(op.Key)] = true
			require.Len(t, op.Value, 1000)
		}
		require.Len(t, known, w.Keys, "no two records share a key")
		seen, limits := map[Kind]int{}, map[int]int{}
		for range draws {
			op := g.Next(0)
			seen[op.Kind]++
			if op.Kind.Writes() {
				require.Len(t, op.Value, 1000)
			}
			if op.Kind == Scan {
				limits[op.Limit]++
			}
			require.Equal(t, op.Kind != Insert, known[string(op.Key)], "%s: %v of %s", name, op.Kind, op.Key)
			known[string(op.Key)] = true
			g.Ended(op, false)
		}
		require.Len(t, seen, len(want), name)
		for kind, share := range want {
			near(t, name+" "+kind.String(), seen[kind], draws, share)
		}
		if name == "e" {
			require.Len(t, limits, scanMax)
			require.NotZero(t, limits[1])
			require.NotZero(t, limits[scanMax])
		}
	}
}

// TestReadPercent: of get and put alone.
func TestReadPercent(t *testing.T) {
	const draws = 10_000
	g := prepared(t, Workload{Name: "put", ReadPercent: 30}).Generator(0, 1)
	reads := 0
	for range draws {
		if op := g.Next(0); op.Kind == Read {
			reads++
		} else {
			require.Len(t, op.Value, plainBytes)
			require.Len(t, op.Key, 16)
		}
	}
	near(t, "reads", reads, draws, 0.3)
}

// TestSameSeed: a seed gives the same operations again, and each caller others.
func TestSameSeed(t *testing.T) {
	w := prepared(t, Workload{Name: "a", Seed: 7})
	one, again, other := w.Generator(3, 8), w.Generator(3, 8), w.Generator(4, 8)
	differ := false
	for range 100 {
		op := one.Next(0)
		require.Equal(t, op, again.Next(0))
		differ = differ || !bytes.Equal(op.Key, other.Next(0).Key)
	}
	require.True(t, differ)
}

// TestCuts: parts of the key space have about as many records.
func TestCuts(t *testing.T) {
	for _, name := range []string{"a", "get", "geo"} {
		w := prepared(t, Workload{Name: name, Keys: 9000, ReadPercent: -1})
		cuts := w.Cuts(3)
		require.Len(t, cuts, 2, name)
		g, parts := w.Generator(0, 1), [3]int{}
		for i := range w.Keys {
			key, part := w.Fill(g, i).Key, 0
			for part < 2 && bytes.Compare(key, cuts[part]) >= 0 {
				part++
			}
			parts[part]++
		}
		for _, n := range parts {
			require.InDelta(t, w.Keys/3, n, float64(w.Keys)/20, "%s: %v", name, parts)
		}
	}
	require.Empty(t, prepared(t, Workload{Name: "a"}).Cuts(1))
}

// TestParts: keys keep to the parts that are used, which lie apart and have as many each; so do those that are asked for.
func TestParts(t *testing.T) {
	w := prepared(t, Workload{Name: "put", Keys: 9000, ReadPercent: 50, Parts: 10, Used: 3, Distribution: Scrambled})
	cuts := w.Cuts(10)
	partOf := func(key []byte) int {
		i, at := slices.BinarySearchFunc(cuts, key, bytes.Compare)
		if at {
			i++
		}
		return i
	}
	g, parts, seen := w.Generator(0, 1), map[int]int{}, map[string]bool{}
	for i := range w.Keys {
		key := w.Fill(g, i).Key
		require.Equal(t, []int{0, 3, 6}[i%3], partOf(key))
		require.Len(t, key, 16)
		parts[partOf(key)]++
		seen[string(key)] = true
	}
	require.Equal(t, map[int]int{0: 3000, 3: 3000, 6: 3000}, parts)
	require.Len(t, seen, w.Keys)
	for range 1000 {
		require.True(t, seen[string(g.Next(0).Key)])
	}
}

// TestGeo: a thing writes its place, removes the last one, and reads its cell, which has it; the store ends with one place
// a thing. Most are in the hot spot, which is elsewhere later.
func TestGeo(t *testing.T) {
	const callers, steps = 3, 900
	w := prepared(t, Workload{Name: "geo", Keys: 200})
	store := map[string]bool{}
	var all []*Generator
	for i := range callers {
		all = append(all, w.Generator(i, callers))
	}
	for i := range w.Keys {
		store[string(w.Fill(all[0], i).Key)] = true
	}
	hot := 0
	for i := range steps {
		g, since := all[i%callers], time.Duration(i)*time.Second
		op := g.Next(since)
		require.Equal(t, Update, op.Kind)
		store[string(op.Key)] = true
		place := op.Key
		_, id, err := geo.ParseKey(geoPrefix, place)
		require.NoError(t, err)
		thing, err := strconv.ParseInt(id, 16, 64)
		require.NoError(t, err)
		require.EqualValues(t, i%callers, thing%callers, "a thing has one caller, or it would be in two places")
		lat, lon := hotSpot(since)
		if cell := op.Key[len(geoPrefix) : len(geoPrefix)+cellChars]; geo.Distance(centre(cell, lat, lon)) < 60_000 {
			hot++
		}
		if op = g.Next(since); op.Kind == Delete {
			require.True(t, store[string(op.Key)])
			delete(store, string(op.Key))
			op = g.Next(since)
		}
		require.Equal(t, Scan, op.Kind)
		require.LessOrEqual(t, bytes.Compare(op.Key, place), 0)
		require.Less(t, bytes.Compare(place, op.End), 0)
		require.True(t, bytes.HasPrefix(place, op.Key))
		require.Empty(t, g.queue)
	}
	require.Len(t, store, w.Keys)
	near(t, "in the hot spot", hot, steps, hotPercent/100.0)
	lat, lon := hotSpot(0)
	later, east := hotSpot(lapTime / 3)
	require.Greater(t, geo.Distance(lat, lon, later, east), 1e6)
}

// centre is the middle of a cell, and another place.
func centre(cell []byte, lat, lon float64) (float64, float64, float64, float64) {
	south, west := geo.Center(string(cell))
	return south, west, lat, lon
}

// TestMoreCallersThanThings: a caller without a thing reads.
func TestMoreCallersThanThings(t *testing.T) {
	w := prepared(t, Workload{Name: "geo", Keys: 2})
	require.Equal(t, Read, w.Generator(2, 5).Next(0).Kind)
	require.Equal(t, Update, w.Generator(1, 5).Next(0).Kind)
}

// TestTrace: callers take the lines in turn, and put what was missed.
func TestTrace(t *testing.T) {
	name := filepath.Join(t.TempDir(), "t.gz")
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write([]byte("one\ntwo\none\nthree\n"))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	require.NoError(t, os.WriteFile(name, b.Bytes(), 0o644))
	trace, err := ReadTrace(name)
	require.NoError(t, err)
	require.Len(t, trace, 4)

	w := prepared(t, Workload{Name: "trace", Trace: trace})
	first, second := w.Generator(0, 2), w.Generator(1, 2)
	op := first.Next(0)
	require.Equal(t, "one", string(op.Key))
	first.Ended(op, true)
	put := first.Next(0)
	require.Equal(t, Insert, put.Kind)
	require.Equal(t, "one", string(put.Key))
	first.Ended(put, false)
	op = first.Next(0)
	require.Equal(t, "one", string(op.Key))
	first.Ended(op, false)
	op = first.Next(0)
	require.Equal(t, Read, op.Kind, "what was found is not put")
	require.Equal(t, "one", string(op.Key), "and from the beginning again")
	require.Equal(t, "two", string(second.Next(0).Key))
	require.Equal(t, "three", string(second.Next(0).Key))

	require.NoError(t, os.WriteFile(name+".txt", []byte("one\n\ntwo\n"), 0o644))
	_, err = ReadTrace(name + ".txt")
	require.ErrorContains(t, err, "trace, line 2")
}

// TestRefused: an error names field and bound.
func TestRefused(t *testing.T) {
	for want, w := range map[string]Workload{
		`workload: one of [a b c d e f geo get pipeline-get pipeline-put put trace], is "x"`: {Name: "x"},
		"keys: 1 to 1073741824, is 0":                               {Name: "a", ReadPercent: -1},
		"value: 1 to 1048576 bytes, is -3":                          {Name: "get", Keys: 1, Value: -3, ReadPercent: -1},
		"read-percent: 0 to 100, is 101":                            {Name: "get", Keys: 1, ReadPercent: 101},
		"read-percent: of get and put alone":                        {Name: "a", Keys: 1, ReadPercent: 1},
		"distribution: of get and put alone":                        {Name: "a", Keys: 1, ReadPercent: -1, Distribution: "uniform"},
		`distribution: uniform, zipfian, scrambled or latest, is "`: {Name: "put", Keys: 1, ReadPercent: -1, Distribution: "even"},
		"parts: of get and put alone":                               {Name: "a", Keys: 1, ReadPercent: -1, Parts: 2, Used: 1},
		"parts: of get and put alone, 1 to 1048576, is ":            {Name: "get", Keys: 1, ReadPercent: -1, Parts: -1, Used: 1},
		"used: 1 to 2 parts, is 3":                                  {Name: "get", Keys: 1, ReadPercent: -1, Parts: 2, Used: 3},
		"trace: a file with at least one key":                       {Name: "trace", Keys: 1, ReadPercent: -1},
	} {
		err := w.Prepare()
		require.ErrorContains(t, err, want)
		_, ok := errors.AsType[*kv.InvalidError](err)
		require.True(t, ok)
	}
}
