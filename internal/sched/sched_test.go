package sched

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestGovernor: threads are of SCHED_BATCH, but not once they have waited much longer than they ran for a second, until there has been
// room for as long; and longer each time if that does not last.
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
	for _, hold := range []int{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 960} {
		see(true, full, full, full, busy, full, full, full, idle, full, full, full)
		see(false, full)
		for range hold*4 - 1 {
			see(false, idle)
		}
		see(true, idle)
	}
	// What has lasted counts for nothing later.
	for range calm / window {
		see(true, busy)
	}
	see(true, full, full, full)
	see(false, full, full, busy, idle, idle, idle, busy, idle, idle, idle)
	see(true, idle)
	// Without room, after the longest time.
	see(true, full, full, full)
	for range holdMax / window {
		see(false, full)
	}
	see(true, full)
	g.fall(now)
	see(false, busy)
}

// apart runs f in a thread of its own, which ends with it.
func apart(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// policies counts the threads of each.
func policies(t *testing.T) map[uintptr]int {
	list, err := threads()
	require.NoError(t, err)
	found := map[uintptr]int{}
	for _, thread := range list {
		if p, _, err := policyOf(thread); err == nil {
			found[p]++
		}
	}
	return found
}

// asUsual skips a test where somebody has chosen a policy for it, and undoes in the end what it does.
func asUsual(t *testing.T) {
	p, _, err := policyOf(0)
	require.NoError(t, err)
	if p != policyOther {
		t.Skip("the tests run with another policy than SCHED_OTHER")
	}
	t.Cleanup(func() { require.NoError(t, change(policyBatch, policyOther)) })
}

// TestChange: of all threads the policy changes, and nothing else; those of yet another policy keep it.
func TestChange(t *testing.T) {
	asUsual(t)
	idler, over := make(chan int, 1), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- apart(func() error {
			err := setPolicy(0, unix.SCHED_IDLE)
			idler <- unix.Gettid()
			<-over
			return err
		})
	}()
	idle := <-idler
	require.NoError(t, apart(func() error {
		before, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			return err
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, min(int(before.Nice)+1, 19)); err != nil {
			return err
		}
		if err := change(policyOther, policyBatch); err != nil {
			return err
		}
		after, err := unix.SchedGetAttr(0, 0)
		require.EqualValues(t, policyBatch, after.Policy)
		require.Equal(t, min(before.Nice+1, 19), after.Nice)
		require.Equal(t, before.Flags, after.Flags)
		return err
	}))
	found := policies(t)
	require.Greater(t, found[policyBatch], 1)
	p, _, err := policyOf(idle)
	require.NoError(t, err)
	require.EqualValues(t, unix.SCHED_IDLE, p)
	close(over)
	require.NoError(t, <-ended)
	require.NoError(t, change(policyBatch, policyOther))
	require.Zero(t, policies(t)[policyBatch])
}

// TestRun: the threads of a process that was started as usual are of SCHED_BATCH; one of another policy is left alone.
func TestRun(t *testing.T) {
	asUsual(t)
	require.NoError(t, apart(func() error {
		err := setPolicy(0, unix.SCHED_IDLE)
		Run(t.Context(), slog.Default())
		return err
	}))
	require.Zero(t, policies(t)[policyBatch])
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Run(ctx, slog.Default())
	}()
	require.Eventually(t, func() bool { return mostly(t) == policyBatch }, time.Minute, window)
	cancel()
	<-ended
}

// mostly is the policy of most threads: a new one may have that of before.
func mostly(t *testing.T) uintptr {
	if p := policies(t); p[policyBatch] > p[policyOther] {
		return policyBatch
	}
	return policyOther
}

// TestGovern: threads become what the governor decides of what is seen, and of SCHED_OTHER where nothing is.
func TestGovern(t *testing.T) {
	asUsual(t)
	synctest.Test(t, func(t *testing.T) {
		var seen atomic.Pointer[look] // Nil for nothing.
		read := func() (look, error) {
			if l := seen.Load(); l != nil {
				return *l, nil
			}
			return look{}, errors.New("blind")
		}
		idle, full := &look{idle: 1}, &look{ran: time.Millisecond, waited: time.Second}
		govern(t.Context(), slog.Default(), read)
		require.EqualValues(t, policyOther, mostly(t), "blind from the beginning")
		seen.Store(idle)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go govern(ctx, slog.Default(), read)
		after := func(looks int) uintptr {
			time.Sleep(time.Duration(looks) * window)
			synctest.Wait()
			return mostly(t)
		}
		require.EqualValues(t, policyBatch, after(0))
		seen.Store(full)
		require.EqualValues(t, policyBatch, after(windows-1))
		require.EqualValues(t, policyOther, after(1))
		seen.Store(idle)
		require.EqualValues(t, policyBatch, after(windows))
		seen.Store(nil)
		require.EqualValues(t, policyOther, after(1))
	})
}

// TestMeter: what is read is of the time since it was read before.
func TestMeter(t *testing.T) {
	var m meter
	var whole look
	for whole.ran < 100*time.Millisecond {
		var err error
		m = meter{}
		whole, err = m.read()
		require.NoError(t, err)
	}
	since, err := m.read()
	require.NoError(t, err)
	require.Less(t, since.ran, whole.ran)
	require.Positive(t, whole.idle)
	require.LessOrEqual(t, whole.idle, 1.0)
}

// TestParse reads what the kernel writes.
func TestParse(t *testing.T) {
	got, err := parseTimes("8206862 971298 41\n")
	require.NoError(t, err)
	require.Equal(t, times{8206862, 971298}, got)
	for _, text := range []string{"", "1", "x y z"} {
		_, err := parseTimes(text)
		require.Error(t, err, "%q", text)
	}
	const stat = "cpu  1000 0 0 9000 0 0 0 0 0 0\ncpu0 1 2 3 4 5 6 7 8 90 90\ncpu1 10 20 30 40 50 60 70 80 0 0\ncpu10 1 1 1 1 1 1 1 1 0 0\nintr 5\n"
	for _, c := range []struct {
		cpus []int
		want cpuTimes
	}{{nil, cpuTimes{}}, {[]int{0}, cpuTimes{9, 36}}, {[]int{0, 1}, cpuTimes{99, 396}}, {[]int{10}, cpuTimes{2, 8}}} {
		var may unix.CPUSet
		for _, cpu := range c.cpus {
			may.Set(cpu)
		}
		got, err := parseStat(stat, may.IsSet)
		require.NoError(t, err)
		require.Equal(t, c.want, got)
	}
	for _, text := range []string{"cpu0 1 2 3 4 5 6 7\n", "cpu0 1 2 3 x 5 6 7 8\n"} {
		_, err := parseStat(text, func(int) bool { return true })
		require.Error(t, err, "%q", text)
	}
}
