package shard

import (
	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// Freeze stops a shard that its left neighbour is to absorb, at the index f of the Freeze (G1).
//
// The left shard's leader has the right one's propose it, when the left log holds the Intent. After f every command but
// the Unfreeze of the same merge is answered kv.Frozen and changes nothing, purges and the shard's time included: what
// the left log says of the state at f stays true however far the right log has come.
//
// Unfreeze ends the freeze of one merge, after the left log holds its Abort (G2). A Freeze may be on its way still: if
// the shard is not frozen, and of the epoch that the Freeze names, the version rises, so that the Freeze is refused
// when it comes. At another epoch it would be refused anyhow. Of either, `unfrozen` tells that the merge cannot freeze
// the shard any more. An Unfreeze of another merge than the one that the shard is frozen by does nothing, nor does one of
// another epoch: the same goal may have begun a merge anew, and the left shard may be about to merge.

func (m *Machine) admitFreeze(x *kvdv1.Freeze) error {
	if err := m.admitStill(); err != nil {
		return err
	}
	switch d := m.descriptor; {
	case x.GetId() == 0:
		return invalid("freeze.id", "above 0")
	case x.GetLeft() == uint64(kv.MetaShard) || kv.ShardID(x.GetLeft()) == d.Shard || len(d.Span.Start) == 0:
		return invalid("freeze.left", "the left neighbour, is %d", x.GetLeft())
	case m.intent != nil:
		return invalid("shape", "not before merge %d, which was given up, is settled", m.intent.Id)
	}
	return nil
}

func (m *Machine) freeze(x *kvdv1.Freeze) {
	m.frozen = &kvdv1.FrozenState{Id: x.GetId(), Left: x.GetLeft(), Index: uint64(m.applied.index)}
}

// thaws reports whether a command is the Unfreeze that the frozen shard waits for.
func (m *Machine) thaws(s *kvdv1.Shape) bool {
	u := s.GetUnfreeze()
	return u != nil && (u.GetId() == m.frozen.Id && wire.ToEpoch(s.Epoch) == m.descriptor.Epoch || mutantLateUnfreeze)
}

func (m *Machine) admitUnfreeze(e kv.Epoch, x *kvdv1.Unfreeze) error {
	now := m.descriptor.Epoch
	switch {
	case x.GetId() == 0:
		return invalid("unfreeze.id", "above 0")
	case m.frozen != nil && (m.frozen.Id != x.GetId() || e != now) && !mutantLateUnfreeze:
		return invalid("unfreeze", "of merge %d at %d/%d, which the shard is frozen by, is of %d at %d/%d",
			m.frozen.Id, now.Version, now.Config, x.GetId(), e.Version, e.Config)
	case m.frozen == nil && now.Version <= e.Version && now.Config <= e.Config && now != e:
		return invalid("epoch", "at most %d/%d, is %d/%d: the freeze could come later", now.Version, now.Config, e.Version, e.Config)
	}
	return nil
}

func (m *Machine) unfreeze(e kv.Epoch, x *kvdv1.Unfreeze) {
	if e == m.descriptor.Epoch && !(mutantLateFreeze && m.frozen == nil) {
		d := *m.descriptor
		d.Epoch.Version++
		m.describe(&d)
	}
	m.frozen, m.unfrozen = nil, x.GetId()
}
