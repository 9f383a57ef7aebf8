package raftmeta

import (
	"bytes"
	"maps"
	"slices"
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
	// Draining: everything is to be moved off it.
	Draining bool
}

// Map is an index of the metadata. It is immutable.
type Map struct {
	state       *kvdv1.MetaState
	descriptors []*kv.Descriptor // In key order.
	meta        *kv.Descriptor
	shards      shardIndex
	nodes       []Node
	byID        map[kv.NodeID]int
	goals       map[kv.ShardID]*kvdv1.Goal
	absorbed    map[kv.ShardID]*kvdv1.AbsorbedShard
}

// NewMap checks and indexes metadata, which is shared and read-only from then on.
func NewMap(m *kvdv1.MetaState) (*Map, error) {
	if err := Check(m); err != nil {
		return nil, err
	}
	x := &Map{state: m}
	x.shards.base = make(map[kv.ShardID]*kv.Descriptor, len(m.Descriptors))
	for _, p := range m.Descriptors {
		d := wire.ToDescriptor(p)
		x.descriptors = append(x.descriptors, d)
		x.shards.base[d.Shard] = d
	}
	x.indexRest()
	return x, nil
}

// Next gives the map of later metadata. Where most descriptors are the same objects as in this one, as a state machine
// leaves those that a command did not change, only the others are looked at: a change of one shard in 16,384 takes 0.1 ms,
// and a new map 6. Those are checked by themselves; that their ids are used nowhere else the state machine has checked.
func (m *Map) Next(state *kvdv1.MetaState) (*Map, error) {
	from, to := m.state.Descriptors, state.GetDescriptors()
	first, least := 0, min(len(from), len(to))
	for first < least && from[first] == to[first] {
		first++
	}
	last := 0 // Of those at the end that are the same.
	for last < least-first && from[len(from)-1-last] == to[len(to)-1-last] {
		last++
	}
	if 2*(first+last) < len(to) {
		return NewMap(state)
	}
	changed := to[first : len(to)-last]
	if err := checkPart(state, first, changed); err != nil {
		return nil, err
	}
	var list []*kv.Descriptor
	for _, p := range changed {
		list = append(list, wire.ToDescriptor(p))
	}
	x := &Map{state: state, descriptors: slices.Concat(m.descriptors[:first], list, m.descriptors[len(from)-last:])}
	x.shards = m.shards.with(m.descriptors[first:len(from)-last], list)
	x.indexRest()
	return x, nil
}

// checkPart is Check but for the descriptors that are known to be good, which are those before and after this part.
func checkPart(m *kvdv1.MetaState, first int, part []*kvdv1.Descriptor) error {
	x := &checker{m: m, replicas: map[uint64]owner{}}
	for _, check := range []func() error{x.nodes, x.metaGroup, x.rules} {
		if err := check(); err != nil {
			return err
		}
	}
	all, end := m.GetDescriptors(), []byte(nil)
	if first > 0 {
		end = all[first-1].End
	}
	for i, d := range part {
		if refused := checkDescriptor(m, d); refused != "" {
			return broken("shard %d: %s", d.GetShard(), refused)
		}
		if !bytes.Equal(d.Start, end) || first+i > 0 && len(end) == 0 {
			return broken("shard %d begins at %s, after an end at %s", d.Shard, kv.FormatKey(d.Start), kv.FormatKey(end))
		}
		end = d.End
	}
	next := first + len(part)
	if last := next == len(all); last != (len(end) == 0) || !last && !bytes.Equal(all[next].GetStart(), end) {
		return broken("an end at %s is followed by a gap, or an overlap", kv.FormatKey(end))
	}
	return nil
}

// indexRest indexes everything but the shards.
func (m *Map) indexRest() {
	s := m.state
	m.meta = wire.ToDescriptor(s.Meta)
	m.nodes, m.byID = make([]Node, 0, len(s.Nodes)), make(map[kv.NodeID]int, len(s.Nodes))
	for i, n := range s.Nodes {
		m.nodes = append(m.nodes, Node{
			ID: kv.NodeID(n.Node.Node), Name: n.Node.Name, Address: n.Node.Address, Region: n.Node.Region, Store: kv.StoreID(n.StoreId),
			Draining: n.Draining,
		})
		m.byID[kv.NodeID(n.Node.Node)] = i
	}
	m.goals = map[kv.ShardID]*kvdv1.Goal{}
	for _, g := range s.Goals {
		for _, shard := range partners(g) {
			m.goals[kv.ShardID(shard)] = g
		}
	}
	m.absorbed = make(map[kv.ShardID]*kvdv1.AbsorbedShard, len(s.Absorbed))
	for _, a := range s.Absorbed {
		m.absorbed[kv.ShardID(a.Descriptor_.Shard)] = a
	}
}

// shardIndex finds shards by their ids: in what has changed since its base, where nil is one that is gone, else in that.
// Neither is ever changed in place.
type shardIndex struct{ base, changed map[kv.ShardID]*kv.Descriptor }

func (x shardIndex) find(id kv.ShardID) *kv.Descriptor {
	if d, ok := x.changed[id]; ok {
		return d
	}
	return x.base[id]
}

// with gives an index with some shards replaced. Past an eighth of the base there is a new base.
func (x shardIndex) with(gone, come []*kv.Descriptor) shardIndex {
	next := shardIndex{base: x.base, changed: make(map[kv.ShardID]*kv.Descriptor, len(x.changed)+len(gone)+len(come))}
	maps.Copy(next.changed, x.changed)
	for _, d := range gone {
		next.changed[d.Shard] = nil
	}
	for _, d := range come {
		next.changed[d.Shard] = d
	}
	if len(next.changed) <= len(x.base)/8 {
		return next
	}
	base := maps.Clone(x.base)
	for id, d := range next.changed {
		base[id] = d
		if d == nil {
			delete(base, id)
		}
	}
	return shardIndex{base: base}
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

// Goals are the open ones, in the order in which they were set.
func (m *Map) Goals() []*kvdv1.Goal { return m.state.Goals }

// Goal gives the open goal that a shard takes part in, as the right one of a merge too.
func (m *Map) Goal(shard kv.ShardID) (*kvdv1.Goal, bool) {
	g, ok := m.goals[shard]
	return g, ok
}

// Absorbed tells which shard a shard was merged into, and what it was then. Of long ago it may be forgotten.
func (m *Map) Absorbed(shard kv.ShardID) (*kvdv1.AbsorbedShard, bool) {
	a, ok := m.absorbed[shard]
	return a, ok
}

// Rules are the placement rules, in the order of their prefixes.
func (m *Map) Rules() []*kvdv1.Rule { return m.state.Rules }

// RuleFor gives the rule that a shard of a span must hold, or nil: of those with keys in the span the one with the longest
// prefix, of equally long ones the first. A shard that a rule cuts in two holds it wholly until it is split there.
func (m *Map) RuleFor(span kv.Span) *kvdv1.Rule { return ruleFor(m.state.Rules, span) }

// RuleCuts gives the keys within a span, in order, where a rule begins or ends: a shard of that span is split there for
// each part to have one rule.
func (m *Map) RuleCuts(span kv.Span) [][]byte { return ruleCuts(m.state.Rules, span) }

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
	if id == kv.MetaShard {
		return m.meta, true
	}
	d := m.shards.find(id)
	return d, d != nil
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
