package raftmeta

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// five gives a machine with five nodes and the shards 1 to 4, cut at g, p and t; shard n has replicas on nodes n, n+1 and
// n+2, round.
func five(t testing.TB) *Machine {
	m, err := New(Birth(found(t, spec(5, "g", "p", "t")), 1)[0])
	require.NoError(t, err)
	return m
}

func shard(m *Machine, id uint64) *kvdv1.Descriptor { return shardOf(m.State().Meta, id) }

// become lets the map hear of a descriptor that was changed.
func become(t testing.TB, m *Machine, id uint64, change func(d *kvdv1.Descriptor)) {
	t.Helper()
	d := copied(shard(m, id))
	d.Epoch.Config++
	change(d)
	done(t, m, reporting(d))
}

// TestGoalGetsItsIDs: the meta group gives them, whatever was asked with, and never again.
func TestGoalGetsItsIDs(t *testing.T) {
	m := five(t)
	before := m.State().Meta
	g := splitGoal(shard(m, 1), "c")
	g.Id, g.SinceMs, g.ByOperator = 77, 88, true
	g.GetSplit().Child, g.GetSplit().Replicas, g.GetSplit().ByLoad = 99, []*kvdv1.Replica{{Node: 9, Replica: 9}}, true
	require.EqualValues(t, 1, done(t, m, wanting(g)))
	next := before.NextReplica
	want := &kvdv1.Goal{Id: 1, Shard: 1, Epoch: &kvdv1.Epoch{Version: 1, Config: 1}, Reason: "70 MiB", ByOperator: true,
		Goal: &kvdv1.Goal_Split{Split: &kvdv1.SplitGoal{Key: []byte("c"), ByLoad: true, Child: before.NextShard,
			Replicas: []*kvdv1.Replica{{Node: 1, Replica: next}, {Node: 2, Replica: next + 1}, {Node: 3, Replica: next + 2}}}}}
	require.True(t, proto.Equal(want, m.State().Meta.Goals[0]), "%v", m.State().Meta.Goals[0])

	r := replicasGoal(shard(m, 4), []uint64{3}, []uint64{4})
	r.GetReplicas().Add[0].Replica, r.GetReplicas().Add[0].Learner = 5, true
	require.EqualValues(t, 2, done(t, m, wanting(r)))
	require.True(t, proto.Equal(&kvdv1.ReplicasGoal{Add: []*kvdv1.Replica{{Node: 3, Replica: next + 3}}, Remove: []uint64{4}},
		m.State().Meta.Goals[1].GetReplicas()))

	done(t, m, dropping(1, "no"))
	require.EqualValues(t, 3, done(t, m, wanting(splitGoal(shard(m, 1), ""))))
	split := m.State().Meta.Goals[1].GetSplit()
	require.Equal(t, []uint64{before.NextShard + 1, next + 4}, []uint64{split.Child, split.Replicas[0].Replica}, "ids of a dropped goal are not used again")
}

// TestMergeAligns: the right neighbour's replicas are brought to the left one's nodes first.
func TestMergeAligns(t *testing.T) {
	m := five(t)
	next := m.State().Meta.NextReplica
	done(t, m, wanting(mergeGoal(shard(m, 1), 2)))
	align := m.State().Meta.Goals[0].GetMerge().Align
	require.True(t, proto.Equal(&kvdv1.ReplicasGoal{Add: []*kvdv1.Replica{{Node: 1, Replica: next}}, Remove: []uint64{4}}, align), "%v", align)
	three := machine(t)
	d := copied(shard(three, 1))
	d.End, d.Epoch.Version = []byte("g"), 2
	child := copied(d)
	child.Shard, child.Start, child.End = 2, d.End, nil
	three.state.Meta.NextShard, three.state.Meta.NextReplica = 3, 30
	for i, r := range child.Replicas {
		r.Replica = uint64(20 + i)
	}
	done(t, three, reporting(d, child))
	done(t, three, wanting(mergeGoal(shard(three, 1), 2)))
	require.Nil(t, three.State().Meta.Goals[0].GetMerge().Align, "they are there already")
}

func TestGoalRefusals(t *testing.T) {
	enter := func(d *kvdv1.Descriptor) { // One voter goes, another comes.
		d.Replicas[0].Outgoing = true
		d.Replicas = append(d.Replicas, &kvdv1.Replica{Node: 5, Replica: 1000, Incoming: true})
	}
	learner := func(d *kvdv1.Descriptor) {
		d.Replicas = append(d.Replicas, &kvdv1.Replica{Node: 5, Replica: 1000, Learner: true})
	}
	for name, test := range map[string]struct {
		before func(m *Machine)
		goal   func(m *Machine) *kvdv1.Goal
		words  []string
	}{
		"nothing": {goal: func(m *Machine) *kvdv1.Goal { return &kvdv1.Goal{Shard: 1, Epoch: shard(m, 1).Epoch} }, words: []string{"goal: must be"}},
		"an unknown shard": {goal: func(m *Machine) *kvdv1.Goal {
			g := splitGoal(shard(m, 1), "c")
			g.Shard = 9
			return g
		}, words: []string{"shard: must be in the map, 9 is not"}},
		"no epoch": {goal: func(m *Machine) *kvdv1.Goal {
			g := splitGoal(shard(m, 1), "c")
			g.Epoch = nil
			return g
		}, words: []string{"epoch: must be version 1, config 1 of shard 1", "is version 0"}},
		"an old epoch": {before: func(m *Machine) { become(t, m, 1, func(*kvdv1.Descriptor) {}) },
			goal:  func(m *Machine) *kvdv1.Goal { return splitGoal(shard(five(t), 1), "c") },
			words: []string{"epoch: must be version 1, config 2", "is version 1, config 1"}},
		"a newer epoch": {goal: func(m *Machine) *kvdv1.Goal {
			g := splitGoal(shard(m, 1), "c")
			g.Epoch = &kvdv1.Epoch{Version: 2, Config: 1}
			return g
		}, words: []string{"epoch"}},
		"a long reason": {goal: func(m *Machine) *kvdv1.Goal {
			g := splitGoal(shard(m, 1), "c")
			g.Reason = strings.Repeat("r", ReasonBytesMax+1)
			return g
		}, words: []string{"reason", fmt.Sprint(ReasonBytesMax)}},
		"a second goal": {before: func(m *Machine) { done(t, m, wanting(splitGoal(shard(m, 1), "c"))) },
			goal: func(m *Machine) *kvdv1.Goal { return splitGoal(shard(m, 1), "d") }, words: []string{"shard 1 does in goal 1"}},
		"a goal of a merge's right shard": {before: func(m *Machine) { done(t, m, wanting(mergeGoal(shard(m, 1), 2))) },
			goal: func(m *Machine) *kvdv1.Goal { return splitGoal(shard(m, 2), "h") }, words: []string{"shard 2 does in goal 1"}},
		"a merge with a right shard that has one": {before: func(m *Machine) { done(t, m, wanting(splitGoal(shard(m, 2), "h"))) },
			goal: func(m *Machine) *kvdv1.Goal { return mergeGoal(shard(m, 1), 2) }, words: []string{"shard 2 does in goal 1"}},
		"a merge of a shard that is merged": {before: func(m *Machine) { done(t, m, wanting(mergeGoal(shard(m, 1), 2))) },
			goal: func(m *Machine) *kvdv1.Goal { return mergeGoal(shard(m, 2), 3) }, words: []string{"shard 2 does in goal 1"}},

		"a split at the start": {goal: func(m *Machine) *kvdv1.Goal { return splitGoal(shard(m, 2), "g") }, words: []string{"key", "[g, p)", "is g"}},
		"a split at the end":   {goal: func(m *Machine) *kvdv1.Goal { return splitGoal(shard(m, 2), "p") }, words: []string{"key", "[g, p)", "is p"}},
		"a split at what is no key": {goal: func(m *Machine) *kvdv1.Goal { return splitGoal(shard(m, 4), strings.Repeat("z", kv.KeyBytesMax+1)) },
			words: []string{"key", fmt.Sprint(kv.KeyBytesMax)}},
		"a split of the meta group": {goal: func(m *Machine) *kvdv1.Goal { return splitGoal(shard(m, 0), "g") }, words: []string{"meta group, which is never split"}},
		"a split between two configurations": {before: func(m *Machine) { become(t, m, 1, enter) },
			goal: func(m *Machine) *kvdv1.Goal { return splitGoal(shard(m, 1), "c") }, words: []string{"between two configurations"}},

		"a replica on no node":       {goal: func(m *Machine) *kvdv1.Goal { return replicasGoal(shard(m, 1), []uint64{6}, []uint64{1}) }, words: []string{"add", "node 6 is none"}},
		"a second replica on a node": {goal: func(m *Machine) *kvdv1.Goal { return replicasGoal(shard(m, 1), []uint64{2}, []uint64{1}) }, words: []string{"add", "has 2"}},
		"a replica on a node that has one to go": {goal: func(m *Machine) *kvdv1.Goal { return replicasGoal(shard(m, 1), []uint64{1}, []uint64{1}) },
			words: []string{"add", "has 1"}},
		"two replicas on a node": {goal: func(m *Machine) *kvdv1.Goal { return replicasGoal(shard(m, 1), []uint64{4, 4}, nil) }, words: []string{"add", "has 4"}},
		"a replica on a node that drains": {before: func(m *Machine) { done(t, m, draining(4, true)) },
			goal: func(m *Machine) *kvdv1.Goal { return replicasGoal(shard(m, 1), []uint64{4}, []uint64{1}) }, words: []string{"draining", "node 4 is"}},
		"a replica to go that is not there": {goal: func(m *Machine) *kvdv1.Goal { return replicasGoal(shard(m, 1), nil, []uint64{4}) }, words: []string{"remove", "has 4"}},
		"a replica to go twice":             {goal: func(m *Machine) *kvdv1.Goal { return replicasGoal(shard(m, 1), nil, []uint64{1, 1}) }, words: []string{"remove", "has 1"}},
		"two voters":                        {goal: func(m *Machine) *kvdv1.Goal { return replicasGoal(shard(m, 1), nil, []uint64{1}) }, words: []string{"odd number", "would be 2"}},
		"four voters":                       {goal: func(m *Machine) *kvdv1.Goal { return replicasGoal(shard(m, 1), []uint64{4}, nil) }, words: []string{"odd number", "would be 4"}},
		"no voters":                         {goal: func(m *Machine) *kvdv1.Goal { return replicasGoal(shard(m, 1), nil, []uint64{1, 2, 3}) }, words: []string{"odd number", "would be 0"}},
		"two voters of the meta group":      {goal: func(m *Machine) *kvdv1.Goal { return replicasGoal(shard(m, 0), nil, []uint64{1, 2, 3}) }, words: []string{"would be 2"}},
		"what is so already":                {goal: func(m *Machine) *kvdv1.Goal { return replicasGoal(shard(m, 1), nil, nil) }, words: []string{"it is so already"}},
		"very many replicas": {goal: func(m *Machine) *kvdv1.Goal { return replicasGoal(shard(m, 1), make([]uint64, membersWanted), nil) },
			words: []string{"add", fmt.Sprint(membersWanted)}},

		"a merge with the left neighbour": {goal: func(m *Machine) *kvdv1.Goal { return mergeGoal(shard(m, 2), 1) }, words: []string{"right", "of shard 2, 1 is not"}},
		"a merge with one further on":     {goal: func(m *Machine) *kvdv1.Goal { return mergeGoal(shard(m, 1), 3) }, words: []string{"right", "of shard 1, 3 is not"}},
		"a merge of the last one":         {goal: func(m *Machine) *kvdv1.Goal { return mergeGoal(shard(m, 4), 1) }, words: []string{"right", "of shard 4, 1 is not"}},
		"a merge of the meta group":       {goal: func(m *Machine) *kvdv1.Goal { return mergeGoal(shard(m, 0), 1) }, words: []string{"never merged"}},
		"a merge with the meta group":     {goal: func(m *Machine) *kvdv1.Goal { return mergeGoal(shard(m, 4), 0) }, words: []string{"never merged"}},
		"a merge of a joint shard": {before: func(m *Machine) { become(t, m, 1, enter) },
			goal: func(m *Machine) *kvdv1.Goal { return mergeGoal(shard(m, 1), 2) }, words: []string{"shard 1 is"}},
		"a merge with a joint shard": {before: func(m *Machine) { become(t, m, 2, enter1) },
			goal: func(m *Machine) *kvdv1.Goal { return mergeGoal(shard(m, 1), 2) }, words: []string{"shard 2 is"}},
		"a merge with a learner": {before: func(m *Machine) { become(t, m, 1, learner) },
			goal: func(m *Machine) *kvdv1.Goal { return mergeGoal(shard(m, 1), 2) }, words: []string{"no learners", "shard 1 has"}},
		"a merge to a node that drains": {before: func(m *Machine) { done(t, m, draining(1, true)) },
			goal: func(m *Machine) *kvdv1.Goal { return mergeGoal(shard(m, 1), 2) }, words: []string{"draining", "node 1 is"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := five(t)
			m.state.Meta.NextReplica = 2000
			if test.before != nil {
				test.before(m)
			}
			refuses(t, m, wanting(test.goal(m)), test.words...)
		})
	}
	m := five(t)
	refuses(t, m, dropping(1, ""), "goal: must be an open one, 1 is not")
	done(t, m, wanting(splitGoal(shard(m, 1), "c")))
	refuses(t, m, dropping(1, strings.Repeat("r", ReasonBytesMax+1)), "reason")
	refuses(t, m, dropping(2, ""), "2 is not")
	done(t, m, dropping(1, "no"))
	refuses(t, m, dropping(1, ""), "1 is not")
}

// enter1 is a joint configuration of shard 2.
func enter1(d *kvdv1.Descriptor) {
	d.Replicas[0].Outgoing = true
	d.Replicas = append(d.Replicas, &kvdv1.Replica{Node: 1, Replica: 1000, Incoming: true})
}

// TestGoalsThatMayBe: what is unusual, and allowed.
func TestGoalsThatMayBe(t *testing.T) {
	m := five(t)
	done(t, m, wanting(replicasGoal(shard(m, 1), []uint64{4, 5}, nil))) // Five voters.
	done(t, m, wanting(replicasGoal(shard(m, 2), nil, []uint64{2, 3}))) // One.
	done(t, m, wanting(replicasGoal(shard(m, 0), nil, []uint64{4, 5}))) // The meta group.
	refuses(t, m, wanting(mergeGoal(shard(m, 1), 2)), "take part in no other goal")
	m = five(t)
	m.state.Meta.NextReplica = 2000
	become(t, m, 2, enter1)
	done(t, m, wanting(replicasGoal(shard(m, 2), nil, nil))) // The joint configuration is to be left, no more.
	become(t, m, 2, func(d *kvdv1.Descriptor) {
		d.Replicas[0].Outgoing, d.Replicas[0].Learner, d.Replicas[3].Incoming = false, true, false
	})
	require.Empty(t, m.State().Meta.Goals)
	done(t, m, wanting(replicasGoal(shard(m, 2), nil, []uint64{2}))) // A learner goes.
	done(t, m, wanting(splitGoal(shard(m, 1), "c")))
	become(t, m, 3, func(d *kvdv1.Descriptor) {
		d.Replicas = append(d.Replicas, &kvdv1.Replica{Node: 1, Replica: 1500, Learner: true})
	})
	done(t, m, wanting(splitGoal(shard(m, 3), "q")))
	require.True(t, m.State().Meta.Goals[2].GetSplit().Replicas[3].Learner, "the new shard has a learner there too")
}

func TestGoalsAreBounded(t *testing.T) {
	s := spec(1)
	s.Cuts, _ = InitialCuts(fmt.Sprint(kv.GoalsMax+1), nil)
	m, err := New(Birth(found(t, s), 1)[0])
	require.NoError(t, err)
	for _, d := range m.State().Meta.Descriptors[:kv.GoalsMax] {
		m.carried(t, wanting(splitGoal(d, "")))
	}
	last := splitGoal(m.State().Meta.Descriptors[kv.GoalsMax], "")
	refuses(t, m, wanting(last), "goals: at most", fmt.Sprint(kv.GoalsMax))
	done(t, m, dropping(5, ""))
	done(t, m, wanting(last))
}

func TestShardsAreBounded(t *testing.T) {
	m := five(t)
	all := shard(m, 4)
	meta := successor(m.state.Meta)
	for len(meta.Descriptors) < kv.ShardsMax-1 { // What a refusal counts; nothing looks at the spans.
		meta.Descriptors = append(slices.Clip(meta.Descriptors), slices.Repeat([]*kvdv1.Descriptor{{}}, kv.ShardsMax-1-len(meta.Descriptors))...)
	}
	_, refused := setGoal(meta, splitGoal(all, "z"), 0)
	require.Empty(t, refused)
	meta.Goals = []*kvdv1.Goal{{Id: 1, Shard: 1, Goal: &kvdv1.Goal_Split{Split: &kvdv1.SplitGoal{}}}}
	_, refused = setGoal(meta, splitGoal(all, "z"), 0)
	require.Contains(t, refused, fmt.Sprint("shards: at most ", kv.ShardsMax))
}

// TestRemoveWaitsForGoals: a node that a goal puts a replica on stays.
func TestRemoveWaitsForGoals(t *testing.T) {
	for name, goal := range map[string]func(m *Machine) *kvdv1.Goal{
		"a move":  func(m *Machine) *kvdv1.Goal { return replicasGoal(shard(m, 1), []uint64{6}, []uint64{1}) },
		"a merge": func(m *Machine) *kvdv1.Goal { return mergeGoal(shard(m, 1), 2) },
	} {
		m := five(t)
		done(t, m, joining("n6", "h:6", 6))
		node := uint64(6)
		if name == "a merge" { // The left shard is on the new node alone.
			m.state.Meta.NextReplica = 2000
			become(t, m, 1, func(d *kvdv1.Descriptor) { d.Replicas = []*kvdv1.Replica{{Node: 6, Replica: 1000}} })
		}
		done(t, m, wanting(goal(m)))
		if name == "a merge" { // And leaves it, by a late order.
			become(t, m, 1, func(d *kvdv1.Descriptor) { d.Replicas = []*kvdv1.Replica{{Node: 5, Replica: 1001}} })
		}
		refuses(t, m, removing(node), "goal 1 puts a replica")
		done(t, m, dropping(1, ""))
		done(t, m, removing(node))
	}
}

// TestGoalsEnd: a report that reaches a goal ends it, and so does one that makes it impossible, each with an event.
func TestGoalsEnd(t *testing.T) {
	split := func(key string) func(m *Machine) []*kvdv1.Descriptor {
		return func(m *Machine) []*kvdv1.Descriptor {
			g := splitGoal(shard(m, 1), key)
			o := nextStep(m.State().Meta, &kvdv1.Goal{Shard: 1, Goal: &kvdv1.Goal_Split{Split: &kvdv1.SplitGoal{Key: g.GetSplit().Key, Child: 900,
				Replicas: []*kvdv1.Replica{{Node: 1, Replica: 1000}, {Node: 2, Replica: 1001}, {Node: 3, Replica: 1002}}}}}, nil)
			return o.becoming
		}
	}
	changed := func(id uint64, change func(d *kvdv1.Descriptor)) func(m *Machine) []*kvdv1.Descriptor {
		return func(m *Machine) []*kvdv1.Descriptor {
			d := copied(shard(m, id))
			d.Epoch.Config++
			change(d)
			return []*kvdv1.Descriptor{d}
		}
	}
	merged := func(left, right uint64) func(m *Machine) []*kvdv1.Descriptor {
		return func(m *Machine) []*kvdv1.Descriptor {
			return nextStep(m.State().Meta, &kvdv1.Goal{Shard: left, Goal: &kvdv1.Goal_Merge{Merge: &kvdv1.MergeGoal{Right: right}}}, nil).becoming
		}
	}
	another := func(d *kvdv1.Descriptor) { d.Replicas[0] = &kvdv1.Replica{Node: 4, Replica: 1000} }
	for name, test := range map[string]struct {
		goal   func(m *Machine) *kvdv1.Goal
		report func(m *Machine) []*kvdv1.Descriptor
		events []string
		open   bool
	}{
		"a split": {func(m *Machine) *kvdv1.Goal { return splitGoal(shard(m, 1), "c") },
			func(m *Machine) []*kvdv1.Descriptor {
				return nextStep(m.State().Meta, m.State().Meta.Goals[0], nil).becoming
			},
			[]string{"1 split done: split shard 1 at c, the right part is shard 1000: 70 MiB"}, false},
		"a split elsewhere that leaves the key": {func(m *Machine) *kvdv1.Goal { return splitGoal(shard(m, 1), "c") }, split("d"),
			[]string{"0 split done: shard 1 was split at d, the right part is shard 900"}, true},
		"a split elsewhere that takes the key": {func(m *Machine) *kvdv1.Goal { return splitGoal(shard(m, 1), "c") }, split("b"),
			[]string{"0 split done: shard 1 was split at b, the right part is shard 900",
				"1 split given up: key: must lie within [, b) and not be its start, is c (split shard 1 at c, the right part is shard 1000: 70 MiB)"}, false},
		"a split at a key that became the end": {func(m *Machine) *kvdv1.Goal { return splitGoal(shard(m, 1), "c") }, split("c"),
			[]string{"0 split done: shard 1 was split at c, the right part is shard 900",
				"1 split given up: key: must lie within [, c) and not be its start, is c (split shard 1 at c, the right part is shard 1000: 70 MiB)"}, false},
		"a split of a shard with other replicas": {func(m *Machine) *kvdv1.Goal { return splitGoal(shard(m, 1), "") }, changed(1, another),
			[]string{"1 split given up: replicas: those of shard 1 have changed since the new shard's were given (split shard 1, the right part is shard 1000: 70 MiB)"}, false},
		"a split of a shard with another learner": {func(m *Machine) *kvdv1.Goal { return splitGoal(shard(m, 1), "") },
			changed(1, func(d *kvdv1.Descriptor) { d.Replicas[1].Learner, d.Replicas[2].Learner = true, true }),
			[]string{"1 split given up: replicas: those of shard 1 have changed since the new shard's were given (split shard 1, the right part is shard 1000: 70 MiB)"}, false},
		"a split of a shard that is absorbed": {func(m *Machine) *kvdv1.Goal { return splitGoal(shard(m, 2), "") }, merged(1, 2),
			[]string{"0 merge done: shard 2 was merged into shard 1",
				"1 split given up: shard: must be in the map, 2 is not (split shard 2, the right part is shard 1000: 70 MiB)"}, false},
		"a move that begins": {func(m *Machine) *kvdv1.Goal { return replicasGoal(shard(m, 1), []uint64{4}, []uint64{1}) },
			func(m *Machine) []*kvdv1.Descriptor {
				return nextStep(m.State().Meta, m.State().Meta.Goals[0], nil).becoming
			}, nil, true},
		"a move": {func(m *Machine) *kvdv1.Goal { return replicasGoal(shard(m, 1), []uint64{4}, []uint64{1}) },
			changed(1, func(d *kvdv1.Descriptor) { d.Replicas[0] = &kvdv1.Replica{Node: 4, Replica: 2000} }),
			[]string{"1 move done: shard 1: + node 4, - node 1: full"}, false},
		"a move that is not left yet": {func(m *Machine) *kvdv1.Goal { return replicasGoal(shard(m, 1), []uint64{4}, []uint64{1}) },
			changed(1, func(d *kvdv1.Descriptor) {
				d.Replicas[0].Outgoing = true
				d.Replicas = append(d.Replicas, &kvdv1.Replica{Node: 4, Replica: 2000, Incoming: true})
			}), nil, true},
		"a growth that is not left yet": {func(m *Machine) *kvdv1.Goal { return replicasGoal(shard(m, 1), []uint64{4, 5}, nil) },
			changed(1, func(d *kvdv1.Descriptor) {
				d.Replicas = append(d.Replicas, &kvdv1.Replica{Node: 4, Replica: 2000, Incoming: true}, &kvdv1.Replica{Node: 5, Replica: 2001, Incoming: true})
			}), nil, true},
		"a removal that is half done": {func(m *Machine) *kvdv1.Goal { return replicasGoal(shard(m, 1), nil, []uint64{1, 2}) },
			changed(1, func(d *kvdv1.Descriptor) { d.Replicas[0].Learner, d.Replicas[1].Learner = true, true }), nil, true},
		"a move to a node that has another replica meanwhile": {func(m *Machine) *kvdv1.Goal { return replicasGoal(shard(m, 1), []uint64{4}, []uint64{1}) },
			changed(1, func(d *kvdv1.Descriptor) {
				d.Replicas = append(d.Replicas, &kvdv1.Replica{Node: 4, Replica: 1000, Learner: true})
			}),
			[]string{"1 move given up: add: node 4 has another replica of shard 1 meanwhile (shard 1: + node 4, - node 1: full)"}, false},
		"a move that would leave two": {func(m *Machine) *kvdv1.Goal { return replicasGoal(shard(m, 1), []uint64{4}, []uint64{1}) },
			changed(1, func(d *kvdv1.Descriptor) {
				d.Replicas = append(d.Replicas[1:2], &kvdv1.Replica{Node: 5, Replica: 1000}, &kvdv1.Replica{Node: 1, Replica: 1001})
				d.Replicas[0].Learner, d.Replicas[2].Learner = true, true
			}),
			[]string{"1 move given up: replicas: must be an odd number of voters, at most 5, would be 2 (shard 1: + node 4, - node 1: full)"}, false},
		"a merge": {func(m *Machine) *kvdv1.Goal { return mergeGoal(shard(m, 1), 2) }, merged(1, 2),
			[]string{"1 merge done: merge shard 2 into shard 1: 1 MiB"}, false},
		"a merge of what was absorbed": {func(m *Machine) *kvdv1.Goal { return mergeGoal(shard(m, 2), 3) }, merged(1, 2),
			[]string{"0 merge done: shard 2 was merged into shard 1",
				"1 merge given up: shard: must be in the map, 2 is not (merge shard 3 into shard 2: 1 MiB)"}, false},
		"a merge of a shard that was split": {func(m *Machine) *kvdv1.Goal { return mergeGoal(shard(m, 1), 2) }, split("b"),
			[]string{"0 split done: shard 1 was split at b, the right part is shard 900",
				"1 merge given up: right: must be the right neighbour of shard 1, 2 is not (merge shard 2 into shard 1: 1 MiB)"}, false},
		"a merge whose right shard has another replica meanwhile": {func(m *Machine) *kvdv1.Goal { return mergeGoal(shard(m, 1), 2) },
			changed(2, func(d *kvdv1.Descriptor) {
				d.Replicas = append(d.Replicas, &kvdv1.Replica{Node: 1, Replica: 1000, Learner: true})
			}),
			[]string{"1 merge given up: add: node 1 has another replica of shard 2 meanwhile (merge shard 2 into shard 1: 1 MiB)"}, false},
		"a merge whose right shard is brought there": {func(m *Machine) *kvdv1.Goal { return mergeGoal(shard(m, 1), 2) },
			changed(2, func(d *kvdv1.Descriptor) { d.Replicas[2] = &kvdv1.Replica{Node: 1, Replica: 2000} }), nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := five(t)
			m.state.Meta.NextReplica, m.state.Meta.NextShard = 2000, 1000
			done(t, m, wanting(test.goal(m)))
			m.Begin(&sink{})
			index, _ := m.Applied()
			results, err := m.Apply(index+1, 6, &kvdv1.Batch{Commands: []*kvdv1.Command{encoded(t, reporting(test.report(m)...))}})
			require.NoError(t, err)
			require.Equal(t, kv.Done, results[0].Status, results[0].Reason)
			var got []string
			for _, e := range m.Events() {
				got = append(got, fmt.Sprint(e.Goal, " ", e.Kind, " ", e.State, ": ", e.Text))
			}
			require.Equal(t, test.events, got)
			require.Equal(t, test.open, len(m.State().Meta.Goals) == 1)
			require.NoError(t, m.Check())
		})
	}
}

// TestMetaGroupFollowsItself: its configuration changes in its own log, the metadata with it, and a goal is reached by
// that.
func TestMetaGroupFollowsItself(t *testing.T) {
	m := five(t)
	m.state.Meta.NextReplica = 2000
	done(t, m, joining("n6", "h:6", 6))
	done(t, m, wanting(replicasGoal(shard(m, 0), []uint64{6}, []uint64{1})))
	refuses(t, m, reporting(copied(shard(m, 0))), "shard: must be from 1")
	d := copied(shard(m, 0))
	d.Epoch.Config++
	d.Replicas[0] = &kvdv1.Replica{Node: 6, Replica: 2000}
	version := m.State().Meta.Version
	m.Begin(&sink{})
	m.follow(d)
	require.Len(t, m.Events(), 1)
	require.Equal(t, "the meta group: + node 6, - node 1: full", m.Events()[0].Text)
	m.Committed()
	require.Empty(t, m.State().Meta.Goals)
	require.Equal(t, version+1, m.State().Meta.Version)
	require.True(t, proto.Equal(d, m.State().Meta.Meta))
	require.NoError(t, m.Check())
}

// TestWantedEvent: a goal is told with its reason.
func TestWantedEvent(t *testing.T) {
	m := five(t)
	g := splitGoal(shard(m, 4), string(bytes.Repeat([]byte{0xff}, 200)))
	out, refused := setGoal(m.State().Meta, g, 7)
	require.Empty(t, refused)
	e := out.events[0]
	require.Equal(t, []any{"split", Wanted, uint64(4), uint64(5), uint64(1)}, []any{e.Kind, e.State, e.Shard, e.Other, e.Goal})
	require.True(t, strings.HasSuffix(e.Text, "…, the right part is shard 5: 70 MiB"), e.Text)
	require.EqualValues(t, 7, out.next.Goals[0].SinceMs)
}
