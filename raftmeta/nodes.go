package raftmeta

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// Nodes join, change their address and region, are drained, and are removed (B2).
//
// A joiner has synced its store id before it asks, and may ask again with the same one: it gets the same node id. A node
// that lost its data directory has another store id, and its name is taken: it joins as a new node under another name.
// The id of a removed node is never given again, and its store is remembered, so that it is not taken for a new one. Of
// the removed ones the last RemovedMax are remembered. A store that was forgotten since would get a new id: only one
// whose node stopped between asking and hearing of its id does ask; any other has its old id on disk, which the
// members refuse.

const (
	// RemovedMax bounds the removed nodes that the metadata remembers.
	RemovedMax = kv.NodesMax
	// NameBytesMax bounds names of nodes and regions, and addressBytesMax addresses (the longest name of a host and a port).
	NameBytesMax    = 64
	addressBytesMax = 253 + len(":65535")
)

// checkText refuses a text that is too long or none.
func checkText(field, text string, least, most int) (refused string) {
	if len(text) < least || len(text) > most || !utf8.ValidString(text) {
		return (&kv.InvalidError{Field: field, Bound: fmt.Sprintf("%d to %d bytes of UTF-8, has %d", least, most, len(text))}).Error()
	}
	return ""
}

func checkPlace(n *kvdv1.Node) (refused string) {
	if refused = checkText("address", n.GetAddress(), 1, addressBytesMax); refused != "" {
		return refused
	}
	return checkText("region", n.GetRegion(), 0, NameBytesMax)
}

// join makes the store a node, or gives the id of the node that it is.
func join(m *kvdv1.MetaState, asked *kvdv1.MetaNode) (out outcome, refused string) {
	n, store := asked.GetNode(), asked.GetStoreId()
	if refused = checkText("name", n.GetName(), 1, NameBytesMax); refused == "" {
		refused = checkPlace(n)
	}
	ofStore := func(known *kvdv1.MetaNode) bool { return known.GetStoreId() == store }
	ofName := func(known *kvdv1.MetaNode) bool { return known.GetNode().GetName() == n.GetName() }
	i, named := slices.IndexFunc(m.Nodes, ofStore), slices.IndexFunc(m.Nodes, ofName)
	removed := slices.IndexFunc(m.Removed, ofStore)
	switch {
	case refused != "":
		return out, refused
	case store == 0:
		return out, "store: must be an id"
	case removed >= 0:
		return out, fmt.Sprintf("store: this data directory is that of node %d, which was removed: a removed node joins again with an empty one",
			m.Removed[removed].GetNode().GetNode())
	case i >= 0 && named != i:
		return out, fmt.Sprintf("name: must stay %s, which this data directory joined with", m.Nodes[i].GetNode().GetName())
	case i >= 0:
		out = relocate(m, i, n)
		out.counter = m.Nodes[i].GetNode().GetNode()
		return out, ""
	case named >= 0:
		return out, fmt.Sprintf("name: %s is node %d, which has another data directory; a node that lost its own is replaced as a new node under another name",
			n.GetName(), m.Nodes[named].GetNode().GetNode())
	case len(m.Nodes) >= kv.NodesMax:
		return out, fmt.Sprintf("nodes: at most %d", kv.NodesMax)
	}
	next := successor(m)
	node := &kvdv1.Node{Node: m.NextNode, Name: n.Name, Address: n.Address, Region: n.Region}
	next.Nodes = append(slices.Clone(m.Nodes), &kvdv1.MetaNode{StoreId: store, Node: node})
	next.NextNode++
	return outcome{next: next, counter: node.Node, events: []*kvdv1.Event{{
		Kind: "join", State: Happened, Node: node.Node, Text: nameOf(node) + " at " + node.Address + " has joined",
	}}}, ""
}

// relocate gives the i-th node another address and region.
func relocate(m *kvdv1.MetaState, i int, to *kvdv1.Node) outcome {
	known := m.Nodes[i]
	if known.Node.Address == to.Address && known.Node.Region == to.Region {
		return outcome{}
	}
	next, node := replaceNode(m, i)
	node.Node = &kvdv1.Node{Node: known.Node.Node, Name: known.Node.Name, Address: to.Address, Region: to.Region}
	text := nameOf(known.Node) + " is now at " + to.Address
	if to.Region != "" {
		text += " in " + to.Region
	}
	return outcome{next: next, events: []*kvdv1.Event{{Kind: "node", State: Happened, Node: known.Node.Node, Text: text}}}
}

// replaceNode gives metadata with a copy of the i-th node, which is to be changed.
func replaceNode(m *kvdv1.MetaState, i int) (next *kvdv1.MetaState, node *kvdv1.MetaNode) {
	next, known := successor(m), m.Nodes[i]
	node = &kvdv1.MetaNode{StoreId: known.StoreId, Node: known.Node, Draining: known.Draining}
	next.Nodes = slices.Clone(m.Nodes)
	next.Nodes[i] = node
	return next, node
}

// updateNode takes a node's new address and region, from the store that the node was registered with.
func updateNode(m *kvdv1.MetaState, n *kvdv1.MetaNode) (out outcome, refused string) {
	id := n.GetNode().GetNode()
	i := indexOfNode(m, id)
	switch {
	case i < 0:
		return out, unknownNode(id)
	case m.Nodes[i].StoreId != n.GetStoreId():
		return out, fmt.Sprintf("store: must be that of node %d, is another", id)
	}
	if refused = checkPlace(n.GetNode()); refused != "" {
		return out, refused
	}
	return relocate(m, i, n.Node), ""
}

// setDraining begins or ends the draining of a node. The plan does the rest.
func setDraining(m *kvdv1.MetaState, d *kvdv1.SetDraining) (out outcome, refused string) {
	i := indexOfNode(m, d.GetNode())
	others := func(n *kvdv1.MetaNode) bool { return n.GetNode().GetNode() != d.GetNode() && !n.GetDraining() }
	switch {
	case i < 0:
		return out, unknownNode(d.GetNode())
	case m.Nodes[i].Draining == d.GetDraining():
		return out, ""
	case d.GetDraining() && !slices.ContainsFunc(m.Nodes, others):
		return out, fmt.Sprintf("node: another one must stay that is not draining, %d is the last", d.GetNode())
	}
	next, node := replaceNode(m, i)
	node.Draining = d.GetDraining()
	text := nameOf(node.Node) + " is to hold nothing any more"
	if !node.Draining {
		text = nameOf(node.Node) + " may hold replicas again"
	}
	return outcome{next: next, events: []*kvdv1.Event{{Kind: "drain", State: Happened, Node: d.GetNode(), Text: text}}}, ""
}

// removeNode forgets a node that no shard and no goal names.
func removeNode(m *kvdv1.MetaState, r *kvdv1.RemoveNode) (out outcome, refused string) {
	id := r.GetNode()
	i := indexOfNode(m, id)
	if i < 0 {
		return out, unknownNode(id)
	}
	if len(m.Nodes) == 1 {
		return out, fmt.Sprintf("node: must not be the last one, which %d is", id)
	}
	if n, shard := replicasOn(m, id); n > 0 {
		return out, fmt.Sprintf("node: must hold nothing; %d has %d replicas, one of %s: drain it first", id, n, shardName(shard))
	}
	if goal := goalOn(m, id); goal != nil {
		return out, fmt.Sprintf("node: must not be wanted by a goal; goal %d puts a replica of %s on node %d",
			goal.GetId(), shardName(goal.GetShard()), id)
	}
	next := successor(m)
	next.Nodes = slices.Delete(slices.Clone(m.Nodes), i, i+1)
	next.Removed = append(slices.Clone(m.Removed[max(0, len(m.Removed)+1-RemovedMax):]), m.Nodes[i])
	return outcome{next: next, events: []*kvdv1.Event{{
		Kind: "remove", State: Happened, Node: id, Text: nameOf(m.Nodes[i].Node) + " was removed",
	}}}, ""
}

// replicasOn counts the replicas on a node, the meta group's too, and names a shard of one.
func replicasOn(m *kvdv1.MetaState, node uint64) (n int, shard uint64) {
	for _, d := range m.Descriptors {
		if slices.ContainsFunc(d.GetReplicas(), onNode(node)) {
			n, shard = n+1, d.GetShard()
		}
	}
	if slices.ContainsFunc(m.Meta.GetReplicas(), onNode(node)) {
		n, shard = n+1, m.Meta.GetShard()
	}
	return n, shard
}

// goalOn finds a goal that puts a replica on a node.
func goalOn(m *kvdv1.MetaState, node uint64) *kvdv1.Goal {
	for _, g := range m.Goals {
		if list, _ := wantedReplicas(g); slices.ContainsFunc(list, onNode(node)) {
			return g
		}
	}
	return nil
}

func indexOfNode(m *kvdv1.MetaState, id uint64) int {
	return slices.IndexFunc(m.Nodes, func(n *kvdv1.MetaNode) bool { return n.GetNode().GetNode() == id })
}

func unknownNode(id uint64) string { return fmt.Sprintf("node: must be a member, %d is none", id) }

// nameOf names a node for people.
func nameOf(n *kvdv1.Node) string {
	return strings.TrimSpace(fmt.Sprintf("node %d %s", n.GetNode(), n.GetName()))
}

// shardName names a shard for people.
func shardName(id uint64) string {
	if id == uint64(kv.MetaShard) {
		return "the meta group"
	}
	return fmt.Sprintf("shard %d", id)
}
