package local

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestUsedDirectory: nodes of an earlier cluster would look for each other at their old ports.
func TestUsedDirectory(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "n1"), 0o755))
	c, err := Start(t.Context(), Config{Name: "test", Nodes: 3, Dir: dir})
	require.Nil(t, c)
	require.ErrorContains(t, err, "a directory without the data of an earlier cluster")
	found, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, found, 1)
}
