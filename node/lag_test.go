package node

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
)

// TestLag: the loop lags while a turn goes on, or has begun right after one that took long, and not while it waits, or once it has
// waited.
func TestLag(t *testing.T) {
	var l lag
	now := time.Hour
	require.Zero(t, l.at(now))
	l.begin(now, true)
	require.Zero(t, l.at(now))
	now += time.Minute
	require.Equal(t, time.Minute, l.at(now))
	l.end(now)
	require.Zero(t, l.at(now))
	now += kv.LoopLagMax
	l.begin(now, true)
	require.Equal(t, time.Minute, l.at(now+time.Second), "the turn before took longer")
	require.Equal(t, time.Hour, l.at(now+time.Hour))
	now += time.Hour
	l.end(now)
	now += kv.LoopLagMax + 1
	l.begin(now, true)
	require.Equal(t, time.Second, l.at(now+time.Second), "it has waited")
	now += time.Hour
	l.end(now)
	now += kv.LoopLagMax + 1
	l.begin(now, false)
	require.Equal(t, time.Hour, l.at(now+time.Second), "it was held up")
}
