package nemesis

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMissed: a run that was to have faults and had none tells so, and so does one that an error kept a fault from; that
// nothing fits now and then, or that the cluster refuses a change, is no error.
func TestMissed(t *testing.T) {
	asked := []string{"partition:ring", "drain"}
	n := New(Config{})
	require.Empty(t, n.Missed(nil))
	require.Equal(t, []string{"none of the faults was injected: partition:ring, drain"}, n.Missed(asked))
	n.missed("drain", "drain", fmt.Errorf("another is being drained: %w", errNobody))
	require.Equal(t, []string{"none of the faults was injected: partition:ring, drain"}, n.Missed(asked))
	n.missed("split", "split", errors.New("no leader"))
	n.missed("partition:ring", "partition", errors.New("no iptables"))
	require.Equal(t, []string{"partition could not be injected: no iptables"}, n.Missed(asked))
	n.injected["drain"] = 1
	require.Equal(t, []string{"partition could not be injected: no iptables"}, n.Missed(asked))
	n.injected["partition"] = 1
	require.Empty(t, n.Missed(asked))
	require.Len(t, n.Skipped(), 3)
}
