package shard

import (
	"fmt"
	"math"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// Commands that change the span or the standing of a shard.
//
// The leader proposes them, one alone in its entry: what follows a split in one entry would be carried out in another
// span than it was checked for. All but an Unfreeze name the epoch that they were computed from, and are refused if
// either half of it is not the shard's; so are those that come at the wrong time. A refusal changes nothing. One that
// was carried out ends the step: the owner makes of the state what it must (a child, an absorbed replica, a view at the
// index of a measure, no reads of a frozen shard) before the next entry.

// standing is what these commands have made of a shard. What it refers to is replaced, never changed in place, but for
// the counts of the measure.
type standing struct {
	measure  *measure
	birth    *kvdv1.SplitPair   // The last split, or the one that the shard was born in.
	intent   *kvdv1.IntentState // Of a merge with the right neighbour, open or given up and not settled.
	frozen   *kvdv1.FrozenState // By the left neighbour's merge.
	absorbed []*kvdv1.Absorbed
	unfrozen uint64 // The last merge that cannot freeze the shard any more.
	since    int64  // Unix milliseconds of the shard's time: the span is as old.
}

func standingOf(st *kvdv1.ShardState) standing {
	return standing{
		measure: measureOf(st.Measure), birth: st.Birth, intent: st.Intent, frozen: st.Frozen, absorbed: st.Absorbed,
		unfrozen: st.Unfrozen, since: st.SinceMs,
	}
}

// put writes the standing into a state.
func (s *standing) put(st *kvdv1.ShardState) {
	st.Measure, st.Birth, st.Intent, st.Frozen = s.measure.state(), s.birth, s.intent, s.frozen
	st.Absorbed, st.Unfrozen, st.SinceMs = s.absorbed, s.unfrozen, s.since
}

// outcome is what a step's shape command asks of the owner.
type outcome struct {
	ended bool // One was carried out.
	child *kvdv1.ShardState
	gone  *kvdv1.Absorbed
}

// Ends reports that the step must end here: it asks for a checksum, or a shape command was carried out. Applying on is
// a broken invariant after the latter.
func (m *Machine) Ends() bool { return m.ended || len(m.checksums) > 0 }

// Birth is the state of the child that the step's split has made, nil without one. Its replica is for the owner to fill
// in, by its node, who puts it into the step.
func (m *Machine) Birth() *kvdv1.ShardState { return m.child }

// Absorbed is the right shard that the step's merge has absorbed, nil without one. The owner removes its replica in the
// same step.
func (m *Machine) Absorbed() *kvdv1.Absorbed { return m.gone }

// Intent is the merge that the shard has begun, nil for none. It is shared and read-only.
func (m *Machine) Intent() *kvdv1.IntentState { return m.intent }

// Frozen tells by which merge the shard is frozen, nil for none. It is shared and read-only.
func (m *Machine) Frozen() *kvdv1.FrozenState { return m.frozen }

// EncodeShape gives a shape command as it is proposed.
func EncodeShape(s *kvdv1.Shape) *kvdv1.Command {
	return &kvdv1.Command{Op: uint32(kv.OpShape), Shape: s}
}

// shape carries a shape command out, or refuses it.
func (m *Machine) shape(s *kvdv1.Shape, alone bool) kv.Result {
	switch {
	case m.frozen != nil && !(alone && m.thaws(s)):
		return kv.Result{Status: kv.Frozen}
	case !alone:
		return kv.Result{Status: kv.Refused, Reason: "a command that changes the shape of a shard comes alone in its entry"}
	}
	if err := m.AdmitShape(s); err != nil {
		return kv.Result{Status: kv.Refused, Reason: err.Error()}
	}
	switch x := s.Shape.(type) {
	case *kvdv1.Shape_Measure:
		m.beginMeasure(x.Measure)
	case *kvdv1.Shape_Split:
		m.split(x.Split)
	case *kvdv1.Shape_Intent:
		m.begin(x.Intent)
	case *kvdv1.Shape_Freeze:
		m.freeze(x.Freeze)
	case *kvdv1.Shape_Merge:
		m.merge(x.Merge)
	case *kvdv1.Shape_Abort:
		m.abort()
	case *kvdv1.Shape_Unfreeze:
		m.unfreeze(wire.ToEpoch(s.Epoch), x.Unfreeze)
	case *kvdv1.Shape_Settle:
		m.intent = nil
	}
	m.ended = true
	return kv.Result{Status: kv.Done}
}

// AdmitShape tells why a shape command would be refused if it were applied now. Who proposes asks the leader's machine;
// apply asks again, since the shard may have changed in between.
func (m *Machine) AdmitShape(s *kvdv1.Shape) error {
	if x, ok := s.GetShape().(*kvdv1.Shape_Unfreeze); ok {
		return m.admitUnfreeze(wire.ToEpoch(s.Epoch), x.Unfreeze)
	}
	if err := m.admitEpoch(s.GetEpoch()); err != nil {
		return err
	}
	if m.frozen != nil {
		return invalid("shape", "not while the shard is frozen by merge %d", m.frozen.Id)
	}
	switch x := s.GetShape().(type) {
	case *kvdv1.Shape_Measure:
		return m.admitMeasure(x.Measure)
	case *kvdv1.Shape_Split:
		return m.admitSplit(x.Split)
	case *kvdv1.Shape_Intent:
		return m.admitIntent(x.Intent)
	case *kvdv1.Shape_Freeze:
		return m.admitFreeze(x.Freeze)
	case *kvdv1.Shape_Merge:
		return m.admitMerge(x.Merge)
	case *kvdv1.Shape_Abort:
		return m.admitAbort(x.Abort)
	case *kvdv1.Shape_Settle:
		return m.admitSettle(x.Settle)
	}
	return invalid("shape", "one that this version knows")
}

// admitEpoch compares both halves: since the command was computed the shard may have been split, merged, thawed or moved.
func (m *Machine) admitEpoch(e *kvdv1.Epoch) error {
	if now := m.descriptor.Epoch; wire.ToEpoch(e) != now && !mutantEpochUnchecked {
		return invalid("epoch", "%d/%d, is %d/%d", now.Version, now.Config, e.GetVersion(), e.GetConfig())
	}
	return nil
}

// admitStill refuses what must not come while the configuration is joint, or under an open merge.
func (m *Machine) admitStill() error {
	switch {
	case m.joint() && !mutantShapeWhileJoint:
		return invalid("shape", "not while the configuration is joint")
	case m.intent != nil && !m.intent.Aborted:
		return invalid("shape", "not under the open merge %d", m.intent.Id)
	}
	return nil
}

func (m *Machine) joint() bool { return m.descriptor.Joint() || len(m.conf.votersOutgoing) > 0 }

// consistent reports whether counts can be those of keys: each has a byte at least.
func consistent(keys, bytes, expiring uint64) bool {
	return expiring <= keys && keys <= bytes && bytes <= math.MaxInt64 && (keys > 0 || bytes == 0)
}

func invalid(field, bound string, args ...any) error {
	return &kv.InvalidError{Field: field, Bound: fmt.Sprintf(bound, args...)}
}

// standingBroken tells of a broken invariant.
func (m *Machine) standingBroken() string {
	span, shard := m.descriptor.Span, uint64(m.descriptor.Shard)
	switch {
	case string(span.Start) != string(m.origin.Descriptor_.GetStart()):
		return "the start of the span has changed"
	case !wire.ToDescriptor(m.described).Span.Equal(span):
		return "the span is stored as another one"
	case m.measure != nil && (!span.Contains(m.measure.key) || string(m.measure.key) == string(span.Start)):
		return "what is measured is no part of the span: " + kv.FormatKey(m.measure.key)
	case m.birth != nil && m.birth.Left.GetShard() != shard && m.birth.Right.GetShard() != shard:
		return "the last split is one of other shards"
	case m.birth != nil && string(m.birth.Left.GetEnd()) != string(m.birth.Right.GetStart()):
		return "the halves of the last split do not meet"
	case m.intent != nil && m.frozen != nil:
		return "the shard is frozen while it has begun a merge"
	case m.intent != nil && (m.intent.Id == 0 || m.intent.Right == nil), m.frozen != nil && m.frozen.Id == 0:
		return "a merge has no number, or no right shard"
	case m.intent != nil && !m.intent.Aborted && string(m.intent.Right.GetStart()) != string(span.End):
		return "the open merge is with a shard that is no neighbour"
	case m.intent != nil && !m.intent.Aborted && m.joint() && !mutantShapeWhileJoint:
		return "the configuration is joint under an open merge"
	case len(m.absorbed) > kv.AbsorbedMax:
		return "too many absorbed shards are remembered"
	case m.since > m.time:
		return "the span is from a later time"
	}
	return ""
}
