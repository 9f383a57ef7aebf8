package node

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestYielding: a yield that took long for what came in it is followed by none for a while, others are not.
func TestYielding(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		took time.Duration
		came int
		rest time.Duration
	}{
		{0, 0, 0}, {ms, 0, 0}, {ms + 1, 0, yieldRests * (ms + 1)},
		{2 * ms, 10, 0}, {12 * ms, 110, 0}, {20 * ms, 64, yieldRests * 20 * ms},
	} {
		y := yielding{}
		y.took(time.Hour, time.Hour+c.took, c.came)
		if c.rest == 0 {
			require.Zero(t, y)
		} else {
			require.Equal(t, time.Hour+c.took+c.rest, y.rests)
		}
	}
}

// TestYieldWaitsForCalls: the loop yields where several calls wait, the newest of which is one, and no tick is due; it then counts what
// came.
func TestYieldWaitsForCalls(t *testing.T) {
	const now = time.Hour
	for name, c := range map[string]struct {
		waiting  int64
		called   []bool
		deadline time.Duration
		rests    time.Duration
		yields   bool
	}{
		"several calls":               {2, []bool{true, true}, now + 1, 0, true},
		"one, and others in the loop": {2, []bool{true}, now + 1, 0, true},
		"a lone one":                  {1, []bool{true}, now + 1, 0, false},
		"none":                        {2, nil, now + 1, 0, false},
		"the newest of a pipeline":    {2, []bool{true, false}, now + 1, 0, false},
		"a tick is due":               {2, []bool{true, true}, now, 0, false},
		"it was not worth it":         {2, []bool{true, true}, now + 1, now + 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := &Node{inbox: newInbox(), budget: newBudget(), core: &Core{nextTick: c.deadline}}
			n.budget.writes.waiting.Store(c.waiting)
			for _, called := range c.called {
				n.inbox.submit(&waiting{called: called, view: &View{}})
			}
			require.Equal(t, c.yields, n.yield(&yielding{rests: c.rests}, now))
		})
	}
	b := newInbox()
	for i := range 5 {
		b.submit(&waiting{called: true, view: &View{}})
		number, called := b.submitted()
		require.Equal(t, i+1, number)
		require.True(t, called)
	}
	require.Len(t, b.take().Submissions, 5)
	number, called := b.submitted()
	require.Zero(t, number)
	require.False(t, called)
}
