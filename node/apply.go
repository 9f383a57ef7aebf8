package node

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
	"github.com/kvdstore/kvd/storage"
)

// toApply gives the groups that have something to apply: those that this node leads, and then the others, in turns.
func (c *Core) toApply(groups []*group) (led, followed []*group) {
	for _, g := range groups {
		if !g.replica.Applies() {
			continue
		}
		if _, leader := g.replica.Leading(); leader {
			led = append(led, g)
		} else {
			followed = append(followed, g)
		}
	}
	slices.SortFunc(followed, func(a, b *group) int { return cmp.Compare(a.shard-c.followed-1, b.shard-c.followed-1) })
	return led, followed
}

// apply applies what is committed, of many groups in one step of the state store.
func (c *Core) apply(groups []*group) {
	led, followed := c.toApply(groups)
	if len(led)+len(followed) == 0 {
		return
	}
	batch := c.State.NewBatch()
	for _, g := range led {
		c.step(g, batch, kv.ApplyBytesMax)
	}
	stepped := led
	for room := kv.FollowBytesMax; len(followed) > 0 && room > 0; followed = followed[1:] {
		g := followed[0]
		room -= c.step(g, batch, room)
		c.followed = g.shard
		stepped = append(stepped, g)
	}
	if c.failed {
		return
	}
	stepped = slices.DeleteFunc(stepped, func(g *group) bool { return g.absorbed })
	for _, ch := range c.changes {
		c.raised = append(c.raised, c.Guard.Raise(ch.Key))
	}
	cut, err := c.State.Commit(batch)
	if err != nil {
		c.fail(fmt.Errorf("write to the state store: %w", err))
		return
	}
	c.cut = cut
	for i, ch := range c.changes {
		// Only a leader answers from memory, so only it fills the memory.
		insert := ch.Record
		if _, leader := ch.group.replica.Leading(); !leader {
			insert = nil
		}
		c.Guard.Lower(c.raised[i], ch.group.view.state.Load().incarnation, ch.Key, insert)
	}
	clear(c.changes)
	c.changes, c.raised = c.changes[:0], c.raised[:0]
	for _, g := range stepped {
		c.stepped(g)
	}
	c.born()
	c.buryAbsorbed()
}

// step applies a part of what a group has committed, and gives how many bytes that was.
func (c *Core) step(g *group, batch storage.Batch, bytes int) int {
	if g.absorbed {
		return 0
	}
	before, replaying := g.machine.Descriptor(), g.replica.Replaying()
	after, _ := g.machine.Applied()
	g.machine.Begin(batch)
	used, err := g.replica.Apply(bytes)
	if err != nil {
		c.fail(err)
		return used
	}
	g.machine.Finish()
	g.wrote(kv.Revision(g.view.mayBeVisible.Load()))
	c.reshape(g, after, batch, replaying)
	g.reshaped = g.machine.Descriptor() != before
	g.view.mayBeVisible.Store(uint64(g.machine.Revision()))
	for _, changed := range g.machine.Changes() {
		c.changes = append(c.changes, change{g, changed})
	}
	return used
}

// reshape adds to the step, before which an index was applied, what a split or a merge of it does beside the shard itself.
func (c *Core) reshape(g *group, after kv.Index, batch storage.Batch, replaying bool) {
	if child := g.machine.Birth(); child != nil {
		_, heir := g.replica.Leading()
		if mutantStrangerElected {
			heir = kv.NodeID(child.GetDescriptor_().GetReplicas()[0].GetNode()) == c.Node
		}
		c.bear(g, after, child, heir && !replaying, batch)
	}
	if gone := g.machine.Absorbed(); gone != nil {
		c.absorb(g, gone, batch)
	}
}

// stepped follows up on a step that is visible.
func (c *Core) stepped(g *group) {
	g.view.time.Store(g.machine.Time())
	g.view.applied.Store(uint64(g.machine.Revision()))
	for _, request := range g.machine.Checksums() {
		c.checksum(g, request)
	}
	c.surveyed(g)
	c.advanceMerge(g)
	if m, ok := g.machine.(*raftmeta.Machine); ok && len(m.Events()) > 0 {
		c.Host.Happened(m.Events())
	}
	g.machine.Committed()
	if g.reshaped {
		g.reshaped = false
		c.reportShape(g)
	}
	c.unblock(g)
	if g.shard == kv.MetaShard {
		if meta := g.machine.State().GetMeta(); meta.GetVersion() > c.Meta.GetVersion() {
			c.takeMeta(meta)
			c.Host.MetaChanged(meta)
		}
	}
}
