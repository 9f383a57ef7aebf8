package load

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/kvdstore/kvd/geo"
)

// Things move about the world. Each step of a caller moves one of its things: it writes its place, removes its last one if
// that was in another cell, and reads the cell where it is now. Most steps are of things in a hot spot, which wanders
// around the world.
const (
	// cellChars is the length of a cell's geohash: about 5 km.
	cellChars = 5
	// hotPercent is the share of steps in the hot spot, hotDegrees its radius, lapTime the time that it takes around the
	// world and northMax how far north and south it comes.
	hotPercent, hotDegrees, lapTime, northMax = 80, 0.1, 10 * time.Minute, 50.0
	// cellMost is how many things of a cell are read.
	cellMost  = 100
	geoPrefix = "t"
)

// things are all there are; each belongs to one caller.
type things struct {
	w  *Workload
	at [][]byte // The last key of each.
}

func newThings(w *Workload) *things {
	t := &things{w: w, at: make([][]byte, w.Keys)}
	for i := range t.at {
		n := scatter(uint64(i))
		// Even over the sphere, but the poles.
		t.at[i] = t.key(i, math.Asin(float64(n>>32)/(1<<31)*1.8-0.9)*180/math.Pi, float64(uint32(n))/(1<<32)*360-180)
	}
	return t
}

func (t *things) key(thing int, lat, lon float64) []byte {
	return geo.Key(geoPrefix, lat, lon, cellChars, fmt.Sprintf("%08x", thing))
}

// first is where a thing is before it moves.
func (t *things) first(i int) []byte { return t.at[i] }

// cuts are those with as many things between them at the beginning.
func (t *things) cuts(parts int) (list [][]byte) {
	all := slices.Clone(t.at)
	slices.SortFunc(all, slices.Compare)
	for i := 1; i < parts; i++ {
		list = append(list, all[len(all)*i/parts])
	}
	return slices.CompactFunc(list, slices.Equal)
}

// hotSpot is where it is after a time.
func hotSpot(since time.Duration) (lat, lon float64) {
	lap := math.Mod(since.Seconds()/lapTime.Seconds(), 1)
	return northMax * math.Sin(4*math.Pi*lap), 360*lap - 180
}

// next moves a thing of a caller.
func (t *things) next(g *Generator, since time.Duration) Op {
	own := (len(t.at) - g.caller + g.callers - 1) / g.callers
	if own < 1 { // More callers than things.
		return Op{Kind: Read, Key: t.at[g.caller%len(t.at)]}
	}
	thing := g.caller + g.rng.IntN(own)*g.callers
	lat, lon := 170*g.rng.Float64()-85, 360*g.rng.Float64()-180
	if g.rng.IntN(100) < hotPercent {
		lat, lon = hotSpot(since)
		lat += hotDegrees * (2*g.rng.Float64() - 1)
		lon = min(max(lon+hotDegrees*(2*g.rng.Float64()-1), -180), 179.999)
	}
	old, key := t.at[thing], t.key(thing, lat, lon)
	t.at[thing] = key
	if !slices.Equal(old, key) {
		g.queue = append(g.queue, Op{Kind: Delete, Key: old})
	}
	cell := []byte(geoPrefix + geo.Hash(lat, lon, cellChars) + "/")
	g.queue = append(g.queue, Op{Kind: Scan, Key: cell, End: after(cell), Limit: cellMost})
	return Op{Kind: Update, Key: key, Value: g.value()}
}

// after is the first key that does not begin with a prefix whose last byte is not 0xff.
func after(prefix []byte) []byte {
	end := slices.Clone(prefix)
	end[len(end)-1]++
	return end
}
