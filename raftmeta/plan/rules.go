package plan

import (
	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// ruleOf is the placement rule of a shard that lies wholly inside a prefix, the longest such; nil without one. The meta
// group's empty span is that of all keys, which only a rule for everything would hold.
func (v *View) ruleOf(span kv.Span) *kvdv1.Rule {
	var best *kvdv1.Rule
	for _, r := range v.Map.State().GetRules() {
		if kv.PrefixSpan(r.GetPrefix()).ContainsSpan(span) && (best == nil || len(r.GetPrefix()) > len(best.GetPrefix())) {
			best = r
		}
	}
	return best
}
