package raftmeta

import (
	"bytes"
	"fmt"
	"slices"
	"sort"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// A shard's own log is right about it, and the map follows by reports (M1). The leader of the meta group proposes one
// when a shard tells of a newer descriptor. A report is one change of one shard, for a shard takes no further one before
// the map has its last one (M2):
//
//	[d]            the shard with other replicas, or unfrozen: the same span
//	[left, right]  after a split: together the old span; right is new
//	[left]         after a merge: the spans of the shard and of its right neighbour, at a version above both
//
// So in every version the map covers each key once. Reports come late, twice and out of order: one that the map has
// already, or is past, is done without a change, so that those who report it stop. What no log can say is refused.

// report takes what a shard has become.
func report(m *kvdv1.MetaState, r *kvdv1.ReportShards) (out outcome, refused string) {
	if n := len(r.GetDescriptors()); n < 1 || n > 2 {
		return out, fmt.Sprintf("descriptors: must be 1 or 2, are %d", n)
	}
	var list []*kvdv1.Descriptor
	for _, d := range r.Descriptors {
		if refused = checkDescriptor(m, d); refused != "" {
			return out, refused
		}
		list = append(list, canonical(d))
	}
	i := sort.Search(len(m.Descriptors), func(i int) bool { return bytes.Compare(m.Descriptors[i].Start, list[0].Start) >= 0 })
	for _, d := range list {
		if stale, refused := isStale(m, i, d); stale || refused != "" {
			return out, refused
		}
	}
	if i == len(m.Descriptors) || m.Descriptors[i].Shard != list[0].Shard || !bytes.Equal(m.Descriptors[i].Start, list[0].Start) {
		return out, fmt.Sprintf("start: must be that of shard %d in the map, is %s", list[0].Shard, kv.FormatKey(list[0].Start))
	}
	replaced, refused := tiled(m, i, list)
	if refused == "" {
		refused = checkIDs(m, i, list)
	}
	if refused != "" {
		return out, refused
	}
	return reported(m, i, replaced, list), ""
}

// reported puts the list into the place of so many descriptors from the i-th on.
func reported(m *kvdv1.MetaState, i, replaced int, list []*kvdv1.Descriptor) outcome {
	next, old := successor(m), m.Descriptors[i:i+replaced]
	next.Descriptors = slices.Concat(m.Descriptors[:i], list, m.Descriptors[i+replaced:])
	changed := []uint64{list[0].Shard}
	var happened *kvdv1.Event
	switch {
	case len(list) == 2:
		happened = &kvdv1.Event{Kind: "split", Other: list[1].Shard, Text: fmt.Sprintf("%s was split at %s, the right part is shard %d",
			shardName(list[0].Shard), shorten(kv.FormatKey(list[1].Start), 64), list[1].Shard)}
	case replaced == 2:
		changed = append(changed, old[1].Shard)
		next.Absorbed = append(slices.Clone(m.Absorbed[max(0, len(m.Absorbed)+1-kv.AbsorbedMapMax):]),
			&kvdv1.AbsorbedShard{Descriptor_: old[1], Absorber: list[0].Shard})
		happened = &kvdv1.Event{Kind: "merge", Other: old[1].Shard,
			Text: fmt.Sprintf("shard %d was merged into shard %d", old[1].Shard, list[0].Shard)}
	}
	events := endGoals(next, changed...)
	told := func(e *kvdv1.Event) bool {
		return e.State == Happened && e.Kind == happened.Kind && e.Other == happened.Other
	}
	if happened != nil && !slices.ContainsFunc(events, told) {
		happened.State, happened.Shard = Happened, list[0].Shard
		events = append([]*kvdv1.Event{happened}, events...)
	}
	return outcome{next: next, events: events}
}

// follow makes the metadata have the meta group's own descriptor, when its configuration has changed.
func (m *Machine) follow(d *kvdv1.Descriptor) {
	next := successor(m.state.Meta)
	next.Meta = d
	m.become(next, endGoals(next, d.GetShard()))
}

// isStale tells whether the map has the descriptor, or is past it. i is where its start key is, or should be.
func isStale(m *kvdv1.MetaState, i int, d *kvdv1.Descriptor) (stale bool, refused string) {
	if absorbedBy(m, d.Shard) != 0 {
		return true, ""
	}
	for ; i < len(m.Descriptors) && bytes.Compare(m.Descriptors[i].Start, d.Start) <= 0; i++ {
		known := m.Descriptors[i]
		if known.Shard != d.Shard {
			continue
		}
		has, told := wire.ToEpoch(known.Epoch), wire.ToEpoch(d.Epoch)
		if has == told || has.Newer(told) {
			return true, ""
		}
		if !told.Newer(has) {
			return false, fmt.Sprintf("epoch: must be above %s of %s in the map, is %s", epochText(known.Epoch), shardName(d.Shard), epochText(d.Epoch))
		}
	}
	return false, ""
}

// tiled tells how many descriptors from the i-th on the list stands for; they have the same span.
func tiled(m *kvdv1.MetaState, i int, list []*kvdv1.Descriptor) (replaced int, refused string) {
	old, left, end := m.Descriptors[i], list[0], list[len(list)-1].End
	version := left.Epoch.Version
	if len(list) == 2 {
		switch child := list[1]; {
		case len(left.End) == 0 || !bytes.Equal(left.End, child.Start):
			return 0, fmt.Sprintf("start: must be %s, the end of shard %d, is %s", kv.FormatKey(left.End), left.Shard, kv.FormatKey(child.Start))
		case !bytes.Equal(old.End, child.End):
			return 0, fmt.Sprintf("end: must be %s, that of shard %d before the split, is %s", kv.FormatKey(old.End), left.Shard, kv.FormatKey(child.End))
		case version <= old.Epoch.Version:
			return 0, fmt.Sprintf("epoch: must have a version above %d after a split, is %d", old.Epoch.Version, version)
		}
		return 1, ""
	}
	if bytes.Equal(end, old.End) {
		return 1, ""
	}
	right := rightOf(m, i)
	if right == nil || !bytes.Equal(end, right.End) {
		return 0, fmt.Sprintf("end: must be %s as in the map, or the right neighbour's, is %s", kv.FormatKey(old.End), kv.FormatKey(end))
	}
	if above := max(old.Epoch.Version, right.Epoch.Version); version <= above {
		return 0, fmt.Sprintf("epoch: must have a version above %d after a merge, is %d", above, version)
	}
	return 2, ""
}

// checkIDs refuses ids that belong to something else: a new shard's that is in use or wanted elsewhere, and those of
// replicas that the i-th shard does not have yet.
func checkIDs(m *kvdv1.MetaState, i int, list []*kvdv1.Descriptor) (refused string) {
	fresh := map[uint64]*kvdv1.Replica{} // By id; those that the map does not know.
	for _, d := range list {
		for _, r := range d.Replicas {
			if fresh[r.Replica] != nil {
				return usedTwice(r.Replica)
			}
			fresh[r.Replica] = r
		}
	}
	for _, known := range m.Descriptors[i].Replicas {
		own := slices.ContainsFunc(list[0].Replicas, func(r *kvdv1.Replica) bool { return r.Replica == known.Replica && r.Node == known.Node })
		if own {
			delete(fresh, known.Replica)
		}
	}
	if len(fresh) == 0 && len(list) == 1 {
		return ""
	}
	var child uint64
	if len(list) == 2 {
		child = list[1].Shard
	}
	for _, d := range slices.Concat(m.Descriptors, []*kvdv1.Descriptor{m.Meta}) {
		if refused = checkForeign(d, child, fresh); refused != "" {
			return refused
		}
	}
	for _, a := range m.Absorbed {
		if refused = checkForeign(a.Descriptor_, child, fresh); refused != "" {
			return refused
		}
	}
	return checkWanted(m, list, child, fresh)
}

func checkForeign(d *kvdv1.Descriptor, child uint64, fresh map[uint64]*kvdv1.Replica) (refused string) {
	if child != 0 && d.GetShard() == child {
		return fmt.Sprintf("shard: must be a new id after a split, %d is not", child)
	}
	for _, r := range d.GetReplicas() {
		if fresh[r.GetReplica()] != nil {
			return usedTwice(r.GetReplica())
		}
	}
	return ""
}

// checkWanted refuses ids that were given to a goal for something else.
func checkWanted(m *kvdv1.MetaState, list []*kvdv1.Descriptor, child uint64, fresh map[uint64]*kvdv1.Replica) (refused string) {
	for _, g := range m.Goals {
		if child != 0 && g.GetSplit().GetChild() == child && g.Shard != list[0].Shard {
			return fmt.Sprintf("shard: must be a new id after a split, %d was given to goal %d", child, g.Id)
		}
		wanted, shard := wantedReplicas(g)
		for _, want := range wanted {
			r := fresh[want.GetReplica()]
			own := func(d *kvdv1.Descriptor) bool { return d.Shard == shard && slices.Contains(d.Replicas, r) }
			if r != nil && (r.Node != want.GetNode() || !slices.ContainsFunc(list, own)) {
				return usedTwice(want.GetReplica())
			}
		}
	}
	return ""
}

// taken tells that the id of a replica that the meta group is to get belongs to something else: no report ever said so.
func taken(m *kvdv1.MetaState, r *kvdv1.Replica) bool {
	fresh := map[uint64]*kvdv1.Replica{r.GetReplica(): r}
	for _, d := range m.Descriptors {
		if checkForeign(d, 0, fresh) != "" {
			return true
		}
	}
	for _, a := range m.Absorbed {
		if checkForeign(a.Descriptor_, 0, fresh) != "" {
			return true
		}
	}
	meta := &kvdv1.Descriptor{Shard: uint64(kv.MetaShard), Replicas: []*kvdv1.Replica{r}}
	return checkWanted(m, []*kvdv1.Descriptor{meta}, 0, fresh) != ""
}

func usedTwice(replica uint64) string {
	return fmt.Sprintf("replicas: must have ids of their own, %d is another's", replica)
}

// canonical copies what the map holds of a descriptor: not who leads.
func canonical(d *kvdv1.Descriptor) *kvdv1.Descriptor {
	return wire.FromDescriptor(wire.ToDescriptor(d), 0)
}
