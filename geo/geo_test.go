package geo

import (
	"errors"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/mmcloughlin/geohash"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/kvdstore/kvd/kv"
)

func TestKey(t *testing.T) {
	for _, c := range []struct {
		lat, lon float64
		want     string
	}{
		{57.64911, 10.40744, "u4pruydqqvj8"},
		{90, 0, "upbpbpbpbpbp"},
		{math.Nextafter(90, 0), 0, "upbpbpbpbpbp"},
		{0, math.Nextafter(180, 0), "xbpbpbpbpbpb"},
		{-90, -180, "000000000000"},
		{0, 180, "800000000000"},
		{0, -180, "800000000000"},
		{90, 180, "bpbpbpbpbpbp"},
	} {
		for chars := 1; chars <= CharsMax; chars++ {
			require.Equal(t, "p/"+c.want[:chars]+"/id", string(Key("p/", c.lat, c.lon, chars, "id")))
		}
	}
	hash, id, err := ParseKey(Prefix, Key(Prefix, 1, 2, 5, "a/b"))
	require.NoError(t, err)
	require.Equal(t, Hash(1, 2, 5), hash)
	require.Equal(t, "a/b", id)
	lat, lon := Center(hash)
	require.InDelta(t, 1, lat, 0.05)
	require.InDelta(t, 2, lon, 0.05)
	for _, bad := range []string{"", "geo/", "geo/u33", "geo//7", "geo/a/7", "other/u33/7", "geo/u33dc0cpnu33dc0cpn/7"} {
		_, _, err := ParseKey(Prefix, []byte(bad))
		requireField(t, err, "key")
	}
}

func requireField(t *testing.T, err error, field string) {
	t.Helper()
	invalid, ok := errors.AsType[*kv.InvalidError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, field, invalid.Field)
}

func TestBounds(t *testing.T) {
	nan := math.NaN()
	requireField(t, CheckKey("", 90.1, 0, 9, "x"), "latitude")
	requireField(t, CheckKey("", nan, 0, 9, "x"), "latitude")
	requireField(t, CheckKey("", 0, -180.1, 9, "x"), "longitude")
	requireField(t, CheckKey("", 0, math.Inf(1), 9, "x"), "longitude")
	requireField(t, CheckKey("", 0, 0, 0, "x"), "chars")
	requireField(t, CheckKey("", 0, 0, 13, "x"), "chars")
	requireField(t, CheckKey("", 0, 0, 9, ""), "id")
	requireField(t, CheckKey("", 0, 0, 9, strings.Repeat("x", kv.KeyBytesMax)), "key")
	require.Nil(t, Key("", nan, 0, 9, "x"))

	circle := func(lat, lon, radius float64, chars, spans int) error {
		_, err := CoverCircle(Prefix, lat, lon, radius, chars, spans)
		return err
	}
	requireField(t, circle(91, 0, 1, 9, 8), "latitude")
	requireField(t, circle(0, 181, 1, 9, 8), "longitude")
	requireField(t, circle(0, 0, -1, 9, 8), "radius")
	requireField(t, circle(0, 0, nan, 9, 8), "radius")
	requireField(t, circle(0, 0, math.Inf(1), 9, 8), "radius")
	requireField(t, circle(0, 0, 1, 13, 8), "chars")
	requireField(t, circle(0, 0, 1, 9, 0), "spans")
	requireField(t, circle(0, 0, 1, 9, SpansMax+1), "spans")

	box := func(b Box) error {
		_, err := CoverBox(Prefix, b, 9, 8)
		return err
	}
	requireField(t, box(Box{South: -91}), "south")
	requireField(t, box(Box{North: 91}), "north")
	requireField(t, box(Box{West: nan}), "west")
	requireField(t, box(Box{East: 180.5}), "east")
	requireField(t, box(Box{South: 2, North: 1}), "south")
	_, err := CoverBox(strings.Repeat("x", kv.KeyBytesMax), Box{}, 9, 8)
	requireField(t, err, "prefix")
}

func TestDistance(t *testing.T) {
	quarter := math.Pi / 2 * EarthRadius
	for _, c := range []struct{ lat1, lon1, lat2, lon2, want float64 }{
		{0, 0, 0, 0, 0},
		{0, 0, 0, 90, quarter},
		{0, 0, 0, 180, 2 * quarter},
		{90, 12, -90, 77, 2 * quarter},
		{90, 0, 0, 33, quarter},
		{10, 179, 10, -179, 219_011}, // Across the antimeridian.
		{52.5200, 13.4050, 48.8566, 2.3522, 877_464},
	} {
		require.InDelta(t, c.want, Distance(c.lat1, c.lon1, c.lat2, c.lon2), 5)
		require.InDelta(t, c.want, Distance(c.lat2, c.lon2, c.lat1, c.lon1), 5)
	}
}

// TestCells compares the parts of cells with the geohash library.
func TestCells(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, hash := world, ""
		for range rapid.IntRange(1, CharsMax).Draw(t, "level") {
			n := rapid.IntRange(0, 31).Draw(t, "part")
			c, hash = c.part(n), hash+string("0123456789bcdefghjkmnpqrstuvwxyz"[n])
		}
		require.Equal(t, geohash.BoundingBox(hash), geohash.Box{MinLat: c.south, MaxLat: c.north, MinLng: c.west, MaxLng: c.east})
		require.Equal(t, strings.TrimRight(hash, "0"), shortest(c.codes.start))
	})
}

// TestNearestAndFarthest compares with a fine grid of points of the cell.
func TestNearestAndFarthest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := world
		for range rapid.IntRange(1, 3).Draw(t, "level") {
			c = c.part(rapid.IntRange(0, 31).Draw(t, "part"))
		}
		lat, lon := drawPoint(t)
		near, far := math.Inf(1), 0.0
		const n = 60
		for i := range n + 1 {
			for j := range n + 1 {
				d := Distance(lat, lon, c.south+(c.north-c.south)*float64(i)/n, c.west+(c.east-c.west)*float64(j)/n)
				near, far = min(near, d), max(far, d)
			}
		}
		step := EarthRadius * radians(max(c.north-c.south, c.east-c.west)) / n
		require.LessOrEqual(t, nearest(lat, lon, c), near+slack)
		require.GreaterOrEqual(t, nearest(lat, lon, c), near-step)
		require.GreaterOrEqual(t, farthest(lat, lon, c), far-slack)
		require.LessOrEqual(t, farthest(lat, lon, c), far+step)
	})
}

// drawPoint draws any point, and often one where the map has its edges.
func drawPoint(t *rapid.T) (lat, lon float64) {
	lat = rapid.OneOf(rapid.Float64Range(-90, 90), rapid.SampledFrom([]float64{-90, 90, 0, 45, 89.999, -1e-20})).Draw(t, "latitude")
	lon = rapid.OneOf(rapid.Float64Range(-180, 180), rapid.SampledFrom([]float64{-180, 180, 0, 179.999, -179.999, 90})).Draw(t, "longitude")
	return lat, lon
}

// drawNear draws a point about as far from another as asked, in any direction.
func drawNear(t *rapid.T, lat, lon, distance float64) (float64, float64) {
	bearing := rapid.Float64Range(0, 2*math.Pi).Draw(t, "bearing")
	d, a := distance/EarthRadius, radians(lat)
	b := math.Asin(min(1, max(-1, math.Sin(a)*math.Cos(d)+math.Cos(a)*math.Sin(d)*math.Cos(bearing))))
	turn := math.Atan2(math.Sin(bearing)*math.Sin(d)*math.Cos(a), math.Cos(d)-math.Sin(a)*math.Sin(b))
	return b * 180 / math.Pi, math.Remainder(lon+turn*180/math.Pi, 360)
}

func requireCover(t *rapid.T, spans []kv.Span, most int) {
	require.NotEmpty(t, spans)
	require.LessOrEqual(t, len(spans), most)
	for i, s := range spans {
		require.False(t, s.Empty(), "%v", s)
		require.True(t, kv.PrefixSpan([]byte(Prefix)).ContainsSpan(s), "%v", s)
		if i > 0 {
			require.Less(t, string(spans[i-1].End), string(s.Start), "sorted, and apart")
		}
	}
}

func covered(spans []kv.Span, key []byte) bool {
	for _, s := range spans {
		if s.Contains(key) {
			return true
		}
	}
	return false
}

// TestCircleIsCovered: the key of every point within the radius lies in the cover, whatever the keys' precision.
func TestCircleIsCovered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lat, lon := drawPoint(t)
		radius := math.Pow(10, rapid.Float64Range(-1, 7.4).Draw(t, "log radius"))
		chars := rapid.IntRange(1, CharsMax).Draw(t, "chars")
		most := rapid.IntRange(1, 64).Draw(t, "spans")
		spans, err := CoverCircle(Prefix, lat, lon, radius, chars, most)
		require.NoError(t, err)
		requireCover(t, spans, most)
		for range 20 {
			plat, plon := drawNear(t, lat, lon, radius*rapid.Float64Range(0, 1).Draw(t, "share"))
			if Distance(lat, lon, plat, plon) > radius {
				continue
			}
			keyChars := rapid.IntRange(chars, CharsMax).Draw(t, "chars of the key")
			key := Key(Prefix, plat, plon, keyChars, "id")
			require.True(t, covered(spans, key), "%s at %v,%v in %v", key, plat, plon, spans)
		}
	})
}

func TestBoxIsCovered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lat1, lon1 := drawPoint(t)
		lat2, lon2 := drawPoint(t)
		b := Box{South: min(lat1, lat2), North: max(lat1, lat2), West: lon1, East: lon2}
		chars := rapid.IntRange(1, CharsMax).Draw(t, "chars")
		most := rapid.IntRange(1, 64).Draw(t, "spans")
		spans, err := CoverBox(Prefix, b, chars, most)
		require.NoError(t, err)
		requireCover(t, spans, most)
		width := b.East - b.West
		if width < 0 {
			width += 360
		}
		for range 20 {
			share := rapid.OneOf(rapid.Float64Range(0, 1), rapid.SampledFrom([]float64{0, 1}))
			lat := min(b.North, b.South+(b.North-b.South)*share.Draw(t, "up"))
			lon := math.Remainder(b.West+width*share.Draw(t, "across"), 360)
			if !b.Contains(lat, lon) {
				continue
			}
			key := Key(Prefix, lat, lon, chars, "id")
			require.True(t, covered(spans, key), "%s at %v,%v in %v", key, lat, lon, spans)
		}
	})
}

// TestCoverIsTight: a cover that holds the world would pass every test above.
func TestCoverIsTight(t *testing.T) {
	for _, c := range []struct {
		lat, lon, radius float64
		spans            int
	}{
		{52.5, 13.4, 1000, SpansDefault},
		{52.5, 13.4, 50_000, SpansDefault},
		{0, 0, 1000, SpansDefault},
		{10, 180, 10_000, SpansDefault},
		// Around a pole a circle is a row of many narrow cells, which lie apart in the order of geohashes: far
		// smaller ones than this would take more spans than anyone wants.
		{90, 0, 100_000, SpansDefault},
		{-89.9, 33, 300_000, 64},
	} {
		spans, err := CoverCircle(Prefix, c.lat, c.lon, c.radius, 9, c.spans)
		require.NoError(t, err)
		in, all := 0, 0
		for i := range 200 {
			for j := range 200 {
				// Points spread evenly over the cap of four times the radius.
				z := float64(i) + 0.5
				d, bearing := 4*c.radius*math.Sqrt(z/200), 2*math.Pi*float64(j)/200
				a := radians(c.lat)
				b := math.Asin(math.Sin(a)*math.Cos(d/EarthRadius) + math.Cos(a)*math.Sin(d/EarthRadius)*math.Cos(bearing))
				turn := math.Atan2(math.Sin(bearing)*math.Sin(d/EarthRadius)*math.Cos(a), math.Cos(d/EarthRadius)-math.Sin(a)*math.Sin(b))
				all++
				if covered(spans, Key(Prefix, b*180/math.Pi, math.Remainder(c.lon+turn*180/math.Pi, 360), 9, "x")) {
					in++
				}
			}
		}
		// The circle is a sixteenth of the cap; the cover may take in five times that.
		require.Less(t, float64(in)/float64(all), 5.0/16, "%+v: %v", c, spans)
		require.Greater(t, float64(in)/float64(all), 0.9/16)
	}
}

func TestWholeWorld(t *testing.T) {
	spans, err := CoverCircle(Prefix, 10, 20, 3e7, 9, 8)
	require.NoError(t, err)
	require.Equal(t, []kv.Span{kv.PrefixSpan([]byte(Prefix))}, spans)
	spans, err = CoverBox("", Box{South: -90, North: 90, West: -180, East: 180}, 9, 8)
	require.NoError(t, err)
	require.Len(t, spans, 1)
	require.Empty(t, spans[0].Start)
	require.Empty(t, spans[0].End)
}

// TestCities counts the cities within a radius by a cover, and by looking at all of them.
func TestCities(t *testing.T) {
	data, err := os.ReadFile("../../shared/data/cities5000.tsv")
	if err != nil {
		t.Skipf("the cities are not here: %v", err)
	}
	type city struct {
		lat, lon float64
		key      []byte
	}
	var cities []city
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		lat, errLat := strconv.ParseFloat(f[3], 64)
		lon, errLon := strconv.ParseFloat(f[4], 64)
		if errLat != nil || errLon != nil {
			continue // The header.
		}
		cities = append(cities, city{lat, lon, Key(Prefix, lat, lon, CharsDefault, f[0])})
	}
	require.Greater(t, len(cities), 4900)
	for _, c := range cities[:200] {
		spans, err := CoverCircle(Prefix, c.lat, c.lon, 150_000, CharsDefault, SpansDefault)
		require.NoError(t, err)
		all, byCover, seen := 0, 0, 0
		for _, p := range cities {
			near := Distance(c.lat, c.lon, p.lat, p.lon) <= 150_000
			if near {
				all++
			}
			if covered(spans, p.key) {
				seen++
				if near {
					byCover++
				}
			}
		}
		require.Equal(t, all, byCover)
		require.Less(t, seen, 1000)
	}
}

func BenchmarkCoverCircle(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := CoverCircle(Prefix, 52.5, 13.4, 5000, CharsDefault, SpansDefault); err != nil {
			b.Fatal(err)
		}
	}
}
