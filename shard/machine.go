package shard

import (
	"fmt"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// Reader reads what is stored as of the last committed step.
type Reader interface {
	// Get reads a key. The record's value is the caller's.
	Get(key []byte) (rec kv.Record, ok bool, err error)
	// Head is Get without the value, which may cost much less.
	Head(key []byte) (h kv.Head, ok bool, err error)
	// Scan calls f for the keys of a span in order until f returns false. Key and record are lent for the call.
	Scan(span kv.Span, f func(key []byte, rec kv.Record) bool) error
}

// Writer gathers the effects of one step, for one or many shards; where a key is given twice the later counts. It is
// an alias, so that the machine of the meta group can have the very same methods as this one.
type Writer = interface {
	Put(key []byte, rec kv.Record)
	Delete(key []byte)
	PutDue(d kv.Due)
	DeleteDue(d kv.Due)
	PutShard(shard kv.ShardID, st *kvdv1.ShardState)
}

// Change is a key that a step changed.
type Change = kv.Change

// point is a position in the log.
type point struct {
	index kv.Index
	term  kv.Term
}

// counters are the numbers that the log gives to a shard.
type counters struct {
	revision kv.Revision
	time     int64 // Unix milliseconds (R4).
	keys     uint64
	bytes    uint64 // Of keys and values.
	expiring uint64 // Keys with an expiry.
}

func countersOf(st *kvdv1.ShardState) counters {
	return counters{
		revision: kv.Revision(st.Revision), time: st.TimeMs, keys: st.Keys, bytes: st.Bytes, expiring: st.Expiring,
	}
}

// put writes the counters into a state.
func (c *counters) put(st *kvdv1.ShardState) {
	st.Revision, st.TimeMs, st.Keys, st.Bytes, st.Expiring = uint64(c.revision), c.time, c.keys, c.bytes, c.expiring
}

// Machine is the state machine of one replica. One goroutine uses it.
type Machine struct {
	origin     *kvdv1.ShardState // As given to New: what entries do not change is taken from here.
	descriptor *kv.Descriptor    // Replaced, never changed in place.
	described  *kvdv1.Descriptor // The same, as it is stored.
	reader     Reader
	conf       configuration
	failed     error // Of an Apply: nothing is applied any more, and no step finished.

	counters
	standing
	applied point
	stored  point // What Finish stored last, or New was given.

	// Of the step.
	writer    Writer
	stepped   bool    // Something was applied.
	span      kv.Span // As the step began: all that it changes lies there.
	overlay   overlay
	checksums []kv.ChecksumRequest
	outcome
}

// New makes the machine of a replica from its stored state. st is read-only from then on.
func New(st *kvdv1.ShardState, r Reader) *Machine {
	p := point{kv.Index(st.AppliedIndex), kv.Term(st.AppliedTerm)}
	d := wire.ToDescriptor(st.Descriptor_)
	return &Machine{
		origin: st, descriptor: d, described: st.Descriptor_, reader: r, applied: p, stored: p,
		conf: configurationOf(st), counters: countersOf(st), standing: standingOf(st),
		span: d.Span, overlay: newOverlay(),
	}
}

// Begin starts a step whose effects go to w.
func (m *Machine) Begin(w Writer) { m.writer = w }

// Changes lists the keys that the step has changed so far, each once, in the order of their first change. The slice
// is valid until Committed; keys and records may be kept, and are read-only.
func (m *Machine) Changes() []Change { return m.overlay.changes }

// Checksums lists the checksums that the step asks for. Each is of the state at its index: so an owner that finds one
// after an Apply ends the step there.
func (m *Machine) Checksums() []kv.ChecksumRequest { return m.checksums }

// Finish gives the step's effects and the new ShardState to the writer, if anything was applied. The state, the
// applied index among it, must be in the same step as the effects (T2): apart, a crash applies entries twice.
func (m *Machine) Finish() {
	if !m.stepped || m.failed != nil {
		return
	}
	m.overlay.write(m.writer)
	p := m.applied
	if mutantAppliedApart {
		p = m.stored
	}
	m.writer.PutShard(m.descriptor.Shard, m.state(p))
	m.stored = m.applied
}

// Committed ends the step: its effects are visible to the Reader.
func (m *Machine) Committed() {
	m.overlay.reset()
	m.checksums, m.outcome = nil, outcome{}
	m.writer, m.stepped = nil, false
	m.span = m.descriptor.Span
}

// State is what the replica keeps of itself, as applied so far. It is the caller's, but shares what no entry changes.
func (m *Machine) State() *kvdv1.ShardState { return m.state(m.applied) }

func (m *Machine) state(applied point) *kvdv1.ShardState {
	o := m.origin
	st := &kvdv1.ShardState{
		Replica: o.Replica, Descriptor_: m.described,
		AppliedIndex: uint64(applied.index), AppliedTerm: uint64(applied.term),
		BaseIndex: o.BaseIndex, BaseTerm: o.BaseTerm,
		Voters: m.conf.voters, Learners: m.conf.learners, VotersOutgoing: m.conf.votersOutgoing,
		LearnersNext: m.conf.learnersNext, AutoLeave: m.conf.autoLeave,
	}
	m.counters.put(st)
	m.standing.put(st)
	return st
}

// describe replaces the descriptor.
func (m *Machine) describe(d *kv.Descriptor) {
	m.descriptor, m.described = d, wire.FromDescriptor(d, 0)
}

// Descriptor is the shard's, shared and read-only.
func (m *Machine) Descriptor() *kv.Descriptor { return m.descriptor }

// Revision is the count of write commands applied; within a step it is already what the step makes visible (R2).
func (m *Machine) Revision() kv.Revision { return m.revision }

// Time is the shard's time in Unix milliseconds.
func (m *Machine) Time() int64 { return m.time }

// Applied is the position of the last entry applied.
func (m *Machine) Applied() (kv.Index, kv.Term) { return m.applied.index, m.applied.term }

// Keys, Bytes and Expiring count what is stored: keys, bytes of keys and values, keys with an expiry.
func (m *Machine) Keys() uint64     { return m.keys }
func (m *Machine) Bytes() uint64    { return m.bytes }
func (m *Machine) Expiring() uint64 { return m.expiring }

// Check reports a broken invariant.
func (m *Machine) Check() error {
	fail := func(what string) error {
		return fmt.Errorf("shard %d, replica %d, index %d: %s", m.descriptor.Shard, m.origin.Replica, m.applied.index, what)
	}
	switch {
	case m.failed != nil:
		return m.failed
	case m.descriptor.Shard == kv.MetaShard:
		return fail("the meta group holds no keys")
	case m.descriptor.Span.Empty():
		return fail("the span is empty: " + m.descriptor.Span.String())
	case len(m.conf.voters) == 0:
		return fail("nobody votes")
	case m.time < 0:
		return fail("the time is before 1970")
	case m.bytes < m.keys:
		return fail(fmt.Sprintf("%d keys are counted in %d bytes", m.keys, m.bytes))
	case m.expiring > m.keys:
		return fail(fmt.Sprintf("%d of %d keys are counted as expiring", m.expiring, m.keys))
	case m.keys == 0 && m.bytes != 0:
		return fail(fmt.Sprintf("%d bytes are counted without a key", m.bytes))
	case uint64(m.applied.index) < m.origin.BaseIndex:
		return fail("applied is below the base of the log")
	case m.stored.index > m.applied.index:
		return fail("stored is above applied")
	case len(m.overlay.at) != len(m.overlay.changes) || len(m.overlay.at) != len(m.overlay.before):
		return fail("the overlay's parts differ in length")
	case len(m.overlay.changes) > 0 && !m.stepped:
		return fail("the overlay of a step is left behind")
	}
	for _, c := range m.overlay.changes {
		if !m.span.Contains(c.Key) {
			return fail("a key outside the span was changed: " + kv.FormatKey(c.Key))
		}
	}
	if what := m.standingBroken(); what != "" {
		return fail(what)
	}
	return nil
}
