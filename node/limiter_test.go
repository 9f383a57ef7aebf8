package node

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// served is a queue in front of what answers one request every cost, on a clock of its own.
type served struct {
	limit   *limiter
	queue   []time.Duration // When each was let in.
	now     time.Duration
	answers int
	refused int
	longest time.Duration
}

// run offers a request every gap for a time.
func (s *served) run(gap, cost, length time.Duration) (answers, refused int, longest time.Duration) {
	s.answers, s.refused, s.longest = 0, 0, 0
	end, offer, answer := s.now+length, s.now, s.now+cost
	for s.now < end {
		if s.now = min(offer, answer); s.now == offer {
			offer += gap
			if s.limit.enter() {
				s.queue = append(s.queue, s.now)
			} else {
				s.refused++
			}
			continue
		}
		answer += cost
		if len(s.queue) > 0 {
			s.longest = max(s.longest, s.now-s.queue[0])
			s.limit.answered(s.queue[0], s.now)
			s.queue = s.queue[1:]
			s.answers++
		}
	}
	return s.answers, s.refused, s.longest
}

// TestLimiter: under five times what can be answered, what is let in is answered at the full rate and in about the time
// it may take; also after what is asked has become dearer at once. Less than can be answered is never refused.
func TestLimiter(t *testing.T) {
	const late = 100 * time.Millisecond
	s := &served{limit: newLimiter(100, 60_000, late)}
	const cost = 25 * time.Microsecond
	answers, refused, longest := s.run(2*cost, cost, 10*time.Second)
	require.Zero(t, refused)
	require.InDelta(t, 10*time.Second/(2*cost), answers, 10)
	require.Less(t, longest, late)

	answers, refused, longest = s.run(cost/5, cost, 10*time.Second)
	require.Greater(t, answers, int(10*time.Second/cost)*99/100, "it idles")
	require.Positive(t, refused)
	require.Less(t, longest, 3*late)

	s.run(cost, 4*cost, time.Second)
	answers, _, longest = s.run(cost, 4*cost, 10*time.Second)
	require.Greater(t, answers, int(10*time.Second/(4*cost))*99/100, "it idles")
	require.Less(t, longest, 3*late)

	s.run(2*cost, cost, time.Second)
	_, refused, longest = s.run(2*cost, cost, 10*time.Second)
	require.Zero(t, refused, "it has not recovered")
	require.Less(t, longest, late)
}

// TestLimiterCuts: what was let in before a cut does not cut again, and answers while few wait say nothing of many.
func TestLimiterCuts(t *testing.T) {
	const second = time.Second
	l := newLimiter(10, 10_000, second)
	l.bound.Store(1000)
	for range 1000 {
		require.True(t, l.enter())
	}
	require.False(t, l.enter())
	require.True(t, l.full())
	for i := range time.Duration(500) {
		l.answered(0, 5*second+i)
	}
	for i := range time.Duration(400) {
		l.refused(second, 5*second+i)
	}
	require.EqualValues(t, 200, l.bound.Load(), "it took five times as long as it may")
	require.False(t, l.full())
	for range 100 {
		l.leave()
	}
	require.True(t, l.enter())
	l.answered(6*second, 8*second)
	require.EqualValues(t, 100, l.bound.Load())
	require.True(t, l.enter())
	l.refused(9*second, 9*second)
	require.EqualValues(t, 75, l.bound.Load())
	for i := range time.Duration(100) {
		require.True(t, l.enter())
		l.answered((10+i)*second, (10+i)*second)
	}
	require.EqualValues(t, 75, l.bound.Load())
	require.True(t, l.enter())
	l.answered(1000*second, 2000*second)
	require.EqualValues(t, 10, l.bound.Load(), "a few are always let in")
	for i := range time.Duration(20_000) {
		for l.enter() {
		}
		l.answered(3000*second+i, 3000*second+i)
	}
	require.EqualValues(t, 10_000, l.bound.Load())
}
