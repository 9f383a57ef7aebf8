package node

import (
	"sync/atomic"
	"time"

	"github.com/kvdstore/kvd/kv"
)

// lag is how far the event loop is behind. Its times are since the machine's boot, above 0. The loop alone calls begin and end.
type lag struct {
	ended time.Duration // When the last turn did.
	// began is when the turn under way began, 0 if there is none, and took how long the one just before took, 0 if the loop has
	// waited since.
	began, took atomic.Int64
}

// begin tells that a turn begins, and whether the loop has waited before it.
func (l *lag) begin(now time.Duration, waited bool) {
	if waited && now-l.ended > kv.LoopLagMax {
		l.took.Store(0)
	}
	l.began.Store(int64(now))
}

func (l *lag) end(now time.Duration) {
	l.ended = now
	l.took.Store(int64(now) - l.began.Load())
	l.began.Store(0)
}

// at is how long the turn under way has taken, or the one just before if that took longer; 0 while there is none.
func (l *lag) at(now time.Duration) time.Duration {
	began := time.Duration(l.began.Load())
	if began == 0 {
		return 0
	}
	return max(now-began, time.Duration(l.took.Load()))
}
