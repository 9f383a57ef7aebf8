package raftmeta

import (
	"bytes"
	"fmt"
	"slices"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// A goal says what is to become of a shard. The plan or an operator sets it, computed from the map: it is refused unless
// its epoch is the map's (M2), if the shard takes part in another goal, or if it cannot be reached. The meta group gives
// the ids of what is to be made, and no one else does: a goal that is given up takes its ids with it. The steps follow
// from the goal, the map and the reports, without a cursor, and are taken in the shard's own log.
//
// A goal ends when what shards report shows that it is reached, or cannot be reached any more, because an order of an
// earlier goal has arrived late; or when it is dropped.

const (
	// ReasonBytesMax bounds the reason of a goal.
	ReasonBytesMax = 512
	// membersWanted bounds the replicas of a shard while a goal is on the way: twice those that vote.
	membersWanted = 2 * ReplicasMax
	// MembersMax bounds the replicas of a shard, learners too. It is above what goals want: a late order of a goal that
	// was dropped may still add one, and what the shard's log says is taken.
	MembersMax = 2 * membersWanted
)

func setGoal(m *kvdv1.MetaState, asked *kvdv1.Goal, now int64) (out outcome, refused string) {
	if refused = checkText("reason", asked.GetReason(), 0, ReasonBytesMax); refused != "" {
		return out, refused
	}
	d := shardOf(m, asked.GetShard())
	switch {
	case asked.GetGoal() == nil:
		return out, "goal: must be a split, a change of replicas or a merge"
	case len(m.Goals) >= kv.GoalsMax:
		return out, fmt.Sprintf("goals: at most %d at a time", kv.GoalsMax)
	case d == nil:
		return out, fmt.Sprintf("shard: must be in the map, %d is not", asked.GetShard())
	case wire.ToEpoch(asked.GetEpoch()) != wire.ToEpoch(d.Epoch):
		return out, fmt.Sprintf("epoch: must be %s of %s in the map, is %s",
			epochText(d.Epoch), shardName(d.Shard), epochText(asked.GetEpoch()))
	}
	next := successor(m)
	g := &kvdv1.Goal{
		Id: max(m.NextGoal, 1), Shard: d.Shard, Epoch: d.Epoch, Reason: asked.Reason, ByOperator: asked.ByOperator, SinceMs: now,
	}
	switch asked := asked.Goal.(type) {
	case *kvdv1.Goal_Split:
		refused = wantSplit(next, d, asked.Split, g)
	case *kvdv1.Goal_Replicas:
		refused = wantReplicas(next, d, asked.Replicas, g)
	case *kvdv1.Goal_Merge:
		refused = wantMerge(next, d, asked.Merge, g)
	}
	if refused == "" {
		refused = checkFree(m, g)
	}
	if refused == "" {
		refused = checkStanding(m, g)
	}
	if refused != "" {
		return out, refused
	}
	next.NextGoal = g.Id + 1
	next.Goals = append(slices.Clone(m.Goals), g)
	return outcome{next: next, counter: g.Id, events: []*kvdv1.Event{goalEvent(g, Wanted, "")}}, ""
}

// checkFree refuses a goal whose shards take part in another one.
func checkFree(m *kvdv1.MetaState, g *kvdv1.Goal) (refused string) {
	for _, other := range m.Goals {
		for _, shard := range partners(g) {
			if slices.Contains(partners(other), shard) {
				return fmt.Sprintf("shard: must take part in no other goal; %s does in goal %d", shardName(shard), other.Id)
			}
		}
	}
	return ""
}

func checkStanding(m *kvdv1.MetaState, g *kvdv1.Goal) (refused string) {
	reached, impossible := standing(m, searchIn(m), g)
	if reached {
		return "goal: must change something, and it is so already"
	}
	return impossible
}

// partners are the shards that a goal changes.
func partners(g *kvdv1.Goal) []uint64 {
	if merge := g.GetMerge(); merge != nil {
		return []uint64{g.GetShard(), merge.GetRight()}
	}
	return []uint64{g.GetShard()}
}

// wantSplit gives the ids of the new shard and of its replicas, one on each node of the parent's.
func wantSplit(next *kvdv1.MetaState, d *kvdv1.Descriptor, asked *kvdv1.SplitGoal, g *kvdv1.Goal) (refused string) {
	shards := len(next.Descriptors)
	for _, other := range next.Goals {
		if other.GetSplit() != nil {
			shards++
		}
	}
	switch {
	case d.Shard == uint64(kv.MetaShard):
		return "shard: must not be the meta group, which is never split"
	case shards >= kv.ShardsMax:
		return fmt.Sprintf("shards: at most %d", kv.ShardsMax)
	case len(asked.GetKey()) > kv.KeyBytesMax:
		return kv.CheckKey("key", asked.Key).Error()
	}
	split := &kvdv1.SplitGoal{Key: asked.GetKey(), ByLoad: asked.GetByLoad(), Child: next.NextShard}
	next.NextShard++
	for _, r := range d.Replicas {
		split.Replicas = append(split.Replicas, &kvdv1.Replica{Node: r.Node, Replica: nextReplica(next), Learner: r.Learner})
	}
	g.Goal = &kvdv1.Goal_Split{Split: split}
	return ""
}

// wantReplicas gives the ids of the replicas that are to be added.
func wantReplicas(next *kvdv1.MetaState, d *kvdv1.Descriptor, asked *kvdv1.ReplicasGoal, g *kvdv1.Goal) (refused string) {
	if n := len(d.Replicas) + len(asked.GetAdd()); n > membersWanted {
		return fmt.Sprintf("add: at most %d replicas at a time, would be %d", membersWanted, n)
	}
	var add []uint64
	for _, r := range asked.GetAdd() {
		add = append(add, r.GetNode())
	}
	for i, node := range asked.GetRemove() {
		if !slices.ContainsFunc(d.Replicas, onNode(node)) || slices.Contains(asked.Remove[:i], node) {
			return fmt.Sprintf("remove: must be nodes of %s, each once, has %d", shardName(d.Shard), node)
		}
	}
	want, refused := giveReplicas(next, d, add, slices.Clone(asked.GetRemove()))
	g.Goal = &kvdv1.Goal_Replicas{Replicas: want}
	return refused
}

func giveReplicas(next *kvdv1.MetaState, d *kvdv1.Descriptor, add, remove []uint64) (want *kvdv1.ReplicasGoal, refused string) {
	want = &kvdv1.ReplicasGoal{Remove: remove}
	for i, node := range add {
		at := indexOfNode(next, node)
		switch {
		case at < 0:
			return nil, fmt.Sprintf("add: must be members, node %d is none", node)
		case next.Nodes[at].Draining:
			return nil, fmt.Sprintf("add: must not be draining, node %d is", node)
		case slices.ContainsFunc(d.Replicas, onNode(node)) || slices.Contains(add[:i], node):
			return nil, fmt.Sprintf("add: must be nodes without a replica of %s, each once, has %d", shardName(d.Shard), node)
		}
		want.Add = append(want.Add, &kvdv1.Replica{Node: node, Replica: nextReplica(next)})
	}
	return want, ""
}

// wantMerge also brings the replicas of the right neighbour to the nodes of the left one's.
func wantMerge(next *kvdv1.MetaState, d *kvdv1.Descriptor, asked *kvdv1.MergeGoal, g *kvdv1.Goal) (refused string) {
	if d.Shard == uint64(kv.MetaShard) || asked.GetRight() == uint64(kv.MetaShard) {
		return "shard: must not be the meta group, which is never merged"
	}
	right := rightOf(next, searchIn(next)(d.Shard))
	if right.GetShard() != asked.GetRight() {
		return notNeighbours(d.Shard, asked.GetRight())
	}
	for _, side := range []*kvdv1.Descriptor{d, right} {
		if joint(side) {
			return "shard: " + jointText(side)
		}
		if learner := func(r *kvdv1.Replica) bool { return r.Learner }; slices.ContainsFunc(side.Replicas, learner) {
			return fmt.Sprintf("shard: must have no learners to be merged, %s has", shardName(side.Shard))
		}
	}
	var add, remove []uint64
	for _, r := range d.Replicas {
		if !slices.ContainsFunc(right.Replicas, onNode(r.Node)) {
			add = append(add, r.Node)
		}
	}
	for _, r := range right.Replicas {
		if !slices.ContainsFunc(d.Replicas, onNode(r.Node)) {
			remove = append(remove, r.Node)
		}
	}
	merge := &kvdv1.MergeGoal{Right: right.Shard}
	if len(add)+len(remove) > 0 {
		merge.Align, refused = giveReplicas(next, right, add, remove)
	}
	g.Goal = &kvdv1.Goal_Merge{Merge: merge}
	return refused
}

func nextReplica(next *kvdv1.MetaState) uint64 {
	next.NextReplica++
	return next.NextReplica - 1
}

// dropGoal gives a goal up.
func dropGoal(m *kvdv1.MetaState, d *kvdv1.DropGoal) (out outcome, refused string) {
	if refused = checkText("reason", d.GetReason(), 0, ReasonBytesMax); refused != "" {
		return out, refused
	}
	i := slices.IndexFunc(m.Goals, func(g *kvdv1.Goal) bool { return g.GetId() == d.GetGoal() })
	if i < 0 {
		return out, fmt.Sprintf("goal: must be an open one, %d is not", d.GetGoal())
	}
	next := successor(m)
	next.Goals = slices.Delete(slices.Clone(m.Goals), i, i+1)
	return outcome{next: next, events: []*kvdv1.Event{goalEvent(m.Goals[i], GivenUp, d.GetReason())}}, ""
}

// endGoals drops the goals of these shards that are reached or have become impossible.
func endGoals(next *kvdv1.MetaState, changed ...uint64) (events []*kvdv1.Event) {
	concerned := func(g *kvdv1.Goal) bool {
		return slices.ContainsFunc(partners(g), func(shard uint64) bool { return slices.Contains(changed, shard) })
	}
	if !slices.ContainsFunc(next.Goals, concerned) {
		return nil
	}
	var open []*kvdv1.Goal
	for _, g := range next.Goals {
		reached, impossible := false, ""
		if concerned(g) {
			reached, impossible = standing(next, searchIn(next), g)
		}
		switch {
		case reached:
			events = append(events, goalEvent(g, Happened, ""))
		case impossible != "":
			events = append(events, goalEvent(g, GivenUp, impossible))
		default:
			open = append(open, g)
		}
	}
	next.Goals = open
	return events
}

// standing tells whether a goal is reached, or why it never can be. at gives the place of a shard among the
// descriptors.
func standing(m *kvdv1.MetaState, at func(shard uint64) int, g *kvdv1.Goal) (reached bool, impossible string) {
	if split := g.GetSplit(); split != nil && at(split.GetChild()) >= 0 {
		return true, ""
	}
	if merge := g.GetMerge(); merge != nil && absorbedBy(m, merge.GetRight()) == g.GetShard() {
		return true, ""
	}
	i, d := at(g.GetShard()), m.GetMeta()
	switch {
	case i >= 0:
		d = m.Descriptors[i]
	case g.GetShard() != uint64(kv.MetaShard) || g.GetReplicas() == nil:
		return false, fmt.Sprintf("shard: must be in the map, %d is not", g.GetShard())
	}
	switch want := g.GetGoal().(type) {
	case *kvdv1.Goal_Split:
		return false, splitStanding(d, want.Split)
	case *kvdv1.Goal_Replicas:
		return replicasStanding(d, want.Replicas)
	case *kvdv1.Goal_Merge:
		right := rightOf(m, i)
		if right.GetShard() != want.Merge.GetRight() {
			return false, notNeighbours(g.GetShard(), want.Merge.GetRight())
		}
		if want.Merge.GetAlign() != nil {
			_, impossible = replicasStanding(right, want.Merge.Align)
		}
		return false, impossible
	}
	return false, "goal: must be a split, a change of replicas or a merge"
}

func splitStanding(d *kvdv1.Descriptor, want *kvdv1.SplitGoal) (impossible string) {
	key := want.GetKey()
	span := kv.Span{Start: d.GetStart(), End: d.GetEnd()}
	if len(key) > 0 && (!span.Contains(key) || bytes.Equal(key, span.Start)) {
		return fmt.Sprintf("key: must lie within %s and not be its start, is %s", span, kv.FormatKey(key))
	}
	if joint(d) {
		return "shard: " + jointText(d)
	}
	same := slices.EqualFunc(d.GetReplicas(), want.GetReplicas(), func(a, b *kvdv1.Replica) bool {
		return a.GetNode() == b.GetNode() && a.GetLearner() == b.GetLearner()
	})
	if !same {
		return fmt.Sprintf("replicas: those of %s have changed since the new shard's were given", shardName(d.GetShard()))
	}
	return ""
}

func replicasStanding(d *kvdv1.Descriptor, want *kvdv1.ReplicasGoal) (reached bool, impossible string) {
	reached = !joint(d)
	for _, add := range want.GetAdd() {
		i := slices.IndexFunc(d.GetReplicas(), onNode(add.GetNode()))
		switch {
		case i < 0:
			reached = false
		case d.Replicas[i].GetReplica() != add.GetReplica():
			return false, fmt.Sprintf("add: node %d has another replica of %s meanwhile", add.GetNode(), shardName(d.GetShard()))
		case d.Replicas[i].GetLearner():
			reached = false
		}
	}
	for _, node := range want.GetRemove() {
		reached = reached && !slices.ContainsFunc(d.GetReplicas(), onNode(node))
	}
	if n := votersAfter(d, want); n%2 == 0 || n > ReplicasMax {
		return false, fmt.Sprintf("replicas: must be an odd number of voters, at most %d, would be %d", ReplicasMax, n)
	}
	return reached, ""
}

// votersAfter counts the voters that there will be when the goal is reached.
func votersAfter(d *kvdv1.Descriptor, want *kvdv1.ReplicasGoal) int {
	n := len(want.GetAdd())
	for _, r := range d.GetReplicas() {
		added := slices.ContainsFunc(want.GetAdd(), onNode(r.GetNode()))
		if !r.GetLearner() && !r.GetOutgoing() && !added && !slices.Contains(want.GetRemove(), r.GetNode()) {
			n++
		}
	}
	return n
}

// wantedReplicas are the replicas that a goal was given ids for, and the shard that they are to belong to.
func wantedReplicas(g *kvdv1.Goal) (replicas []*kvdv1.Replica, shard uint64) {
	switch want := g.GetGoal().(type) {
	case *kvdv1.Goal_Split:
		return want.Split.GetReplicas(), want.Split.GetChild()
	case *kvdv1.Goal_Merge:
		return want.Merge.GetAlign().GetAdd(), want.Merge.GetRight()
	}
	return g.GetReplicas().GetAdd(), g.GetShard()
}

// shardOf gives the descriptor of a shard, the meta group's too, or nil.
func shardOf(m *kvdv1.MetaState, shard uint64) *kvdv1.Descriptor {
	if shard == uint64(kv.MetaShard) {
		return m.Meta
	}
	if i := searchIn(m)(shard); i >= 0 {
		return m.Descriptors[i]
	}
	return nil
}

// searchIn gives a function that looks all descriptors through.
func searchIn(m *kvdv1.MetaState) func(shard uint64) int {
	return func(shard uint64) int {
		return slices.IndexFunc(m.Descriptors, func(d *kvdv1.Descriptor) bool { return d.GetShard() == shard })
	}
}

// rightOf gives the right neighbour of the i-th shard, or nil.
func rightOf(m *kvdv1.MetaState, i int) *kvdv1.Descriptor {
	if i < 0 || i+1 >= len(m.Descriptors) {
		return nil
	}
	return m.Descriptors[i+1]
}

// absorbedBy gives the shard that absorbed another, or 0.
func absorbedBy(m *kvdv1.MetaState, shard uint64) uint64 {
	for _, a := range slices.Backward(m.GetAbsorbed()) {
		if a.GetDescriptor_().GetShard() == shard {
			return a.GetAbsorber()
		}
	}
	return 0
}

func onNode(node uint64) func(*kvdv1.Replica) bool {
	return func(r *kvdv1.Replica) bool { return r.GetNode() == node }
}

func joint(d *kvdv1.Descriptor) bool {
	return slices.ContainsFunc(d.GetReplicas(), func(r *kvdv1.Replica) bool { return r.GetIncoming() || r.GetOutgoing() })
}

func jointText(d *kvdv1.Descriptor) string {
	return fmt.Sprintf("must not be between two configurations, %s is", shardName(d.GetShard()))
}

func notNeighbours(left, right uint64) string {
	return fmt.Sprintf("right: must be the right neighbour of shard %d, %d is not", left, right)
}

func epochText(e *kvdv1.Epoch) string {
	return fmt.Sprintf("version %d, config %d", e.GetVersion(), e.GetConfig())
}
