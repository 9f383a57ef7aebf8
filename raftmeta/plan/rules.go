package plan

import (
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
