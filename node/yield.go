package node

import (
	"runtime"
	"time"
)

const (
	// yieldFree is how long a yield may take for nothing, and yieldEach how much longer for each submission that came meanwhile.
	yieldFree, yieldEach = time.Millisecond, 100 * time.Microsecond
	// yieldRests is for how many times as long as it took none follows one that took longer.
	yieldRests = 50
)

// yielding is whether the loop lets others run before a turn. Where calls come from many goroutines the first to submit has woken
// it, and others that can run would each come too late for its turn, which costs more than what it does for them. But
// the loop then waits for all that can run: where that is something else, which only computes, it does not do so again for a while.
type yielding struct {
	rests time.Duration // Until then it does not.
}

// yield lets others run at now, if the newest submission is a call's, more wait than one, no tick is due, and it has been worth it.
func (n *Node) yield(y *yielding, now time.Duration) (yielded bool) {
	before, called := n.inbox.submitted()
	if !called || !n.budget.writes.several() || now < y.rests || now >= n.core.Deadline() {
		return false
	}
	runtime.Gosched()
	after, _ := n.inbox.submitted()
	y.took(now, bootTime(), after-before)
	return true
}

// took notes a yield in which so many submissions came.
func (y *yielding) took(began, ended time.Duration, came int) {
	if took := ended - began; took > yieldFree+time.Duration(came)*yieldEach {
		y.rests = ended + yieldRests*took
	}
}
