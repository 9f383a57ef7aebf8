//go:build kvdtest

package nemesis

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/internal/faults"
)

// TestPoints: the points of crashes are those that a test build knows: at another name it would go on.
func TestPoints(t *testing.T) {
	var names []string
	for _, p := range points {
		names = append(names, p.name)
		require.Positive(t, p.most)
	}
	require.ElementsMatch(t, faults.Points, names)
}

// TestKindsOfMessages: the kinds of messages that faults name are those that a test build knows.
func TestKindsOfMessages(t *testing.T) {
	for _, k := range []string{appends, appendAnswers, heartbeats, votes, preVotes, reports, unfreezes} {
		require.Contains(t, faults.Kinds, k)
	}
}
