package node

import (
	"errors"
	"fmt"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
	"github.com/kvdstore/kvd/storage"
)

// ErrDiverged stops the process: its data differs from that of the other replicas at the same index.
var ErrDiverged = errors.New("this node's copy of a shard differs from the majority's: its disk or memory has changed data; remove the data directory and add the node anew")

// ChecksumWork is a checksum to be computed.
type ChecksumWork struct {
	Shard kv.ShardID
	Span  kv.Span
	ID    uint64
	Index kv.Index
	View  storage.View
}

// Sum is a checksum of a replica's state at an index.
type Sum struct {
	Shard kv.ShardID
	ID    uint64 // Of the OpChecksum that asked.
	Index kv.Index
	Value uint64
	Err   error
}

// checking is what a group knows of the last checksum.
type checking struct {
	next  time.Duration           // When a leader asks again, in time since the machine's boot; 0: not decided.
	asked uint64                  // The ID of the last OpChecksum that was applied here.
	index kv.Index                // Where that was.
	own   bool                    // This replica's sum is known.
	sums  map[kv.ReplicaID]uint64 // As a leader hears them, some before its own is known.
	told  map[kv.ReplicaID]bool
}

// scheduleChecksum asks for a checksum when it is time. Shards take turns.
func (c *Core) scheduleChecksum(g *group) {
	if _, leader := g.replica.Leading(); !leader || g.shard == kv.MetaShard {
		g.checking.next = 0
		return
	}
	interval := c.settings.Duration(raftmeta.ChecksumInterval)
	switch {
	case g.checking.next == 0:
		g.checking.next = c.now.Boot + interval*time.Duration(uint64(g.shard)%16+1)/16
	case c.now.Boot >= g.checking.next:
		g.checking.next = c.now.Boot + interval
		c.checksumID++
		id := uint64(c.Node)<<48 | uint64(c.Life)<<24&(1<<48-1) | c.checksumID&(1<<24-1)
		c.own(g, &kv.Command{Op: kv.OpChecksum, ID: id}, nil)
	}
}

// checksum begins what an applied OpChecksum asks for: the state as it is visible now is that of the request's index.
func (c *Core) checksum(g *group, request kv.ChecksumRequest) {
	span := g.machine.Descriptor().Span
	view, err := c.State.View(g.shard, span)
	if err != nil {
		c.fail(fmt.Errorf("open a view: %w", err))
		return
	}
	g.checking.asked, g.checking.index, g.checking.own = request.ID, request.Index, false
	g.checking.sums, g.checking.told = map[kv.ReplicaID]uint64{}, map[kv.ReplicaID]bool{}
	c.Host.Checksum(&ChecksumWork{Shard: g.shard, Span: span, ID: request.ID, Index: request.Index, View: view})
}

// takeSum takes this replica's checksum, and tells the leader.
func (c *Core) takeSum(s Sum) {
	g := c.groups[s.Shard]
	if g == nil {
		return
	}
	if s.Err != nil {
		c.fail(fmt.Errorf("read shard %d for its checksum: %w", s.Shard, s.Err))
		return
	}
	if s.ID != g.checking.asked {
		return
	}
	g.checking.own = true
	if _, leader := g.replica.Leading(); leader {
		c.compare(g, g.member.Replica, s.Value)
		return
	}
	if lead, ok := g.machine.Descriptor().OnNode(g.replica.Leader()); ok {
		c.tellChecksum(g, lead, &kvdv1.Checksum{Id: s.ID, Index: uint64(s.Index), Sum: s.Value})
	}
}

func (c *Core) tellChecksum(g *group, to kv.Replica, sum *kvdv1.Checksum) {
	c.early = append(c.early, addressed{to.Node, &kvdv1.RaftMessage{
		Shard: uint64(g.shard), From: uint64(g.member.Replica), To: uint64(to.Replica), Checksum: sum,
	}})
}

// takeChecksum takes what another replica says of a checksum.
func (c *Core) takeChecksum(g *group, from kv.NodeID, m *kvdv1.RaftMessage) {
	sender, sum := kv.ReplicaID(m.GetFrom()), m.GetChecksum()
	if g.machine.Descriptor().NodeOf(sender) != from || kv.ReplicaID(m.GetTo()) != g.member.Replica {
		return
	}
	if sum.GetId() != g.checking.asked || g.checking.asked == 0 {
		return
	}
	if !sum.GetDiverged() {
		c.compare(g, sender, sum.GetSum())
		return
	}
	if g.checking.own && g.replica.Leader() == from {
		c.fail(fmt.Errorf("shard %d at index %d: %w", g.shard, g.checking.index, ErrDiverged))
	}
}

// compare counts a replica's checksum, and tells those that a majority contradicts.
func (c *Core) compare(g *group, of kv.ReplicaID, sum uint64) {
	if _, leader := g.replica.Leading(); !leader {
		return
	}
	g.checking.sums[of] = sum
	members := g.machine.Descriptor().Replicas
	for _, candidate := range members {
		value, known := g.checking.sums[candidate.Replica]
		agree := 0
		for _, other := range members {
			if v, ok := g.checking.sums[other.Replica]; ok && v == value {
				agree++
			}
		}
		if !known || 2*agree <= len(members) {
			continue
		}
		for _, other := range members {
			if v, ok := g.checking.sums[other.Replica]; ok && v != value && !g.checking.told[other.Replica] {
				g.checking.told[other.Replica] = true
				c.diverged(g, other)
			}
		}
	}
}

func (c *Core) diverged(g *group, r kv.Replica) {
	c.Logger.Error("a replica differs from the majority", "shard", g.shard, "node", r.Node, "index", g.checking.index)
	if r.Replica == g.member.Replica {
		c.fail(fmt.Errorf("shard %d at index %d: %w", g.shard, g.checking.index, ErrDiverged))
		return
	}
	c.tellChecksum(g, r, &kvdv1.Checksum{Id: g.checking.asked, Index: uint64(g.checking.index), Diverged: true})
}
