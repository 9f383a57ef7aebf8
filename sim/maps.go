package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

// maps is what is known of the metadata over the whole run.
type maps struct {
	founding *kvdv1.MetaState
	newest   *raftmeta.Map // That any meta replica has applied.
	versions map[uint64]version
	// shapes and homes are of all descriptors that any replica or map had.
	shapes map[shape]*kv.Descriptor
	homes  map[kv.ReplicaID]replicaHome
}

// version is one of the metadata that was applied somewhere.
type version struct {
	sum    uint64
	shards *raftmeta.Map
}

// knownMap gives the index of metadata that a node has applied or was given. Its first sight judges it: every version is
// one and the same on all nodes, covers the key space once, and takes no epoch and no start of a shard back.
func (w *world) knownMap(meta *kvdv1.MetaState) *raftmeta.Map {
	data, err := meta.MarshalVT()
	if err != nil {
		w.fail("metadata: %v", err)
		return w.newest
	}
	sum := xxhash.Sum64(data)
	if known, ok := w.versions[meta.GetVersion()]; ok {
		if known.sum != sum {
			w.fail("version %d of the metadata is not the same on all nodes", meta.GetVersion())
		}
		return known.shards
	}
	copied := &kvdv1.MetaState{}
	if err := copied.UnmarshalVT(data); err != nil {
		w.fail("metadata: %v", err)
		return w.newest
	}
	shards, err := raftmeta.NewMap(copied)
	if err != nil {
		w.fail("version %d: %v", meta.GetVersion(), err)
		return w.newest
	}
	w.versions[meta.GetVersion()] = version{sum, shards}
	if w.newest == nil || shards.Version() > w.newest.Version() {
		w.succeed(shards)
	}
	return shards
}

// succeed takes the newest map.
func (w *world) succeed(shards *raftmeta.Map) {
	if w.newest != nil {
		if err := follows(w.newest, shards); err != nil {
			w.fail("version %d of the metadata, after %d: %v", shards.Version(), w.newest.Version(), err)
		}
		w.countShapes(w.newest, shards)
		w.retire(shards)
	}
	for _, d := range append(slices.Clone(shards.Descriptors()), shards.Meta()) {
		w.seen(d)
	}
	w.newest = shards
}

// countShapes counts what has become of shards from one map to a later one.
func (w *world) countShapes(before, after *raftmeta.Map) {
	for _, d := range after.Descriptors() {
		old, ok := before.Shard(d.Shard)
		if !ok {
			w.stats.Splits++
			continue
		}
		if slices.ContainsFunc(d.Replicas, func(r kv.Replica) bool { _, here := old.OnNode(r.Node); return !here }) {
			w.stats.Moves++
		}
	}
	for _, d := range before.Descriptors() {
		if _, ok := after.Shard(d.Shard); !ok {
			w.stats.Merges++
		}
	}
}

// shape names what a shard was.
type shape struct {
	shard kv.ShardID
	epoch kv.Epoch
}

// seen fails unless a descriptor is the only one of its shard and epoch anywhere, and its replicas' ids have been on
// their nodes always: an id is given once.
func (w *world) seen(d *kv.Descriptor) {
	s := shape{d.Shard, d.Epoch}
	if first, ok := w.shapes[s]; !ok {
		w.shapes[s] = d
	} else if !first.Span.Equal(d.Span) || !slices.Equal(first.Replicas, d.Replicas) {
		w.fail("shard %d in epoch %+v is both %+v and %+v", d.Shard, d.Epoch, first, d)
	}
	for _, r := range d.Replicas {
		home := replicaHome{d.Shard, r.Node}
		if first, ok := w.homes[r.Replica]; ok && first != home {
			w.fail("replica id %d is that of shard %d on node %d, and of shard %d on node %d", r.Replica, first.shard, first.node, d.Shard, r.Node)
		}
		w.homes[r.Replica] = home
	}
}

// replicaHome is what a replica's id stands for.
type replicaHome struct {
	shard kv.ShardID
	node  kv.NodeID
}

// follows refuses a map that takes something back: of a shard neither half of the epoch falls, of a key the version of
// its shard does not, and where a shard begins never changes.
func follows(before, after *raftmeta.Map) error {
	for _, old := range append(slices.Clone(before.Descriptors()), before.Meta()) {
		now, ok := after.Shard(old.Shard)
		switch {
		case !ok:
		case now.Epoch.Version < old.Epoch.Version || now.Epoch.Config < old.Epoch.Config:
			return fmt.Errorf("shard %d goes back from epoch %+v to %+v", old.Shard, old.Epoch, now.Epoch)
		case string(now.Span.Start) != string(old.Span.Start):
			return fmt.Errorf("shard %d begins at %q, and began at %q", old.Shard, now.Span.Start, old.Span.Start)
		}
	}
	for _, old := range before.Descriptors() {
		for _, now := range after.Overlapping(old.Span) {
			if now.Shard != old.Shard && now.Epoch.Version <= old.Epoch.Version {
				return fmt.Errorf("shard %d over %v in epoch %+v takes keys of shard %d over %v in epoch %+v",
					now.Shard, now.Span, now.Epoch, old.Shard, old.Span, old.Epoch)
			}
		}
	}
	return nil
}

// metaOnDisk is the newest metadata that a process knows when it starts: its meta replica's, or what the machine had
// when it became a node.
func (m *machine) metaOnDisk() (*kvdv1.MetaState, error) {
	records, err := m.state.Shards()
	if err != nil {
		return nil, err
	}
	if len(records) > 0 && records[0].Shard == kv.MetaShard {
		return records[0].State.GetMeta(), nil
	}
	return m.given, nil
}

// streamTime is the time between two looks of a node at the metadata of others.
const streamTime = 300 * time.Millisecond

// stream brings the metadata to the nodes without a meta replica that hears of a leader, late, and from whoever has one, as new as it is there.
func (w *world) stream() {
	w.after(streamTime, func() {
		defer w.stream()
		for _, m := range w.nodes {
			if lead, _, _ := m.lead(kv.MetaShard); m.core == nil || lead != 0 {
				continue
			}
			from := w.nodes[w.chance.IntN(len(w.nodes))]
			if from.core == nil || from.view(kv.MetaShard) == nil || w.blocked[link{from.id, m.id}] {
				continue
			}
			shards := from.shards
			m.process(between(w.chance, time.Millisecond, streamTime), func() { m.told(shards) })
		}
	})
}

// told takes metadata that has come from another node.
func (m *machine) told(shards *raftmeta.Map) {
	if shards.Version() <= m.shards.Version() {
		return
	}
	m.shards, m.inbox.Meta = shards, shards.State()
	m.stats.MetaStreamed++
	m.wake()
}
