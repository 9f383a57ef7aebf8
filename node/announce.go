package node

import (
	"context"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// announcePause is between two attempts to tell the meta group something.
const announcePause = 500 * time.Millisecond

// announce tells the meta group where this node is if the map says otherwise: who made the founding record knew only its
// own region, and a node may have been started with another address or region since.
func (n *Node) announce(ctx context.Context) {
	self, _ := n.meta.Load().shards.Node(n.self.Node)
	if self.Name != n.Name {
		n.Logger.Warn("this node keeps the name that it has in the map", "name", self.Name, "--name", n.Name)
	}
	if self.Address != n.Advertise {
		n.Logger.Info("this node has another address than before, and tells the others", "before", self.Address, "now", n.Advertise)
	}
	for attempt := 0; self.Region != n.Region || self.Address != n.Advertise; attempt++ {
		refused, done := n.announceTo(ctx, attempt, &kvdv1.MetaNode{StoreId: n.record.StoreId, Node: &kvdv1.Node{
			Node: uint64(self.ID), Name: self.Name, Address: n.Advertise, Region: n.Region,
		}})
		if refused != "" {
			n.Logger.Warn("the meta group refuses this node's address or region", "address", n.Advertise, "region", n.Region, "reason", refused)
		}
		if done {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(announcePause):
		}
	}
}

// announceTo makes one attempt: with the leader of the meta group, or with one of its replicas after the other.
func (n *Node) announceTo(ctx context.Context, attempt int, m *kvdv1.MetaNode) (refused string, done bool) {
	d := n.meta.Load().shards.Meta()
	to := n.Leader(d.Shard)
	if to == 0 {
		to = d.Replicas[attempt%len(d.Replicas)].Node
	}
	ctx, cancel := context.WithTimeout(ctx, attemptMax)
	defer cancel()
	resp, err := n.metaAttempt(ctx, d, &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_UpdateNode{UpdateNode: m}}, to)
	if err != nil {
		return "", false
	}
	if resp.GetStatus() == uint32(kv.Refused) {
		return resp.GetReason(), true
	}
	return "", true
}
