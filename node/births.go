package node

import (
	"fmt"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/replica"
	"github.com/kvdstore/kvd/storage"
)

// A split, as a node carries it out.
//
// When the parent's replica applies the entry its machine narrows and gives the state of the child, which goes into the
// same step of the state store (S2). When the step is visible the child is opened like any replica at a start: with its
// log at the birth point, or with what the log store already knows of it if a crash took the state store back to before
// the split (S3). No key is copied, and what the cache holds of the child's keys stays good (C4). On the node that leads
// the parent the child stands for election at once (S5); votes that come to other nodes before they have split are parked
// there until they have.
//
// A member that is sent a snapshot of the parent past the split never applies it, and the child's replica there is yet to
// come: from the child's leader, or if it has none from any replica (S7).

// birth is a child of the turn's step.
type birth struct {
	parent *group
	after  kv.Index // Which the parent had applied before the step.
	state  *kvdv1.ShardState
	heir   bool
}

// bear adds the child of a split to the step, unless the child is here already, or was here and is gone (S4).
func (c *Core) bear(parent *group, after kv.Index, st *kvdv1.ShardState, heir bool, batch storage.Batch) {
	d := wire.ToDescriptor(st.GetDescriptor_())
	here, ok := d.OnNode(c.Node)
	known := c.groups[d.Shard]
	switch {
	case !ok:
		c.fail(fmt.Errorf("shard %d was split, and no replica of the new shard %d is on this node", parent.shard, d.Shard))
	case known != nil && known.member.Replica == here.Replica:
	case known != nil || c.arrivals[d.Shard] != nil:
		c.fail(fmt.Errorf("shard %d was split, and another replica of the new shard %d is on this node", parent.shard, d.Shard))
	case c.tombstones[d.Shard] >= here.Replica && !mutantNoTombstone:
		batch.DeleteSpan(d.Span)
	default:
		st.Replica = uint64(here.Replica)
		batch.PutShard(d.Shard, st)
		c.births = append(c.births, birth{parent, after, st, heir})
	}
}

// born opens the children of the step, which is visible.
func (c *Core) born() {
	births := c.births
	c.births = nil
	for _, b := range births {
		g, err := c.openBorn(b)
		if err != nil {
			c.fail(err)
			return
		}
		c.addGroup(g)
		c.viewsChanged = true
		c.unpark(g)
		b.parent.children = append(b.parent.children, child{g, b.after})
	}
}

func (c *Core) openBorn(b birth) (*group, error) {
	shard := kv.ShardID(b.state.GetDescriptor_().GetShard())
	id := kv.Group{Shard: shard, Replica: kv.ReplicaID(b.state.Replica)}
	if mutantBirthOverwrites {
		c.fail(c.Log.Write([]storage.LogWrite{{Group: id, Remove: true}}, true))
	}
	log, reset, err := c.loadLog(id, b.state)
	if err != nil {
		return nil, err
	}
	if mutantChildWithoutHardState {
		reset = nil
	}
	g, err := c.open(shard, b.state, log)
	if err != nil {
		return nil, err
	}
	delete(c.orphans, id)
	if reset != nil {
		c.write(g, *reset)
	}
	state := *g.view.state.Load()
	state.incarnation = b.parent.view.state.Load().incarnation
	g.view.state.Store(&state)
	g.born = c.ticks
	if b.heir && reset != nil {
		return g, g.replica.Stand()
	}
	return g, nil
}

// parked is a message for a child that is not born here yet.
type parked struct {
	from    kv.NodeID
	life    kv.Life
	tick    uint64
	message *kvdv1.RaftMessage
}

// park keeps a vote for a shard that is not here: its parent may be about to split (S5).
func (c *Core) park(from kv.NodeID, m *kvdv1.RaftMessage) {
	if _, err := replica.Decode(m); err != nil {
		return // It may be as large as an envelope.
	}
	old := 0
	for old < len(c.parked) && c.ticks-c.parked[old].tick >= uint64(c.ElectionTicks) {
		old++
	}
	c.parked = c.parked[old:]
	if len(c.parked) < kv.ParkedMax {
		c.parked = append(c.parked, parked{from, c.lives[from], c.ticks, m})
	}
}

// unpark gives a new replica the votes that came before it.
func (c *Core) unpark(g *group) {
	var rest []parked
	for _, p := range c.parked {
		if kv.ShardID(p.message.GetShard()) != g.shard {
			rest = append(rest, p)
			continue
		}
		if p.life == c.lives[p.from] && kv.ReplicaID(p.message.GetTo()) == g.member.Replica {
			c.message(p.from, p.message)
		}
	}
	c.parked = rest
}

// child is a child whose parent keeps its log from the split on, so that others have the child by that.
type child struct {
	group *group
	after kv.Index // The parent's log is kept from here on.
}

// newborn reports whether a replica is as a split has made it, and knows of no leader: its group may have none, for want of
// members.
func (g *group) newborn() bool {
	applied, _ := g.machine.Applied()
	return !g.gone && applied == kv.BirthIndex && g.replica.Newborn()
}
