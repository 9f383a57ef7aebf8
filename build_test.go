package kvd_test

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNormalBuild: the faults that a test build can do to itself are not in any program of a normal one.
func TestNormalBuild(t *testing.T) {
	faults := module + "internal/faults\n"
	deps := func(args ...string) string {
		out, err := exec.Command("go", append([]string{"list", "-deps"}, args...)...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	require.NotContains(t, deps("./..."), faults)
	require.Contains(t, deps("-tags", "kvdtest", "./..."), faults, "and in a test build they are")
}
