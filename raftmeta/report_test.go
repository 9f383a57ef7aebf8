package raftmeta

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// halves are what shard 2, from g to p, becomes by a split at h.
func halves(m *Machine) (left, child *kvdv1.Descriptor) {
	left, child = copied(shard(m, 2)), copied(shard(m, 2))
	left.End, child.Start, child.Shard = []byte("h"), []byte("h"), 900
	left.Epoch.Version, child.Epoch = 2, &kvdv1.Epoch{Version: 2, Config: 1}
	for i, r := range child.Replicas {
		r.Replica = 1000 + uint64(i)
	}
	return left, child
}

// TestReportRefusals (M1): what no log can say, and what would break the map.
func TestReportRefusals(t *testing.T) {
	one := func(change func(m *Machine, d *kvdv1.Descriptor)) func(m *Machine) []*kvdv1.Descriptor {
		return func(m *Machine) []*kvdv1.Descriptor {
			d := copied(shard(m, 2))
			d.Epoch.Version, d.Epoch.Config = 2, 2
			change(m, d)
			return []*kvdv1.Descriptor{d}
		}
	}
	two := func(change func(m *Machine, left, child *kvdv1.Descriptor)) func(m *Machine) []*kvdv1.Descriptor {
		return func(m *Machine) []*kvdv1.Descriptor {
			left, child := halves(m)
			change(m, left, child)
			return []*kvdv1.Descriptor{left, child}
		}
	}
	for name, test := range map[string]struct {
		report func(m *Machine) []*kvdv1.Descriptor
		words  []string
	}{
		"nothing":              {func(*Machine) []*kvdv1.Descriptor { return nil }, []string{"descriptors: must be 1 or 2, are 0"}},
		"three":                {func(m *Machine) []*kvdv1.Descriptor { return m.State().Meta.Descriptors[:3] }, []string{"are 3"}},
		"an empty descriptor":  {func(*Machine) []*kvdv1.Descriptor { return []*kvdv1.Descriptor{{}} }, []string{"shard: must be from 1"}},
		"the meta group":       {func(m *Machine) []*kvdv1.Descriptor { return []*kvdv1.Descriptor{shard(m, 0)} }, []string{"shard: must be from 1"}},
		"an unknown shard":     {one(func(_ *Machine, d *kvdv1.Descriptor) { d.Shard = 901 }), []string{"start: must be that of shard 901"}},
		"a shard to come":      {one(func(_ *Machine, d *kvdv1.Descriptor) { d.Shard = 2000 }), []string{"shard: must be from 1 to 999"}},
		"another start":        {one(func(_ *Machine, d *kvdv1.Descriptor) { d.Start = []byte("h") }), []string{"start: must be that of shard 2"}},
		"an earlier start":     {one(func(_ *Machine, d *kvdv1.Descriptor) { d.Start = []byte("f") }), []string{"start: must be that of shard 2"}},
		"the start of another": {one(func(_ *Machine, d *kvdv1.Descriptor) { d.Start, d.End = []byte("p"), []byte("t") }), []string{"start: must be that of shard 2"}},
		"a start after all":    {one(func(_ *Machine, d *kvdv1.Descriptor) { d.Start, d.End = []byte("z"), nil }), []string{"start: must be that of shard 2"}},
		"an earlier end":       {one(func(_ *Machine, d *kvdv1.Descriptor) { d.End = []byte("h") }), []string{"end: must be p as in the map", "is h"}},
		"a later end":          {one(func(_ *Machine, d *kvdv1.Descriptor) { d.End = []byte("q") }), []string{"end: must be p", "is q"}},
		"an end two further":   {one(func(_ *Machine, d *kvdv1.Descriptor) { d.End = nil }), []string{"end: must be p", "is "}},
		"an end before":        {one(func(_ *Machine, d *kvdv1.Descriptor) { d.End = []byte("a") }), []string{"end: must be above the start"}},
		"a very long end":      {one(func(_ *Machine, d *kvdv1.Descriptor) { d.End = []byte(strings.Repeat("q", kv.KeyBytesMax+1)) }), []string{"at most 4096"}},
		"no epoch":             {one(func(_ *Machine, d *kvdv1.Descriptor) { d.Epoch = nil }), []string{"epoch"}},
		"an epoch in between": {func(m *Machine) []*kvdv1.Descriptor {
			become(t, m, 2, func(d *kvdv1.Descriptor) { d.Epoch.Version, d.Epoch.Config = 5, 5 })
			d := copied(shard(m, 2))
			d.Epoch.Version, d.Epoch.Config = 6, 4
			return []*kvdv1.Descriptor{d}
		}, []string{"epoch: must be above version 5, config 5 of shard 2"}},
		"a merge at a version of the right": {func(m *Machine) []*kvdv1.Descriptor {
			become(t, m, 3, func(d *kvdv1.Descriptor) { d.Epoch.Version = 5 })
			d := copied(shard(m, 2))
			d.End, d.Epoch.Version = []byte("t"), 5
			return []*kvdv1.Descriptor{d}
		}, []string{"epoch: must have a version above 5 after a merge"}},
		"a merge at a version of the left": {one(func(_ *Machine, d *kvdv1.Descriptor) { d.End, d.Epoch.Version = []byte("t"), 1 }), []string{"above 1 after a merge"}},
		"two voters":                       {one(func(_ *Machine, d *kvdv1.Descriptor) { d.Replicas = d.Replicas[:2] }), []string{"odd number", "are 2"}},
		"a node to come":                   {one(func(_ *Machine, d *kvdv1.Descriptor) { d.Replicas[0].Node = 6 }), []string{"nodes from 1 to 5"}},
		"a replica to come":                {one(func(_ *Machine, d *kvdv1.Descriptor) { d.Replicas[0].Replica = 2000 }), []string{"ids must be from 1"}},
		"another's replica": {one(func(m *Machine, d *kvdv1.Descriptor) { d.Replicas[0].Replica = shard(m, 4).Replicas[0].Replica }),
			[]string{"replicas: must have ids of their own"}},
		"the meta group's replica": {one(func(m *Machine, d *kvdv1.Descriptor) { d.Replicas[0].Replica = shard(m, 0).Replicas[0].Replica }), []string{"of their own"}},
		"a replica twice":          {one(func(_ *Machine, d *kvdv1.Descriptor) { d.Replicas[0].Replica = d.Replicas[1].Replica }), []string{"of their own"}},
		"a replica that wanders":   {one(func(_ *Machine, d *kvdv1.Descriptor) { d.Replicas[0].Node = 5 }), []string{"of their own"}},
		"a replica that a goal has": {func(m *Machine) []*kvdv1.Descriptor {
			done(t, m, wanting(replicasGoal(shard(m, 1), []uint64{5}, []uint64{1})))
			d := copied(shard(m, 2))
			d.Epoch.Config, d.Replicas[0] = 2, &kvdv1.Replica{Node: 5, Replica: 1999}
			m.state.Meta.Goals[0].GetReplicas().Add[0].Replica = 1999
			return []*kvdv1.Descriptor{d}
		}, []string{"of their own", "1999"}},
		"a replica of the own goal on another node": {func(m *Machine) []*kvdv1.Descriptor {
			done(t, m, wanting(replicasGoal(shard(m, 2), []uint64{1}, []uint64{2})))
			d := copied(shard(m, 2))
			d.Epoch.Config, d.Replicas[0] = 2, &kvdv1.Replica{Node: 5, Replica: 2000}
			return []*kvdv1.Descriptor{d}
		}, []string{"of their own", "2000"}},
		"a replica that was absorbed": {func(m *Machine) []*kvdv1.Descriptor {
			gone := shard(m, 4).Replicas[0].Replica
			d := copied(shard(m, 3))
			d.End, d.Epoch.Version = nil, 2
			done(t, m, reporting(d))
			d = copied(shard(m, 2))
			d.Epoch.Config, d.Replicas[0] = 2, &kvdv1.Replica{Node: 5, Replica: gone}
			return []*kvdv1.Descriptor{d}
		}, []string{"of their own"}},

		"a split with a gap":     {two(func(_ *Machine, _, child *kvdv1.Descriptor) { child.Start = []byte("i") }), []string{"start: must be h"}},
		"a split without an end": {two(func(_ *Machine, left, child *kvdv1.Descriptor) { left.End, child.Start = nil, nil }), []string{"start"}},
		"a split that grows":     {two(func(_ *Machine, _, child *kvdv1.Descriptor) { child.End = []byte("t") }), []string{"end: must be p"}},
		"a split that shrinks":   {two(func(_ *Machine, _, child *kvdv1.Descriptor) { child.End = []byte("o") }), []string{"end: must be p"}},
		"a split at the version": {two(func(_ *Machine, left, _ *kvdv1.Descriptor) { left.Epoch = &kvdv1.Epoch{Version: 1, Config: 2} }), []string{"version above 1 after a split"}},
		"a split into itself":    {two(func(_ *Machine, _, child *kvdv1.Descriptor) { child.Shard = 2 }), []string{"shard: must be a new id"}},
		"a split into another": {func(m *Machine) []*kvdv1.Descriptor {
			left, child := halves(m)
			child.Shard, child.Epoch.Version = 1, 9
			return []*kvdv1.Descriptor{left, child}
		}, []string{"shard: must be a new id after a split, 1 is not"}},
		"a split into another goal's": {func(m *Machine) []*kvdv1.Descriptor {
			done(t, m, wanting(splitGoal(shard(m, 1), "c")))
			m.state.Meta.Goals[0].GetSplit().Child = 900
			left, child := halves(m)
			return []*kvdv1.Descriptor{left, child}
		}, []string{"900 was given to goal 1"}},
		"a split with the parent's replicas": {two(func(m *Machine, _, child *kvdv1.Descriptor) { child.Replicas = copied(shard(m, 2)).Replicas }), []string{"of their own"}},
		"a split that takes a replica along": {two(func(m *Machine, left, child *kvdv1.Descriptor) {
			left.Replicas[0], child.Replicas[0] = &kvdv1.Replica{Node: 5, Replica: 999}, left.Replicas[0]
		}), []string{"of their own"}},
		"a split with two voters": {two(func(_ *Machine, _, child *kvdv1.Descriptor) { child.Replicas = child.Replicas[:2] }), []string{"odd number"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := five(t)
			m.state.Meta.NextReplica, m.state.Meta.NextShard = 2000, 1000
			refuses(t, m, reporting(test.report(m)...), test.words...)
		})
	}
}

// TestReports: each shape of a report, that it is done without a change when it comes again or late, and what the map keeps.
func TestReports(t *testing.T) {
	m := five(t)
	m.state.Meta.NextReplica, m.state.Meta.NextShard = 2000, 1000
	stale := func(list ...*kvdv1.Descriptor) {
		t.Helper()
		before := m.State().Meta
		done(t, m, reporting(list...))
		require.Same(t, before, m.State().Meta)
	}
	first := copied(shard(m, 2))
	stale(first)
	left, child := halves(m)
	left.Leader = 3
	done(t, m, reporting(left, child))
	left.Leader = 0
	require.Len(t, m.State().Meta.Descriptors, 5)
	require.True(t, proto.Equal(left, shard(m, 2)), "who leads is no part of the map")
	require.True(t, proto.Equal(child, shard(m, 900)))
	stale(left, child)
	stale(first)

	right := shard(m, 3)
	right = copied(right)
	right.Epoch.Config = 3
	done(t, m, reporting(right))
	merged := copied(child)
	merged.End, merged.Epoch.Version = right.End, 3
	done(t, m, reporting(merged))
	require.Len(t, m.State().Meta.Descriptors, 4)
	require.True(t, proto.Equal(&kvdv1.AbsorbedShard{Descriptor_: right, Absorber: 900}, m.State().Meta.Absorbed[0]))
	for _, late := range [][]*kvdv1.Descriptor{{merged}, {right}, {left, child}, {child}} {
		stale(late...)
	}
	thawed := copied(right)
	thawed.Epoch.Version = 9
	stale(thawed) // It was absorbed, whatever it says.

	again := copied(left) // The left one absorbs everything: its child is gone, which had a right one absorbed itself.
	again.End, again.Epoch.Version = merged.End, 4
	done(t, m, reporting(again))
	stale(left, child)
	stale(merged)
	require.Len(t, m.State().Meta.Absorbed, 2)
}

func TestAbsorbedShardsAreBounded(t *testing.T) {
	m := five(t)
	meta := successor(m.state.Meta)
	meta.NextShard, meta.NextReplica = 1<<20, 1<<20
	for i := range uint64(kv.AbsorbedMapMax) {
		meta.Absorbed = append(meta.Absorbed, &kvdv1.AbsorbedShard{Absorber: 1, Descriptor_: &kvdv1.Descriptor{
			Shard: 100 + i, Epoch: &kvdv1.Epoch{Version: 1, Config: 1}, Replicas: []*kvdv1.Replica{{Node: 1, Replica: 100 + i}},
		}})
	}
	m.state.Meta = meta
	require.NoError(t, m.Check())
	d := copied(shard(m, 1))
	d.End, d.Epoch.Version = []byte("p"), 2
	done(t, m, reporting(d))
	got := m.State().Meta.Absorbed
	require.Len(t, got, kv.AbsorbedMapMax)
	require.Equal(t, []uint64{101, 2}, []uint64{got[0].Descriptor_.Shard, got[len(got)-1].Descriptor_.Shard}, "the oldest is forgotten")
}

// TestLateOrderToARemovedNode: the goal was dropped and the node removed when the order arrived; the shard's log is right.
func TestLateOrderToARemovedNode(t *testing.T) {
	m := five(t)
	done(t, m, joining("n6", "h:6", 6))
	done(t, m, wanting(replicasGoal(shard(m, 1), []uint64{6}, []uint64{1})))
	late := nextStep(m.State().Meta, m.State().Meta.Goals[0], nil)
	done(t, m, dropping(1, ""))
	done(t, m, removing(6))
	done(t, m, reporting(late.becoming...))
	require.Len(t, shard(m, 1).Replicas, 4)
	done(t, m, wanting(replicasGoal(shard(m, 1), nil, []uint64{6})))
	o := nextStep(m.State().Meta, m.State().Meta.Goals[0], nil)
	done(t, m, reporting(o.becoming...))
	require.Empty(t, m.State().Meta.Goals)
}

// BenchmarkReport: a split among 16,384 shards, whose ids are looked for everywhere, and a new configuration.
func BenchmarkReport(b *testing.B) {
	s := spec(5)
	s.Cuts, _ = InitialCuts(fmt.Sprint(InitialShardsMax), nil)
	m, err := New(Birth(found(b, s), 1)[0])
	require.NoError(b, err)
	m.state.Meta.NextShard, m.state.Meta.NextReplica = 1<<20, 1<<20
	left, child := copied(shard(m, 5000)), copied(shard(m, 5000))
	left.Epoch.Version, child.Shard, child.Start = 2, 1<<19, kv.Next(left.Start)
	left.End = child.Start
	for i, r := range child.Replicas {
		r.Replica = 1<<19 + uint64(i)
	}
	d := copied(shard(m, 5000))
	d.Epoch.Config = 2
	for name, r := range map[string]*kvdv1.ReportShards{
		"split":         {Descriptors: []*kvdv1.Descriptor{left, child}},
		"configuration": {Descriptors: []*kvdv1.Descriptor{d}},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, refused := report(m.state.Meta, r); refused != "" {
					b.Fatal(refused)
				}
			}
		})
	}
}
