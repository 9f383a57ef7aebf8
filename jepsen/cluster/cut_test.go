package cluster

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCutAgain: filters that could not be put in place, or taken away, are tried again with the next cut; those that are in
// place are not.
func TestCutAgain(t *testing.T) {
	failing, calls := true, []string{}
	b := &bridged{id: "1-1", subnet: "10.64.0", nodes: []string{"n1", "n2"}, filters: map[string]string{}}
	b.filter = func(namespace, rules string) error {
		calls = append(calls, namespace+" "+rules)
		if failing {
			return errors.New("iptables-restore: another has the lock")
		}
		return nil
	}
	cut := []Link{{From: "n1", To: "n2"}}
	const in, out = "kvdjep-1-1-n2 *filter\n-A INPUT -s 10.64.0.1/32 -j DROP\nCOMMIT\n", "kvdjep-1-1-n2 *filter\nCOMMIT\n"
	require.Error(t, b.cut(cut))
	failing = false
	require.NoError(t, b.cut(cut))
	require.NoError(t, b.cut(cut))
	failing = true
	require.Error(t, b.cut(nil))
	failing = false
	require.NoError(t, b.cut(nil))
	require.NoError(t, b.cut(nil))
	require.Equal(t, []string{in, in, out, out}, calls)
}
