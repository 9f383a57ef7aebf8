package cache

import (
	"math/rand/v2"
	"runtime"
	"sync/atomic"
)

// gate lets calls pass until it is shut, and shutting it waits for those that are inside. It is what a
// sync.RWMutex would do, without the one counter on which all cores would meet.
type gate struct {
	closed atomic.Bool
	lanes  [laneCount]gateLane
}

// gateLane counts calls on cache lines of its own.
type gateLane struct {
	entered, left atomic.Uint64
	_             [128 - 2*8]byte
}

// enter lets a call pass; ok is false when the gate is shut. Either way the call leaves by the lane it got.
func (g *gate) enter() (l *gateLane, ok bool) {
	l = &g.lanes[rand.Uint32()%laneCount]
	l.entered.Add(1)
	return l, !g.closed.Load()
}

func (l *gateLane) leave() { l.left.Add(1) }

// shut closes the gate and returns when every call that passed has left. Calls are short, so it yields rather
// than sleeps. A call counted before the flag was set is in entered by the time that shut reads it; one that came
// later has seen the flag.
func (g *gate) shut() {
	g.closed.Store(true)
	for i := range g.lanes {
		l := &g.lanes[i]
		for {
			left := l.left.Load()
			if l.entered.Load() == left {
				break
			}
			runtime.Gosched()
		}
	}
}
