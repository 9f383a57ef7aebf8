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

// TestWrongLeases: what two nodes have recorded is put together.
func TestWrongLeases(t *testing.T) {
	dir := t.TempDir()
	record := func(node kv.NodeID, term kv.Term, from, until int64) string {
		name := filepath.Join(dir, fmt.Sprint(node))
		line, err := json.Marshal(check.LeaseNote{Node: node, Shard: 3, At: from, Lease: &check.Lease{Shard: 3, Node: node, Term: term, From: from, Until: until}})
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(name, append(line, '\n'), 0o644))
		return name
	}
	none := filepath.Join(dir, "none")
	require.Empty(t, wrongLeases([]string{record(1, 5, 10, 20), none, record(2, 6, 20, 30)}))
	require.Len(t, wrongLeases([]string{record(1, 5, 10, 21), none, record(2, 6, 20, 30)}), 1)
	led := filepath.Join(dir, "led")
	line, err := json.Marshal(check.LeaseNote{Node: 3, Shard: 3, At: 19, Lead: &check.Lead{Shard: 3, Node: 3, Term: 6, At: 19}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(led, append(line, '\n'), 0o644))
	require.Len(t, wrongLeases([]string{record(1, 5, 10, 20), led}), 1)
	require.NoError(t, os.WriteFile(none, []byte("{\n{}\n"), 0o644))
	require.Len(t, wrongLeases([]string{none}), 1)
}
