package check_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/kv"
)

// TestReadLeases: a lease is one through all its renewals; it ends early when it is taken back, and when the process ended.
// Leaderships are as they were recorded.
func TestReadLeases(t *testing.T) {
	span := kv.Span{Start: []byte("a"), End: []byte{'b', 0xff}}
	lease := func(term kv.Term, from, until int64) *check.Lease {
		return &check.Lease{Shard: 3, Span: span, Node: 2, Term: term, From: from, Until: until}
	}
	lead := check.Lead{Shard: 3, Span: span, Version: 7, Node: 2, Term: 9, At: 390}
	var text strings.Builder
	for _, n := range []check.LeaseNote{
		{Node: 2, At: 1, Began: true},
		{Node: 2, Shard: 3, At: 10, Lease: lease(5, 10, 100)},
		{Node: 2, Shard: 3, At: 10, Lease: lease(5, 10, 150)},
		{Node: 2, Shard: 3, At: 120, Ended: true},
		{Node: 2, Shard: 3, At: 130, Lease: lease(7, 130, 300)},
		{Node: 2, At: 200, Began: true},
		{Node: 2, Shard: 3, At: 390, Lead: &lead},
		{Node: 2, Shard: 3, At: 400, Lease: lease(9, 400, 500)},
	} {
		line, err := json.Marshal(n)
		require.NoError(t, err)
		text.Write(append(line, '\n'))
	}
	want := []check.Lease{*lease(5, 10, 120), *lease(7, 130, 200), *lease(9, 400, 500)}
	for _, more := range []string{"", `{"node":2,"sha`} {
		got, leads, err := check.ReadLeases(strings.NewReader(text.String() + more))
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Equal(t, []check.Lead{lead}, leads)
	}
	_, _, err := check.ReadLeases(strings.NewReader("{\n" + text.String()))
	require.ErrorContains(t, err, "line 1")
}
