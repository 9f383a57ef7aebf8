package shard

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/storage"
)

// founded is the state of a shard with replicas on nodes 1 to 3, of which the last learns.
func founded(shard uint64, start, end string) *kvdv1.ShardState {
	st := birth()
	st.Descriptor_ = &kvdv1.Descriptor{Shard: shard, Start: []byte(start), End: []byte(end), Epoch: &kvdv1.Epoch{Version: 4, Config: 7}}
	for n := uint64(1); n <= 3; n++ {
		st.Descriptor_.Replicas = append(st.Descriptor_.Replicas, &kvdv1.Replica{Node: n, Replica: 10*shard + n, Learner: n == 3})
	}
	st.Replica, st.Voters, st.Learners = 10*shard+1, []uint64{10*shard + 1, 10*shard + 2}, []uint64{10*shard + 3}
	return st
}

// fleet are shards of one node.
type fleet struct {
	t      require.TestingT
	store  store
	shards map[uint64]*shardUnderTest
}

func newFleet(t require.TestingT, states ...*kvdv1.ShardState) *fleet {
	f := &fleet{t: t, store: store{storage.NewMemState()}, shards: map[uint64]*shardUnderTest{}}
	for _, st := range states {
		f.shards[st.Descriptor_.Shard] = &shardUnderTest{t, f.store, New(st, f.store)}
	}
	return f
}

// step applies entries to a shard in one step, as its owner does: what is born goes into the step, and what is absorbed
// leaves with it.
func (f *fleet) step(shard uint64, batches ...*kvdv1.Batch) [][]kv.Result {
	s := f.shards[shard]
	b := f.store.NewBatch()
	s.m.Begin(b)
	var all [][]kv.Result
	for _, batch := range batches {
		index, _ := s.m.Applied()
		results, err := s.m.Apply(index+1, 6, batch)
		require.NoError(f.t, err)
		require.NoError(f.t, s.m.Check())
		all = append(all, results)
	}
	s.m.Finish()
	if st := s.m.Birth(); st != nil {
		d := wire.ToDescriptor(st.Descriptor_)
		r, _ := d.OnNode(1)
		st.Replica = uint64(r.Replica)
		b.PutShard(d.Shard, st)
		f.shards[uint64(d.Shard)] = &shardUnderTest{f.t, f.store, New(st, f.store)}
	}
	if a := s.m.Absorbed(); a != nil {
		delete(f.shards, a.Shard)
	}
	_, err := f.store.Commit(b)
	require.NoError(f.t, err)
	s.m.Committed()
	for _, other := range f.shards {
		require.NoError(f.t, other.m.Check())
	}
	return all
}

// one applies one command at a time in Unix milliseconds.
func (f *fleet) one(shard uint64, stamp int64, c kv.Command) kv.Result {
	return f.step(shard, &kvdv1.Batch{StampMs: stamp, Commands: []*kvdv1.Command{EncodeCommand(&c)}})[0][0]
}

// shape applies a shape command alone in its entry, through the bytes of the log.
func (f *fleet) shape(shard uint64, s *kvdv1.Shape) kv.Result {
	payload, err := Encode(&kvdv1.Batch{StampMs: f.shards[shard].m.Time(), Commands: []*kvdv1.Command{EncodeShape(s)}})
	require.NoError(f.t, err)
	b, err := Decode(payload)
	require.NoError(f.t, err)
	return f.step(shard, b)[0][0]
}

// done applies a shape command that must be carried out.
func (f *fleet) done(shard uint64, s *kvdv1.Shape) {
	require.Equal(f.t, kv.Result{Status: kv.Done}, f.shape(shard, s))
}

// restart makes the machine of a shard again from what is stored.
func (f *fleet) restart(shard uint64) {
	all, err := f.store.Shards()
	require.NoError(f.t, err)
	for _, s := range all {
		if uint64(s.Shard) == shard {
			before := f.shards[shard].m.State()
			f.shards[shard].m = New(s.State, f.store)
			require.True(f.t, proto.Equal(before, f.shards[shard].m.State()), "%v became %v", before, f.shards[shard].m.State())
		}
	}
}

// counted counts what is stored in a span.
func (s store) counted(t require.TestingT, span kv.Span) (keys, bytes, expiring uint64) {
	require.NoError(t, s.Scan(span, func(key []byte, rec kv.Record) bool {
		keys++
		bytes += uint64(len(key) + len(rec.Value))
		if rec.ExpireAt != 0 {
			expiring++
		}
		return true
	}))
	return keys, bytes, expiring
}

// agrees compares the counters of every shard with what is stored.
func (f *fleet) agrees() {
	for id, s := range f.shards {
		keys, bytes, expiring := f.store.counted(f.t, s.m.Descriptor().Span)
		require.Equal(f.t, []uint64{keys, bytes, expiring}, []uint64{s.m.Keys(), s.m.Bytes(), s.m.Expiring()}, "shard %d", id)
	}
}

func (f *fleet) epoch(shard uint64) *kvdv1.Epoch {
	return wire.FromEpoch(f.shards[shard].m.Descriptor().Epoch)
}

// measured begins a measure and gives the split that it is for, with the counts at its index.
func (f *fleet) measured(shard, id uint64, key string, child uint64) *kvdv1.Shape {
	f.done(shard, &kvdv1.Shape{Epoch: f.epoch(shard), Shape: &kvdv1.Shape_Measure{Measure: &kvdv1.Measure{Id: id, Key: []byte(key)}}})
	d := f.shards[shard].m.Descriptor()
	x := &kvdv1.Split{Key: []byte(key), Child: child, Measure: id, Index: f.shards[shard].m.State().Measure.Index, Heir: 1}
	x.Keys, x.Bytes, x.Expiring = f.store.counted(f.t, kv.Span{Start: []byte(key), End: d.Span.End})
	for _, r := range d.Replicas {
		x.Replicas = append(x.Replicas, &kvdv1.Replica{Node: uint64(r.Node), Replica: 10*child + uint64(r.Node), Learner: r.Learner})
	}
	return &kvdv1.Shape{Epoch: f.epoch(shard), Shape: &kvdv1.Shape_Split{Split: x}}
}

// joint enters a joint configuration.
func (f *fleet) joint(shard uint64) {
	m := f.shards[shard].m
	r := m.Descriptor().Replicas
	swap := &kvdv1.ConfChange{
		Epoch: f.epoch(shard), Promote: []uint64{uint64(r[2].Replica)}, Demote: []uint64{uint64(r[1].Replica)},
	}
	if m.Descriptor().Voters() == 2 {
		swap.Demote = nil
	}
	require.Equal(f.t, kv.Done, f.conf(shard, swap, &raftpb.ConfState{
		Voters: []uint64{uint64(r[0].Replica), uint64(r[1].Replica), uint64(r[2].Replica)}, VotersOutgoing: []uint64{uint64(r[0].Replica), uint64(r[1].Replica)},
	}).Status)
	require.True(f.t, m.Descriptor().Joint())
}

// conf applies a configuration change with what raft makes of it.
func (f *fleet) conf(shard uint64, change *kvdv1.ConfChange, conf *raftpb.ConfState) kv.Result {
	s := f.shards[shard]
	b := f.store.NewBatch()
	s.m.Begin(b)
	index, _ := s.m.Applied()
	asked := false
	r, err := s.m.ApplyConf(index+1, 6, change, func() *raftpb.ConfState {
		asked = true
		return conf
	})
	require.NoError(f.t, err)
	require.Equal(f.t, r.Status == kv.Done, asked, "raft hears of what was refused")
	s.m.Finish()
	_, err = f.store.Commit(b)
	require.NoError(f.t, err)
	s.m.Committed()
	require.NoError(f.t, s.m.Check())
	return r
}

// refused applies a shape command and requires that it is refused for a field, changes nothing and ends no step; who
// proposes hears the same from the machine before.
func (f *fleet) refused(shard uint64, s *kvdv1.Shape, field string) {
	m := f.shards[shard].m
	before := m.State()
	admitted := m.AdmitShape(s)
	require.Error(f.t, admitted, field)
	r := f.shape(shard, s)
	require.Equal(f.t, kv.Refused, r.Status)
	require.Equal(f.t, admitted.Error(), r.Reason)
	require.Contains(f.t, r.Reason, field+": ")
	before.AppliedIndex++
	before.AppliedTerm = 6
	require.True(f.t, proto.Equal(before, m.State()), "what was refused has changed the state: %v became %v", before, m.State())
}

// TestShapeIsAlone: a shape command among others is refused and the others are carried out; one alone ends its step, and
// going on in the step stops the replica.
func TestShapeIsAlone(t *testing.T) {
	f := newFleet(t, founded(1, "a", "z"))
	measure := EncodeShape(&kvdv1.Shape{Epoch: f.epoch(1), Shape: &kvdv1.Shape_Measure{Measure: &kvdv1.Measure{Id: 1, Key: []byte("k")}}})
	c := put("b", "1")
	m := f.shards[1].m
	r := f.step(1, &kvdv1.Batch{Commands: []*kvdv1.Command{EncodeCommand(&c), measure}}, &kvdv1.Batch{Commands: []*kvdv1.Command{EncodeCommand(&c)}})
	require.Equal(t, []kv.Status{kv.Done, kv.Refused}, []kv.Status{r[0][0].Status, r[0][1].Status})
	require.Equal(t, kv.Done, r[1][0].Status, "the step has not ended")
	require.Nil(t, m.State().Measure)

	m.Begin(f.store.NewBatch())
	index, _ := m.Applied()
	_, err := m.Apply(index+1, 6, &kvdv1.Batch{Commands: []*kvdv1.Command{measure}})
	require.NoError(t, err)
	require.True(t, m.Ends())
	_, err = m.Apply(index+2, 6, nil)
	require.ErrorContains(t, err, "has ended")
	require.Equal(t, err, m.Check())
}

// TestCheckOfTheStanding: what cannot be is found.
func TestCheckOfTheStanding(t *testing.T) {
	for want, spoil := range map[string]func(m *Machine){
		"start of the span":   func(m *Machine) { d := *m.descriptor; d.Span.Start = []byte("b"); m.describe(&d) },
		"stored as another":   func(m *Machine) { d := *m.descriptor; d.Span.End = []byte("c"); m.descriptor = &d },
		"no part of the span": func(m *Machine) { m.measure = &measure{id: 1, key: []byte("k")} },
		"one of other shards": func(m *Machine) {
			m.birth = &kvdv1.SplitPair{Left: &kvdv1.Descriptor{Shard: 3}, Right: &kvdv1.Descriptor{Shard: 4}}
		},
		"do not meet": func(m *Machine) { m.birth = &kvdv1.SplitPair{Left: m.described, Right: &kvdv1.Descriptor{Shard: 4}} },
		"has begun a merge": func(m *Machine) {
			m.frozen, m.intent = &kvdv1.FrozenState{Id: 1}, &kvdv1.IntentState{Id: 1, Right: m.described, Aborted: true}
		},
		"has no number":  func(m *Machine) { m.frozen = &kvdv1.FrozenState{Left: 3} },
		"no right shard": func(m *Machine) { m.intent = &kvdv1.IntentState{Id: 1} },
		"no neighbour":   func(m *Machine) { m.intent = &kvdv1.IntentState{Id: 1, Right: &kvdv1.Descriptor{Start: []byte("l")}} },
		"under an open merge": func(m *Machine) {
			m.intent, m.conf.votersOutgoing = &kvdv1.IntentState{Id: 1, Right: &kvdv1.Descriptor{Start: []byte("k")}}, []uint64{1}
		},
		"too many absorbed": func(m *Machine) { m.absorbed = absorbedShards(kv.AbsorbedMax + 1) },
		"from a later time": func(m *Machine) { m.since = 1 },
	} {
		m := pair(t).shards[1].m
		require.NoError(t, m.Check())
		spoil(m)
		require.ErrorContains(t, m.Check(), want)
	}
}

// TestCheckOfTheStep: what a step changes lies in the span as the step began, for a split narrows it.
func TestCheckOfTheStep(t *testing.T) {
	m := pair(t).shards[1].m
	m.stepped = true
	m.overlay.set([]byte("k"), found{}, &kv.Record{})
	require.ErrorContains(t, m.Check(), "outside the span")
}
