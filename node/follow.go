package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
	"github.com/kvdstore/kvd/storage"
)

const (
	// followPause is between two looks whether somebody is to be followed.
	followPause = 200 * time.Millisecond
	// followMax bounds how long one replica of the meta group is followed, which others may not reach, and followOtherMax
	// the same of a node without one: two that follow each other hear nothing new.
	followMax      = 10 * time.Second
	followOtherMax = 2 * time.Second
	// keepMetaPause is the least time between two records of the metadata in the file STORE.
	keepMetaPause = time.Minute
)

// ErrRemoved: this node was removed from the cluster. Its id is never given again: it stays so.
var ErrRemoved = errors.New("this node was removed from the cluster, and its data directory is of no use any more: to join again, start with an empty one")

// followMeta keeps the metadata new while no replica of the meta group here does: it follows a node that has one.
func (n *Node) followMeta(ctx context.Context) {
	for attempt := 0; ctx.Err() == nil; attempt++ {
		if !n.metaLed() {
			n.followOne(ctx, attempt)
		}
		select {
		case <-ctx.Done():
		case <-time.After(followPause):
		}
	}
}

// metaLed reports whether there is a replica of the meta group here that hears of a leader. One that does not may have been
// removed while this node was away, and then learns from others where the group is now.
func (n *Node) metaLed() bool {
	v := n.view(kv.MetaShard)
	return v != nil && v.state.Load().lead != 0
}

// followOne follows one node for a while.
func (n *Node) followOne(ctx context.Context, attempt int) {
	from, replica, ok := followed(n.meta.Load().shards, n.self.Node, attempt, func(id kv.NodeID) bool {
		return time.Since(time.Unix(0, n.network.LastHeard(id))) < suspectAfter
	})
	if !ok {
		return
	}
	patience, version := followOtherMax, uint64(0)
	if n.confirmed.Load() {
		version = n.meta.Load().shards.Version()
		if replica {
			patience = followMax
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	end := time.AfterFunc(patience, cancel)
	defer end.Stop()
	_ = n.network.WatchMeta(ctx, from, version, func(m *kvdv1.MetaState) {
		n.takeMeta(m)
		n.inbox.add(func(in *Input) {
			if in.Meta.GetVersion() < m.GetVersion() {
				in.Meta = m
			}
		})
		n.confirmed.Store(true)
		if _, still := n.meta.Load().shards.Meta().OnNode(from); replica && !still {
			cancel() // The group has moved away from it.
		}
	})
}

// followed picks the node for an attempt, and tells whether it has a replica of the meta group: those that have one come
// first, of those that are heard; then others that are heard; and while nobody is, all of them.
func followed(m *raftmeta.Map, self kv.NodeID, attempt int, heard func(kv.NodeID) bool) (from kv.NodeID, replica, ok bool) {
	var replicas, others, all []kv.NodeID
	for _, x := range m.Nodes() {
		if x.ID == self {
			continue
		}
		all = append(all, x.ID)
		if _, has := m.Meta().OnNode(x.ID); has && heard(x.ID) {
			replicas = append(replicas, x.ID)
		} else if heard(x.ID) {
			others = append(others, x.ID)
		}
	}
	for _, list := range [][]kv.NodeID{replicas, others, all} {
		if len(list) > 0 {
			from = list[attempt%len(list)]
			_, replica = m.Meta().OnNode(from)
			return from, replica, true
		}
	}
	return 0, false, false
}

// takeMeta publishes metadata if it is newer, and follows the members.
func (n *Node) takeMeta(m *kvdv1.MetaState) {
	n.publishMeta(m)
	n.followNodes()
	if removedIn(m, n.self.Node) {
		n.stopRemoved(ErrRemoved)
	}
}

// followNodes has the network follow the members of the newest metadata.
func (n *Node) followNodes() {
	n.membership.Lock()
	defer n.membership.Unlock()
	var others []kv.NodeID
	for _, x := range n.meta.Load().shards.Nodes() {
		if x.ID != n.self.Node {
			others = append(others, x.ID)
		}
	}
	n.network.Follow(others)
}

// removedIn reports whether a node was a member once, and is none any more.
func removedIn(m *kvdv1.MetaState, id kv.NodeID) bool {
	return uint64(id) < m.GetNextNode() && !slices.ContainsFunc(m.GetNodes(), func(x *kvdv1.MetaNode) bool {
		return kv.NodeID(x.GetNode().GetNode()) == id
	})
}

// Removed takes that a member refuses this node because it was removed.
func (n *Node) Removed(by kv.NodeID) {
	n.stopRemoved(fmt.Errorf("%w (said node %d)", ErrRemoved, by))
}

// stopRemoved ends a node that was removed. From here on it answers nothing.
func (n *Node) stopRemoved(err error) {
	n.stopping.Store(true)
	n.serving.Store(false)
	n.fatal(err)
}

// keepMeta records the metadata in the file STORE when the members or the meta group's place have changed, so that this
// node finds living members when it starts long after.
func (n *Node) keepMeta(ctx context.Context) {
	for {
		p := n.meta.Load()
		if whereabouts(p.shards.State()) != whereabouts(n.record.Meta) {
			n.record.Meta = p.shards.State()
			if err := storage.WriteStore(n.DataDir, n.record); err != nil {
				n.fatal(err)
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(keepMetaPause):
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-p.newer:
		}
	}
}

// whereabouts is all of the metadata that a node needs to find the others.
func whereabouts(m *kvdv1.MetaState) string {
	var b strings.Builder
	for _, x := range m.GetNodes() {
		fmt.Fprintf(&b, "%d@%s ", x.GetNode().GetNode(), x.GetNode().GetAddress())
	}
	for _, r := range m.GetMeta().GetReplicas() {
		fmt.Fprintf(&b, "%d ", r.GetNode())
	}
	return b.String()
}
