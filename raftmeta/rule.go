package raftmeta

import (
	"bytes"
	"fmt"
	"slices"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// RuleRegionsMax bounds the regions of a placement rule.
const RuleRegionsMax = 16

// checkRule refuses a rule out of bounds. Its regions need have no node yet.
func checkRule(r *kvdv1.Rule) (refused string) {
	switch n := len(r.GetRegions()); {
	case len(r.GetPrefix()) > kv.KeyBytesMax:
		return fmt.Sprintf("prefix: at most %d bytes, has %d", kv.KeyBytesMax, len(r.Prefix))
	case n < 1 || n > RuleRegionsMax:
		return fmt.Sprintf("regions: 1 to %d, are %d", RuleRegionsMax, n)
	}
	for i, region := range r.Regions {
		if refused = checkText("regions", region, 1, NameBytesMax); refused != "" {
			return refused
		}
		if slices.Contains(r.Regions[:i], region) {
			return "regions: must be given once each, " + region + " is twice"
		}
	}
	if r.Leader != "" && !slices.Contains(r.Regions, r.Leader) {
		return "leader: must be one of the regions, is " + shorten(r.Leader, NameBytesMax)
	}
	return ""
}

// setRule sets the rule of a prefix, or removes it. Rules stay in the order of their prefixes.
func setRule(m *kvdv1.MetaState, r *kvdv1.Rule) (out outcome, refused string) {
	i, found := slices.BinarySearchFunc(m.Rules, r.GetPrefix(), func(known *kvdv1.Rule, prefix []byte) int {
		return bytes.Compare(known.GetPrefix(), prefix)
	})
	next := successor(m)
	next.Rules = slices.Clone(m.Rules)
	text := "the rule of " + kv.FormatKey(r.GetPrefix())
	switch gone := len(r.GetRegions()) == 0 && r.GetLeader() == ""; {
	case gone && !found:
		return out, "prefix: must be one that has a rule, is " + kv.FormatKey(r.GetPrefix())
	case gone:
		next.Rules = slices.Delete(next.Rules, i, i+1)
		text += " is gone"
	default:
		if refused = checkRule(r); refused != "" {
			return out, refused
		}
		if !found && len(m.Rules) >= kv.RulesMax {
			return out, fmt.Sprintf("rules: at most %d", kv.RulesMax)
		}
		if found {
			next.Rules = slices.Delete(next.Rules, i, i+1)
		}
		next.Rules = slices.Insert(next.Rules, i, r)
		text = fmt.Sprintf("what begins with %s has its replicas in %q", kv.FormatKey(r.Prefix), r.Regions)
		if r.Leader != "" {
			text += fmt.Sprintf(", and its leader in %q", r.Leader)
		}
	}
	return outcome{next: next, events: []*kvdv1.Event{{Kind: "rule", State: Happened, Text: text}}}, ""
}

// ruleFor is Map.RuleFor.
func ruleFor(rules []*kvdv1.Rule, span kv.Span) (rule *kvdv1.Rule) {
	for _, r := range rules {
		if kv.PrefixSpan(r.Prefix).Overlaps(span) && (rule == nil || len(r.Prefix) > len(rule.Prefix)) {
			rule = r
		}
	}
	return rule
}

// ruleCuts is Map.RuleCuts.
func ruleCuts(rules []*kvdv1.Rule, span kv.Span) (cuts [][]byte) {
	for _, r := range rules {
		of := kv.PrefixSpan(r.Prefix)
		for _, key := range [][]byte{of.Start, of.End} {
			if len(key) > 0 && span.Contains(key) && !bytes.Equal(key, span.Start) {
				cuts = append(cuts, key)
			}
		}
	}
	slices.SortFunc(cuts, bytes.Compare)
	return slices.CompactFunc(cuts, bytes.Equal)
}
