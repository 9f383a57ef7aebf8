package sched

import (
	"context"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestGovernor: threads are of SCHED_BATCH, but not once they have waited much longer than they ran for a second, until the machine
// has had room for as long; and longer each time if that does not last.
func TestGovernor(t *testing.T) {
	now := time.Unix(1e9, 0)
	var g governor
	see := func(want bool, looks ...look) {
		t.Helper()
		for i, l := range looks {
			now = now.Add(window)
			require.Equal(t, want, g.decide(now, l), "look %d", i)
		}
	}
	full := look{10 * time.Millisecond, 81 * time.Millisecond, 0.04}
	busy := look{10 * time.Millisecond, 80 * time.Millisecond, 0.04}
	idle := look{time.Microsecond, 49 * time.Millisecond, 0.05}
	see(true, busy)
	for _, hold := range []time.Duration{1, 2, 4, 8} {
		see(true, full, full, full, busy, full, full, full, idle, full, full, full)
		see(false, full)
		for range hold*4 + 1 {
			see(false, busy)
			see(false, idle)
			see(false, full)
		}
		see(false, busy, idle, idle, idle)
		see(true, idle)
	}
	for range 100 * time.Minute / window {
		if !g.decide(now, full) {
			now = now.Add(g.hold)
			see(false, idle, idle, idle)
			see(true, idle)
			require.LessOrEqual(t, g.hold, holdMax)
		}
		now = now.Add(window)
	}
	require.Equal(t, holdMax, g.hold)
	for !g.decide(now, idle) {
		now = now.Add(window)
	}
	now = now.Add(calm)
	see(true, full, full, full)
	see(false, full)
	see(false, idle, idle, idle)
	see(true, idle)
}

// apart runs f in a thread of its own, which ends with it.
func apart(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
}

// policies are those of all threads.
func policies(t *testing.T) map[uint32]int {
	list, err := threads()
	require.NoError(t, err)
	found := map[uint32]int{}
	for _, thread := range list {
		if attr, err := unix.SchedGetAttr(thread, 0); err == nil {
			found[attr.Policy]++
		}
	}
	return found
}

// TestChange: of all threads the policy changes, and nothing else; those of yet another policy keep it.
func TestChange(t *testing.T) {
	apart(func() {
		require.NoError(t, unix.Setpriority(unix.PRIO_PROCESS, 0, 5))
		idler, over := make(chan int), make(chan struct{})
		defer close(over)
		go apart(func() {
			attr, err := unix.SchedGetAttr(0, 0)
			require.NoError(t, err)
			attr.Policy = unix.SCHED_IDLE
			require.NoError(t, unix.SchedSetAttr(0, attr, 0))
			idler <- unix.Gettid()
			<-over
		})
		idle := <-idler
		require.NoError(t, change(other, batch))
		found := policies(t)
		require.Zero(t, found[other])
		require.Greater(t, found[batch], 1)
		attr, err := unix.SchedGetAttr(0, 0)
		require.NoError(t, err)
		require.EqualValues(t, 5, attr.Nice)
		attr, err = unix.SchedGetAttr(idle, 0)
		require.NoError(t, err)
		require.EqualValues(t, unix.SCHED_IDLE, attr.Policy)
		require.NoError(t, change(batch, other))
		require.Zero(t, policies(t)[batch])
	})
}

// TestRun: the threads of a process that was started as usual are of SCHED_BATCH, and what is waited is told; one of another policy
// is left alone.
func TestRun(t *testing.T) {
	t.Cleanup(func() { require.NoError(t, change(batch, other)) })
	apart(func() {
		attr, err := unix.SchedGetAttr(0, 0)
		require.NoError(t, err)
		attr.Policy = unix.SCHED_IDLE
		require.NoError(t, unix.SchedSetAttr(0, attr, 0))
		Run(t.Context(), slog.Default())
		require.Zero(t, policies(t)[batch])
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Run(ctx, slog.Default())
	}()
	require.Eventually(t, func() bool { p := policies(t); return p[other] == 0 && p[batch] > 0 }, 10*time.Second, time.Millisecond)
	cancel()
	<-ended
}

// TestMeter: what is read is of the time since it was read before.
func TestMeter(t *testing.T) {
	var m meter
	_, err := m.read()
	require.NoError(t, err)
	for began := time.Now(); time.Since(began) < 50*time.Millisecond; {
		continue
	}
	busy, err := m.read()
	require.NoError(t, err)
	require.Positive(t, busy.ran)
	time.Sleep(time.Millisecond)
	rest, err := m.read()
	require.NoError(t, err)
	require.Less(t, rest.ran, busy.ran)
}
