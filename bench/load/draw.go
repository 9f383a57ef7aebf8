package load

import (
	"math"
	"math/rand/v2"
)

const (
	// theta is the skew of YCSB's zipfian choices.
	theta = 0.99
	// scrambledItems is the number of items that YCSB's scrambled choice draws from before it scatters them over the
	// records, whatever their number.
	scrambledItems = 10_000_000_000
	// added is up to which term a sum is added up: beyond it an integral comes nearer than floating point does.
	added = 10_000
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

// Grow draws from n numbers from now on, if those are more.
func (z *Zipfian) Grow(n uint64) {
	if n <= z.n {
		return
	}
	for ; z.n < min(n, added); z.n++ {
		z.zeta += math.Pow(float64(z.n+1), -z.theta)
	}
	z.zeta += z.rest(n) - z.rest(z.n)
	z.n = n
	z.settle()
}

// rest is the sum of the first n terms but for a constant, by Euler and Maclaurin's formula.
func (z *Zipfian) rest(n uint64) float64 {
	x := float64(n)
	term := math.Pow(x, -z.theta)
	return x*term/(1-z.theta) + term/2 - z.theta*term/x/12
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

// zipfian has the first records the most popular. Their keys are all over the key space.
type zipfian struct{ *Zipfian }

func (z zipfian) choose(rng *rand.Rand, records uint64) uint64 { return min(z.Draw(rng), records-1) }

// scrambled is YCSB's: what it draws from many more items falls on some record. Of a million records four choices in ten are as good as
// uniform, of twenty million three.
type scrambled struct{ *Zipfian }

func newScrambled() scrambled { return scrambled{NewZipfian(scrambledItems, theta)} }

func (s scrambled) choose(rng *rand.Rand, records uint64) uint64 {
	return scatter(s.Draw(rng)) % records
}

// latest has the newest records the most popular.
type latest struct{ *Zipfian }

func (l latest) choose(rng *rand.Rand, records uint64) uint64 {
	l.Grow(records)
	return records - 1 - min(l.Draw(rng), records-1)
}

// The names of the choices.
const (
	Uniform   = "uniform"
	Skewed    = "zipfian"
	Scrambled = "scrambled"
	Latest    = "latest"
)

func newChoice(name string, records uint64) choice {
	switch name {
	case Skewed:
		return zipfian{NewZipfian(records, theta)}
	case Scrambled:
		return newScrambled()
	case Latest:
		return latest{NewZipfian(records, theta)}
	}
	return uniform{}
}
