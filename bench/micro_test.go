package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMicro: the packages that have benchmarks are found, theirs are run, and saved.
func TestMicro(t *testing.T) {
	m, err := parseMicro([]string{"--packages", "../geo,../kv"})
	require.NoError(t, err)
	list, err := m.find(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"github.com/kvdstore/kvd/geo"}, list)

	saved := filepath.Join(t.TempDir(), "now.txt")
	var told bytes.Buffer
	require.NoError(t, bench(t.Context(), []string{"micro", "--packages", "../geo,../kv", "--count", "2", "--benchtime", "1ms", "--save", saved}, &told))
	require.Contains(t, told.String(), "pkg: github.com/kvdstore/kvd/geo")
	require.FileExists(t, saved)
}

func TestMicroRefused(t *testing.T) {
	err := bench(t.Context(), strings.Fields("micro --count 0 --benchtime 0s --against /no/such/file"), &bytes.Buffer{})
	for _, want := range []string{"count: 1 to 1000, is 0", "benchtime: 1ms to 1h, is 0s", "/no/such/file"} {
		require.ErrorContains(t, err, want)
	}
	err = bench(t.Context(), strings.Fields("micro --packages ../kv"), &bytes.Buffer{})
	require.ErrorContains(t, err, "packages: some with benchmarks")
}
