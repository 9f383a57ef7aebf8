package replica

import (
	"testing"
	"time"
)

const (
	testTick     = 100 * time.Millisecond
	testElection = 11 // A lease of 900 ms.
	testStart    = time.Hour
)

func held(t *testing.T) lease {
	l := newLease(testElection, testTick)
	l.confirm(l.ask(testStart), 20)
	if !l.settle(20, true) || l.until != testStart+900*time.Millisecond {
		t.Fatalf("the lease runs until %v", l.until)
	}
	return l
}

// TestLeaseRunsFromBeforeTheQuestion: however late the answer comes, the lease counts from the moment
// before the question left, and ends before the earliest promise of one election timeout can.
func TestLeaseRunsFromBeforeTheQuestion(t *testing.T) {
	l := newLease(testElection, testTick)
	context := l.ask(testStart)
	if l.settle(1<<40, true) {
		t.Fatal("settled without an answer")
	}
	l.confirm(context, 20)
	if l.settle(19, true) {
		t.Fatal("settled before the index was applied")
	}
	if !l.settle(20, true) || l.until != testStart+900*time.Millisecond {
		t.Fatalf("the lease runs until %v", l.until)
	}
	if l.settle(20, true) {
		t.Fatal("settled twice")
	}
}

// TestLeaseDropsAnEarlierAnswer: the answer to a question that was asked again does not count.
func TestLeaseDropsAnEarlierAnswer(t *testing.T) {
	l := newLease(testElection, testTick)
	first := l.ask(testStart)
	second := l.ask(testStart + time.Minute)
	if first == second {
		t.Fatal("a context was used again")
	}
	if l.confirm(first, 20); l.settle(20, true) {
		t.Fatal("the first answer counted for the second question")
	}
	l.reset()
	if l.confirm(second, 20); l.settle(20, true) {
		t.Fatal("an answer of an earlier term counted")
	}
	if third := l.ask(testStart); third == first || third == second {
		t.Fatal("a context was used again in a later term")
	}
}

// TestLeaseEndsAtHandOver: none is left, and a ReadIndex that is answered later serves its reads but
// gives no new one in that term.
func TestLeaseEndsAtHandOver(t *testing.T) {
	l := held(t)
	context := l.ask(testStart + time.Second)
	l.handOver()
	if l.until != 0 {
		t.Fatalf("a lease until %v is left", l.until)
	}
	if l.confirm(context, 30); !l.settle(30, true) || l.until != 0 {
		t.Fatalf("a lease until %v after the hand-over began", l.until)
	}
	if l.wants(testStart + time.Hour) {
		t.Fatal("wants another lease in the term of the hand-over")
	}
	l.reset()
	l.confirm(l.ask(testStart), 40)
	if !l.settle(40, true) || l.until == 0 {
		t.Fatal("no lease in the next term")
	}
}

func TestLeaseIsRenewedAtHalf(t *testing.T) {
	l := held(t)
	if l.wants(testStart+440*time.Millisecond) || !l.wants(testStart+450*time.Millisecond) {
		t.Fatal("a lease of 900 ms is renewed after 450")
	}
}
