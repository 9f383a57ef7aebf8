//go:build kvdtest

package faults

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/check"
)

// TestRecordsOfAKilledProcess: a line that a kill has cut does not become one with what the next process records.
func TestRecordsOfAKilledProcess(t *testing.T) {
	name := filepath.Join(t.TempDir(), "bonds")
	for _, there := range []string{"", `{"node":1,"sta`, "\n", `{"node":1,"starts":true}` + "\n" + `{"node":`} {
		require.NoError(t, os.WriteFile(name, []byte(there), 0o644))
		f, err := appendTo(name)
		require.NoError(t, err)
		put(f, Bond{Node: 1, Starts: true})
		put(f, Bond{Node: 1, Starts: true})
		require.NoError(t, f.Close())
		r, err := os.Open(name)
		require.NoError(t, err)
		list, err := check.ReadBonds(r)
		require.NoError(t, err, "%q", there)
		require.GreaterOrEqual(t, len(list), 2)
		require.NoError(t, r.Close())
	}
}
