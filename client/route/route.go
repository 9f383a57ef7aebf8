// Package route is what a client knows of the shard map, and what it learns from each kind of answer. It does no I/O and
// reads no clock.
//
//	Map of a node ──Replace──┐
//	stale epoch ────Learn────┤            ┌── Lookup:  the leader, else a replica
//	not leader ─────Lead─────┼──→  Map ───┼── Replica: any replica
//	served by ──────Lead─────┤            └── Addresses: any node
//	silent ─────────Forget───┘
//
// What always holds: descriptors do not overlap, they are in key order, and what is known of a shard never goes back to
// an older epoch, nor what is known of a key to an older version. There may be gaps, which remember the version that was
// there; a key in one goes to any node, which passes it on and tells the right descriptor.
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

// Map is what is known. Lookups may run beside each other, nothing may run beside a change.
type Map struct {
	version   uint64
	pieces    []piece
	epochs    map[kv.ShardID]kv.Epoch // The newest seen, also of shards that others have displaced since the last whole map.
	leaders   map[kv.ShardID]kv.NodeID
	addresses map[kv.NodeID]string
	order     []string // The addresses, in the order of their nodes' ids.
}

// piece is what is known of some keys: the shard that holds them, or, in a gap, no more than that a shard of this version
// once did.
type piece struct {
	span    kv.Span
	version uint64
	shard   *kv.Descriptor // nil in a gap.
}

// New makes a map that knows nothing.
func New() *Map {
	return &Map{epochs: map[kv.ShardID]kv.Epoch{}, leaders: map[kv.ShardID]kv.NodeID{}, addresses: map[kv.NodeID]string{}}
}

// Version of the newest whole map that was taken; 0 for none.
func (m *Map) Version() uint64 { return m.version }

// Replace takes a whole map, unless an even newer one was taken; what single answers have told since and is newer stays.
// Of the leaders only those of shards without a known one are taken: an answer is nearer to the truth than a map.
func (m *Map) Replace(version uint64, descriptors []*kv.Descriptor, leaders map[kv.ShardID]kv.NodeID, nodes []Node) bool {
	if version < m.version {
		return false
	}
	m.version = version
	for _, d := range descriptors {
		m.Learn(d)
	}
	m.setNodes(nodes)
	m.prune()
	for _, p := range m.pieces {
		if p.shard == nil {
			continue
		}
		if id := p.shard.Shard; m.leaders[id] == 0 && leaders[id] != 0 {
			m.leaders[id] = leaders[id]
		}
	}
	return true
}

// setNodes takes the members: those that are not among them have left.
func (m *Map) setNodes(nodes []Node) {
	clear(m.addresses)
	for _, n := range nodes {
		m.addresses[n.ID] = n.Address
	}
	m.arrange()
}

// arrange puts the addresses in order.
func (m *Map) arrange() {
	ids := make([]kv.NodeID, 0, len(m.addresses))
	for id := range m.addresses {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	m.order = m.order[:0:0] // A new slice: the old one was given out.
	for _, id := range ids {
		if a := m.addresses[id]; a != "" {
			m.order = append(m.order, a)
		}
	}
}

// prune forgets shards that are no longer there, and leaders that are no members, so that a client does not grow with
// the number of shards and nodes that ever were.
func (m *Map) prune() {
	there := make(map[kv.ShardID]bool, len(m.pieces))
	for _, p := range m.pieces {
		if p.shard != nil {
			there[p.shard.Shard] = true
		}
	}
	for shard := range m.epochs {
		if !there[shard] {
			delete(m.epochs, shard)
		}
	}
	for shard, leader := range m.leaders {
		if !there[shard] || m.addresses[leader] == "" {
			delete(m.leaders, shard)
		}
	}
}

// Learn takes a descriptor, unless something newer is known of its shard or of any of its keys. It tells whether it did.
// Shards that it overlaps are older and go; what they held beyond it becomes a gap.
func (m *Map) Learn(d *kv.Descriptor) bool {
	if d.Span.Empty() || Older(d.Epoch, m.epochs[d.Shard]) {
		return false
	}
	i, j := m.overlapped(d.Span)
	own := false
	for _, p := range m.pieces[i:j] {
		if p.shard != nil && p.shard.Shard == d.Shard {
			own = true
		} else if p.version > d.Epoch.Version {
			return false
		}
	}
	for _, p := range m.pieces[i:j] {
		if p.shard != nil && p.shard.Shard != d.Shard {
			delete(m.leaders, p.shard.Shard)
		}
	}
	_, known := m.epochs[d.Shard]
	m.epochs[d.Shard] = d.Epoch
	m.put(i, j, d)
	if known && !own {
		m.dropElsewhere(d)
	}
	return true
}

// overlapped gives the pieces [i, j) that share keys with a span.
func (m *Map) overlapped(s kv.Span) (i, j int) {
	i = sort.Search(len(m.pieces), func(i int) bool {
		end := m.pieces[i].span.End
		return len(end) == 0 || bytes.Compare(end, s.Start) > 0
	})
	j = len(m.pieces)
	if len(s.End) > 0 {
		j = sort.Search(len(m.pieces), func(j int) bool { return bytes.Compare(m.pieces[j].span.Start, s.End) >= 0 })
	}
	return i, j
}

// put lays a descriptor over the pieces [i, j); gaps are left where they reach beyond it.
func (m *Map) put(i, j int, d *kv.Descriptor) {
	var with [3]piece
	list := with[:0]
	if i < j {
		if first := m.pieces[i]; bytes.Compare(first.span.Start, d.Span.Start) < 0 {
			list = append(list, piece{span: kv.Span{Start: first.span.Start, End: d.Span.Start}, version: first.version})
		}
	}
	list = append(list, piece{d.Span, d.Epoch.Version, d})
	if i < j && len(d.Span.End) > 0 {
		if last := m.pieces[j-1]; len(last.span.End) == 0 || bytes.Compare(last.span.End, d.Span.End) > 0 {
			list = append(list, piece{span: kv.Span{Start: d.Span.End, End: last.span.End}, version: last.version})
		}
	}
	m.pieces = slices.Replace(m.pieces, i, j, list...)
}

// dropElsewhere makes a gap of an older descriptor of d's shard that d does not overlap. A shard's start never changes,
// so only a node that is wrong makes this do anything; two places for one shard would be worse.
func (m *Map) dropElsewhere(d *kv.Descriptor) {
	for i, p := range m.pieces {
		if p.shard != nil && p.shard.Shard == d.Shard && p.shard != d {
			m.pieces[i].shard = nil
		}
	}
}

// Older tells whether epoch a is before b. Of one shard's epochs neither half goes back, so their order is total.
func Older(a, b kv.Epoch) bool {
	return a.Version < b.Version || a.Version == b.Version && a.Config < b.Config
}

// Leader of a shard as far as is known; 0 when it is not.
func (m *Map) Leader(shard kv.ShardID) kv.NodeID { return m.leaders[shard] }

// Lead takes that a node leads a shard; its address may be empty when it is known.
func (m *Map) Lead(shard kv.ShardID, leader kv.NodeID, address string) {
	if leader == 0 {
		return
	}
	m.leaders[shard] = leader
	if address != "" && m.addresses[leader] != address {
		m.addresses[leader] = address
		m.arrange()
	}
}

// Unled takes the word of the node at an address that it does not lead a shard, and does not know who does.
func (m *Map) Unled(shard kv.ShardID, address string) {
	if m.addresses[m.leaders[shard]] == address {
		delete(m.leaders, shard)
	}
}

// Forget drops what is known of the leadership of the node at an address: it does not answer.
func (m *Map) Forget(address string) {
	for shard, leader := range m.leaders {
		if m.addresses[leader] == address {
			delete(m.leaders, shard)
		}
	}
}

// Target is where a request for a key goes.
type Target struct {
	// Address is empty when nothing is known, or all that is known is better left alone.
	Address string
	Route   kv.Route
	// Leader is the node at the address, if it was chosen because it leads the shard.
	Leader kv.NodeID
}

// Find gives the descriptor that holds a key; nil when none is known. It is shared and read-only.
func (m *Map) Find(key []byte) *kv.Descriptor {
	i := sort.Search(len(m.pieces), func(i int) bool { return bytes.Compare(m.pieces[i].span.Start, key) > 0 }) - 1
	if i < 0 || !m.pieces[i].span.Contains(key) {
		return nil
	}
	return m.pieces[i].shard
}

// Lookup tells where a request for a key goes: to the leader if it is known, else to one of the shard's replicas, the
// attempt's number choosing which. avoid tells which addresses are better left alone.
func (m *Map) Lookup(key []byte, attempt int, avoid func(address string) bool) Target {
	d := m.Find(key)
	if d == nil {
		return Target{}
	}
	leader := m.leaders[d.Shard]
	if address := m.addresses[leader]; address != "" && !avoid(address) {
		return Target{Address: address, Route: routeOf(d), Leader: leader}
	}
	return m.replica(d, attempt, avoid)
}

// Replica tells where a read of a key that any replica may answer goes; n chooses which.
func (m *Map) Replica(key []byte, n int, avoid func(address string) bool) Target {
	d := m.Find(key)
	if d == nil {
		return Target{}
	}
	return m.replica(d, n, avoid)
}

func (m *Map) replica(d *kv.Descriptor, n int, avoid func(address string) bool) Target {
	for i := range d.Replicas {
		address := m.addresses[d.Replicas[(n+i)%len(d.Replicas)].Node]
		if address != "" && !avoid(address) {
			return Target{Address: address, Route: routeOf(d)}
		}
	}
	return Target{Route: routeOf(d)}
}

func routeOf(d *kv.Descriptor) kv.Route { return kv.Route{Shard: d.Shard, Version: d.Epoch.Version} }

// Addresses are those of all known nodes, in the order of their ids. The slice is shared and read-only.
func (m *Map) Addresses() []string { return m.order }
