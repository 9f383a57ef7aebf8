package sim

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/storage"
)

const (
	// healTime is how long a healed cluster has to agree and to go quiet.
	healTime = 8 * time.Second
	// levelTime is how long its replicas then have to be at one index: a checksum is asked for now and then.
	levelTime = 2 * time.Second
	// expiryLate is by how much a key may be seen after its time.
	expiryLate = time.Second
	// purgeTime is how long a key may be stored after its time, when all is well.
	purgeTime = 2 * time.Second
	// searchTime bounds the search for an order of a run's operations.
	searchTime = 20 * time.Second
)

// evidence is what a run leaves for the checkers.
type evidence struct {
	history []*check.Operation
	leases  []check.Lease
	states  []check.Replica
	cuts    [][]*check.Operation // Reads of several keys at one moment.
	// skewMax is by how much any node's clock was off at most.
	skewMax time.Duration
}

// epochMs is what a clock that is right shows at the beginning, in Unix milliseconds; epoch is that moment in a history,
// whose unit is a nanosecond.
const (
	epochMs = 1_700_000_000_000
	epoch   = int64(time.Hour)
)

// moment is now, as a history has it.
func (w *world) moment() int64 { return epoch + int64(w.now) }

// momentOf is when a clock that is right shows so many Unix milliseconds; 0 is never.
func momentOf(unixMs int64) int64 {
	if unixMs == 0 {
		return 0
	}
	return epoch + (unixMs-epochMs)*int64(time.Millisecond)
}

// watched is the state store as the core has it: the machine sees what is committed.
type watched struct {
	storage.State
	machine *machine
}

func (s watched) Commit(b storage.Batch) (storage.Cut, error) {
	s.machine.stepped = true
	return s.State.Commit(b)
}

// noteStates records what the replicas hold after a step.
func (m *machine) noteStates() {
	if !m.stepped {
		return
	}
	m.stepped = false
	for shard := range kv.ShardID(m.Shards + 1) {
		r, err := m.stateOf(shard)
		if err != nil {
			m.fail("node %d: %v", m.id, err)
			return
		}
		if r.Index != m.noted[shard] {
			m.noted[shard] = r.Index
			m.states = append(m.states, r)
		}
	}
}

// stateOf reads what the machine's replica of a shard holds.
func (m *machine) stateOf(shard kv.ShardID) (check.Replica, error) {
	span := kv.Span{}
	if d, ok := m.shards.Shard(shard); ok {
		span = d.Span
	}
	v, err := m.state.View(shard, span)
	if err != nil {
		return check.Replica{}, err
	}
	st := v.State()
	r := check.Replica{Shard: shard, Node: m.id, Index: kv.Index(st.GetAppliedIndex()), Revision: kv.Revision(st.GetRevision()), Time: st.GetTimeMs()}
	if shard == kv.MetaShard {
		r.Sum, err = sumOfMeta(st.GetMeta())
		if err != nil {
			return check.Replica{}, err
		}
		return r, v.Close()
	}
	items, err := readAll(v, span)
	if err != nil {
		return check.Replica{}, err
	}
	h := xxhash.New()
	for _, n := range []uint64{sumOf(items), st.GetAppliedTerm(), st.GetKeys(), st.GetBytes(), st.GetExpiring()} {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, n))
	}
	r.Sum = h.Sum64()
	return r, nil
}

func sumOfMeta(meta *kvdv1.MetaState) (uint64, error) {
	data, err := meta.MarshalVT()
	return xxhash.Sum64(data), err
}

func sumOf(items []kv.Item) uint64 {
	h := xxhash.New()
	for _, i := range items {
		_, _ = h.Write(i.Key)
		_, _ = h.Write(i.Record.Value)
		_, _ = h.Write(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(i.Record.Revision)), uint64(i.Record.ExpireAt)))
	}
	return h.Sum64()
}

// noteLeases records which leases readers see, in the time of the world.
func (m *machine) noteLeases() {
	for shard := range kv.ShardID(m.Shards + 1) {
		open := &m.leased[shard]
		lead, term, until := m.views[shard].Lead()
		runs := lead == m.id && until > m.boot()
		if open.Until != 0 && (!runs || open.Term != term) {
			m.endLease(shard)
		}
		if !runs {
			continue
		}
		if open.Until == 0 {
			*open = check.Lease{Shard: shard, Node: m.id, Term: term, From: int64(m.now)}
		}
		open.Until = int64(m.now) + int64(float64(until-m.boot())/m.rate)
	}
}

// endLease records a lease that is over by now.
func (m *machine) endLease(shard kv.ShardID) {
	if l := m.leased[shard]; l.Until != 0 {
		l.Until = min(l.Until, int64(m.now))
		m.leases = append(m.leases, l)
		m.leased[shard] = check.Lease{}
	}
}

// level waits until the replicas of every shard are at one index.
func (w *world) level() {
	end := w.now + levelTime
	var behind []check.Violation
	for w.err == nil {
		states, err := w.finalStates()
		if err != nil {
			w.fail("%v", err)
			return
		}
		if behind = check.Level(states); len(behind) == 0 {
			w.states = append(w.states, states...)
			return
		}
		if w.now >= end {
			w.fail("long after everything healed: %v", behind[0])
			return
		}
		w.run(w.now + 10*time.Millisecond)
	}
}

// finalStates reads what every replica holds now.
func (w *world) finalStates() ([]check.Replica, error) {
	var states []check.Replica
	for _, m := range w.nodes {
		for shard := range kv.ShardID(w.Shards + 1) {
			r, err := m.stateOf(shard)
			if err != nil {
				return nil, err
			}
			states = append(states, r)
		}
	}
	return states, nil
}

// judge asks every checker.
func (w *world) judge() {
	for _, m := range w.nodes {
		for shard := range m.leased {
			m.endLease(kv.ShardID(shard))
		}
	}
	final, err := w.final()
	if err != nil {
		w.fail("%v", err)
		return
	}
	h := make(check.History, len(w.history))
	for i, op := range w.history {
		h[i] = *op
	}
	cuts := make([][]check.Operation, len(w.cuts))
	for i, ops := range w.cuts {
		for _, o := range ops {
			cuts[i] = append(cuts[i], *o)
		}
	}
	bounds := check.Bounds{Late: int64(expiryLate), Skew: int64(w.skewMax + time.Millisecond)}
	for _, judge := range []func() []check.Violation{
		func() []check.Violation { return check.Replicas(w.states) },
		func() []check.Violation { return check.Leases(w.leases) },
		func() []check.Violation { return check.Revisions(h) },
		func() []check.Violation { return check.NoLostWrites(h, final) },
		func() []check.Violation { return check.Cuts(h, cuts) },
		func() []check.Violation { return check.Expiry(h.Ended(w.moment(), final), bounds, searchTime) },
	} {
		if found := judge(); len(found) > 0 {
			w.fail("%v", found[0])
			return
		}
	}
}

// final reads what readers would find at the end: all replicas hold the same.
func (w *world) final() (map[string]check.Final, error) {
	final := map[string]check.Final{}
	state := w.nodes[0].state
	for _, shard := range w.shards.Descriptors() {
		v, err := state.View(shard.Shard, shard.Span)
		if err != nil {
			return nil, err
		}
		now := v.State().GetTimeMs()
		items, err := readAll(v, shard.Span)
		if err != nil {
			return nil, err
		}
		for _, i := range items {
			if due := momentOf(i.Record.ExpireAt); due != 0 && due+int64(purgeTime+w.skewMax) < w.moment() {
				return nil, fmt.Errorf("%s is stored still, %v after its time", i.Key, time.Duration(w.moment()-due))
			}
			if !i.Record.ExpiredAt(now) {
				final[string(i.Key)] = check.Final{
					Value: string(i.Record.Value), Revision: i.Record.Revision, ExpireAt: momentOf(i.Record.ExpireAt),
				}
			}
		}
	}
	return final, nil
}
