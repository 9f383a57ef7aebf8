package check_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/kv"
)

var replicaOf5 = kv.Group{Shard: 5, Replica: 7}

func gave(term kv.Term, candidate kv.ReplicaID) check.Bond {
	return check.Bond{Node: 2, Group: replicaOf5, Gave: &check.Vote{Term: term, Candidate: candidate}}
}

func opened(term kv.Term, candidate kv.ReplicaID) check.Bond {
	return check.Bond{Node: 2, Group: replicaOf5, Opened: &check.Vote{Term: term, Candidate: candidate}}
}

func starts(found ...check.Applied) check.Bond {
	return check.Bond{Node: 2, Starts: true, Found: found}
}

// TestBonds: what a crash may take back, and what it may not.
func TestBonds(t *testing.T) {
	other := kv.Group{Shard: 6, Replica: 9}
	at := func(g kv.Group, index kv.Index) check.Applied { return check.Applied{Group: g, Index: index} }
	installs := check.Bond{Node: 2, Group: replicaOf5, Installs: 100, Before: []check.Applied{at(other, 30), at(replicaOf5, 20)}}
	for name, c := range map[string]struct {
		list []check.Bond
		want []check.Rule
	}{
		"nothing":                    {},
		"a vote that was kept":       {list: []check.Bond{opened(0, 0), gave(3, 8), gave(3, 8), opened(3, 8), gave(4, 9), opened(6, 0)}},
		"a vote that is gone":        {list: []check.Bond{gave(3, 8), opened(3, 0)}, want: []check.Rule{check.VoteForgotten}},
		"a term that is gone":        {list: []check.Bond{gave(3, 8), opened(2, 8)}, want: []check.Rule{check.VoteForgotten}},
		"another vote in a term":     {list: []check.Bond{gave(3, 8), gave(3, 9)}, want: []check.Rule{check.VotedTwice}},
		"another replica's vote":     {list: []check.Bond{gave(3, 8), {Node: 2, Group: other, Opened: &check.Vote{}}}},
		"an ingest and all before":   {list: []check.Bond{installs, starts(at(replicaOf5, 100), at(other, 31))}},
		"no ingest, and less":        {list: []check.Bond{installs, starts(at(replicaOf5, 20), at(other, 29))}},
		"no ingest, and less later":  {list: []check.Bond{installs, starts(at(replicaOf5, 20), at(other, 29)), starts(at(replicaOf5, 101), at(other, 29))}},
		"an ingest before what went": {list: []check.Bond{installs, starts(at(replicaOf5, 100))}},
		"an ingest that overtakes":   {list: []check.Bond{installs, starts(at(replicaOf5, 100), at(other, 29))}, want: []check.Rule{check.Overtaken}},
	} {
		t.Run(name, func(t *testing.T) {
			var rules []check.Rule
			for _, v := range check.Bonds(c.list) {
				rules = append(rules, v.Rule)
			}
			require.Equal(t, c.want, rules)
		})
	}
}

// TestReadBonds: what was recorded is read, but for a last line that is cut.
func TestReadBonds(t *testing.T) {
	list := []check.Bond{gave(3, 8), opened(3, 8), starts(check.Applied{Group: replicaOf5, Index: 4})}
	var text strings.Builder
	for _, b := range list {
		line, err := json.Marshal(b)
		require.NoError(t, err)
		text.Write(append(line, '\n'))
	}
	for _, more := range []string{"", `{"node":2,"gro`} {
		got, err := check.ReadBonds(strings.NewReader(text.String() + more))
		require.NoError(t, err)
		require.Equal(t, list, got)
	}
	_, err := check.ReadBonds(strings.NewReader("{\n" + text.String()))
	require.ErrorContains(t, err, "line 1")
}
