package node

import (
	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/shard"
)

// tell says something of the conduct of the cluster to a node, which may be this one.
func (c *Core) tell(to kv.NodeID, m *kvdv1.RaftMessage) {
	c.more = true
	if to == c.Node {
		c.toSelf = append(c.toSelf, m)
		return
	}
	c.early = append(c.early, addressed{to, m})
}

// selfTold takes what this node has told itself.
func (c *Core) selfTold() {
	for len(c.toSelf) > 0 {
		list := c.toSelf
		c.toSelf = nil
		for _, m := range list {
			c.conducted(c.Node, m)
		}
	}
}

// conducted takes a message of the conduct of the cluster; it is false for one of raft's.
func (c *Core) conducted(from kv.NodeID, m *kvdv1.RaftMessage) bool {
	switch {
	case m.GetPresides() != 0:
		c.presided(from, kv.Term(m.GetPresides()))
	case m.GetReport() != nil:
		c.hear(from, m.GetReport())
	case m.GetOrder() != nil:
		c.obey(m.GetOrder())
	case m.GetQuestion() != nil:
		c.question(from, m.GetQuestion())
	case m.GetWord() != nil:
		c.word(m.GetWord())
	default:
		return false
	}
	return true
}

// obey follows an order for a shard that is led here, if it was computed from the shard's present epoch (M2). One that is
// lost or not followed is given again, as long as it makes sense.
func (c *Core) obey(o *kvdv1.Order) {
	g := c.groups[kv.ShardID(o.GetShard())]
	if g == nil || g.replica.Replaying() {
		return
	}
	if _, leader := g.replica.Leading(); !leader {
		return
	}
	if shard.HasUnknown(o.ProtoReflect()) {
		// In the log it would stop every replica of this version, at each start again.
		c.refuse(o, false, "it was given by a newer version than that of the shard's leader")
		return
	}
	if wire.ToEpoch(o.GetEpoch()) != g.machine.Descriptor().Epoch && o.GetUnfreeze() == nil {
		return
	}
	c.wake(g)
	c.mark(g)
	switch step := o.GetStep().(type) {
	case *kvdv1.Order_Conf:
		step.Conf.Epoch = o.GetEpoch()
		if err := g.replica.ProposeConf(step.Conf); err != nil {
			c.refuse(o, false, err.Error())
		}
	case *kvdv1.Order_Split:
		c.beginSplit(g, o, step.Split)
	case *kvdv1.Order_Merge:
		c.beginMerge(g, o, step.Merge)
	case *kvdv1.Order_Unfreeze:
		c.proposeShape(g, o.GetEpoch(), &kvdv1.Shape{Shape: &kvdv1.Shape_Unfreeze{Unfreeze: step.Unfreeze}}, nil)
	case *kvdv1.Order_Transfer:
		g.replica.HandOver(kv.NodeID(step.Transfer), nil)
	}
}
