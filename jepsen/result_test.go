package main

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/jepsen/nemesis"
)

func TestLongestGap(t *testing.T) {
	w := nemesis.Window{From: 10, To: 100}
	require.EqualValues(t, 90, longestGap(nil, w))
	require.EqualValues(t, 90, longestGap([]int64{5, 200}, w), "what was done before or after does not count")
	require.EqualValues(t, 40, longestGap([]int64{20, 60, 90}, w))
	require.EqualValues(t, 30, longestGap([]int64{40, 50, 60, 80, 99}, w))
	require.EqualValues(t, 70, longestGap([]int64{20, 30}, w))
}

func TestRateIn(t *testing.T) {
	const second = int64(1e9)
	done := []int64{0, second, 2 * second, 3 * second, 4 * second, 10 * second}
	seconds, rate := rateIn(done, []nemesis.Window{{From: second, To: 3 * second}, {From: 9 * second, To: 11 * second}})
	require.InDelta(t, 4, seconds, 1e-9)
	require.InDelta(t, 0.75, rate, 1e-9)
	_, rate = rateIn(done, nil)
	require.True(t, math.IsInf(rate, 1), "a run without quiet times has none to be judged by")
}

// TestDoneAt: what the faults tell, what failed and what nobody knows of is not done.
func TestDoneAt(t *testing.T) {
	require.Equal(t, []int64{3}, doneAt([]check.Event{
		{Process: 0, Type: check.Invoked, F: "get", Time: 1}, {Process: check.Nemesis, Type: check.Info, F: "kill", Time: 2},
		{Process: 0, Type: check.OK, F: "get", Time: 3}, {Process: 1, Type: check.Failed, F: "get", Time: 4}, {Process: 2, Type: check.Info, F: "put", Time: 5},
	}))
}
