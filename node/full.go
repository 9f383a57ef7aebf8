package node

import (
	"slices"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/shard"
)

// A node whose disk is nearly full takes no new entries with commands, and says so in each of its messages. While a majority
// of a shard's voters has room its writes go on: a leader without room hands the leadership to one that has some, and
// nobody hands it back before there is room again. Without such a majority writes are refused by whoever leads: they
// could not be committed, and their callers would wait for an answer that does not come.

// fullNodes are the other nodes whose disk is nearly full, as they said last.
type fullNodes map[kv.NodeID]bool

func (f fullNodes) set(node kv.NodeID, full bool) {
	if full {
		f[node] = true
	} else {
		delete(f, node)
	}
}

// withoutRoom counts the voters of a group whose nodes take no entries, and names one of the others among them.
func (c *Core) withoutRoom(g *group) (voters, full int, one kv.NodeID) {
	for _, member := range g.machine.Descriptor().Replicas {
		if member.Learner {
			continue
		}
		voters++
		switch {
		case c.full[member.Node]:
			full, one = full+1, member.Node
		case member.Node == c.Node && c.disk.Full:
			full++
		}
	}
	return voters, full, one
}

// roomFor refuses a group's writes while too many disks are full.
func (c *Core) roomFor(g *group) error {
	if c.disk.Full {
		return &kv.DiskFullError{Node: c.Node, FreeBytes: c.disk.FreeBytes, NeedBytes: c.disk.NeedBytes}
	}
	if len(c.full) == 0 {
		return nil
	}
	if voters, full, one := c.withoutRoom(g); full > (voters-1)/2 {
		return &kv.DiskFullError{Node: one}
	}
	return nil
}

// othersFull reports that a group led here has too little room for its writes whatever this node has.
func (c *Core) othersFull(g *group) bool {
	voters, full, _ := c.withoutRoom(g)
	if c.disk.Full {
		full--
	}
	return full > (voters-1)/2
}

func (c *Core) takeDisk(d Disk) {
	if d.Full && !c.disk.Full {
		c.fullSince = c.ticks
	}
	c.disk = d
}

// leaveFullDisk hands the leaderships to nodes that have room, where a majority has. It waits for an election timeout, to
// have heard of the others: disks of one size are full at one time.
func (c *Core) leaveFullDisk() {
	if !c.disk.Full || c.ticks-c.fullSince < uint64(c.ElectionTicks) {
		return
	}
	for _, g := range c.order {
		if voters, full, _ := c.withoutRoom(g); full <= (voters-1)/2 && g.replica.HandOver(0, c.full) {
			c.mark(g)
		}
	}
}

// handOver gives a group's leadership away, to a node with room if there is one.
func (c *Core) handOver(g *group) {
	if g.asleep && g.leads() {
		c.wake(g) // Who is active shows only now.
	}
	if g.replica.HandOver(0, c.full) || g.replica.HandOver(0, nil) {
		c.mark(g)
	}
}

// cutToRoom leaves of an append the entries at its beginning for which there is a place on a full disk; with false that
// are none of them.
func (c *Core) cutToRoom(m *kvdv1.RaftMessage) bool {
	n := slices.IndexFunc(m.Entries, func(e *kvdv1.RaftEntry) bool { return !c.hasPlace(e, m.GetTerm()) })
	if n > 0 {
		m.Entries = m.Entries[:n]
	}
	return n != 0
}

// hasPlace reports whether a full disk takes an entry of the leader of a term. That of a new leader, without commands, has
// a place on any disk: no read is answered before a majority has it (L4). So has what stands before it in the new leader's
// log, left by earlier ones, and a shard's time, before which what fell due can neither be shown nor denied (R5): both while
// half of the reserve is left.
func (c *Core) hasPlace(e *kvdv1.RaftEntry, term uint64) bool {
	if len(e.GetData()) == 0 {
		return true
	}
	return c.disk.FreeBytes >= c.disk.NeedBytes/2 && (e.GetTerm() < term || onlyTime(e.GetData()))
}

// timeBytesMax is more than an entry takes that moves a shard's time and does nothing else.
const timeBytesMax = 128

func onlyTime(payload []byte) bool {
	if len(payload) > timeBytesMax {
		return false
	}
	b, err := shard.Decode(payload)
	return err == nil && !slices.ContainsFunc(b.GetCommands(), func(c *kvdv1.Command) bool {
		return kv.Op(c.GetOp()) != kv.OpExpire || len(c.GetDue()) > 0
	})
}
