package node

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/kvdstore/kvd/kv"
)

// locals is what readers see of the replicas here, by shard and by key. It is immutable; the loop replaces it when a
// replica comes or goes. A shard's start key never changes, so the order by key stays.
type locals struct {
	byShard map[kv.ShardID]*View
	byKey   []*View
}

func newLocals(views []*View) *locals {
	l := &locals{byShard: make(map[kv.ShardID]*View, len(views))}
	for _, v := range views {
		l.byShard[v.shard] = v
		if v.shard != kv.MetaShard {
			l.byKey = append(l.byKey, v)
		}
	}
	slices.SortFunc(l.byKey, func(a, b *View) int {
		return cmp.Or(bytes.Compare(a.start(), b.start()), cmp.Compare(a.shard, b.shard))
	})
	return l
}

func (v *View) start() []byte { return v.state.Load().descriptor.Span.Start }

// find gives the replica here that holds a key, nil if there is none.
func (l *locals) find(key []byte) *View {
	if l == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(l.byKey, key, func(v *View, key []byte) int { return bytes.Compare(v.start(), key) })
	if !ok {
		i--
	}
	if i < 0 || !l.byKey[i].state.Load().descriptor.Span.Contains(key) {
		return nil
	}
	return l.byKey[i]
}

// view gives the replica of a shard here, nil if there is none.
func (n *Node) view(id kv.ShardID) *View {
	return n.locals.Load().shards()[id]
}

// shards are the replicas here by their shards.
func (l *locals) shards() map[kv.ShardID]*View {
	if l == nil {
		return nil
	}
	return l.byShard
}

// locate gives the newest descriptor of the shard that holds a key: of the replica here, which may know of a split before
// the map does, or of the map. One here that lags, or was removed and has not heard of it, is older than the map.
func (n *Node) locate(p *published, key []byte) *kv.Descriptor {
	d := p.shards.Lookup(key)
	v := n.locals.Load().find(key)
	if v == nil {
		return d
	}
	s := v.state.Load()
	if s.leader || s.descriptor.Epoch.Version > d.Epoch.Version || s.descriptor.Shard == d.Shard && s.descriptor.Epoch.Newer(d.Epoch) {
		return s.descriptor
	}
	return d
}

// ViewsChanged publishes which replicas are here. Who waits for one that has gone looks for the key elsewhere.
func (n *Node) ViewsChanged(views []*View) {
	next := newLocals(views)
	old := n.locals.Swap(next)
	for id, v := range old.shards() {
		if next.byShard[id] != v {
			v.wake()
		}
	}
}
