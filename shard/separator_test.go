package shard

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestSeparator (S6): of the prefixes of the right key that are above the left one it is the shortest, and there is one
// whenever the left key is below the right one.
func TestSeparator(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 'a', 'b', 0xff}), 0, 5)
		left, right := key.Draw(t, "left"), key.Draw(t, "right")
		var want []byte
		for n := range len(right) + 1 {
			if bytes.Compare(left, right[:n]) < 0 {
				want = right[:n]
				break
			}
		}
		got := Separator(left, right)
		require.Equal(t, want, got)
		require.Equal(t, bytes.Compare(left, right) < 0, got != nil)
		require.LessOrEqual(t, cap(got), len(got), "appending to it would write into the right key")
	})
}

// TestSeparatorOfCells: between keys that begin with a geohash the separator is a cell.
func TestSeparatorOfCells(t *testing.T) {
	for _, x := range [][3]string{
		{"u4pruydqqvj/car/17", "u4prv0000xz/car/3", "u4prv"},
		{"u4pruydqqvj/car/17", "u4x/car/3", "u4x"},
		{"u4pruydqqvj/car/17", "u5", "u5"},
		{"u4pr", "u4pr0", "u4pr0"},
		{"", "u4pr0", "u"},
		{"u4pr", "u4pr", ""},
		{"u4pr0", "u4pr", ""},
	} {
		require.Equal(t, x[2], string(Separator([]byte(x[0]), []byte(x[1]))), "%s and %s", x[0], x[1])
	}
}
