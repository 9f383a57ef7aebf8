package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

// View is what a step is computed from, at one moment.
type View struct {
	Map     *raftmeta.Map
	Reports *Reports
	Now     time.Duration
	// DeadAfter is the silence past which a node is down.
	DeadAfter time.Duration
}

// known tells that a node is a member of the cluster.
func (v *View) known(node kv.NodeID) bool {
	_, ok := v.Map.Node(node)
	return ok
}

func (v *View) suspect(node kv.NodeID) bool { return v.Reports.Silent(node, v.Now) > SuspectAfter }

func (v *View) down(node kv.NodeID) bool {
	return !v.known(node) || v.Reports.Silent(node, v.Now) > v.DeadAfter
}

// draining tells that everything is to be moved off a node.
func (v *View) draining(node kv.NodeID) bool {
	n, _ := v.Map.Node(node)
	return n.Draining
}

// barred tells why a node gets no new replica and no leadership; empty if it may.
func (v *View) barred(node kv.NodeID) string {
	silent := v.Reports.Silent(node, v.Now)
	switch {
	case !v.known(node):
		return fmt.Sprintf("node %d is not a member", node)
	case silent > v.DeadAfter:
		return fmt.Sprintf("node %d is down, silent for %s", node, seconds(silent))
	case silent > SuspectAfter:
		return fmt.Sprintf("node %d is suspect, silent for %s", node, seconds(silent))
	case v.draining(node):
		return fmt.Sprintf("node %d is draining", node)
	case v.Reports.Node(node).DiskFull:
		return fmt.Sprintf("the disk of node %d is full", node)
	case v.Reports.Node(node).Unfit:
		return fmt.Sprintf("node %d is going down, or its disk is slow", node)
	}
	return ""
}

// region is the label of a node.
func (v *View) region(node kv.NodeID) string {
	n, _ := v.Map.Node(node)
	return n.Region
}

// seconds is a silence or a wait as people read it.
func seconds(d time.Duration) string { return d.Round(time.Second).String() }

// list writes node ids as people read them.
func list[T ~uint64](ids []T) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = fmt.Sprint(uint64(id))
	}
	switch n := len(texts); n {
	case 0:
		return "none"
	case 1:
		return texts[0]
	default:
		return strings.Join(texts[:n-1], ", ") + " and " + texts[n-1]
	}
}

func nodesOf(replicas []kv.Replica) []kv.NodeID {
	nodes := make([]kv.NodeID, len(replicas))
	for i, r := range replicas {
		nodes[i] = r.Node
	}
	return nodes
}

// sameNodes tells that two shards have their replicas on the same nodes.
func sameNodes(a, b *kv.Descriptor) bool {
	x, y := nodesOf(a.Replicas), nodesOf(b.Replicas)
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}
