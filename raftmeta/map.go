package raftmeta

import (
	"bytes"
	"sort"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// Node is a member of the cluster.
type Node struct {
	ID                    kv.NodeID
	Name, Address, Region string
	Store                 kv.StoreID
}

// Map is an index of the metadata. It is immutable.
type Map struct {
	state       *kvdv1.MetaState
	descriptors []*kv.Descriptor // In key order.
	meta        *kv.Descriptor
	shards      map[kv.ShardID]*kv.Descriptor
	nodes       []Node
	byID        map[kv.NodeID]int
}

// NewMap checks and indexes metadata, which is shared and read-only from then on.
func NewMap(m *kvdv1.MetaState) (*Map, error) {
	if err := Check(m); err != nil {
		return nil, err
	}
	x := &Map{state: m, meta: wire.ToDescriptor(m.Meta), shards: map[kv.ShardID]*kv.Descriptor{}, byID: map[kv.NodeID]int{}}
	x.shards[kv.MetaShard] = x.meta
	for _, p := range m.Descriptors {
		d := wire.ToDescriptor(p)
		x.descriptors = append(x.descriptors, d)
		x.shards[d.Shard] = d
	}
	for i, n := range m.Nodes {
		x.nodes = append(x.nodes, Node{
			ID: kv.NodeID(n.Node.Node), Name: n.Node.Name, Address: n.Node.Address, Region: n.Node.Region, Store: kv.StoreID(n.StoreId),
		})
		x.byID[kv.NodeID(n.Node.Node)] = i
	}
	return x, nil
}

// State is what the map was made of.
func (m *Map) State() *kvdv1.MetaState { return m.state }

// Version rises with every change.
func (m *Map) Version() uint64 { return m.state.Version }

// Descriptors are those of all shards in key order.
func (m *Map) Descriptors() []*kv.Descriptor { return m.descriptors }

// Meta is the meta group's descriptor.
func (m *Map) Meta() *kv.Descriptor { return m.meta }

// Nodes are all members.
func (m *Map) Nodes() []Node { return m.nodes }

// Lookup gives the shard that holds a key.
func (m *Map) Lookup(key []byte) *kv.Descriptor { return m.descriptors[m.at(key)] }

func (m *Map) at(key []byte) int {
	return sort.Search(len(m.descriptors), func(i int) bool {
		end := m.descriptors[i].Span.End
		return len(end) == 0 || bytes.Compare(key, end) < 0
	})
}

// Shard finds a shard by its id, the meta group too.
func (m *Map) Shard(id kv.ShardID) (*kv.Descriptor, bool) {
	d, ok := m.shards[id]
	return d, ok
}

// Overlapping gives the shards that hold keys of a span, in key order. The list is shared and read-only.
func (m *Map) Overlapping(span kv.Span) []*kv.Descriptor {
	if span.Empty() {
		return nil
	}
	first := m.at(span.Start)
	last := first
	for last < len(m.descriptors) && m.descriptors[last].Span.Overlaps(span) {
		last++
	}
	return m.descriptors[first:last:last]
}

// Node finds a member by its id.
func (m *Map) Node(id kv.NodeID) (Node, bool) {
	i, ok := m.byID[id]
	if !ok {
		return Node{}, false
	}
	return m.nodes[i], true
}

// NodeByName finds a member by its name.
func (m *Map) NodeByName(name string) (Node, bool) {
	for _, n := range m.nodes {
		if n.Name == name {
			return n, true
		}
	}
	return Node{}, false
}
