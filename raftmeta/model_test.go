package raftmeta

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

func reporting(list ...*kvdv1.Descriptor) *kvdv1.MetaCommand {
	return &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_Report{Report: &kvdv1.ReportShards{Descriptors: list}}}
}

func wanting(g *kvdv1.Goal) *kvdv1.MetaCommand {
	return &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_SetGoal{SetGoal: g}}
}

func dropping(goal uint64, reason string) *kvdv1.MetaCommand {
	return &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_DropGoal{DropGoal: &kvdv1.DropGoal{Goal: goal, Reason: reason}}}
}

func ruling(prefix, leader string, regions ...string) *kvdv1.MetaCommand {
	return &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_SetRule{SetRule: &kvdv1.Rule{
		Prefix: []byte(prefix), Leader: leader, Regions: regions,
	}}}
}

func splitGoal(d *kvdv1.Descriptor, key string) *kvdv1.Goal {
	return &kvdv1.Goal{Shard: d.Shard, Epoch: d.Epoch, Reason: "70 MiB", Goal: &kvdv1.Goal_Split{Split: &kvdv1.SplitGoal{Key: []byte(key)}}}
}

func mergeGoal(d *kvdv1.Descriptor, right uint64) *kvdv1.Goal {
	return &kvdv1.Goal{Shard: d.Shard, Epoch: d.Epoch, Reason: "1 MiB", Goal: &kvdv1.Goal_Merge{Merge: &kvdv1.MergeGoal{Right: right}}}
}

func replicasGoal(d *kvdv1.Descriptor, add, remove []uint64) *kvdv1.Goal {
	want := &kvdv1.ReplicasGoal{Remove: remove}
	for _, node := range add {
		want.Add = append(want.Add, &kvdv1.Replica{Node: node})
	}
	return &kvdv1.Goal{Shard: d.Shard, Epoch: d.Epoch, Reason: "full", Goal: &kvdv1.Goal_Replicas{Replicas: want}}
}

// copied gives a copy of a descriptor that is to be changed.
func copied(d *kvdv1.Descriptor) *kvdv1.Descriptor { return proto.Clone(d).(*kvdv1.Descriptor) }

// order is a step that the shards take if they are at the epochs from which it was computed (M2).
type order struct {
	from     []*kvdv1.Descriptor
	becoming []*kvdv1.Descriptor
}

// nextStep computes the next step of a goal from what the map has, as a plan does; nil if there is none.
func nextStep(m *kvdv1.MetaState, g *kvdv1.Goal, key []byte) *order {
	d := shardOf(m, g.Shard)
	switch want := g.Goal.(type) {
	case *kvdv1.Goal_Split:
		if len(want.Split.Key) > 0 {
			key = want.Split.Key
		}
		if !(kv.Span{Start: d.Start, End: d.End}).Contains(key) || bytes.Equal(key, d.Start) {
			return nil
		}
		left, child := copied(d), copied(d)
		left.End, child.Start = key, key
		left.Epoch.Version++
		child.Shard, child.Epoch = want.Split.Child, &kvdv1.Epoch{Version: left.Epoch.Version, Config: 1}
		child.Replicas = want.Split.Replicas
		return &order{[]*kvdv1.Descriptor{d}, []*kvdv1.Descriptor{left, child}}
	case *kvdv1.Goal_Merge:
		right := shardOf(m, want.Merge.Right)
		if want.Merge.Align != nil {
			if step := reconfiguring(right, want.Merge.Align); step != nil {
				return step
			}
		}
		left := copied(d)
		left.End, left.Epoch.Version = right.End, max(d.Epoch.Version, right.Epoch.Version)+1
		return &order{[]*kvdv1.Descriptor{d, right}, []*kvdv1.Descriptor{left}}
	}
	return reconfiguring(d, g.GetReplicas())
}

// reconfiguring is the next step to a set of replicas.
func reconfiguring(d *kvdv1.Descriptor, want *kvdv1.ReplicasGoal) *order {
	next := copied(d)
	next.Epoch.Config++
	step := &order{[]*kvdv1.Descriptor{d}, []*kvdv1.Descriptor{next}}
	if joint(d) {
		for _, r := range next.Replicas {
			r.Learner = r.Learner || r.Outgoing
			r.Incoming, r.Outgoing = false, false
		}
		return step
	}
	for _, add := range want.Add {
		if !slices.ContainsFunc(d.Replicas, onNode(add.Node)) {
			next.Replicas = append(next.Replicas, &kvdv1.Replica{Node: add.Node, Replica: add.Replica, Learner: true})
			return step
		}
	}
	changed := false
	for _, r := range next.Replicas {
		switch {
		case r.Learner && slices.ContainsFunc(want.Add, onNode(r.Node)):
			r.Learner, r.Incoming, changed = false, true, true
		case !r.Learner && slices.Contains(want.Remove, r.Node):
			r.Outgoing, changed = true, true
		}
	}
	if changed {
		return step
	}
	next.Replicas = slices.DeleteFunc(next.Replicas, func(r *kvdv1.Replica) bool { return slices.Contains(want.Remove, r.Node) })
	if len(next.Replicas) == len(d.Replicas) {
		return nil
	}
	return step
}

// model is a cluster whose shards are what their own logs say.
type model struct {
	machine  *Machine
	index    kv.Index
	shards   map[uint64]*kvdv1.Descriptor
	news     map[uint64][]*kvdv1.Descriptor // What each shard tells of its last change.
	gone     map[uint64]uint64              // Absorbers.
	orders   []*order                       // On their way, for ever.
	reports  [][]*kvdv1.Descriptor          // The same.
	goals    map[uint64]string              // Their last event.
	given    map[uint64]bool                // Ids of shards that were born.
	shardMap *Map                           // Of the newest metadata, each made from the one before.
}

func newModel(t require.TestingT, s FoundingSpec) *model {
	meta := found(t, s)
	m, err := New(Birth(meta, 1)[0])
	require.NoError(t, err)
	x := &model{machine: m, index: kv.BirthIndex, shards: map[uint64]*kvdv1.Descriptor{}, news: map[uint64][]*kvdv1.Descriptor{},
		gone: map[uint64]uint64{}, goals: map[uint64]string{}, given: map[uint64]bool{}}
	for _, d := range meta.Descriptors {
		x.shards[d.Shard] = d
	}
	x.shardMap, err = NewMap(meta)
	require.NoError(t, err)
	return x
}

func (x *model) meta() *kvdv1.MetaState { return x.machine.State().Meta }

// command applies one, and follows the goals by their events.
func (x *model) command(t require.TestingT, c *kvdv1.MetaCommand) kv.Result {
	x.index++
	x.machine.Begin(&sink{})
	results, err := x.machine.Apply(x.index, 6, &kvdv1.Batch{StampMs: int64(x.index), Commands: []*kvdv1.Command{encoded(t, c)}})
	require.NoError(t, err)
	for _, e := range x.machine.Events() {
		require.NotEmpty(t, e.Text)
		if e.Goal == 0 {
			continue
		}
		want := Wanted
		if e.State == Wanted {
			want = ""
		}
		require.Equal(t, want, x.goals[e.Goal], "goal %d is %s now", e.Goal, e.State)
		x.goals[e.Goal] = e.State
	}
	x.machine.Finish()
	x.machine.Committed()
	require.NoError(t, x.machine.Check())
	for _, g := range x.meta().Goals {
		require.Equal(t, Wanted, x.goals[g.Id])
	}
	x.shardMap, err = x.shardMap.Next(x.meta())
	require.NoError(t, err)
	return results[0]
}

// obey lets an order reach its shards.
func (x *model) obey(t require.TestingT, o *order) {
	for _, from := range o.from {
		if now := x.shards[from.Shard]; now == nil || !proto.Equal(now.Epoch, from.Epoch) {
			return
		}
	}
	for _, d := range o.becoming {
		if x.shards[d.Shard] == nil {
			require.False(t, x.given[d.Shard], "shard id %d is given twice", d.Shard)
			x.given[d.Shard] = true
		}
		x.shards[d.Shard], x.news[d.Shard] = d, o.becoming
	}
	if len(o.from) == 2 {
		delete(x.shards, o.from[1].Shard)
		x.gone[o.from[1].Shard] = o.from[0].Shard
	}
	x.reports = append(x.reports, o.becoming)
}

// tell gives a report to the meta group, which takes it, and only if it is newer.
func (x *model) tell(t require.TestingT, list []*kvdv1.Descriptor) {
	before := x.meta()
	news := true
	for _, d := range list {
		has := shardOf(before, d.Shard)
		news = news && absorbedBy(before, d.Shard) == 0 && (has == nil || wire.ToEpoch(d.Epoch).Newer(wire.ToEpoch(has.Epoch)))
	}
	var sent []*kvdv1.Descriptor
	for _, d := range list {
		sent = append(sent, copied(d))
		sent[len(sent)-1].Leader = 1
	}
	r := x.command(t, reporting(sent...))
	require.Equal(t, kv.Done, r.Status, "%v: %s", list, r.Reason)
	require.Equal(t, news, before != x.meta(), "%v", list)
}

func (x *model) random(t *rapid.T) {
	meta := x.meta()
	d := rapid.SampledFrom(meta.Descriptors).Draw(t, "shard")
	key := []byte(rapid.StringMatching(`[a-f]{1,2}`).Draw(t, "key"))
	node := rapid.Uint64Range(1, meta.NextNode).Draw(t, "node")
	switch rapid.IntRange(0, 17).Draw(t, "kind") {
	case 0:
		g := splitGoal(d, string(key))
		if rapid.Bool().Draw(t, "anywhere") {
			g.GetSplit().Key = nil
		}
		x.command(t, wanting(g))
	case 1:
		right := rightOf(meta, slices.Index(meta.Descriptors, d))
		x.command(t, wanting(mergeGoal(d, right.GetShard())))
	case 2, 3:
		var add, remove []uint64
		for node := uint64(1); node < meta.NextNode; node++ {
			switch rapid.IntRange(0, 3).Draw(t, "at") {
			case 0:
				add = append(add, node)
			case 1:
				if slices.ContainsFunc(d.Replicas, onNode(node)) {
					remove = append(remove, node)
				}
			}
		}
		add = slices.DeleteFunc(add, func(node uint64) bool { return slices.ContainsFunc(d.Replicas, onNode(node)) })
		x.command(t, wanting(replicasGoal(d, add, remove)))
	case 4:
		if len(meta.Goals) > 0 && rapid.Bool().Draw(t, "drop") {
			x.command(t, dropping(rapid.SampledFrom(meta.Goals).Draw(t, "goal").Id, "given up"))
		}
	case 5: // A merge that came to nothing: the right shard is thawed.
		next := copied(d)
		next.Epoch.Version++
		x.orders = append(x.orders, &order{[]*kvdv1.Descriptor{d}, []*kvdv1.Descriptor{next}})
	case 6:
		x.command(t, joining(fmt.Sprint("n", meta.NextNode), "h:1", meta.NextNode))
	case 7:
		x.command(t, removing(node))
	case 8:
		x.command(t, draining(node, rapid.Bool().Draw(t, "draining")))
	case 9, 10, 11:
		if len(meta.Goals) > 0 {
			if o := nextStep(meta, rapid.SampledFrom(meta.Goals).Draw(t, "goal"), key); o != nil {
				x.orders = append(x.orders, o)
			}
		}
	case 12, 13, 14:
		if len(x.orders) > 0 {
			x.obey(t, rapid.SampledFrom(x.orders).Draw(t, "order"))
		}
	default:
		if len(x.reports) > 0 {
			x.tell(t, rapid.SampledFrom(x.reports).Draw(t, "report"))
		}
	}
}

// settle lets every shard tell of its last change, then compares the map with the shards.
func (x *model) settle(t require.TestingT) {
	for _, d := range slices.Clone(x.meta().Descriptors) {
		if list := x.news[d.Shard]; list != nil {
			x.tell(t, list)
		} else if by, ok := x.gone[d.Shard]; ok {
			x.tell(t, x.news[by])
		}
	}
	meta := x.meta()
	require.Len(t, meta.Descriptors, len(x.shards))
	for _, d := range meta.Descriptors {
		require.True(t, proto.Equal(x.shards[d.Shard], d), "the map has %v, the shard is %v", d, x.shards[d.Shard])
	}
	sameMap(t, x.shardMap)
	require.Len(t, meta.Absorbed, len(x.gone))
	for _, a := range meta.Absorbed {
		require.Equal(t, x.gone[a.Descriptor_.Shard], a.Absorber)
	}
}

// TestMapFollowsTheShards (M1, M2): whatever goals are set and dropped, and however late, often and disordered orders and
// reports arrive, the map holds its invariants in every version, takes exactly what is newer, ends each goal once, and has
// what the shards are when each has told of its last change.
func TestMapFollowsTheShards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := newModel(t, spec(rapid.IntRange(1, 5).Draw(t, "nodes"), "b", "d"))
		for range rapid.IntRange(50, 250).Draw(t, "actions") {
			x.random(t)
		}
		x.settle(t)
	})
}

// TestGoalsAreReached: steps that are taken one after the other, each of them reported, reach every kind of goal.
func TestGoalsAreReached(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := newModel(t, spec(5, "b", "d", "f"))
		for range rapid.IntRange(1, 8).Draw(t, "goals") {
			meta := x.meta()
			d := rapid.SampledFrom(meta.Descriptors).Draw(t, "shard")
			key := kv.Next(append(d.Start, rapid.StringMatching(`[a-e]?`).Draw(t, "key")...))
			g := splitGoal(d, string(key))
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				right := rightOf(meta, slices.Index(meta.Descriptors, d))
				g = mergeGoal(d, right.GetShard())
			case 1:
				var free []uint64
				for node := uint64(1); node < meta.NextNode; node++ {
					if !slices.ContainsFunc(d.Replicas, onNode(node)) {
						free = append(free, node)
					}
				}
				if len(free) == 0 {
					continue
				}
				g = replicasGoal(d, free[:1], []uint64{rapid.SampledFrom(d.Replicas).Draw(t, "from").Node})
			}
			r := x.command(t, wanting(g))
			if g.GetMerge() != nil && g.GetMerge().Right == 0 || r.Status != kv.Done {
				require.Equal(t, kv.Refused, r.Status)
				continue
			}
			for steps := 0; len(x.meta().Goals) > 0; steps++ {
				require.Less(t, steps, 20)
				o := nextStep(x.meta(), x.meta().Goals[0], key)
				x.obey(t, o)
				x.tell(t, o.becoming)
			}
			require.Equal(t, Happened, x.goals[uint64(r.Counter)])
		}
		x.settle(t)
	})
}

// anyCrafted is a command that nobody sends, and that is nearly right.
func anyCrafted(t *rapid.T, m *kvdv1.MetaState) *kvdv1.MetaCommand {
	id := func(name string, next uint64) uint64 {
		return rapid.OneOf(rapid.Uint64Range(0, next+1), rapid.Uint64Range(next-1, next), rapid.Uint64()).Draw(t, name)
	}
	odd := func() bool { return rapid.IntRange(0, 5).Draw(t, "odd") == 0 }
	cut := func() []byte { return []byte(rapid.StringMatching(`[a-g]?`).Draw(t, "cut")) }
	shard := func() *kvdv1.Descriptor {
		d := copied(rapid.SampledFrom(m.Descriptors).Draw(t, "shard"))
		if odd() {
			return nil
		}
		if odd() {
			d.Shard = id("shard id", m.NextShard)
		}
		if odd() {
			d.Start = cut()
		}
		if odd() {
			d.End = cut()
		}
		for _, r := range d.Replicas {
			if odd() {
				r.Node = id("node", m.NextNode)
			}
			if odd() {
				r.Replica = id("replica", m.NextReplica)
			}
			r.Learner, r.Incoming, r.Outgoing = odd(), odd(), odd()
		}
		switch rapid.IntRange(0, 5).Draw(t, "epoch") {
		case 0:
			d.Epoch = nil
		case 1:
			d.Epoch = &kvdv1.Epoch{Version: id("version", 5), Config: id("config", 5)}
		default:
			d.Epoch.Version++
		}
		return d
	}
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0:
		return anyMetaCommand(t)
	case 1:
		return ruling(rapid.SampledFrom([]string{"", "a", "ab", "b", "\xff"}).Draw(t, "prefix"), rapid.SampledFrom([]string{"", "r", "x"}).Draw(t, "leader"),
			rapid.SliceOfN(rapid.SampledFrom([]string{"r", "s", "t", ""}), 0, 3).Draw(t, "regions")...)
	case 2:
		return dropping(id("goal", m.NextGoal+1), "")
	case 3:
		return reporting(shard())
	case 4:
		left, right := shard(), shard()
		if !odd() {
			left = copied(rapid.SampledFrom(m.Descriptors).Draw(t, "parent"))
			if right == nil {
				right = copied(left)
			}
			right.End, left.End = left.End, cut()
			right.Start = left.End
			right.Shard = id("child", m.NextShard)
			left.Epoch.Version++
			for i, r := range right.Replicas {
				r.Replica = uint64(rapid.IntRange(1, int(m.NextReplica)).Draw(t, "replica")) + uint64(i)
			}
		}
		return reporting(left, right)
	}
	g := &kvdv1.Goal{Id: id("goal", 3), Shard: id("shard", m.NextShard), Epoch: &kvdv1.Epoch{Version: id("version", 3), Config: 1}}
	if d := shardOf(m, g.Shard); d != nil && !odd() {
		g.Epoch = d.Epoch
	}
	replicas := func() (list []*kvdv1.Replica) {
		for range rapid.IntRange(0, 3).Draw(t, "replicas") {
			list = append(list, &kvdv1.Replica{Node: id("node", m.NextNode), Replica: id("replica", m.NextReplica), Learner: odd(), Incoming: odd()})
		}
		return list
	}
	remove := rapid.SliceOfN(rapid.Uint64Range(0, m.NextNode), 0, 3).Draw(t, "remove")
	switch rapid.IntRange(0, 3).Draw(t, "goal") {
	case 0:
		g.Goal = &kvdv1.Goal_Split{Split: &kvdv1.SplitGoal{Key: cut(), Child: id("child", m.NextShard), Replicas: replicas()}}
	case 1:
		g.Goal = &kvdv1.Goal_Replicas{Replicas: &kvdv1.ReplicasGoal{Add: replicas(), Remove: remove}}
	case 2:
		g.Goal = &kvdv1.Goal_Merge{Merge: &kvdv1.MergeGoal{Right: id("right", m.NextShard), Align: &kvdv1.ReplicasGoal{Add: replicas(), Remove: remove}}}
	}
	return wanting(g)
}

// TestCraftedCommands: whatever commands come, each of them is carried out or refused with a reason, and the invariants
// hold.
func TestCraftedCommands(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := newModel(t, spec(rapid.IntRange(1, 5).Draw(t, "nodes"), "b", "d"))
		for range rapid.IntRange(1, 30).Draw(t, "commands") {
			c := anyCrafted(t, x.meta())
			before := x.meta()
			if r := x.command(t, c); r.Status != kv.Done {
				require.Equal(t, kv.Refused, r.Status)
				require.NotEmpty(t, r.Reason)
				require.Same(t, before, x.meta())
			}
			covers(t, x.meta(), []byte("c"))
		}
	})
}

// FuzzCommands: the same of any bytes.
func FuzzCommands(f *testing.F) {
	m := found(f, spec(5, "b", "d"))
	left, child := copied(m.Descriptors[0]), copied(m.Descriptors[0])
	left.End, child.Start, child.Shard = []byte("a"), []byte("a"), 3
	left.Epoch.Version++
	for _, c := range []*kvdv1.MetaCommand{
		joining("n6", "h:6", 6), draining(1, true), removing(5), ruling("a", "r", "r"), dropping(1, "x"), set(LogKeep, "100"),
		reporting(left, child), wanting(splitGoal(m.Descriptors[0], "a")), wanting(mergeGoal(m.Descriptors[0], 2)),
		wanting(replicasGoal(m.Descriptors[0], []uint64{4}, []uint64{1})),
	} {
		b, err := c.MarshalVT()
		require.NoError(f, err)
		f.Add(b, b)
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		x := newModel(t, spec(5, "b", "d"))
		for _, value := range [][]byte{a, b} {
			c := &kvdv1.MetaCommand{}
			if c.UnmarshalVT(value) == nil && CheckCommand(c) == nil {
				x.command(t, c)
			}
		}
		covers(t, x.meta(), []byte("c"))
	})
}
