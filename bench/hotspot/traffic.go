package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"

	"github.com/kvdstore/kvd/geo"
)

const (
	// skew is the exponent of the zipfian load: the n-th key gets a share of 1/n^skew.
	skew = 0.99
	// cellChars is the length of a hot cell's geohash: some 5 km.
	cellChars = 5
	// cityShare is the part of the writes that one city gets.
	cityShare = 0.95
)

// place is somewhere on the map.
type place struct {
	name     string
	lat, lon float64
}

// places are where the hot spot comes to: two by two about half a world apart, and otherwise a quarter or more.
var places = []place{
	{"Zürich", 47.37, 8.54}, {"Wellington", -41.29, 174.78},
	{"Los Angeles", 34.05, -118.24}, {"Port Louis", -20.16, 57.5},
	{"Tokyo", 35.68, 139.69}, {"Montevideo", -34.9, -56.16},
	{"Madrid", 40.42, -3.7}, {"Auckland", -36.85, 174.76},
}

// cell is a hot cell with its keys.
type cell struct {
	name string
	hash string // Of cellChars.
	keys [][]byte
}

// newCell makes n keys at different places of the cell of 5 characters around a place.
func newCell(rng *rand.Rand, at place, n int) *cell {
	c := &cell{name: at.name, hash: geo.Hash(at.lat, at.lon, cellChars)}
	lat, lon := geo.Center(c.hash)
	for i := range n {
		// A cell of 5 characters has 180/2^12 degrees of latitude and 360/2^13 of longitude.
		const side = 180.0 / (1 << 12)
		key := geo.Key(geo.Prefix, lat+side*(rng.Float64()-0.5), lon+side*(rng.Float64()-0.5), geo.CharsDefault, fmt.Sprint(i))
		c.keys = append(c.keys, key)
	}
	return c
}

// worldKeys makes n keys all over the map.
func worldKeys(rng *rand.Rand, n int) [][]byte {
	keys := make([][]byte, n)
	for i := range keys {
		lat := 180 / math.Pi * math.Asin(2*rng.Float64()-1) // As much land as there is at each latitude.
		keys[i] = geo.Key(geo.Prefix, lat, 360*rng.Float64()-180, geo.CharsDefault, fmt.Sprint(i))
	}
	return keys
}

// zipfian chooses keys so that the n-th gets a share of 1/n^skew. The standard library's needs an exponent above 1.
type zipfian struct {
	keys [][]byte
	sums []float64 // Of the shares up to each key; the last is 1.
}

func newZipfian(keys [][]byte) *zipfian {
	z := &zipfian{keys: keys, sums: make([]float64, len(keys))}
	sum := 0.0
	for i := range keys {
		sum += math.Pow(float64(i+1), -skew)
		z.sums[i] = sum
	}
	for i := range z.sums {
		z.sums[i] /= sum
	}
	return z
}

func (z *zipfian) choose(rng *rand.Rand) []byte {
	return z.keys[min(sort.SearchFloat64s(z.sums, rng.Float64()), len(z.keys)-1)]
}

// traffic is what clients ask for: a key and whether it is written.
type traffic func(rng *rand.Rand) (key []byte, write bool)

func half(rng *rand.Rand) bool { return rng.Uint64()&1 == 0 }

// on is a load on some keys, zipfian, of reads and writes to equal parts.
func on(keys [][]byte) traffic {
	z := newZipfian(keys)
	return func(rng *rand.Rand) ([]byte, bool) { return z.choose(rng), half(rng) }
}

// cityTraffic has nearly all writes in a city, and the reads and the other writes all over the world.
func cityTraffic(city *cell, world [][]byte) traffic {
	hot, all := newZipfian(city.keys), newZipfian(world)
	return func(rng *rand.Rand) ([]byte, bool) {
		write := half(rng)
		if write && rng.Float64() < cityShare {
			return hot.choose(rng), true
		}
		return all.choose(rng), write
	}
}
