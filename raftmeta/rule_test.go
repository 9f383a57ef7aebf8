package raftmeta

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

func TestRules(t *testing.T) {
	m := machine(t)
	for _, prefix := range []string{"geo/9", "", "geo/", "geo/9q"} {
		done(t, m, ruling(prefix, "", "us-west"))
	}
	done(t, m, ruling("geo/", "us-east", "us-west", "us-east"))
	var got []string
	for _, r := range m.State().Meta.Rules {
		got = append(got, fmt.Sprintf("%s: %v %s", r.Prefix, r.Regions, r.Leader))
	}
	require.Equal(t, []string{": [us-west] ", "geo/: [us-west us-east] us-east", "geo/9: [us-west] ", "geo/9q: [us-west] "}, got)
	given := m.State().Meta.Rules
	done(t, m, ruling("geo/", ""))
	require.Len(t, m.State().Meta.Rules, 3)
	require.Len(t, given, 4, "what was given out stays")

	refuses(t, m, ruling("geo/", ""), "prefix: must be one that has a rule, is geo/")
	refuses(t, m, ruling("a", "us-west"), "regions")
	refuses(t, m, ruling("a", "us-east", "us-west"), "leader", "us-east")
	refuses(t, m, ruling("a", "", "us-west", "us-west"), "regions", "us-west is twice")
	refuses(t, m, ruling("a", "", "us-west", ""), "regions")
	refuses(t, m, ruling("a", "", strings.Repeat("r", NameBytesMax+1)), "regions", fmt.Sprint(NameBytesMax))
	refuses(t, m, ruling(strings.Repeat("p", kv.KeyBytesMax+1), "", "us-west"), "prefix", fmt.Sprint(kv.KeyBytesMax))
	var many []string
	for i := range RuleRegionsMax + 1 {
		many = append(many, fmt.Sprint(i))
	}
	refuses(t, m, ruling("a", "", many...), "regions", fmt.Sprint(RuleRegionsMax))
	for i := len(m.State().Meta.Rules); i < kv.RulesMax; i++ {
		m.carried(t, ruling(fmt.Sprintf("p%04d", i), "", "us-west"))
	}
	refuses(t, m, ruling("q", "", "us-west"), "rules: at most", fmt.Sprint(kv.RulesMax))
	done(t, m, ruling("p0009", "", "us-east"))
}

// TestRulesOfSpans: after it was split at the cuts, every part of a span has one rule, that of the longest prefix for each
// of its keys.
func TestRulesOfSpans(t *testing.T) {
	for _, test := range []struct {
		start, end, rule string
	}{
		{"a", "b", "all"}, {"geo/8", "geo/9", "geo"}, {"geo/9", "geo/a", "nine"}, {"geo/0", "", "nine"}, {"geo/9z", "geo/9zz", "nine"}, {"geo0", "", "all"},
	} {
		rules := []*kvdv1.Rule{{Regions: []string{"all"}}, {Prefix: []byte("geo/"), Regions: []string{"geo"}}, {Prefix: []byte("geo/9"), Regions: []string{"nine"}}}
		require.Equal(t, test.rule, ruleFor(rules, kv.Span{Start: []byte(test.start), End: []byte(test.end)}).Regions[0], test)
	}
	require.Nil(t, ruleFor(nil, kv.Span{}))
	some := rapid.SliceOfN(rapid.SampledFrom([]byte("ab\xff")), 0, 3)
	rapid.Check(t, func(t *rapid.T) {
		prefixes := rapid.SliceOfNDistinct(rapid.Map(some, func(b []byte) string { return string(b) }), 0, 5, rapid.ID[string]).Draw(t, "prefixes")
		slices.Sort(prefixes)
		var rules []*kvdv1.Rule
		for _, p := range prefixes {
			rules = append(rules, &kvdv1.Rule{Prefix: []byte(p), Regions: []string{p}})
		}
		span := kv.Span{Start: []byte(rapid.StringMatching(`[abc]{0,3}`).Draw(t, "start"))}
		if rapid.Bool().Draw(t, "ends") {
			span.End = append(bytes.Clone(span.Start), rapid.StringMatching(`[abc]{1,3}`).Draw(t, "end")...)
		}
		cuts := ruleCuts(rules, span)
		require.True(t, slices.IsSortedFunc(cuts, bytes.Compare))
		for i := range len(cuts) + 1 {
			part := span
			if i > 0 {
				part.Start = cuts[i-1]
			}
			if i < len(cuts) {
				part.End = cuts[i]
			}
			require.False(t, part.Empty())
			key := append(bytes.Clone(part.Start), some.Draw(t, "key")...)
			if !part.Contains(key) {
				key = part.Start
			}
			var want *kvdv1.Rule
			for _, r := range rules {
				if bytes.HasPrefix(key, r.Prefix) && (want == nil || len(r.Prefix) > len(want.Prefix)) {
					want = r
				}
			}
			require.Same(t, want, ruleFor(rules, part), "%q in %v", key, part)
		}
	})
}
