package raftmeta

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

func spec(nodes int, cuts ...string) FoundingSpec {
	s := FoundingSpec{Cluster: 7, Replicas: 3, TickMs: 50, ElectionTicks: 15}
	for i := range nodes {
		s.Nodes = append(s.Nodes, FoundingNode{Name: fmt.Sprintf("n%d", i+1), Address: "h:1", Store: kv.StoreID(i + 1)})
	}
	for _, c := range cuts {
		s.Cuts = append(s.Cuts, []byte(c))
	}
	return s
}

func found(t require.TestingT, s FoundingSpec) *kvdv1.MetaState {
	m, err := Founding(s)
	require.NoError(t, err)
	return m
}

func TestReplicasAreOddAndSpread(t *testing.T) {
	for nodes, replicas := range map[int]int{1: 1, 2: 1, 3: 3, 4: 3, 5: 3, 7: 3} {
		m := found(t, spec(nodes, "b", "c", "d", "e", "f", "g"))
		first := map[uint64]int{}
		for _, d := range m.Descriptors {
			require.Len(t, d.Replicas, replicas)
			first[d.Replicas[0].Node]++
		}
		require.Len(t, first, min(nodes, 7), "%d nodes", nodes)
	}
	require.Len(t, found(t, spec(9)).Meta.Replicas, 5)
}

func TestFoundingRefuses(t *testing.T) {
	for name, change := range map[string]func(*FoundingSpec){
		"no nodes":            func(s *FoundingSpec) { s.Nodes = nil },
		"too many replicas":   func(s *FoundingSpec) { s.Replicas = 6 },
		"cuts out of order":   func(s *FoundingSpec) { s.Cuts = [][]byte{[]byte("b"), []byte("a")} },
		"a cut twice":         func(s *FoundingSpec) { s.Cuts = [][]byte{[]byte("b"), []byte("b")} },
		"an empty cut":        func(s *FoundingSpec) { s.Cuts = [][]byte{nil} },
		"two nodes of a name": func(s *FoundingSpec) { s.Nodes[1].Name = s.Nodes[0].Name },
	} {
		s := spec(3)
		change(&s)
		_, err := Founding(s)
		require.Error(t, err, name)
	}
}

func TestInitialCuts(t *testing.T) {
	read := func(string) ([]byte, error) { return []byte("m\nhex:ff\n\nb\r\nm\n"), nil }
	cuts, err := InitialCuts("file", read)
	require.NoError(t, err)
	require.Equal(t, [][]byte{[]byte("b"), []byte("m"), {0xff}}, cuts)
	cuts, err = InitialCuts("geohash1", nil)
	require.NoError(t, err)
	require.Len(t, cuts, 31)
	require.True(t, slices.IsSortedFunc(cuts, slices.Compare[[]byte]))
	for _, n := range []int{1, 2, 16, 300} {
		cuts, err = InitialCuts(fmt.Sprint(n), nil)
		require.NoError(t, err)
		require.Len(t, cuts, n-1)
		s := spec(1)
		s.Cuts = cuts
		found(t, s)
	}
	for _, bad := range []string{"0", "-1", "99999999"} {
		_, err := InitialCuts(bad, nil)
		require.ErrorAs(t, err, new(*kv.InvalidError))
	}
	_, err = InitialCuts("gone", func(string) ([]byte, error) { return nil, errors.New("no such file") })
	require.ErrorContains(t, err, "no such file")
	_, err = InitialCuts("file", func(string) ([]byte, error) { return []byte("a\n\\x\n"), nil })
	require.ErrorContains(t, err, "line 2")
}

// TestLookup: whatever the cuts, each key is in exactly the shard whose span holds it.
func TestLookup(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cuts := rapid.SliceOfDistinct(rapid.StringMatching(`[a-d]{1,2}`), func(s string) string { return s }).Draw(t, "cuts")
		slices.Sort(cuts)
		m, err := NewMap(found(t, spec(3, cuts...)))
		require.NoError(t, err)
		key := []byte(rapid.StringMatching(`[a-e]{0,3}`).Draw(t, "key"))
		require.True(t, m.Lookup(key).Span.Contains(key))
		span := kv.Span{Start: key, End: []byte(rapid.StringMatching(`[a-e]{0,3}`).Draw(t, "end"))}
		var want []*kv.Descriptor
		for _, d := range m.Descriptors() {
			if d.Span.Overlaps(span) {
				want = append(want, d)
			}
		}
		got := m.Overlapping(span)
		require.Equal(t, len(want), len(got))
		for i := range want {
			require.Same(t, want[i], got[i])
		}
	})
}

// TestCheckSeesDamage: each change breaks one invariant.
func TestCheckSeesDamage(t *testing.T) {
	for name, change := range map[string]func(*kvdv1.MetaState){
		"a gap":                   func(m *kvdv1.MetaState) { m.Descriptors[1].Start = []byte("x") },
		"no end":                  func(m *kvdv1.MetaState) { m.Descriptors[2].End = []byte("zz") },
		"an overlap":              func(m *kvdv1.MetaState) { m.Descriptors[0].End = nil },
		"a shard id twice":        func(m *kvdv1.MetaState) { m.Descriptors[1].Shard = 1 },
		"a shard id to come":      func(m *kvdv1.MetaState) { m.Descriptors[1].Shard = m.NextShard },
		"a replica id twice":      func(m *kvdv1.MetaState) { m.Descriptors[1].Replicas[0].Replica = m.Descriptors[0].Replicas[0].Replica },
		"an unknown node":         func(m *kvdv1.MetaState) { m.Descriptors[1].Replicas[0].Node = 9 },
		"two replicas on a node":  func(m *kvdv1.MetaState) { m.Descriptors[1].Replicas[0].Node = m.Descriptors[1].Replicas[1].Node },
		"an even number of votes": func(m *kvdv1.MetaState) { m.Descriptors[1].Replicas = m.Descriptors[1].Replicas[:2] },
		"no shards":               func(m *kvdv1.MetaState) { m.Descriptors = nil },
		"no meta group":           func(m *kvdv1.MetaState) { m.Meta = nil },
		"no version":              func(m *kvdv1.MetaState) { m.Version = 0 },
		"no tick":                 func(m *kvdv1.MetaState) { m.TickMs = 0 },
		"an election in a tick":   func(m *kvdv1.MetaState) { m.ElectionTicks = 1 },
		"no node":                 func(m *kvdv1.MetaState) { m.Nodes = nil },
		"a node without an id":    func(m *kvdv1.MetaState) { m.Nodes[0].Node.Node = 0 },
		"a node that is nothing":  func(m *kvdv1.MetaState) { m.Nodes[0] = nil },
		"a node id twice":         func(m *kvdv1.MetaState) { m.Nodes[1].Node.Node = 1 },
		"a node id to come":       func(m *kvdv1.MetaState) { m.NextNode = 3 },
		"a node without a name":   func(m *kvdv1.MetaState) { m.Nodes[0].Node.Name = "" },
		"a node without a store":  func(m *kvdv1.MetaState) { m.Nodes[0].StoreId = 0 },
		"two nodes of a store":    func(m *kvdv1.MetaState) { m.Nodes[0].StoreId = m.Nodes[1].StoreId },
		"the meta group's shard":  func(m *kvdv1.MetaState) { m.Meta.Shard = 1 },
		"a meta group of nobody":  func(m *kvdv1.MetaState) { m.Meta.Replicas = nil },
		"a shard that is nothing": func(m *kvdv1.MetaState) { m.Descriptors[1] = nil },
		"a shard without an id":   func(m *kvdv1.MetaState) { m.Descriptors[1].Shard = 0 },
		"an empty shard":          func(m *kvdv1.MetaState) { m.Descriptors[0].End, m.Descriptors[1].Start = []byte{}, nil },
		"a shard turned round": func(m *kvdv1.MetaState) {
			m.Descriptors[1].End, m.Descriptors[2].Start = []byte("a"), []byte("a")
		},
		"a start that is none":   func(m *kvdv1.MetaState) { m.Descriptors[0].Start = []byte("a") },
		"an end that is no key":  func(m *kvdv1.MetaState) { longCut(m, kv.KeyBytesMax+1) },
		"a shard without epoch":  func(m *kvdv1.MetaState) { m.Descriptors[1].Epoch = nil },
		"no configuration epoch": func(m *kvdv1.MetaState) { m.Descriptors[1].Epoch.Config = 0 },
		"a replica id of 0":      func(m *kvdv1.MetaState) { m.Descriptors[1].Replicas[0].Replica = 0 },
		"a replica id to come":   func(m *kvdv1.MetaState) { m.Descriptors[1].Replicas[0].Replica = m.NextReplica },
		"a replica of nothing":   func(m *kvdv1.MetaState) { m.Descriptors[1].Replicas[0] = nil },
		"a learner for a voter":  func(m *kvdv1.MetaState) { m.Descriptors[1].Replicas[0].Learner = true },
		"two roles": func(m *kvdv1.MetaState) {
			m.Descriptors[1].Replicas[0].Learner, m.Descriptors[1].Replicas[0].Incoming = true, true
			m.Descriptors[1].Replicas[1].Learner, m.Descriptors[1].Replicas[1].Outgoing = true, true
		},
		"coming and going": func(m *kvdv1.MetaState) {
			for _, r := range m.Descriptors[1].Replicas[:2] {
				r.Incoming, r.Outgoing = true, true
			}
		},
		"an even number of votes before": func(m *kvdv1.MetaState) { m.Descriptors[1].Replicas[0].Incoming = true },
		"an even number of votes after":  func(m *kvdv1.MetaState) { m.Descriptors[1].Replicas[0].Outgoing = true },
		"a member that was removed":      func(m *kvdv1.MetaState) { m.Removed = []*kvdv1.MetaNode{{Node: &kvdv1.Node{Node: 1}, StoreId: 9}} },
		"the store of a removed node": func(m *kvdv1.MetaState) {
			m.NextNode, m.Removed = 5, []*kvdv1.MetaNode{{Node: &kvdv1.Node{Node: 4}, StoreId: 1}}
		},
		"a removed node to come":         func(m *kvdv1.MetaState) { m.Removed = []*kvdv1.MetaNode{{Node: &kvdv1.Node{Node: 4}, StoreId: 9}} },
		"a removed node that is nothing": func(m *kvdv1.MetaState) { m.Removed = []*kvdv1.MetaNode{nil} },
		"very many removed nodes": func(m *kvdv1.MetaState) {
			m.NextNode = 10000
			for i := uint64(4); i < RemovedMax+5; i++ {
				m.Removed = append(m.Removed, &kvdv1.MetaNode{Node: &kvdv1.Node{Node: i}, StoreId: i})
			}
		},
		"very many nodes": func(m *kvdv1.MetaState) {
			m.NextNode = 10000
			for i := uint64(4); i < kv.NodesMax+2; i++ {
				m.Nodes = append(m.Nodes, &kvdv1.MetaNode{Node: &kvdv1.Node{Node: i, Name: fmt.Sprint("m", i)}, StoreId: i})
			}
		},
		"very many learners": func(m *kvdv1.MetaState) {
			m.NextNode, m.NextReplica = 10000, 10000
			for i := uint64(4); i < MembersMax+2; i++ {
				m.Descriptors[1].Replicas = append(m.Descriptors[1].Replicas, &kvdv1.Replica{Node: i, Replica: 100 + i, Learner: true})
			}
		},
		"an absorbed shard that is there":     func(m *kvdv1.MetaState) { absorb(m, 2, 1) },
		"an absorbed shard twice":             func(m *kvdv1.MetaState) { absorb(m, 4, 1); absorb(m, 4, 1) },
		"an absorbed shard to come":           func(m *kvdv1.MetaState) { absorb(m, 5, 1) },
		"an absorbed shard of nobody":         func(m *kvdv1.MetaState) { absorb(m, 4, 0) },
		"an absorbed shard of one to come":    func(m *kvdv1.MetaState) { absorb(m, 4, 5) },
		"a shard that has absorbed itself":    func(m *kvdv1.MetaState) { absorb(m, 4, 4) },
		"an absorbed shard that is nothing":   func(m *kvdv1.MetaState) { m.Absorbed = []*kvdv1.AbsorbedShard{nil} },
		"a replica that was absorbed":         func(m *kvdv1.MetaState) { absorb(m, 4, 1); m.Absorbed[0].Descriptor_.Replicas[0].Replica = 1 },
		"a goal that is nothing":              func(m *kvdv1.MetaState) { m.Goals = []*kvdv1.Goal{nil} },
		"a goal to come":                      func(m *kvdv1.MetaState) { want(m).Id = 2 },
		"a goal id twice":                     func(m *kvdv1.MetaState) { want(m); want(m).Shard = 3 },
		"two goals of a shard":                func(m *kvdv1.MetaState) { want(m); want(m).Id = 2; m.NextGoal = 3 },
		"a goal of a shard that is not":       func(m *kvdv1.MetaState) { want(m).Shard = 4 },
		"a goal of nothing":                   func(m *kvdv1.MetaState) { want(m).Goal = nil },
		"a goal that is reached":              func(m *kvdv1.MetaState) { want(m).GetSplit().Child = 3 },
		"a goal that cannot be":               func(m *kvdv1.MetaState) { want(m).GetSplit().Key = []byte("a") },
		"a new shard's id to come":            func(m *kvdv1.MetaState) { want(m).GetSplit().Child = 5 },
		"a new shard's id of 0":               func(m *kvdv1.MetaState) { want(m).GetSplit().Child = 0 },
		"a new shard's replica that there is": func(m *kvdv1.MetaState) { want(m).GetSplit().Replicas[0].Replica = 1 },
		"a new shard's replica to come":       func(m *kvdv1.MetaState) { want(m).GetSplit().Replicas[0].Replica = m.NextReplica },
		"a new shard's id twice": func(m *kvdv1.MetaState) {
			want(m)
			g := want(m)
			g.Id, g.Shard, m.NextGoal = 2, 1, 3
			g.GetSplit().Key = []byte("a")
			for i, r := range g.GetSplit().Replicas {
				r.Node, r.Replica = m.Descriptors[0].Replicas[i].Node, 90+uint64(i)
			}
		},
		"a move to nowhere": func(m *kvdv1.MetaState) {
			want(m).Goal = &kvdv1.Goal_Replicas{Replicas: &kvdv1.ReplicasGoal{Add: []*kvdv1.Replica{{Node: 8, Replica: 50}}, Remove: []uint64{1}}}
		},
		"very many goals":   func(m *kvdv1.MetaState) { m.Goals = make([]*kvdv1.Goal, kv.GoalsMax+1) },
		"very many rules":   func(m *kvdv1.MetaState) { m.Rules = make([]*kvdv1.Rule, kv.RulesMax+1) },
		"a rule of nothing": func(m *kvdv1.MetaState) { m.Rules = []*kvdv1.Rule{nil} },
		"a rule twice": func(m *kvdv1.MetaState) {
			m.Rules = []*kvdv1.Rule{{Prefix: []byte("a"), Regions: []string{"r"}}, {Prefix: []byte("a"), Regions: []string{"r"}}}
		},
		"no cluster": func(m *kvdv1.MetaState) { m.ClusterId = 0 },
	} {
		m := found(t, spec(3, "g", "p"))
		require.NoError(t, Check(m))
		change(m)
		require.Error(t, Check(m), name)
	}
	require.Error(t, Check(nil))
	m := found(t, spec(3, "g", "p"))
	longCut(m, kv.KeyBytesMax)
	require.NoError(t, Check(m), "the longest key there is")
	seven := found(t, spec(9))
	for i := range 4 {
		seven.Descriptors[0].Replicas = append(seven.Descriptors[0].Replicas, &kvdv1.Replica{Node: uint64(4 + i), Replica: seven.NextReplica})
		seven.NextReplica++
		if i == 1 {
			require.NoError(t, Check(seven), "five voters")
		}
	}
	require.Error(t, Check(seven), "seven voters")
}

// absorb lets a shard have been absorbed.
func absorb(m *kvdv1.MetaState, shard, by uint64) {
	if len(m.Absorbed) == 0 {
		m.NextShard, m.NextReplica = 5, 100
	}
	m.Absorbed = append(m.Absorbed, &kvdv1.AbsorbedShard{Absorber: by, Descriptor_: &kvdv1.Descriptor{
		Shard: shard, Start: []byte("a"), Epoch: &kvdv1.Epoch{Version: 1, Config: 1}, Replicas: []*kvdv1.Replica{{Node: 1, Replica: 70 + uint64(len(m.Absorbed))}},
	}})
}

// want adds a goal for shard 2.
func want(m *kvdv1.MetaState) *kvdv1.Goal {
	m.NextShard, m.NextReplica, m.NextGoal = 5, 100, 2
	g := &kvdv1.Goal{Id: 1, Shard: 2, Goal: &kvdv1.Goal_Split{Split: &kvdv1.SplitGoal{Key: []byte("h"), Child: 4}}}
	for i, r := range m.Descriptors[1].Replicas {
		g.GetSplit().Replicas = append(g.GetSplit().Replicas, &kvdv1.Replica{Node: r.Node, Replica: 80 + uint64(i)})
	}
	m.Goals = append(m.Goals, g)
	return g
}

// TestCheckAllows: what these make is whole, but for what the table breaks.
func TestCheckAllows(t *testing.T) {
	m := found(t, spec(3, "g", "p"))
	absorb(m, 3, 1)
	m.Absorbed[0].Descriptor_.Shard = 4
	require.NoError(t, Check(m))
	want(m).GetSplit().Child = 4
	m.NextShard, m.Goals[0].GetSplit().Child = 6, 5
	require.NoError(t, Check(m))
	m.Rules = []*kvdv1.Rule{{Regions: []string{"r"}}, {Prefix: []byte("a"), Regions: []string{"r", "s"}, Leader: "s"}}
	require.NoError(t, Check(m))
	m.NextNode, m.Removed = 5, []*kvdv1.MetaNode{{Node: &kvdv1.Node{Node: 4}, StoreId: 9}}
	require.NoError(t, Check(m))
	m.Descriptors[0].Replicas[0] = &kvdv1.Replica{Node: 4, Replica: 60}
	require.NoError(t, Check(m), "a late order has put a replica on a node that was removed")
}

// longCut makes the last cut n bytes long.
func longCut(m *kvdv1.MetaState, n int) {
	key := bytes.Repeat([]byte("x"), n)
	m.Descriptors[1].End, m.Descriptors[2].Start = key, key
}

type sink struct{ stored *kvdv1.ShardState }

func (s *sink) Put([]byte, kv.Record)                       { panic("the meta group holds no keys") }
func (s *sink) Delete([]byte)                               { panic("the meta group holds no keys") }
func (s *sink) PutDue(kv.Due)                               { panic("the meta group holds no keys") }
func (s *sink) DeleteDue(kv.Due)                            { panic("the meta group holds no keys") }
func (s *sink) PutShard(_ kv.ShardID, st *kvdv1.ShardState) { s.stored = st }

func machine(t testing.TB) *Machine {
	m, err := New(Birth(found(t, spec(3)), 2)[0])
	require.NoError(t, err)
	return m
}

func apply(t testing.TB, m *Machine, c *kvdv1.MetaCommand) (kv.Result, *kvdv1.ShardState) {
	value, err := c.MarshalVT()
	require.NoError(t, err)
	s := &sink{}
	m.Begin(s)
	index, _ := m.Applied()
	results, err := m.Apply(index+1, 6, &kvdv1.Batch{Commands: []*kvdv1.Command{{Op: uint32(kv.OpMeta), Value: value}}})
	require.NoError(t, err)
	m.Finish()
	m.Committed()
	require.NoError(t, m.Check())
	return results[0], s.stored
}

func set(name, value string) *kvdv1.MetaCommand {
	return &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_SetSetting{SetSetting: &kvdv1.SettingValue{Name: name, Value: value}}}
}

func TestSettings(t *testing.T) {
	m := machine(t)
	before := proto.Clone(m.State().Meta).(*kvdv1.MetaState)
	given := m.State().Meta
	r, stored := apply(t, m, set(LogKeep, "100"))
	require.Equal(t, kv.Done, r.Status)
	require.EqualValues(t, 100, SettingsOf(stored.Meta).Int(LogKeep))
	require.Equal(t, before.Version+1, stored.Meta.Version)
	require.True(t, proto.Equal(before, given), "metadata that was given out has changed")
	for _, bad := range []*kvdv1.MetaCommand{set("unknown", "1"), set(LogKeep, "1"), set(LogKeep, "x"), set(ChecksumInterval, "2h")} {
		r, _ := apply(t, m, bad)
		require.Equal(t, kv.Refused, r.Status)
		require.NotEmpty(t, r.Reason)
	}
	_, stored = apply(t, m, set(LogKeep, ""))
	require.EqualValues(t, kv.LogKeepEntries, SettingsOf(stored.Meta).Int(LogKeep))
	for _, d := range Definitions {
		require.NoError(t, CheckSetting(d.Name, d.Default), "the default of %s is out of its bound", d.Name)
	}
}

func TestUpdateNode(t *testing.T) {
	m := machine(t)
	update := func(node, store uint64, address string) kv.Status {
		r, _ := apply(t, m, &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_UpdateNode{UpdateNode: &kvdv1.MetaNode{
			Node: &kvdv1.Node{Node: node, Name: "other", Address: address}, StoreId: store,
		}}})
		return r.Status
	}
	require.Equal(t, kv.Done, update(2, 2, "h:2"))
	require.Equal(t, kv.Refused, update(2, 3, "h:3"), "another store")
	require.Equal(t, kv.Refused, update(9, 9, "h:3"), "a stranger")
	require.Equal(t, kv.Refused, update(2, 2, ""), "no address")
	x, err := NewMap(m.State().Meta)
	require.NoError(t, err)
	n, _ := x.Node(2)
	require.Equal(t, "h:2", n.Address)
	require.Equal(t, "n2", n.Name, "a name never changes")
}

func BenchmarkLookup(b *testing.B) {
	s := spec(3)
	s.Cuts, _ = InitialCuts("1000", nil)
	m, err := NewMap(found(b, s))
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		m.Lookup([]byte("some key"))
	}
}
