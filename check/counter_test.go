package check

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCounts(t *testing.T) {
	add := func(delta int64, call, ret int64) Operation {
		o := op(CAS, "", call, ret, 1)
		o.Delta = delta
		return o
	}
	incr := func(after string, call, ret int64) Operation { return op(Increment, after, call, ret, 1) }
	for _, c := range []struct {
		name string
		h    History
		ok   bool
	}{
		{"nothing", nil, true},
		{"each counts", History{incr("1", 1, 2), add(4, 3, 4), op(Get, "5", 5, 6, 2)}, true},
		{"absent is 0", History{op(Get, "", 1, 2, 0), incr("1", 3, 4)}, true},
		{"absent after an increment", History{incr("1", 3, 4), op(Get, "", 5, 6, 0)}, false},
		{"what overlaps may count", History{add(4, 1, 9), op(Get, "4", 2, 3, 1)}, true},
		{"or may not", History{add(4, 1, 9), op(Get, "", 2, 3, 0)}, true},
		{"but not by half", History{add(4, 1, 9), op(Get, "2", 2, 3, 1)}, false},
		{"an increment is lost", History{incr("1", 1, 2), add(4, 3, 4), op(Get, "4", 5, 6, 2)}, false},
		{"a conditional one is lost", History{incr("1", 1, 2), add(4, 3, 4), op(Get, "1", 5, 6, 2)}, false},
		{"one counts twice", History{incr("1", 1, 2), add(4, 3, 4), op(Get, "9", 5, 6, 2)}, false},
		{"an increment shows that one is lost", History{add(4, 1, 2), incr("1", 3, 4)}, false},
		{"a condition that was not met adds nothing", History{add(4, 1, 2).failed(), op(Get, "4", 5, 6, 2)}, false},
		{"what was refused adds nothing", History{add(4, 1, 2).notDone(), op(Get, "4", 5, 6, 2)}, false},
		{"an unknown one counts", History{add(4, 1, 2).unknown(), op(Get, "4", 5, 6, 2)}, true},
		{"or does not", History{add(4, 1, 2).unknown(), op(Get, "", 5, 6, 0)}, true},
		{"never twice", History{add(4, 1, 2).unknown(), op(Get, "8", 5, 6, 2)}, false},
		{"what comes later does not count yet", History{op(Get, "4", 1, 2, 1), add(4, 3, 4)}, false},
		{"no number", History{incr("1", 1, 2), op(Get, "x", 5, 6, 2)}, false},
		{"numbers as large as they may be", History{incr("9223372036854775807", 1, 2), add(9223372036854775807, 1, 2)}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := Counts(c.h)
			if c.ok {
				require.Empty(t, found)
				return
			}
			require.Len(t, found, 1)
			require.Equal(t, WrongCount, found[0].Rule)
		})
	}
	require.Equal(t, BadHistory, Counts(History{op(Put, "1", 1, 2, 1)})[0].Rule)
	require.Equal(t, BadHistory, Counts(History{op(CAS, "1", 1, 2, 1)})[0].Rule, "what it adds is not told")
}

// TestCountsHold: counters of real clusters hold, whatever answers are lost.
func TestCountsHold(t *testing.T) {
	for seed := range uint64(300) {
		c := newCluster(seed, Get, Increment)
		c.lossOneIn = 2 + int(seed%6)
		h := c.run("k", 5, 100)
		require.Empty(t, Counts(h.Ended(0, c.final())), "seed %d", seed)
	}
}
