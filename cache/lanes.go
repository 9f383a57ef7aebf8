package cache

import (
	"math/rand/v2"
	"sync/atomic"
)

// laneCount is how many copies of each counter there are. Readers of one hot key on many cores would otherwise
// pass one cache line around.
const laneCount = 32

// lane is one copy of the counters, on cache lines of its own. Which lane counts an event is left to chance;
// only the sums mean anything.
type lane struct {
	hits, misses, stale atomic.Uint64
	_                   [128 - 3*8]byte
}

type lanes [laneCount]lane

func (l *lanes) pick() *lane { return &l[rand.Uint32()%laneCount] }

func (l *lanes) hit() { l.pick().hits.Add(1) }

func (l *lanes) miss(stale bool) {
	c := l.pick()
	c.misses.Add(1)
	if stale {
		c.stale.Add(1)
	}
}

func (l *lanes) sum() Metrics {
	var m Metrics
	for i := range l {
		m.Hits += l[i].hits.Load()
		m.Misses += l[i].misses.Load()
		m.Stale += l[i].stale.Load()
	}
	return m
}
