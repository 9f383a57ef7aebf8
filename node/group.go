package node

import (
	"time"

	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/replica"
	"github.com/kvdstore/kvd/shard"
	"github.com/kvdstore/kvd/storage"
)

// group is what the loop keeps of one replica.
type group struct {
	shard   kv.ShardID
	member  kv.Replica
	replica *replica.Replica
	machine shard.StateMachine
	view    *View
	dirty   bool

	// lastWrite is the newest log batch with something of the group; held waits for such batches, in their order.
	lastWrite uint64
	held      []held

	// Of this turn.
	commands []*kvdv1.Command
	waiters  []replica.Waiter
	bytes    int

	incoming *Received    // A snapshot that was stepped in this turn, or is being installed.
	outgoing *outgoing    // A snapshot that waits for its turn to be sent.
	supplied kv.ReplicaID // The last that was sent a snapshot without a leader (S7), and whether that is under way.
	supplies bool
	pinned   pins
	unsent   map[kv.ReplicaID]kv.Term // Who could not be sent a snapshot, and in which term that was told.

	marks    marks
	truncate truncation
	level    kv.Index // Up to which every member has the log, at the last tick.
	expiring bool     // An OpExpire is on its way.
	checking checking
	rates    rates
	offered  uint64 // Commands of clients, to choose those that are sampled.

	asleep bool
	used   totals        // At the last look, and when that was.
	usedAt time.Duration // In time since the machine's boot.

	born       uint64  // The tick in which a split made it here; 0 if it came otherwise.
	children   []child // By splits of it, newborn when last looked at.
	gone       bool    // Dropped: not in the loop any more.
	splitting  *splitting
	merging    int  // Ticks since this leader drives a merge.
	absorbed   bool // In the turn's step, by its left neighbour.
	reshaped   bool // The turn's step has changed the descriptor.
	suspicious bool // It may have been removed: to be asked.
	leaderless int  // Ticks without a leader that was heard.
	lost       bool // There were too many of them.
	askAgain   uint64
	told       told
}

// held is what waits for a log batch to be durable.
type held struct {
	batch    uint64
	messages []addressed
	local    []*raftpb.Message
	commit   kv.Index // Of the hard state that was written, 0 without one.
}

// addressed is a message and the node that it goes to.
type addressed struct {
	node    kv.NodeID
	message *kvdv1.RaftMessage
}

// outgoing is a snapshot that raft wants to be sent.
type outgoing struct {
	to      kv.Replica
	message *raftpb.Message
	unled   bool // It is not raft that wants it (S7).
}

// pins keep the log above the index of the last snapshot that each replica was sent, until it lacks no more of it than what is kept
// for any follower (D4): for what it lacked then it would be sent another, again and again.
type pins map[kv.ReplicaID]kv.Index

// truncation is a decided end of the log's beginning that waits until the state store is durable up to a cut (T6).
type truncation struct {
	index kv.Index // 0: none.
	term  kv.Term
	cut   storage.Cut
}

// marks tell how many bytes of payload a log has had up to some of its indexes, so that its end of a given size can be
// found. What was there before the start of the process does not count.
type marks struct {
	total uint64
	list  []mark
}

type mark struct {
	index kv.Index
	total uint64 // Of payload up to and with index.
}

// markBytes is the distance of two marks.
const markBytes = 256 << 10

// add takes note of entries that are appended, or replace the end.
func (m *marks) add(entries []*raftpb.Entry) {
	for len(m.list) > 0 && len(entries) > 0 && m.list[len(m.list)-1].index >= kv.Index(entries[0].GetIndex()) {
		m.list = m.list[:len(m.list)-1]
	}
	for _, e := range entries {
		m.total += uint64(len(e.GetData()))
		if n := len(m.list); n == 0 || m.total-m.list[n-1].total >= markBytes {
			m.list = append(m.list, mark{kv.Index(e.GetIndex()), m.total})
		}
	}
}

// cutFor is the lowest index that the log may be cut at so that at most about so many bytes are left; 0 when all of
// it fits.
func (m *marks) cutFor(bytes uint64) kv.Index {
	cut := kv.Index(0)
	for _, at := range m.list {
		if m.total-at.total < bytes {
			break
		}
		cut = at.index
	}
	return cut
}

// above is the size of what lies above an index, as far as it is known.
func (m *marks) above(index kv.Index) uint64 {
	for i := len(m.list) - 1; i >= 0; i-- {
		if m.list[i].index <= index {
			return m.total - m.list[i].total
		}
	}
	if len(m.list) == 0 {
		return 0
	}
	return m.total
}

// drop forgets the marks at or below index.
func (m *marks) drop(index kv.Index) {
	n := 0
	for n < len(m.list) && m.list[n].index <= index {
		n++
	}
	// One mark at or below stays: it is what above() counts from.
	if n > 1 {
		m.list = append(m.list[:0], m.list[n-1:]...)
	}
}

// leader is the node that leads, as far as is known here; 0 when it was not heard for long.
func (g *group) leader() kv.NodeID {
	if g.lost {
		return 0
	}
	return g.replica.Leader()
}

// publishLoss publishes at once what readers may no longer rely on (T4), before any message of the turn leaves.
func (g *group) publishLoss() {
	old := g.view.state.Load()
	term, leader := g.replica.Leading()
	if old.leader && (!leader || term != old.term) || g.replica.LeaseUntil() < old.leaseUntil || g.replica.Installing() && !old.installing {
		g.publish()
	}
}

// publish publishes the read state as it is.
func (g *group) publish() {
	old := g.view.state.Load()
	term, leader := g.replica.Leading()
	next := readState{
		descriptor: g.machine.Descriptor(), incarnation: old.incarnation, term: term, leader: leader, lead: g.leader(),
		leaseUntil: g.replica.LeaseUntil(), installing: g.replica.Installing() || g.absorbed || g.machine.Frozen() != nil,
	}
	if next == *old {
		return
	}
	g.view.state.Store(&next)
	if next.leader != old.leader || next.lead != old.lead || next.installing != old.installing || next.descriptor != old.descriptor {
		g.view.wake()
	}
}

// bytesHeld is the size of the keys and values of the replica.
func (g *group) bytesHeld() uint64 { return g.machine.Bytes() }
