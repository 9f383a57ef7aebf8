package raftmeta

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

func update(node, store uint64, address, region string) *kvdv1.MetaCommand {
	return &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_UpdateNode{UpdateNode: &kvdv1.MetaNode{
		Node: &kvdv1.Node{Node: node, Address: address, Region: region}, StoreId: store,
	}}}
}

func encoded(t require.TestingT, c *kvdv1.MetaCommand) *kvdv1.Command {
	value, err := c.MarshalVT()
	require.NoError(t, err)
	return &kvdv1.Command{Op: uint32(kv.OpMeta), Value: value}
}

// newer gives a message a field that this version does not know.
func newer[M proto.Message](m M) M {
	m.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1))
	return m
}

// TestUnknownStops: what this version cannot carry out is never passed over, and nothing of its step is stored.
func TestUnknownStops(t *testing.T) {
	deep := update(2, 2, "h:2", "")
	newer(deep.GetUpdateNode().Node)
	middle := update(2, 2, "h:2", "")
	newer(middle.GetUpdateNode())
	setting := set(LogKeep, "100")
	newer(setting.GetSetSetting())
	report := &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_Report{Report: &kvdv1.ReportShards{
		Descriptors: []*kvdv1.Descriptor{{Replicas: []*kvdv1.Replica{{}, newer(&kvdv1.Replica{})}}},
	}}}
	for name, c := range map[string]*kvdv1.Command{
		"a kind of command":       encoded(t, newer(&kvdv1.MetaCommand{})),
		"no command":              encoded(t, &kvdv1.MetaCommand{}),
		"a field of a command":    encoded(t, newer(set(LogKeep, "100"))),
		"a field of a setting":    encoded(t, setting),
		"a field of a node":       encoded(t, middle),
		"a field within a node":   encoded(t, deep),
		"a field within a list":   encoded(t, report),
		"bytes that are no field": {Op: uint32(kv.OpMeta), Value: []byte{0xff}},
		"an operation":            {Op: uint32(kv.OpShape) + 1},
		"operation 0":             {},
		"an operation past 255":   {Op: 256 + uint32(kv.OpMeta)},
	} {
		m, s := machine(t), &sink{}
		m.Begin(s)
		_, err := m.Apply(11, 6, &kvdv1.Batch{Commands: []*kvdv1.Command{encoded(t, set(LogKeep, "99")), c}})
		require.ErrorContains(t, err, "command 1 of entry 11", name)
		_, again := m.Apply(12, 6, nil)
		require.Equal(t, err, again, "%s: the next entry was applied", name)
		require.Equal(t, err, reconfigure(m, 12, &raftpb.ConfState{Voters: []uint64{1}}))
		require.Equal(t, err, m.Check())
		m.Finish()
		require.Nil(t, s.stored, "%s: a step that failed was stored", name)
	}
	for name, point := range map[string]struct {
		index kv.Index
		term  kv.Term
	}{"a gap": {12, 6}, "an entry again": {10, 6}, "an earlier term": {11, 4}} {
		_, err := machine(t).Apply(point.index, point.term, nil)
		require.Error(t, err, name)
	}
	m := machine(t)
	require.Error(t, reconfigure(m, 11, &raftpb.ConfState{}), "nobody would vote")
	require.Error(t, m.Check())
}

// TestCommandsOfShardsDoNothing: they are refused, each by itself.
func TestCommandsOfShardsDoNothing(t *testing.T) {
	m := machine(t)
	m.Begin(&sink{})
	list := []*kvdv1.Command{encoded(t, set(LogKeep, "99"))}
	for op := kv.OpPut; op <= kv.OpShape; op++ {
		if op == kv.OpMeta {
			continue
		}
		list = append(list, &kvdv1.Command{Op: uint32(op), Key: []byte("k")})
	}
	results, err := m.Apply(11, 6, &kvdv1.Batch{Commands: list})
	require.NoError(t, err)
	require.Equal(t, kv.Done, results[0].Status)
	for _, r := range results[1:] {
		require.Equal(t, kv.Refused, r.Status)
		require.NotEmpty(t, r.Reason)
	}
	require.EqualValues(t, 1, m.Revision())
	require.EqualValues(t, 2, m.State().Meta.Version)
}

// TestSuccessorHasEveryField: metadata that a command did not mean to change is as it was, also in fields that were
// added since.
func TestSuccessorHasEveryField(t *testing.T) {
	m := &kvdv1.MetaState{}
	fill(m.ProtoReflect())
	require.True(t, proto.Equal(m, successor(m)))
}

// fill sets every field of a message and of those within it to something.
func fill(m protoreflect.Message) {
	value := func(f protoreflect.FieldDescriptor, message func() protoreflect.Value) protoreflect.Value {
		switch f.Kind() {
		case protoreflect.MessageKind:
			v := message()
			fill(v.Message())
			return v
		case protoreflect.BytesKind:
			return protoreflect.ValueOfBytes([]byte("x"))
		case protoreflect.StringKind:
			return protoreflect.ValueOfString("x")
		case protoreflect.Uint32Kind:
			return protoreflect.ValueOfUint32(7)
		case protoreflect.Uint64Kind:
			return protoreflect.ValueOfUint64(7)
		case protoreflect.Int64Kind:
			return protoreflect.ValueOfInt64(7)
		case protoreflect.BoolKind:
			return protoreflect.ValueOfBool(true)
		}
		panic("a field of a kind that is new here: " + string(f.FullName()))
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if choice := f.ContainingOneof(); choice != nil && m.WhichOneof(choice) != nil {
			continue // One of its fields is set.
		}
		if f.IsList() {
			list := m.Mutable(f).List()
			list.Append(value(f, list.NewElement))
			continue
		}
		m.Set(f, value(f, func() protoreflect.Value { return m.NewField(f) }))
	}
}

func anyMetaCommand(t *rapid.T) *kvdv1.MetaCommand {
	node := rapid.Uint64Range(1, 4).Draw(t, "node")
	address := rapid.SampledFrom([]string{"", "h:1", "h:2"}).Draw(t, "address")
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		name := rapid.SampledFrom([]string{LogKeep, ChecksumInterval, LeaderBalance, "unknown"}).Draw(t, "name")
		return set(name, rapid.SampledFrom([]string{"", "100", "1m", "false", "2h"}).Draw(t, "value"))
	case 1:
		return update(node, rapid.SampledFrom([]uint64{node, node, 9}).Draw(t, "store"), address,
			rapid.SampledFrom([]string{"", "north"}).Draw(t, "region"))
	case 2:
		return joining(rapid.SampledFrom([]string{"n1", "n4", "n5"}).Draw(t, "name"), address, rapid.Uint64Range(0, 6).Draw(t, "store"))
	case 3:
		return draining(node, rapid.Bool().Draw(t, "draining"))
	}
	return removing(node)
}

// TestStepsDoNotMatter: replicas that apply the same log cut into different steps, and with a crash at any of them, give
// the same results and keep the same state; the version rises with each command carried out and with nothing else; and
// metadata that was given out never changes.
func TestStepsDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		birth := Birth(found(t, spec(3)), 2)[0]
		var log []*kvdv1.Batch
		for i := range rapid.IntRange(1, 12).Draw(t, "entries") {
			b := &kvdv1.Batch{StampMs: int64(10*i + rapid.IntRange(-15, 15).Draw(t, "stamp"))}
			for range rapid.IntRange(0, 3).Draw(t, "commands") {
				b.Commands = append(b.Commands, encoded(t, anyMetaCommand(t)))
			}
			log = append(log, b)
		}
		type given struct{ meta, copy *kvdv1.MetaState }
		var out []given
		play := func(step func(left int) int, crash func() bool) (results [][]kv.Result, st *kvdv1.ShardState) {
			m, err := New(birth)
			require.NoError(t, err)
			stored := birth
			for at := 0; at < len(log); {
				n := step(len(log) - at)
				s := &sink{}
				m.Begin(s)
				before := len(results)
				for i := range n {
					r, err := m.Apply(kv.BirthIndex+kv.Index(at+i)+1, 6, log[at+i])
					require.NoError(t, err)
					results = append(results, r)
				}
				m.Finish()
				if crash() { // What was stored before is all that is left.
					results = results[:before]
					m, err = New(stored)
					require.NoError(t, err)
					continue
				}
				m.Committed()
				require.NoError(t, m.Check())
				stored, at = s.stored, at+n
				out = append(out, given{stored.Meta, proto.Clone(stored.Meta).(*kvdv1.MetaState)})
			}
			return results, stored
		}
		want, st := play(func(int) int { return 1 }, func() bool { return false })
		changes := uint64(0)
		for _, results := range want {
			for _, r := range results {
				if r.Status == kv.Done {
					require.Contains(t, []uint64{changes, changes + 1}, uint64(r.Revision), "a change, or none that is needed")
					changes = uint64(r.Revision)
				} else {
					require.Equal(t, kv.Refused, r.Status)
				}
			}
		}
		require.Equal(t, birth.Meta.Version+changes, st.Meta.Version)
		got, other := play(func(left int) int { return rapid.IntRange(1, left).Draw(t, "step") },
			func() bool { return rapid.IntRange(0, 3).Draw(t, "crash") == 0 })
		require.Equal(t, want, got)
		require.True(t, proto.Equal(st, other))
		for _, g := range out {
			require.True(t, proto.Equal(g.copy, g.meta), "metadata that was given out has changed")
		}
		require.EqualValues(t, 1, birth.Meta.Version)
	})
}

// TestConfigurationIsInItsStep (T5): as for shards.
func TestConfigurationIsInItsStep(t *testing.T) {
	m, s := machine(t), &sink{}
	m.Begin(s)
	conf := &raftpb.ConfState{Voters: []uint64{1}, VotersOutgoing: []uint64{1}, Learners: []uint64{3}, LearnersNext: []uint64{4}, AutoLeave: new(true)}
	require.NoError(t, reconfigure(m, 11, conf))
	m.Finish()
	m.Committed()
	m, err := New(s.stored)
	require.NoError(t, err)
	st := m.State()
	require.EqualValues(t, 11, st.AppliedIndex)
	require.Equal(t, []any{conf.Voters, conf.VotersOutgoing, conf.Learners, conf.LearnersNext, true},
		[]any{st.Voters, st.VotersOutgoing, st.Learners, st.LearnersNext, st.AutoLeave})
	require.EqualValues(t, 2, st.Meta.Version)
	require.True(t, proto.Equal(st.Descriptor_, st.Meta.Meta), "the map has another descriptor of the group")
}

// TestMachineWithoutKeys: what a replica asks of any state machine.
func TestMachineWithoutKeys(t *testing.T) {
	m := machine(t)
	require.Equal(t, kv.MetaShard, m.Descriptor().Shard)
	require.Empty(t, m.Changes())
	require.Empty(t, m.Checksums())
	require.Zero(t, m.Expiring())
	m.Begin(&sink{})
	_, err := m.Apply(11, 6, &kvdv1.Batch{StampMs: 70})
	require.NoError(t, err)
	_, err = m.Apply(12, 7, &kvdv1.Batch{StampMs: 60})
	require.NoError(t, err)
	require.EqualValues(t, 70, m.Time(), "time went back")
	index, term := m.Applied()
	require.Equal(t, []any{kv.Index(12), kv.Term(7)}, []any{index, term})
	idle := &sink{}
	other := machine(t)
	other.Begin(idle)
	other.Finish()
	require.Nil(t, idle.stored, "a step without entries was stored")
	_, err = New(&kvdv1.ShardState{})
	require.Error(t, err)
}

// reconfigure applies a change that is admitted, with any outcome.
func reconfigure(m *Machine, index kv.Index, conf *raftpb.ConfState) error {
	d, given := m.Descriptor(), successor(m.state.Meta)
	given.NextNode, given.NextReplica = 3000, 3000
	m.state.Meta = given
	change := &kvdv1.ConfChange{Epoch: &kvdv1.Epoch{Version: d.Epoch.Version, Config: d.Epoch.Config}, Leave: d.Joint()}
	if !change.Leave {
		change.Add = []*kvdv1.Replica{{Node: 1000 + d.Epoch.Config, Replica: 1000 + d.Epoch.Config}}
	}
	_, err := m.ApplyConf(index, 6, change, func() *raftpb.ConfState { return conf })
	return err
}

// TestConfigurationOfTheMetaGroupIsReadable: a change of the meta group that would leave metadata which no node can read
// is refused: such metadata stops every node, at each start again.
func TestConfigurationOfTheMetaGroupIsReadable(t *testing.T) {
	for name, change := range map[string]func(m *kvdv1.MetaState, c *kvdv1.ConfChange){
		"fits":                       func(*kvdv1.MetaState, *kvdv1.ConfChange) {},
		"a node that never was":      func(m *kvdv1.MetaState, c *kvdv1.ConfChange) { c.Add[0].Node = m.NextNode },
		"a replica id not given yet": func(m *kvdv1.MetaState, c *kvdv1.ConfChange) { c.Add[0].Replica = m.NextReplica },
		"a replica of a shard": func(m *kvdv1.MetaState, c *kvdv1.ConfChange) {
			c.Add[0].Replica = m.Descriptors[0].Replicas[0].Replica
		},
		"a replica of an absorbed shard": func(m *kvdv1.MetaState, c *kvdv1.ConfChange) {
			d := proto.CloneOf(m.Descriptors[0])
			d.Shard, d.Replicas, m.NextShard = m.NextShard, []*kvdv1.Replica{{Node: 1, Replica: c.Add[0].Replica}}, m.NextShard+1
			m.Absorbed = []*kvdv1.AbsorbedShard{{Descriptor_: d, Absorber: m.Descriptors[0].Shard}}
		},
		"a replica that a goal wants": func(m *kvdv1.MetaState, c *kvdv1.ConfChange) {
			split := &kvdv1.SplitGoal{Child: m.NextShard}
			for i, r := range m.Descriptors[0].Replicas {
				split.Replicas = append(split.Replicas, &kvdv1.Replica{Node: r.Node, Replica: c.Add[0].Replica + uint64(i)})
			}
			m.NextShard, m.NextReplica = m.NextShard+1, m.NextReplica+uint64(len(split.Replicas))
			m.Goals, m.NextGoal = []*kvdv1.Goal{{Id: 1, Shard: m.Descriptors[0].Shard, Goal: &kvdv1.Goal_Split{Split: split}}}, 2
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := machine(t)
			given := successor(m.state.Meta)
			given.NextNode, given.NextReplica = given.NextNode+1, given.NextReplica+1
			m.state.Meta = given
			add := &kvdv1.Replica{Node: given.NextNode - 1, Replica: given.NextReplica - 1, Learner: true}
			c := &kvdv1.ConfChange{Epoch: given.Meta.Epoch, Add: []*kvdv1.Replica{add}}
			change(given, c)
			s, learners := &sink{}, []uint64{add.Replica}
			m.Begin(s)
			r, err := m.ApplyConf(11, 6, c, func() *raftpb.ConfState {
				return &raftpb.ConfState{Voters: m.state.Voters, Learners: learners}
			})
			require.NoError(t, err)
			require.Equal(t, name == "fits", r.Status == kv.Done, r.Reason)
			m.Finish()
			m.Committed()
			_, err = New(s.stored)
			require.NoError(t, err)
		})
	}
}
