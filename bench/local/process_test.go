package local

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestProcess: what is asked to end is ended, and what was killed on purpose is no fault; what ended by itself is.
func TestProcess(t *testing.T) {
	start := func(args ...string) *Process {
		p, err := StartProcess(args[0], filepath.Join(t.TempDir(), "log"), args[0], args[1:]...)
		require.NoError(t, err)
		return p
	}
	lasting, killed := start("sleep", "600"), start("sleep", "600")
	require.Positive(t, lasting.PID())
	require.NoError(t, lasting.Ended())
	require.NoError(t, killed.Kill())
	killed.ended <- <-killed.ended // It has ended.
	require.ErrorContains(t, killed.Ended(), "sleep has ended")
	require.NoError(t, StopAll([]*Process{lasting, killed}))
	require.Error(t, lasting.Ended())

	short := start("true")
	short.ended <- <-short.ended
	require.ErrorContains(t, StopAll([]*Process{short}), "before it was stopped: true has ended")

	_, err := StartProcess("none", filepath.Join(t.TempDir(), "log"), "/no/such/program")
	require.Error(t, err)
}

// TestFreePorts: each is another.
func TestFreePorts(t *testing.T) {
	list, err := FreePorts(20, 0)
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, port := range list {
		seen[port] = true
	}
	require.Len(t, seen, 20)
}
