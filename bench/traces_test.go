package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTraces: a line for each trace and size, with both rates.
func TestTraces(t *testing.T) {
	file := filepath.Join(t.TempDir(), "small.txt")
	require.NoError(t, os.WriteFile(file, []byte(strings.Repeat("a\nb\nc\nd\n", 100)), 0o644))
	var told bytes.Buffer
	require.NoError(t, bench(t.Context(), []string{"traces", "--file", file, "--entries", "100,1000", "--zipfian", "200"}, &told))
	lines := strings.Split(strings.TrimSpace(told.String()), "\n")
	require.Len(t, lines, 5)
	require.Equal(t, []string{"200", "10", "8"}, strings.Fields(lines[4])[:3])
	for i, n := range []string{"100", "1000"} {
		f := strings.Fields(lines[i+1])
		require.Equal(t, []string{"small.txt", "400", n}, f[:3])
		require.Equal(t, "99.00", f[4], "all but the first four")
	}
}

func TestTracesRefused(t *testing.T) {
	err := bench(t.Context(), strings.Fields("traces --entries 0 --writes 101 --zipfian -1"), &bytes.Buffer{})
	for _, want := range []string{"zipfian: 1 to 10000000, one is -1", "entries: 1 to 10000000, one is 0", "writes: 0 to 100, is 101"} {
		require.ErrorContains(t, err, want)
	}
}
