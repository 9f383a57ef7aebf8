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

// TestBrokenBonds: what each node has recorded is judged by itself.
func TestBrokenBonds(t *testing.T) {
	dir := t.TempDir()
	record := func(node kv.NodeID, bonds ...check.Bond) string {
		name := filepath.Join(dir, fmt.Sprint(node))
		var text []byte
		for _, b := range bonds {
			b.Node, b.Group = node, kv.Group{Shard: 5, Replica: 7}
			line, err := json.Marshal(b)
			require.NoError(t, err)
			text = append(append(text, line...), '\n')
		}
		require.NoError(t, os.WriteFile(name, text, 0o644))
		return name
	}
	gave, opened := check.Bond{Gave: &check.Vote{Term: 3, Candidate: 8}}, check.Bond{Opened: &check.Vote{Term: 2}}
	none := filepath.Join(dir, "none")
	require.Empty(t, brokenBonds([]string{record(1, gave), none, record(2, opened)}))
	require.Len(t, brokenBonds([]string{record(1, gave, opened), none, record(2, opened)}), 1)
	require.NoError(t, os.WriteFile(none, []byte("{\n{}\n"), 0o644))
	require.Len(t, brokenBonds([]string{none}), 1)
}
