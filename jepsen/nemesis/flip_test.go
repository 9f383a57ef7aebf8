package nemesis

import (
	"math/bits"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFlipBits: so many bits differ afterwards, where it says, and no file is longer or shorter.
func TestFlipBits(t *testing.T) {
	for seed := range uint64(30) {
		dir := t.TempDir()
		for _, name := range []string{"a", "b", "LOCK", "BALLAST"} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), make([]byte, 1000), 0o644))
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, "empty"), nil, 0o644))
		where, err := flipBits(dir, 3, rand.New(rand.NewPCG(seed, 0)))
		require.NoError(t, err)
		require.Len(t, where, 3)
		flipped := 0
		for name, size := range map[string]int{"a": 1000, "b": 1000, "LOCK": 1000, "BALLAST": 1000, "empty": 0} {
			text, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(t, err)
			require.Len(t, text, size)
			n := 0
			for _, b := range text {
				n += bits.OnesCount8(b)
			}
			flipped += n
			require.False(t, n > 0 && (name == "LOCK" || name == "BALLAST"))
		}
		require.Equal(t, 3, flipped)
	}
	_, err := flipBits(t.TempDir(), 1, rand.New(rand.NewPCG(1, 0)))
	require.ErrorIs(t, err, errNobody)
}
