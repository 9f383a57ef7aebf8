package shard

import (
	"bytes"

	"github.com/kvdstore/kvd/kv"
)

// holds reports whether a condition is met by what is there, as live gives it.
func holds(c kv.Condition, f found) bool {
	switch c.Kind {
	case kv.Always:
		return true
	case kv.IfAbsent:
		return !f.there
	case kv.IfPresent:
		return f.there
	case kv.IfRevision:
		return f.there && f.rec.Revision == c.Revision
	case kv.IfValue:
		return f.there && bytes.Equal(f.rec.Value, c.Value)
	}
	return false
}

// conditionFailed is the result of a write whose condition is not met: nothing is written and nothing counted.
func conditionFailed(f found) kv.Result {
	return kv.Result{Status: kv.ConditionFailed, Revision: f.rec.Revision}
}
