// Package route is what a client knows of the shard map, and what it learns from each kind of answer. It does no I/O.
package route

import (
	"bytes"
	"slices"
	"sort"

	"github.com/kvdstore/kvd/kv"
)

// Node is a member of the cluster as a client knows it.
type Node struct {
	ID      kv.NodeID
	Address string
}

// Map is what is known. It is not safe for use by several goroutines at once.
type Map struct {
	version     uint64
	descriptors []*kv.Descriptor        // In key order, without overlap; there may be gaps.
	epochs      map[kv.ShardID]kv.Epoch // The newest seen, also of shards that others have displaced.
	leaders     map[kv.ShardID]kv.NodeID
	addresses   map[kv.NodeID]string
}

// New makes a map that knows nothing.
func New() *Map {
	return &Map{epochs: map[kv.ShardID]kv.Epoch{}, leaders: map[kv.ShardID]kv.NodeID{}, addresses: map[kv.NodeID]string{}}
}

// Version of the newest whole map that was taken; 0 for none.
func (m *Map) Version() uint64 { return m.version }

// Replace takes a whole map, unless it is older than what is known.
func (m *Map) Replace(version uint64, descriptors []*kv.Descriptor, leaders map[kv.ShardID]kv.NodeID, nodes []Node) {
	if version < m.version {
		return
	}
	m.version = version
	for _, d := range descriptors {
		m.Learn(d)
	}
	for shard, leader := range leaders {
		if leader != 0 {
			m.leaders[shard] = leader
		}
	}
	for _, n := range nodes {
		m.addresses[n.ID] = n.Address
	}
}

// Learn takes a descriptor, unless what is known of its keys is newer.
func (m *Map) Learn(d *kv.Descriptor) {
	if older(d.Epoch, m.epochs[d.Shard]) {
		return
	}
	var kept []*kv.Descriptor
	for _, old := range m.descriptors {
		if old.Span.Overlaps(d.Span) && old.Shard != d.Shard && old.Epoch.Version > d.Epoch.Version {
			return
		}
		if old.Shard != d.Shard && !old.Span.Overlaps(d.Span) {
			kept = append(kept, old)
		}
	}
	m.epochs[d.Shard] = d.Epoch
	i := sort.Search(len(kept), func(i int) bool { return bytes.Compare(kept[i].Span.Start, d.Span.Start) > 0 })
	m.descriptors = slices.Insert(kept, i, d)
}

func older(a, b kv.Epoch) bool {
	return a.Version < b.Version || a.Version == b.Version && a.Config < b.Config
}

// Lead takes what an answer says of a shard's leader; 0 is unknown, and address may be empty.
func (m *Map) Lead(shard kv.ShardID, leader kv.NodeID, address string) {
	if leader == 0 {
		delete(m.leaders, shard)
		return
	}
	m.leaders[shard] = leader
	if address != "" {
		m.addresses[leader] = address
	}
}

// Forget drops the hint that a node leads anything: it does not answer.
func (m *Map) Forget(address string) {
	for shard, leader := range m.leaders {
		if m.addresses[leader] == address {
			delete(m.leaders, shard)
		}
	}
}

// Target is where a request for a key goes.
type Target struct {
	// Address is empty when nothing is known.
	Address string
	Route   kv.Route
}

// Lookup tells where a request for a key goes: to the leader if it is known, else to one of the shard's replicas, the
// attempt's number choosing which. avoid tells which addresses are better left alone.
func (m *Map) Lookup(key []byte, attempt int, avoid func(address string) bool) Target {
	i := sort.Search(len(m.descriptors), func(i int) bool { return bytes.Compare(m.descriptors[i].Span.Start, key) > 0 }) - 1
	if i < 0 || !m.descriptors[i].Span.Contains(key) {
		return Target{}
	}
	d := m.descriptors[i]
	t := Target{Route: kv.Route{Shard: d.Shard, Version: d.Epoch.Version}}
	if address := m.addresses[m.leaders[d.Shard]]; address != "" && !avoid(address) {
		t.Address = address
		return t
	}
	for j := range d.Replicas {
		address := m.addresses[d.Replicas[(attempt+j)%len(d.Replicas)].Node]
		if address != "" && !avoid(address) {
			t.Address = address
			return t
		}
	}
	return t
}

// Addresses are those of all known nodes, in the order of their ids.
func (m *Map) Addresses() []string {
	var ids []kv.NodeID
	for id := range m.addresses {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	var list []string
	for _, id := range ids {
		list = append(list, m.addresses[id])
	}
	return list
}
