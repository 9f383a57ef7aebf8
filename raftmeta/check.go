package raftmeta

import (
	"bytes"
	"fmt"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// Check reports a broken invariant of the metadata: the map covers the whole key space and each key once, ids are
// used once and below the next one, replicas are on known nodes, voters are an odd number of at most ReplicasMax, and
// no two nodes have a store.
func Check(m *kvdv1.MetaState) error {
	fail := func(format string, args ...any) error { return fmt.Errorf("metadata: "+format, args...) }
	if m.GetClusterId() == 0 || m.GetVersion() == 0 {
		return fail("there is no cluster id, or no version")
	}
	if m.GetTickMs() == 0 || m.GetElectionTicks() < 2 {
		return fail("a tick of %d ms and an election timeout of %d ticks", m.GetTickMs(), m.GetElectionTicks())
	}
	nodes, names, stores := map[uint64]bool{}, map[string]bool{}, map[uint64]bool{}
	for _, n := range m.GetNodes() {
		id, name := n.GetNode().GetNode(), n.GetNode().GetName()
		if id == 0 || id >= m.GetNextNode() || nodes[id] {
			return fail("node id %d is 0, used twice, or not below the next one", id)
		}
		if name == "" || names[name] {
			return fail("node %d: the name %q is empty or used twice", id, name)
		}
		if n.GetStoreId() == 0 || stores[n.GetStoreId()] {
			return fail("node %d: the store id is missing or another node's", id)
		}
		nodes[id], names[name], stores[n.GetStoreId()] = true, true, true
	}
	for _, n := range m.GetRemoved() {
		id := n.GetNode().GetNode()
		if id == 0 || id >= m.GetNextNode() || nodes[id] || stores[n.GetStoreId()] {
			return fail("the removed node %d is a member, its store is one's, or its id was never given", id)
		}
		nodes[id], stores[n.GetStoreId()] = false, true
	}
	if len(m.GetRemoved()) > RemovedMax {
		return fail("%d removed nodes", len(m.GetRemoved()))
	}
	if m.GetMeta() == nil || m.GetMeta().GetShard() != uint64(kv.MetaShard) {
		return fail("the meta group's descriptor is missing")
	}
	shards, replicas := map[uint64]bool{}, map[uint64]bool{}
	var end []byte
	for i, d := range append([]*kvdv1.Descriptor{m.GetMeta()}, m.GetDescriptors()...) {
		if err := checkReplicas(m, d, nodes, replicas); err != nil {
			return err
		}
		if i == 0 {
			continue
		}
		if id := d.GetShard(); id == 0 || id >= m.GetNextShard() || shards[id] {
			return fail("shard id %d is 0, used twice, or not below the next one", id)
		}
		shards[d.GetShard()] = true
		if !bytes.Equal(d.GetStart(), end) || i > 1 && len(end) == 0 {
			return fail("shard %d begins at %s, after an end at %s", d.GetShard(), kv.FormatKey(d.GetStart()), kv.FormatKey(end))
		}
		if end = d.GetEnd(); len(end) > 0 && bytes.Compare(d.GetStart(), end) >= 0 {
			return fail("shard %d is empty", d.GetShard())
		}
	}
	if len(m.GetDescriptors()) == 0 || len(end) > 0 {
		return fail("the end of the key space is in no shard")
	}
	return nil
}

func checkReplicas(m *kvdv1.MetaState, d *kvdv1.Descriptor, nodes, replicas map[uint64]bool) error {
	voters, here := 0, map[uint64]bool{}
	for _, r := range d.GetReplicas() {
		if !r.GetLearner() {
			voters++
		}
		if id := r.GetReplica(); id == 0 || id >= m.GetNextReplica() || replicas[id] {
			return fmt.Errorf("metadata: shard %d: replica id %d is 0, used twice, or not below the next one", d.GetShard(), id)
		}
		if !nodes[r.GetNode()] || here[r.GetNode()] {
			return fmt.Errorf("metadata: shard %d: a replica is on the unknown node %d, or two are on it", d.GetShard(), r.GetNode())
		}
		replicas[r.GetReplica()], here[r.GetNode()] = true, true
	}
	if d.GetEpoch().GetVersion() == 0 || d.GetEpoch().GetConfig() == 0 {
		return fmt.Errorf("metadata: shard %d has no epoch", d.GetShard())
	}
	if max(len(d.GetStart()), len(d.GetEnd())) > kv.KeyBytesMax {
		return fmt.Errorf("metadata: shard %d begins or ends at what is no key", d.GetShard())
	}
	if voters%2 == 0 || voters > ReplicasMax {
		return fmt.Errorf("metadata: shard %d has %d voters", d.GetShard(), voters)
	}
	return nil
}
