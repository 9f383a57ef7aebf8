package geo

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/kvdstore/kvd/kv"
)

// A cover is found from above: the world is one cell; every cell that the shape touches, and does not fill, is
// cut into its 32 parts, until the keys' precision or the bound on cells is reached. What is left are ranges of
// the order of geohashes. Where there are more than the caller wants, the smallest gaps between them are closed.
const (
	// SpansDefault is a number of spans that suits a scan.
	SpansDefault = 16
	// SpansMax bounds what a caller may ask for.
	SpansMax = 1024
	// cellsMin bounds the work of a cover: cutting stops before more cells than this, and than four a span.
	cellsMin = 256
	// slack widens every shape, in metres, by more than what floating point loses.
	slack = 1e-3
	// slackDegrees is the same for the edges of a box.
	slackDegrees = 1e-8
)

// Box is the part of the map between two latitudes and two longitudes, its edges included. When West is greater
// than East it crosses the antimeridian.
type Box struct {
	South, West, North, East float64
}

// Contains reports whether a point lies in the box.
func (b Box) Contains(lat, lon float64) bool {
	return lat >= b.South && lat <= b.North && b.touches(lon, lon, 0)
}

// touches reports whether the longitudes from west to east have one in common with the box, give or take.
func (b Box) touches(west, east, slack float64) bool {
	to := b.East
	if b.West > b.East {
		to += 360
	}
	for _, turn := range [...]float64{-360, 0, 360} {
		if west+turn <= to+slack && east+turn >= b.West-slack {
			return true
		}
	}
	return false
}

func (b Box) check() error {
	for _, f := range []struct {
		name          string
		degrees, most float64
	}{{"south", b.South, 90}, {"north", b.North, 90}, {"west", b.West, 180}, {"east", b.East, 180}} {
		if err := checkDegrees(f.name, f.degrees, f.most); err != nil {
			return err
		}
	}
	if b.South > b.North {
		return &kv.InvalidError{Field: "south", Bound: fmt.Sprintf("not north of north (%v), is %v", b.North, b.South)}
	}
	return nil
}

// CoverBox gives at most spans spans of keys that together hold the key of every place in the box. They are
// sorted and do not touch. The keys have geohashes of chars characters or more behind prefix.
func CoverBox(prefix string, b Box, chars, spans int) ([]kv.Span, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	return cover(prefix, chars, spans, func(c cell) reach {
		switch {
		case c.south > b.North+slackDegrees || c.north < b.South-slackDegrees || !b.touches(c.west, c.east, slackDegrees):
			return outside
		case c.south >= b.South && c.north <= b.North && b.Contains(c.south, c.west) && b.Contains(c.north, c.east) && b.Contains(c.south, (c.west+c.east)/2):
			return inside
		}
		return across
	})
}

// CoverCircle gives at most spans spans of keys that together hold the key of every place within radius metres of
// a point. They are sorted and do not touch. The keys have geohashes of chars characters or more behind prefix.
func CoverCircle(prefix string, lat, lon, radius float64, chars, spans int) ([]kv.Span, error) {
	if err := CheckPoint(lat, lon); err != nil {
		return nil, err
	}
	if !(radius >= 0 && radius <= math.MaxFloat64) {
		return nil, &kv.InvalidError{Field: "radius", Bound: fmt.Sprintf("0 metres or more, and finite, is %v", radius)}
	}
	return cover(prefix, chars, spans, func(c cell) reach {
		switch {
		case nearest(lat, lon, c) > radius+slack:
			return outside
		case EarthRadius*radians(c.north-c.south) <= 2*radius && farthest(lat, lon, c) <= radius:
			return inside
		}
		return across
	})
}

// reach says how a shape meets a cell.
type reach uint8

const (
	outside reach = iota
	across
	inside
)

func cover(prefix string, chars, spans int, meet func(cell) reach) ([]kv.Span, error) {
	if err := checkChars(chars); err != nil {
		return nil, err
	}
	if spans < 1 || spans > SpansMax {
		return nil, &kv.InvalidError{Field: "spans", Bound: fmt.Sprintf("1 to %d, is %d", SpansMax, spans)}
	}
	if len(prefix)+CharsMax > kv.KeyBytesMax {
		return nil, &kv.InvalidError{Field: "prefix", Bound: fmt.Sprintf("at most %d bytes, has %d", kv.KeyBytesMax-CharsMax, len(prefix))}
	}
	return spansOf(prefix, closeGaps(rangesOf(refine(chars, spans, meet)), spans)), nil
}

// refine cuts the world into cells that together hold the shape.
func refine(chars, spans int, meet func(cell) reach) []cell {
	filled, edge := []cell(nil), []cell{world}
	for level := 0; level < chars; level++ {
		var in, on []cell
		for _, c := range edge {
			for n := range 32 {
				switch part := c.part(n); meet(part) {
				case inside:
					in = append(in, part)
				case across:
					on = append(on, part)
				}
			}
		}
		// Floating point might find no part of a cell that the shape touches: then the cell stands.
		if len(in)+len(on) == 0 || len(filled)+len(in)+len(on) > max(cellsMin, 4*spans) {
			break
		}
		filled, edge = append(filled, in...), on
	}
	return append(filled, edge...)
}

// codes is a half-open range of geohash codes at full precision.
type codes struct{ start, end uint64 }

// rangesOf sorts the cells in the order of their geohashes and joins those that touch.
func rangesOf(cells []cell) []codes {
	slices.SortFunc(cells, func(a, b cell) int { return cmp.Compare(a.codes.start, b.codes.start) })
	var ranges []codes
	for _, c := range cells {
		if n := len(ranges); n > 0 && ranges[n-1].end == c.codes.start {
			ranges[n-1].end = c.codes.end
			continue
		}
		ranges = append(ranges, c.codes)
	}
	return ranges
}

// closeGaps joins neighbours across the smallest gaps until at most n ranges are left.
func closeGaps(ranges []codes, n int) []codes {
	if len(ranges) <= n {
		return ranges
	}
	// gaps lists the ranges with a gap in front of them, the largest gap first; n-1 of these gaps stay.
	gaps := make([]int, 0, len(ranges)-1)
	for i := 1; i < len(ranges); i++ {
		gaps = append(gaps, i)
	}
	gap := func(i int) uint64 { return ranges[i].start - ranges[i-1].end }
	slices.SortStableFunc(gaps, func(a, b int) int { return cmp.Compare(gap(b), gap(a)) })
	stay := slices.Sorted(slices.Values(gaps[:n-1]))
	joined := make([]codes, 0, n)
	from := 0
	for _, i := range append(stay, len(ranges)) {
		joined = append(joined, codes{ranges[from].start, ranges[i-1].end})
		from = i
	}
	return joined
}

func spansOf(prefix string, ranges []codes) []kv.Span {
	spans := make([]kv.Span, 0, len(ranges))
	for _, r := range ranges {
		span := kv.Span{Start: append([]byte(prefix), shortest(r.start)...), End: kv.PrefixEnd([]byte(prefix))}
		if r.end < world.codes.end {
			span.End = append([]byte(prefix), shortest(r.end)...)
		}
		spans = append(spans, span)
	}
	return spans
}
