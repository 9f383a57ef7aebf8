package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/kv"
)

// TestOverlappingLeases: what two nodes have recorded is put together.
func TestOverlappingLeases(t *testing.T) {
	dir := t.TempDir()
	record := func(node kv.NodeID, term kv.Term, from, until int64) string {
		name := filepath.Join(dir, fmt.Sprint(node))
		line, err := json.Marshal(check.LeaseNote{Node: node, Shard: 3, At: from, Lease: &check.Lease{Shard: 3, Node: node, Term: term, From: from, Until: until}})
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(name, append(line, '\n'), 0o644))
		return name
	}
	none := filepath.Join(dir, "none")
	require.Empty(t, overlappingLeases([]string{record(1, 5, 10, 20), none, record(2, 6, 20, 30)}))
	require.Len(t, overlappingLeases([]string{record(1, 5, 10, 21), none, record(2, 6, 20, 30)}), 1)
	require.NoError(t, os.WriteFile(none, []byte("{\n{}\n"), 0o644))
	require.Len(t, overlappingLeases([]string{none}), 1)
}
