package shard

import (
	"bytes"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// Measure makes the shard count what changes at and above a key from here on.
//
// A split needs the sizes of both halves, the same on every replica, and no apply may scan a shard. So the leader
// proposes a measure, counts in the background what a view at its index holds at and above the key, and proposes
// the split with these counts, to which apply adds what has changed since. A later measure replaces an earlier one: the
// split names the measure that it relies on, by its index too, since a goal may measure again.

// measure is a Measure in force.
type measure struct {
	id    uint64
	key   []byte
	index kv.Index
	// Changes since the index of what is stored at and above the key.
	keys, bytes, expiring int64
}

func measureOf(st *kvdv1.MeasureState) *measure {
	if st == nil {
		return nil
	}
	return &measure{st.Id, st.Key, kv.Index(st.Index), st.Keys, st.Bytes, st.Expiring}
}

// state gives the measure as it is stored.
func (m *measure) state() *kvdv1.MeasureState {
	if m == nil {
		return nil
	}
	return &kvdv1.MeasureState{
		Id: m.id, Key: m.key, Index: uint64(m.index), Keys: m.keys, Bytes: m.bytes, Expiring: m.expiring,
	}
}

// replaced counts that rec, nil for nothing, is stored under a key instead of old.
func (m *measure) replaced(key []byte, old found, rec *kv.Record) {
	if bytes.Compare(key, m.key) < 0 {
		return
	}
	if old.there {
		m.add(-1, key, old)
	}
	if rec != nil {
		m.add(1, key, stored(*rec))
	}
}

func (m *measure) add(n int64, key []byte, f found) {
	m.keys += n
	m.bytes += n * int64(len(key)+f.bytes)
	if f.rec.ExpireAt != 0 {
		m.expiring += n
	}
}

func (m *Machine) admitMeasure(x *kvdv1.Measure) error {
	if x.GetId() == 0 {
		return invalid("measure.id", "above 0")
	}
	return m.admitSplitKey("measure.key", x.GetKey())
}

// admitSplitKey takes a key that leaves both halves a part of the span.
func (m *Machine) admitSplitKey(field string, key []byte) error {
	if err := kv.CheckKey(field, key); err != nil {
		return err
	}
	if span := m.descriptor.Span; !span.Contains(key) || bytes.Equal(key, span.Start) {
		return invalid(field, "within %v and above its start, is %s", span, kv.FormatKey(key))
	}
	return nil
}

func (m *Machine) beginMeasure(x *kvdv1.Measure) {
	m.measure = &measure{id: x.GetId(), key: x.GetKey(), index: m.applied.index}
}
