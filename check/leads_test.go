package check

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
)

// TestLeads: a leadership begins when the leases of earlier ones over its keys are over.
func TestLeads(t *testing.T) {
	span := func(start, end string) kv.Span { return kv.Span{Start: []byte(start), End: []byte(end)} }
	old := Lease{Shard: 3, Span: span("a", "z"), Version: 5, Node: 1, Term: 4, From: 10, Until: 100}
	next := Lead{Shard: 3, Span: span("a", "z"), Version: 5, Node: 2, Term: 5, At: 100}
	child := Lead{Shard: 8, Span: span("m", "z"), Version: 6, Node: 2, Term: 1, At: 50}
	in := func(d Lead, change func(d *Lead)) Lead {
		change(&d)
		return d
	}
	for _, c := range []struct {
		name  string
		leads []Lead
		rules []Rule
	}{
		{"none", nil, nil},
		{"after the lease", []Lead{next}, nil},
		{"in the lease", []Lead{in(next, func(d *Lead) { d.At = 99 })}, []Rule{LeaseOutlived}},
		{"before the lease began", []Lead{in(next, func(d *Lead) { d.At = 5 })}, []Rule{LeaseOutlived}},
		{"of an earlier term", []Lead{in(next, func(d *Lead) { d.At, d.Term = 5, 3 })}, nil},
		{"of the same node", []Lead{in(next, func(d *Lead) { d.At, d.Node = 99, 1 })}, nil},
		{"another version of one leadership", []Lead{next, in(next, func(d *Lead) { d.At, d.Version = 120, 6 })}, nil},
		{"a child while its parent has all keys", []Lead{child}, []Rule{LeaseOutlived}},
		{"a child of other keys", []Lead{in(child, func(d *Lead) { d.Span = span("z", "") })}, nil},
		{"a shard that was split since", []Lead{in(child, func(d *Lead) { d.Version = 5 })}, nil},
		{"the meta group", []Lead{in(child, func(d *Lead) { d.Shard = kv.MetaShard })}, nil},
		{"two nodes of one term", []Lead{next, in(next, func(d *Lead) { d.At, d.Node = 110, 3 })}, []Rule{TermShared}},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.rules, rulesOf(Leads(c.leads, []Lease{old}))) })
	}
	empty := old
	empty.From = empty.Until
	require.Empty(t, Leads([]Lead{in(next, func(d *Lead) { d.At = 5 })}, []Lease{empty}))
}
