package sim

import (
	"slices"
	"time"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
)

// node finds a machine by its node's id; nil if there is none.
func (w *world) node(id kv.NodeID) *machine {
	i := slices.IndexFunc(w.nodes, func(m *machine) bool { return m.id == id })
	if i < 0 {
		return nil
	}
	return w.nodes[i]
}

// groups are the ids of all shards in the newest map, and the meta group's first.
func (w *world) groups() []kv.ShardID {
	list := []kv.ShardID{kv.MetaShard}
	for _, d := range w.newest.Descriptors() {
		list = append(list, d.Shard)
	}
	return list
}

// view is what readers see of a shard's replica here; nil if there is none.
func (m *machine) view(shard kv.ShardID) *node.View {
	i := slices.IndexFunc(m.views, func(v *node.View) bool { return v.Shard() == shard })
	if i < 0 {
		return nil
	}
	return m.views[i]
}

// holder is the view of the replica here that holds a key; nil if there is none.
func (m *machine) holder(key []byte) *node.View {
	i := slices.IndexFunc(m.views, func(v *node.View) bool {
		return v.Shard() != kv.MetaShard && v.Descriptor().Span.Contains(key)
	})
	if i < 0 {
		return nil
	}
	return m.views[i]
}

// lead tells of a shard's replica here who leads the shard; nobody if there is none.
func (m *machine) lead(shard kv.ShardID) (leader kv.NodeID, term kv.Term, leaseUntil time.Duration) {
	if v := m.view(shard); v != nil {
		return v.Lead()
	}
	return 0, 0, 0
}

// leads reports whether this node leads a shard, as far as it knows.
func (m *machine) leads(shard kv.ShardID) bool {
	leader, _, _ := m.lead(shard)
	return leader == m.id
}

// leader is a machine that leads a shard, as far as it knows; nil if there is none.
func (w *world) leader(shard kv.ShardID) *machine {
	for _, m := range w.nodes {
		if m.core != nil && m.leads(shard) {
			return m
		}
	}
	return nil
}

// share reports whether two shards have keys in common. The meta group has a key space of its own.
func share(a, b *node.View) bool {
	return a.Shard() != kv.MetaShard && b.Shard() != kv.MetaShard && a.Descriptor().Span.Overlaps(b.Descriptor().Span)
}

// checkViews fails if two replicas of a node hold a key.
func (m *machine) checkViews() {
	for i, a := range m.views {
		for _, b := range m.views[i+1:] {
			if share(a, b) {
				m.fail("node %d: shard %d over %v and shard %d over %v overlap", m.id, a.Shard(), a.Descriptor().Span, b.Shard(), b.Descriptor().Span)
			}
		}
	}
}

// checkLeases fails if another node's lease runs while this one leads the shard in a later term, or one that has taken
// keys of it over since: its election came before the promises had ended.
func (m *machine) checkLeases() {
	for _, v := range m.views {
		shard := v.Shard()
		lead, term, _ := v.Lead()
		if lead != m.id {
			continue
		}
		if m.led[shard] != term {
			m.led[shard] = term
			m.stats.Elections++
			if first, ok := m.leaders[leadership{shard, term}]; ok && first != m.id {
				m.fail("shard %d: nodes %d and %d both lead in term %d", shard, first, m.id, term)
			}
			m.leaders[leadership{shard, term}] = m.id
			if m.elected != nil {
				m.elected(shard, m)
			}
		}
		d := v.Descriptor()
		leads := check.Lead{Shard: shard, Span: d.Span, Version: d.Epoch.Version, Node: m.id, Term: term, At: int64(m.now)}
		for _, other := range m.nodes {
			if other == m || other.core == nil {
				continue
			}
			for _, o := range other.views {
				if l, left := other.lease(o); left > 0 && leads.Ends(l) {
					m.fail("%v, while shard %d has the lease %v for %v", leads, l.Shard, l, left)
				}
			}
		}
	}
}

// lease is what readers see of a replica's lease, and how long it runs yet by the clock here.
func (m *machine) lease(v *node.View) (l check.Lease, left time.Duration) {
	_, term, until := v.Lead()
	d := v.Descriptor()
	left = until - m.boot()
	return check.Lease{
		Shard: v.Shard(), Span: d.Span, Version: d.Epoch.Version, Node: m.id, Term: term,
		From: int64(m.now), Until: int64(m.now) + int64(float64(left)/m.rate),
	}, left
}

// noteLeases records which leases readers see, in the time of the world.
func (m *machine) noteLeases() {
	for _, shard := range m.leasedShards() {
		if m.view(shard) == nil {
			m.endLease(shard)
		}
	}
	for _, v := range m.views {
		shard, span := v.Shard(), v.Descriptor().Span
		open := m.leased[shard]
		lead, term, until := v.Lead()
		runs := lead == m.id && until > m.boot()
		if open != nil && (!runs || open.Term != term || !open.Span.Equal(span)) {
			m.endLease(shard)
			open = nil
		}
		if !runs {
			continue
		}
		if open == nil {
			open = &check.Lease{Shard: shard, Span: span, Node: m.id, Term: term, From: int64(m.now)}
			m.leased[shard] = open
		}
		open.Until = int64(m.now) + int64(float64(until-m.boot())/m.rate)
	}
}

// leasedShards are those of which readers see a lease here, in order.
func (m *machine) leasedShards() []kv.ShardID {
	var list []kv.ShardID
	for shard := range m.leased {
		list = append(list, shard)
	}
	slices.Sort(list)
	return list
}

// endLease records a lease that is over by now.
func (m *machine) endLease(shard kv.ShardID) {
	l := m.leased[shard]
	l.Until = min(l.Until, int64(m.now))
	m.leases = append(m.leases, *l)
	delete(m.leased, shard)
}

func (m *machine) endLeases() {
	for _, shard := range m.leasedShards() {
		m.endLease(shard)
	}
}
