package sim

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/storage"
)

const (
	// healTime is how long a healed cluster has to agree and to go quiet.
	healTime = 8 * time.Second
	// levelTime is how long its shards then have to reach their goals, and their replicas to be at one index.
	levelTime = time.Minute
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

// noteStates records what the replicas hold after a step, and fails if two of them hold a key.
func (m *machine) noteStates() {
	if !m.stepped {
		return
	}
	m.stepped = false
	records, err := m.state.Shards()
	if err != nil {
		m.fail("node %d: %v", m.id, err)
		return
	}
	for i, r := range records {
		group := kv.Group{Shard: r.Shard, Replica: kv.ReplicaID(r.State.GetReplica())}
		for _, o := range records[i+1:] {
			if r.Shard != kv.MetaShard && spanOf(r.State).Overlaps(spanOf(o.State)) {
				m.fail("node %d: shard %d over %v and shard %d over %v overlap on its disk", m.id, r.Shard, spanOf(r.State), o.Shard, spanOf(o.State))
			}
		}
		if m.noted[group] == kv.Index(r.State.GetAppliedIndex()) {
			continue
		}
		m.noted[group] = kv.Index(r.State.GetAppliedIndex())
		m.seen(wire.ToDescriptor(r.State.GetDescriptor_()))
		state, err := m.stateOf(r)
		if err != nil {
			m.fail("node %d: %v", m.id, err)
			return
		}
		m.states = append(m.states, state)
	}
}

func spanOf(st *kvdv1.ShardState) kv.Span { return wire.ToDescriptor(st.GetDescriptor_()).Span }

// stateOf reads what the machine's replica of a shard holds.
func (m *machine) stateOf(r *storage.ShardRecord) (check.Replica, error) {
	span := spanOf(r.State)
	v, err := m.state.View(r.Shard, span)
	if err != nil {
		return check.Replica{}, err
	}
	items := []kv.Item(nil)
	if r.Shard == kv.MetaShard { // It has no keys.
		err = v.Close()
	} else {
		items, err = readAll(v, span)
	}
	if err != nil {
		return check.Replica{}, err
	}
	if err := counted(r, items); err != nil {
		return check.Replica{}, err
	}
	sum, err := sumOfState(r.State)
	return check.Replica{
		Shard: r.Shard, Node: m.id, Index: kv.Index(r.State.GetAppliedIndex()), Revision: kv.Revision(r.State.GetRevision()),
		Time: r.State.GetTimeMs(), Sum: sumOf(items) ^ sum,
	}, err
}

// counted compares what a replica counts of its keys with what it holds.
func counted(r *storage.ShardRecord, items []kv.Item) error {
	var size, expiring uint64
	for _, i := range items {
		size += uint64(len(i.Key) + len(i.Record.Value))
		if i.Record.ExpireAt != 0 {
			expiring++
		}
	}
	if st := r.State; st.GetKeys() != uint64(len(items)) || st.GetBytes() != size || st.GetExpiring() != expiring {
		return fmt.Errorf("shard %d counts %d keys of %d bytes, %d of them with an expiry; there are %d of %d bytes, %d with one",
			r.Shard, st.GetKeys(), st.GetBytes(), st.GetExpiring(), len(items), size, expiring)
	}
	return nil
}

// sumOfState is a checksum of what all replicas of a shard keep alike: of which replica it is, and where its log begins,
// is its own.
func sumOfState(st *kvdv1.ShardState) (uint64, error) {
	replica, index, term := st.Replica, st.BaseIndex, st.BaseTerm
	st.Replica, st.BaseIndex, st.BaseTerm = 0, 0, 0
	data, err := st.MarshalVT()
	st.Replica, st.BaseIndex, st.BaseTerm = replica, index, term
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

// level waits until the replicas of every shard are at one index, and are those that the map names.
func (w *world) level() {
	end := w.now + levelTime
	for w.err == nil {
		states, err := w.finalStates()
		if err == nil {
			if behind := check.Level(states); len(behind) > 0 {
				err = behind[0]
			}
		}
		if err == nil {
			w.states = append(w.states, states...)
			return
		}
		if w.now >= end {
			w.fail("long after everything healed: %v", err)
			return
		}
		w.run(w.now + 10*time.Millisecond)
	}
}

// finalStates reads what every replica holds now. It fails if the replicas are not those of the newest map.
func (w *world) finalStates() ([]check.Replica, error) {
	var states []check.Replica
	missing := map[kv.Group]kv.NodeID{}
	for _, shard := range w.groups() {
		d, _ := w.newest.Shard(shard)
		for _, r := range d.Replicas {
			missing[kv.Group{Shard: shard, Replica: r.Replica}] = r.Node
		}
	}
	for _, m := range w.nodes {
		records, err := m.state.Shards()
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			group := kv.Group{Shard: r.Shard, Replica: kv.ReplicaID(r.State.GetReplica())}
			d, _ := w.newest.Shard(r.Shard)
			switch own := wire.ToDescriptor(r.State.GetDescriptor_()); {
			case missing[group] != m.id:
				return nil, fmt.Errorf("node %d holds replica %d of shard %d as %+v, and the map has %+v", m.id, group.Replica, r.Shard, own, d)
			case own.Epoch != d.Epoch || !own.Span.Equal(d.Span) || !slices.Equal(own.Replicas, d.Replicas):
				return nil, fmt.Errorf("node %d: shard %d is %+v, and in the map %+v", m.id, r.Shard, own, d)
			}
			delete(missing, group)
			state, err := m.stateOf(r)
			if err != nil {
				return nil, err
			}
			states = append(states, state)
		}
	}
	for _, shard := range w.groups() {
		d, _ := w.newest.Shard(shard)
		for _, r := range d.Replicas {
			if _, ok := missing[kv.Group{Shard: shard, Replica: r.Replica}]; ok {
				return nil, fmt.Errorf("node %d does not hold replica %d of shard %d", r.Node, r.Replica, shard)
			}
		}
	}
	return states, nil
}

// judge asks every checker.
func (w *world) judge() {
	for _, m := range w.nodes {
		m.endLeases()
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

// final reads what readers would find at the end: all replicas of a shard hold the same.
func (w *world) final() (map[string]check.Final, error) {
	final := map[string]check.Final{}
	for _, d := range w.newest.Descriptors() {
		v, err := w.node(d.Replicas[0].Node).state.View(d.Shard, d.Span)
		if err != nil {
			return nil, err
		}
		now := v.State().GetTimeMs()
		items, err := readAll(v, d.Span)
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
