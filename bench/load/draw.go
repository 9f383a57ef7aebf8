package load

import (
	"math"
	"math/rand/v2"
)

const (
	// theta is the skew of YCSB's zipfian choices.
	theta = 0.99
	// scrambledItems is the number of items that YCSB's scrambled choice draws from before it scatters them over the
	// records, whatever their number, and scrambledZeta the sum of 1/i^theta over so many.
	scrambledItems = 10_000_000_000
	scrambledZeta  = 26.46902820178302
)

// Zipfian draws numbers from 0 on, the i-th with a share of 1/(i+1)^theta, by the method of Gray et al., "Quickly
// generating billion-record synthetic databases", SIGMOD 1994.
type Zipfian struct {
	n                  uint64
	theta, alpha, zeta float64
	eta, half          float64
}

// NewZipfian draws from n numbers; n is at least 1, theta between 0 and 1 exclusively.
func NewZipfian(n uint64, theta float64) *Zipfian {
	z := &Zipfian{theta: theta, alpha: 1 / (1 - theta), half: math.Pow(0.5, theta)}
	z.Grow(n)
	return z
}

// newScrambled draws from so many items that adding them up would take minutes.
func newScrambled() *Zipfian {
	z := &Zipfian{n: scrambledItems, theta: theta, alpha: 1 / (1 - theta), half: math.Pow(0.5, theta), zeta: scrambledZeta}
	z.settle()
	return z
}

// Grow draws from n numbers from now on, if those are more.
func (z *Zipfian) Grow(n uint64) {
	if n <= z.n {
		return
	}
	for ; z.n < n; z.n++ {
		z.zeta += 1 / math.Pow(float64(z.n+1), z.theta)
	}
	z.settle()
}

func (z *Zipfian) settle() {
	z.eta = (1 - math.Pow(2/float64(z.n), 1-z.theta)) / (1 - (1+z.half)/z.zeta)
}

// Draw draws a number.
func (z *Zipfian) Draw(rng *rand.Rand) uint64 {
	u := rng.Float64()
	switch at := u * z.zeta; {
	case at < 1:
		return 0
	case at < 1+z.half:
		return min(1, z.n-1)
	}
	return min(uint64(float64(z.n)*math.Pow(z.eta*u-z.eta+1, z.alpha)), z.n-1)
}

// scatter spreads numbers over all others: FNV-1 of their eight bytes, lowest first, as YCSB has it.
func scatter(n uint64) uint64 {
	const offset, prime = 0xCBF29CE484222325, 1099511628211
	h := uint64(offset)
	for range 8 {
		h = (h ^ n&0xff) * prime
		n >>= 8
	}
	if int64(h) < 0 {
		h = -h
	}
	return h
}

// choice chooses a record of those that are there: at least one.
type choice interface {
	choose(rng *rand.Rand, records uint64) uint64
}

type uniform struct{}

func (uniform) choose(rng *rand.Rand, records uint64) uint64 { return rng.Uint64N(records) }

// scrambled has popular records all over the key space.
type scrambled struct{ *Zipfian }

func (s scrambled) choose(rng *rand.Rand, records uint64) uint64 {
	return scatter(s.Draw(rng)) % records
}

// latest has the newest records the most popular.
type latest struct{ *Zipfian }

func (l latest) choose(rng *rand.Rand, records uint64) uint64 {
	l.Grow(records)
	return records - 1 - min(l.Draw(rng), records-1)
}

// Distributions are the names of the choices.
const (
	Uniform   = "uniform"
	Scrambled = "zipfian"
	Latest    = "latest"
)

func newChoice(name string, records uint64) choice {
	switch name {
	case Scrambled:
		return scrambled{newScrambled()}
	case Latest:
		return latest{NewZipfian(records, theta)}
	}
	return uniform{}
}
