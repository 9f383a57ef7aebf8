package plan

import (
	"fmt"
	"slices"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// rule is the placement rule that a shard must hold, or nil; the meta group, which has no keys, is bound by none.
func (v *View) rule(d *kv.Descriptor) *kvdv1.Rule {
	if d.Shard == kv.MetaShard || len(v.Map.Rules()) == 0 {
		return nil
	}
	return v.Map.RuleFor(d.Span)
}

// within tells that a rule lets a replica be in a region.
func within(rule *kvdv1.Rule, region string) bool {
	return rule == nil || slices.Contains(rule.GetRegions(), region)
}

// mayLead tells that a rule lets the leader be in a region.
func mayLead(rule *kvdv1.Rule, region string) bool {
	return within(rule, region) && (rule.GetLeader() == "" || region == rule.GetLeader())
}

func ruleName(rule *kvdv1.Rule) string {
	return fmt.Sprintf("the rule for %q", kv.FormatKey(rule.GetPrefix()))
}

// holdRules splits shards where a rule begins or ends, so that each part has one rule.
func (r *round) holdRules() {
	if len(r.Map.Rules()) == 0 {
		return
	}
	for _, s := range r.shards {
		cuts := r.Map.RuleCuts(s.d.Span)
		if len(cuts) == 0 {
			continue
		}
		switch {
		case s.goal != nil:
		case !s.free():
			s.say("a rule begins or ends at %s, and the shard is not split there: %s", kv.FormatKey(cuts[0]), s.wait)
		default:
			r.want(s, &kvdv1.Goal{Goal: &kvdv1.Goal_Split{Split: &kvdv1.SplitGoal{Key: cuts[0]}}}, "a rule begins or ends at %s", kv.FormatKey(cuts[0]))
		}
		s.taken = true // It is placed when it has one rule.
	}
}
