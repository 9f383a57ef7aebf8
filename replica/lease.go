package replica

import "time"

// lease is a ReadIndex that stays good for a while, held against the followers' promise (L3).
//
//	reads arrive ──> waiting ──ask──> asked ──confirmed, applied──> served, and the lease runs
//
// The leader notes the clock, asks a majority by ReadIndex under a context that it never uses again, and when the
// answer is applied holds the lease until noted + (E-1) ticks less a tenth. A read that arrives while a ReadIndex
// is under way waits for the next one (L7): the one under way may be older than a write that the reader knows of.
// From the start of a hand-over on there is no lease again in that term (L5).
//
// Times are CLOCK_BOOTTIME since the machine's boot.
type lease struct {
	length time.Duration // (E-1) ticks less a tenth.

	context uint64        // Of the last ReadIndex, from 1; never used again.
	asking  bool          // It is under way.
	noted   time.Duration // The clock before it was asked.
	index   uint64        // It was confirmed at this index; 0: not yet.

	until      time.Duration // End of the lease; 0: none.
	handedOver bool          // In this term.
}

// newLease makes the lease of a replica that leads nothing yet.
func newLease(electionTicks int, tick time.Duration) lease {
	full := time.Duration(electionTicks-1) * tick
	return lease{length: full - full/10}
}

// ask begins a ReadIndex at a moment that lies before the first message of it, and gives its context. One that was
// under way is given up: its answer no longer counts.
func (l *lease) ask(now time.Duration) (context uint64) {
	if !l.asking || !mutantContextUsedAgain {
		l.context++
	}
	l.asking, l.noted, l.index = true, now, 0
	return l.context
}

// confirm takes raft's answer to a ReadIndex. An answer to another than the last one is dropped.
func (l *lease) confirm(context, index uint64) {
	if l.asking && context == l.context {
		l.index = index
	}
}

// settle reports that the ReadIndex under way is confirmed and applied: what waited for it may be served, and the
// lease runs from the moment at which it was asked, unless the term's leadership is being handed over.
func (l *lease) settle(applied uint64, extend bool) bool {
	if !l.asking || l.index == 0 || applied < l.index {
		return false
	}
	l.asking = false
	if extend && !l.handedOver {
		l.until = max(l.until, l.noted+l.length)
	}
	return true
}

// handOver ends the lease for the rest of the term (L5). It is published before the hand-over's message leaves (T4).
func (l *lease) handOver() {
	if mutantLeaseThroughHandOver {
		return
	}
	l.until, l.handedOver = 0, true
}

// reset ends everything at a change of term or role. Contexts go on.
func (l *lease) reset() {
	*l = lease{length: l.length, context: l.context}
}

// wants reports whether half of the lease is gone, so that a leader with readers asks again.
func (l *lease) wants(now time.Duration) bool {
	return !l.asking && !l.handedOver && now >= l.until-l.length/2
}
