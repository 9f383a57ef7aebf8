package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

// TestAgain: an attempt that failed for want of a leader is repeated, but not for ever, and not when there would be no
// time left to tell the caller that nothing was done.
func TestAgain(t *testing.T) {
	n := &Node{}
	again := func(left time.Duration, until time.Time, err error) bool {
		ctx, cancel := context.WithTimeout(t.Context(), left)
		defer cancel()
		return (&attempts{n: n, until: until}).again(ctx, err)
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

// TestAttemptsWaitForChanges: a request that found no leader goes on at the moment in which the replica here changes, also if
// that was while it was being refused; without a change it pauses.
func TestAttemptsWaitForChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, v := &Node{}, &View{shard: 3}
		v.state.Store(&readState{descriptor: &kv.Descriptor{Shard: 3}})
		n.ViewsChanged([]*View{v})
		noLeader := &kv.NotLeaderError{Shard: 3}
		waits := func(change func()) time.Duration {
			a := &attempts{n: n, until: time.Now().Add(time.Minute), count: 4, view: v, seen: v.changes.Load()}
			go func() {
				time.Sleep(time.Millisecond)
				change()
			}()
			began := time.Now()
			require.True(t, a.again(t.Context(), noLeader))
			return time.Since(began)
		}
		require.GreaterOrEqual(t, waits(func() {}), 50*time.Millisecond)
		require.Equal(t, time.Millisecond, waits(v.wake))
		require.Equal(t, time.Millisecond, waits(func() { n.ViewsChanged(nil) }))

		a := &attempts{n: n, until: time.Now().Add(time.Minute), count: 4, view: v, seen: v.changes.Load()}
		v.wake()
		began := time.Now()
		require.True(t, a.again(t.Context(), noLeader))
		require.Zero(t, time.Since(began))
	})
}

// TestAttemptsFollowAnswers: where an answer names another node, that is asked at once, a few times.
func TestAttemptsFollowAnswers(t *testing.T) {
	m, err := raftmeta.NewMap(foundingOf(t, 3))
	require.NoError(t, err)
	synctest.Test(t, func(t *testing.T) {
		n, d := &Node{}, m.Descriptors()[0]
		n.meta.Store(&published{shards: m})
		n.learn(d.Shard, 1)
		a := &attempts{n: n, until: time.Now().Add(time.Minute)}
		require.EqualValues(t, 1, a.next(d))
		began := time.Now()
		for i := range redirectsMax {
			to := kv.NodeID(2 + i%2)
			require.True(t, a.again(t.Context(), &kv.NotLeaderError{Shard: d.Shard, Leader: to}))
			n.learn(d.Shard, 1) // As a replica here has it, which lags.
			require.Equal(t, to, a.next(d))
		}
		require.Zero(t, time.Since(began))
		require.True(t, a.again(t.Context(), &kv.NotLeaderError{Shard: d.Shard, Leader: 3}))
		require.Positive(t, time.Since(began))

		// A leader that is asked and does not know it, and one of another shard.
		n.learn(d.Shard, 1)
		b := &attempts{n: n, until: time.Now().Add(time.Minute)}
		b.next(d)
		began = time.Now()
		require.True(t, b.again(t.Context(), &kv.NotLeaderError{Shard: d.Shard, Leader: 1}))
		require.Positive(t, time.Since(began))
		require.True(t, b.again(t.Context(), &kv.NotLeaderError{Shard: 77, Leader: 3}))
		require.EqualValues(t, 3, b.next(d))
		n.learn(d.Shard, 1)
		require.True(t, b.again(t.Context(), &kv.NotLeaderError{Shard: 77, Leader: 9}))
		require.EqualValues(t, 1, b.next(d), "no member")
	})
}

// TestAttemptsLeaveADeadLeader: a replica here that follows a leader which does not answer, because it sleeps, or was
// removed and has not heard of it, does not keep requests from those that know better.
func TestAttemptsLeaveADeadLeader(t *testing.T) {
	m, err := raftmeta.NewMap(foundingOf(t, 3))
	require.NoError(t, err)
	synctest.Test(t, func(t *testing.T) {
		n, d := &Node{self: Self{Node: 3}}, m.Descriptors()[0]
		n.meta.Store(&published{shards: m})
		v := &View{shard: d.Shard}
		v.state.Store(&readState{descriptor: d, lead: 1})
		n.ViewsChanged([]*View{v})
		a, asked := &attempts{n: n, until: time.Now().Add(time.Minute)}, map[kv.NodeID]int{}
		for range 8 {
			asked[a.next(d)]++
			require.True(t, a.again(t.Context(), &kv.NotLeaderError{Shard: d.Shard}))
		}
		require.GreaterOrEqual(t, asked[1], 4)
		require.Positive(t, asked[2])
	})
}
