package node

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestLag: the loop lags while a turn goes on, or has begun after one that took long, and never while it waits.
func TestLag(t *testing.T) {
	n := &Node{}
	n.turnTook.Store(int64(time.Hour))
	require.Zero(t, n.Lag())
	n.turnBegan.Store(int64(bootTime() - time.Minute))
	require.Equal(t, time.Hour, n.Lag())
	n.turnTook.Store(0)
	require.GreaterOrEqual(t, n.Lag(), time.Minute)
	n.turnBegan.Store(0)
	require.Zero(t, n.Lag())
}
