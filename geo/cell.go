package geo

import (
	"strings"

	"github.com/mmcloughlin/geohash"
)

// codeBits is the length of a geohash code of CharsMax characters. A code is the geohash as a number.
const codeBits = 5 * CharsMax

// cell is what one geohash stands for. Its edges are exact: they are multiples of powers of two of 45 degrees.
type cell struct {
	south, west, north, east float64
	codes                    codes
	// level is the length of the geohash, in characters.
	level int
}

var world = cell{south: -90, west: -180, north: 90, east: 180, codes: codes{0, 1 << codeBits}}

// part is the n-th of a cell's 32 parts, in the order of their geohashes: five halvings, of longitude and latitude
// by turns, and longitude first where the level is even.
func (c cell) part(n int) cell {
	for bit := range 5 {
		high := n>>(4-bit)&1 == 1
		if (5*c.level+bit)%2 == 0 {
			c.west, c.east = half(c.west, c.east, high)
		} else {
			c.south, c.north = half(c.south, c.north, high)
		}
	}
	size := (c.codes.end - c.codes.start) / 32
	c.codes.start += uint64(n) * size
	c.codes.end = c.codes.start + size
	c.level++
	return c
}

func half(low, high float64, upper bool) (float64, float64) {
	middle := (low + high) / 2
	if upper {
		return middle, high
	}
	return low, middle
}

// shortest is the shortest geohash that sorts where the code of full length does: without the zeros at its end.
func shortest(code uint64) string {
	return strings.TrimRight(geohash.ConvertIntToString(code, CharsMax), "0")
}
