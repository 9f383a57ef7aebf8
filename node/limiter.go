package node

import (
	"sync/atomic"
	"time"
)

// limiter lets in as many requests as are answered in time. It counts those that wait, and moves the bound on them:
// each answer in time raises it by one, unless far fewer wait than may, and late ones cut it by a quarter, once for all
// that were let in before the cut. So the bound comes to rest where a request waits about as long as it may (additive increase,
// multiplicative decrease), whatever the requests cost and the machine can do. Safe for concurrent use.
type limiter struct {
	// low and high are what the bound stays between. With fewer than low nothing is refused: their answers tell when
	// it has become better.
	low, high int64
	late      time.Duration

	waiting, bound atomic.Int64
	// cut is when the bound was cut last.
	cut atomic.Int64
}

func newLimiter(low, high int64, late time.Duration) *limiter {
	l := &limiter{low: low, high: high, late: late}
	l.bound.Store(low)
	return l
}

// enter lets a request in, if few enough wait.
func (l *limiter) enter() bool {
	if l.waiting.Add(1) > l.bound.Load() {
		l.waiting.Add(-1)
		return false
	}
	return true
}

// full reports whether enter would refuse now.
func (l *limiter) full() bool { return l.waiting.Load() >= l.bound.Load() }

// most is how many of those that may wait may be of one shard: one that is stuck must leave room for the others.
func (l *limiter) most() int64 {
	bound := l.bound.Load()
	return bound - bound/4
}

// several reports that more than one waits.
func (l *limiter) several() bool { return l.waiting.Load() > 1 }

// leave ends a request without learning from it.
func (l *limiter) leave() { l.waiting.Add(-1) }

// answered ends a request that was let in at one time and answered at another, of any clock that only rises.
func (l *limiter) answered(in, now time.Duration) {
	waiting, bound := l.waiting.Add(-1)+1, l.bound.Load()
	switch took := now - in; {
	case took > l.late:
		l.cutTo(int64(float64(bound)*float64(l.late)/float64(took)), in, now)
	case waiting >= bound/2 && bound < l.high:
		l.bound.CompareAndSwap(bound, bound+1) // Of several at once one may not count.
	}
}

// refused ends a request that was let in here and refused where it was sent, for want of room.
func (l *limiter) refused(in, now time.Duration) {
	l.waiting.Add(-1)
	bound := l.bound.Load()
	l.cutTo(bound-bound/4, in, now)
}

// cutTo cuts the bound, unless it was cut since the request was let in.
func (l *limiter) cutTo(bound int64, in, now time.Duration) {
	last := l.cut.Load()
	if int64(in) >= last && l.cut.CompareAndSwap(last, int64(now)) {
		l.bound.Store(max(l.low, bound))
	}
}
