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
	again := func(left time.Duration, until time.Time, err error) bool {
		ctx, cancel := context.WithTimeout(t.Context(), left)
		defer cancel()
		return n.again(ctx, d, until, 0, err)
	}
	noLeader := &kv.NotLeaderError{Shard: 3}
	require.True(t, again(time.Hour, time.Now().Add(time.Minute), noLeader))
	require.True(t, again(time.Hour, time.Now().Add(time.Minute), &kv.StaleEpochError{}))
	require.False(t, again(time.Hour, time.Now().Add(time.Minute), kv.ErrUnknown))
	require.False(t, again(answerReserve-time.Millisecond, time.Now().Add(time.Minute), noLeader))
	require.False(t, again(time.Hour, time.Now().Add(-time.Second), noLeader))
	// A client that has a map asks another replica itself.
	require.Greater(t, time.Until(patience(kv.Route{})), 5*time.Until(patience(kv.Route{Shard: 3, Version: 1})))
}
