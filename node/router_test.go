package node

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
)

// TestAgain: an attempt that failed for want of a leader is repeated, but not for ever, and not when there would be no
// time left to tell the caller that nothing was done.
func TestAgain(t *testing.T) {
	n, d := &Node{}, &kv.Descriptor{Shard: 3}
	again := func(left time.Duration, began time.Time, err error) bool {
		ctx, cancel := context.WithTimeout(t.Context(), left)
		defer cancel()
		return n.again(ctx, d, began, 0, err)
	}
	noLeader := &kv.NotLeaderError{Shard: 3}
	require.True(t, again(time.Hour, time.Now(), noLeader))
	require.True(t, again(time.Hour, time.Now(), &kv.StaleEpochError{}))
	require.False(t, again(time.Hour, time.Now(), kv.ErrUnknown))
	require.False(t, again(answerReserve-time.Millisecond, time.Now(), noLeader))
	require.False(t, again(time.Hour, time.Now().Add(-2*leaderlessMax), noLeader))
}
