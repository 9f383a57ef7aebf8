//go:build kvdtest

package faults

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// TestCrash: the process ends the how manieth time it comes to the point that was named, and at no other.
func TestCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, ends := t.TempDir(), 0
		c := newFaults(dir, vfs.Default).crashes
		c.end = func() { ends++ }
		comes := func(point string, times, want int) {
			t.Helper()
			for range times {
				c.reached(point)
			}
			require.Equal(t, want, ends)
		}
		comes(VoteSent, 3, 0)
		say(t, dir, "crash", "vote-sent 2")
		comes(LogSynced, 3, 0)
		comes(VoteSent, 1, 0)
		comes(VoteSent, 1, 1)
		comes(VoteSent, 5, 1)
		say(t, dir, "crash", "log-synced\n")
		comes(LogSynced, 1, 2)
		say(t, dir, "crash", "installed 1")
		comes(VoteSent, 1, 2)
		for _, nonsense := range []string{"somewhere", "vote-sent 0", "vote-sent x", "vote-sent 1 2"} {
			say(t, dir, "crash", nonsense)
			comes(VoteSent, 1, 2)
		}
		comes(Installed, 1, 3)
		require.NoError(t, os.Remove(filepath.Join(dir, "crash")))
		time.Sleep(lookInterval)
		comes(Installed, 1, 3)
	})
}
