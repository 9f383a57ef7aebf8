package replica

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// Machine is the state machine that a replica applies entries to.
type Machine interface {
	// Apply applies the next entry; b is nil for one without commands. There is one result a command.
	Apply(index kv.Index, term kv.Term, b *kvdv1.Batch) ([]kv.Result, error)
	// ApplyConf applies the next entry, a configuration change. If the machine admits it, apply has raft carry it out and
	// gives the outcome; a refused one raft must not hear of.
	ApplyConf(index kv.Index, term kv.Term, change *kvdv1.ConfChange, apply func() *raftpb.ConfState) (kv.Result, error)
	// Ends reports that the step must end here: it asks for a checksum, or has changed the shape of the shard.
	Ends() bool
	// Applied is the position of the last entry applied.
	Applied() (kv.Index, kv.Term)
	// Descriptor is the group's as applied, shared and read-only.
	Descriptor() *kv.Descriptor
}

// Codec encodes the payload of an entry.
type Codec interface {
	EncodeBatch(b *kvdv1.Batch) ([]byte, error)
	DecodeBatch(payload []byte) (*kvdv1.Batch, error)
	// ShareBatch is DecodeBatch, and the batch may use the payload's memory: nothing of it is kept when it is applied.
	ShareBatch(payload []byte) (*kvdv1.Batch, error)
	// Shapes reports whether a payload holds a change of the shape, without decoding the rest; also of one that cannot be decoded.
	Shapes(payload []byte) bool
}

// Config is what a Replica is made of.
type Config struct {
	Node kv.NodeID
	Life kv.Life
	// Incarnation is that of the replica here, of which none comes again in this life: a replica that was removed and one
	// of the same shard that comes later do not number their proposals alike.
	Incarnation kv.Incarnation
	Replica     kv.ReplicaID
	Descriptor  *kv.Descriptor
	Conf        *raftpb.ConfState
	Machine     Machine
	Codec       Codec
	Store       Store

	// What the log store holds of the group, after the rules of a start (D2).
	Hard          *raftpb.HardState
	Truncated     kv.Index
	TruncatedTerm kv.Term
	Last          kv.Index

	// Tick is the time between two ticks; the others are in ticks.
	Tick           time.Duration
	ElectionTicks  int
	HeartbeatTicks int

	// Holds, if set, reports that an entry with a command that changes the shape must not be applied yet.
	Holds func(b *kvdv1.Batch) bool

	Logger raft.Logger
}

// retryTicks is after how many ticks a ReadIndex without an answer is asked again under a fresh context.
const retryTicks = 4

// Replica is one member of one group.
type Replica struct {
	shard      kv.ShardID
	id         kv.ReplicaID
	node       kv.NodeID
	life       kv.Life
	descriptor *kv.Descriptor
	strangers  map[kv.ReplicaID]kv.NodeID // Replicas that the descriptor does not have yet, by their nodes.
	conf       *raftpb.ConfState
	machine    Machine
	holds      func(b *kvdv1.Batch) bool
	codec      Codec
	log        *Log
	raw        *raft.RawNode
	election   int

	promise promise
	alone   bool // The only voter (L2).
	stood   bool // Set by a mutant alone: it was an heir.
	lease   lease

	term   uint64
	leader bool
	state  raft.StateType
	last   kv.Index     // Of the log, or lower when a message stepped since the last Ready replaces its end.
	lead   kv.ReplicaID // 0: unknown.

	// written is the hard state that was last handed out to be written; commit is the newest known.
	written *raftpb.HardState
	commit  uint64
	// synced is the newest commit of a hard state that is durable; blocked tells that an entry waits for it to rise (T5),
	// or is held.
	synced  uint64
	blocked bool
	// told is the level of the log as the leader has told it.
	told uint64
	// commits are what was known to be committed at each of the last ticks, the oldest first.
	commits [levelTicks]uint64
	// replay is the commit of the start: until it is applied, the replica takes no part in elections (T5).
	replay kv.Index

	seq       uint64
	proposals []*proposed // Of this leadership, in the order of their indexes.
	doubtful  []*proposed // Of ended ones.
	doubted   int         // Ticks since the last of those ended.

	waiting []Waiter // For the next ReadIndex.
	asked   []Waiter // For the one under way.
	askedAt int      // Ticks since it was asked.

	backlog
	// applyAnswers tell raft that all is applied that it has handed out, from the entry handed on.
	applyAnswers []*raftpb.Message
	handed       kv.Index

	transferring int // Ticks left of a hand-over under way.
	sinceHanding int // Ticks since the last hand-over began.
	// applied is how far the others have applied, by what they said last.
	applied map[uint64]uint64
	// commitTold is what the others were told of the commit, and awaitedAt the last entry of this leadership that they are waited for
	// to apply (thin).
	commitTold   map[uint64]commitTold
	awaitedAt    uint64
	snapshotting bool
	stepped      *raftpb.Snapshot // Stepped in this turn and not judged yet.
	installing   *installing

	answers []Answer
}

// New makes a replica from what the stores hold of it. It makes its promise (L1).
func New(c Config) (*Replica, error) {
	applied, _ := c.Machine.Applied()
	r := &Replica{
		shard: c.Descriptor.Shard, id: c.Replica, node: c.Node, life: c.Life, descriptor: c.Descriptor, conf: c.Conf,
		machine: c.Machine, codec: c.Codec, election: c.ElectionTicks, seq: uint64(c.Incarnation) << 32,
		promise: promise{election: c.ElectionTicks}, lease: newLease(c.ElectionTicks, c.Tick),
		alone: alone(c.Conf, c.Replica), strangers: map[kv.ReplicaID]kv.NodeID{}, holds: c.Holds, synced: c.Hard.GetCommit(),
		sinceHanding: c.ElectionTicks, applied: map[uint64]uint64{}, commitTold: map[uint64]commitTold{},
	}
	hard := &raftpb.HardState{
		Term: new(max(c.Hard.GetTerm(), uint64(c.TruncatedTerm))), Vote: new(c.Hard.GetVote()),
		Commit: new(max(c.Hard.GetCommit(), uint64(applied), uint64(c.Truncated))),
	}
	if hard.GetTerm() != c.Hard.GetTerm() {
		hard.Vote = new(uint64(0))
	}
	if kv.Index(hard.GetCommit()) > c.Last || applied < c.Truncated {
		return nil, fmt.Errorf("%v: the log holds (%d, %d], but %d is committed and %d applied",
			r.Group(), c.Truncated, c.Last, hard.GetCommit(), applied)
	}
	r.term, r.commit, r.replay = hard.GetTerm(), hard.GetCommit(), kv.Index(hard.GetCommit())
	r.written, r.last = hard, c.Last
	for i := range r.commits {
		r.commits[i] = r.commit
	}
	r.log = NewLog(LogStart{
		Group: r.Group(), Store: c.Store, Hard: hard, Conf: c.Conf, Truncated: c.Truncated, TruncatedTerm: c.TruncatedTerm,
		Last: c.Last, Snapshot: r.describe,
	})
	raw, err := raft.NewRawNode(&raft.Config{
		ID: uint64(r.id), ElectionTick: c.ElectionTicks, HeartbeatTick: c.HeartbeatTicks, Storage: r.log, Applied: uint64(applied),
		AsyncStorageWrites: true, MaxSizePerMsg: kv.AppendBytesMax, MaxCommittedSizePerReady: kv.ApplyBytesMax,
		MaxUncommittedEntriesSize: kv.UncommittedBytesMax, MaxInflightMsgs: kv.InflightMessagesMax,
		MaxInflightBytes: kv.InflightBytesMax, CheckQuorum: true, PreVote: true, ReadOnlyOption: raft.ReadOnlySafe,
		DisableProposalForwarding: true, StepDownOnRemoval: true, Logger: c.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("%v: %w", r.Group(), err)
	}
	r.raw = raw
	r.promise.give()
	return r, nil
}

// Group names the replica's place in a store.
func (r *Replica) Group() kv.Group { return kv.Group{Shard: r.shard, Replica: r.id} }

// Leading reports whether the replica leads, and in which term.
func (r *Replica) Leading() (kv.Term, bool) { return kv.Term(r.term), r.leader }

// Leader is the node that leads, as far as the replica knows; 0 when unknown.
func (r *Replica) Leader() kv.NodeID { return r.NodeOf(r.lead) }

// LeaseUntil is the end of the lease in time since the machine's boot; 0 when there is none.
func (r *Replica) LeaseUntil() time.Duration { return r.lease.until }

// Committed is the newest commit that the replica knows of.
func (r *Replica) Committed() kv.Index { return kv.Index(r.commit) }

// Log is the replica's log, to be read.
func (r *Replica) Log() *Log { return r.log }

// Heard reports that the replica leads, or has heard of a leader in the last election timeout. Whom raft follows tells less:
// a learner that was removed follows its last leader for ever.
func (r *Replica) Heard() bool { return r.leader || r.promise.left > 0 }

// Replaying reports that the replica has not applied again what was committed at its start (T5).
func (r *Replica) Replaying() bool { applied, _ := r.machine.Applied(); return applied < r.replay }

// Newborn reports that the group has done nothing yet, as far as the replica knows, and that it knows of no leader.
func (r *Replica) Newborn() bool {
	return r.lead == 0 && r.commit <= uint64(kv.BirthIndex) && !r.Installing()
}

// Installing reports that a snapshot is being installed: the replica does nothing meanwhile.
func (r *Replica) Installing() bool { return r.installing != nil }

// Pending is how many proposals and reads have no answer yet.
func (r *Replica) Pending() int {
	return len(r.proposals) + len(r.doubtful) + len(r.waiting) + len(r.asked)
}

// notLeader is the error of who asks a replica that does not lead.
func (r *Replica) notLeader() error {
	e := &kv.NotLeaderError{Shard: r.shard}
	if !r.leader {
		e.Leader = r.Leader()
	}
	return e
}

// Tick lets one tick pass. The owner steps at most one a turn, before any message (T1).
func (r *Replica) Tick() {
	r.promise.tick()
	r.sinceHanding++
	r.askedAt++
	r.transferring = max(r.transferring-1, 0)
	r.due = true
	copy(r.commits[:], r.commits[1:])
	r.commits[levelTicks-1] = r.commit
	r.age()
	if r.Installing() || r.Replaying() {
		return
	}
	if r.alone && r.state == raft.StateFollower {
		// Nobody else holds a promise, so a lone voter stands for election at once (L2).
		_ = r.raw.Campaign()
		return
	}
	r.raw.Tick()
}

// Step takes a message from the replica on another node. An error tells of one that no replica sends; nothing has
// changed then.
func (r *Replica) Step(from kv.NodeID, w *kvdv1.RaftMessage) error {
	m, err := Decode(w)
	if err != nil {
		return err
	}
	if err := r.check(from, m); err != nil {
		return err
	}
	if IsAnswer(m.GetType()) {
		r.applied[m.GetFrom()] = w.GetApplied()
	}
	if r.Installing() || r.stepped != nil || r.withheld(m) {
		return nil
	}
	if kind := m.GetType(); (kind == raftpb.MsgApp || kind == raftpb.MsgHeartbeat) && m.GetTerm() >= r.term {
		r.told = w.GetLevel()
	}
	return r.step(m)
}

// termLeapMax is how far above the replica's term one message may be: no replica is in as many elections behind the
// others' back, and whoever goes to the end of all terms leaves a group that can hold no election any more.
const termLeapMax = 1 << 32

// indexLeapMax is the same of the index of a snapshot and the last of the log.
const indexLeapMax = 1 << 48

// check refuses what would not come from a member of the group, or does not fit the log: raft trusts its caller.
func (r *Replica) check(from kv.NodeID, m *raftpb.Message) error {
	switch {
	case m.GetTo() != uint64(r.id):
		return &kv.InvalidError{Field: "to", Bound: fmt.Sprintf("replica %d of shard %d", r.id, r.shard)}
	case from == 0 || r.NodeOf(kv.ReplicaID(m.GetFrom())) != from && !r.meet(kv.ReplicaID(m.GetFrom()), from):
		return &kv.InvalidError{Field: "from", Bound: fmt.Sprintf("a replica of shard %d on node %d", r.shard, from)}
	}
	if m.GetTerm() > r.term && m.GetTerm()-r.term > termLeapMax {
		return &kv.InvalidError{Field: "term", Bound: fmt.Sprintf("at most %d above term %d", uint64(termLeapMax), r.term)}
	}
	last := uint64(r.last)
	switch m.GetType() {
	case raftpb.MsgHeartbeat:
		if m.GetCommit() > last {
			return &kv.InvalidError{Field: "commit", Bound: fmt.Sprintf("at most the last index %d", last)}
		}
	case raftpb.MsgAppResp:
		if m.GetIndex() > last {
			return &kv.InvalidError{Field: "index", Bound: fmt.Sprintf("at most the last index %d", last)}
		}
	}
	return nil
}

// withheld reports that a message must not be stepped now: a vote against the promise (L1), or anything of an
// election or a snapshot before the replica has applied again what was committed at its start (T5).
func (r *Replica) withheld(m *raftpb.Message) bool {
	switch m.GetType() {
	case raftpb.MsgVote, raftpb.MsgPreVote:
		return r.Replaying() || !r.alone && r.promise.forbids(m)
	case raftpb.MsgVoteResp, raftpb.MsgPreVoteResp, raftpb.MsgTimeoutNow, raftpb.MsgSnap:
		return r.Replaying()
	}
	return false
}

func (r *Replica) step(m *raftpb.Message) error {
	// The term of the last Ready may be below raft's: then the promise is given for a message that raft ignores, which
	// costs time and breaks nothing.
	term := r.term
	if m.GetType() == raftpb.MsgApp {
		r.noteConflict(m)
	}
	if err := r.raw.Step(m); err != nil && !errors.Is(err, raft.ErrStepPeerNotFound) && !errors.Is(err, raft.ErrProposalDropped) {
		return fmt.Errorf("%v: %v from %d: %w", r.Group(), m.GetType(), m.GetFrom(), err)
	}
	r.promise.heard(m, term)
	return nil
}

// noteConflict lowers the known last index if an append is to replace the end of the log.
func (r *Replica) noteConflict(m *raftpb.Message) {
	for _, e := range m.GetEntries() {
		if kv.Index(e.GetIndex()) > r.last {
			return
		}
		if term, err := r.log.Term(e.GetIndex()); err == nil && term != e.GetTerm() {
			r.last = min(r.last, kv.Index(m.GetIndex())+kv.Index(len(m.GetEntries())))
			return
		}
	}
}

// StepSnapshot offers raft a snapshot that this node has received. If it was stepped, the next Ready tells in
// Work.Snapshot or Work.Refused whether raft takes it.
func (r *Replica) StepSnapshot(from kv.NodeID, m *raftpb.Message) (stepped bool, err error) {
	if err := r.check(from, m); err != nil {
		return false, err
	}
	meta := m.GetSnapshot().GetMetadata()
	switch {
	case m.GetType() != raftpb.MsgSnap || meta.GetIndex() == 0 || meta.GetTerm() == 0 || meta.GetTerm() > m.GetTerm():
		return false, &kv.InvalidError{Field: "snapshot", Bound: "a point of a log, of at most the message's term"}
	case kv.Index(meta.GetIndex()) > r.last && kv.Index(meta.GetIndex())-r.last > indexLeapMax:
		return false, &kv.InvalidError{Field: "snapshot", Bound: fmt.Sprintf("of an index at most %d above the last, %d", uint64(indexLeapMax), r.last)}
	case !ConfFits(meta.GetConfState()):
		return false, &kv.InvalidError{Field: "snapshot", Bound: "of a configuration that raft can be in"}
	case !slices.Contains(meta.GetConfState().GetVoters(), uint64(r.id)) && !slices.Contains(meta.GetConfState().GetLearners(), uint64(r.id)):
		return false, &kv.InvalidError{Field: "snapshot", Bound: fmt.Sprintf("of a configuration with replica %d", r.id)}
	}
	if r.Installing() || r.stepped != nil || r.withheld(m) {
		return false, nil
	}
	if err := r.step(m); err != nil {
		return false, err
	}
	r.stepped = m.GetSnapshot()
	return true, nil
}

// ConfFits reports whether raft can be in a configuration: it takes one that a snapshot brings on trust.
func ConfFits(c *raftpb.ConfState) bool {
	seen := map[uint64]bool{0: true}
	once := func(ids []uint64) bool {
		for _, id := range ids {
			if seen[id] {
				return false
			}
			seen[id] = true
		}
		return true
	}
	if len(c.GetVoters()) == 0 || !once(c.GetVoters()) || !once(c.GetLearners()) {
		return false
	}
	// While it is joint: who votes now may have voted before, who learned did not, and who learns next did.
	outgoing := map[uint64]bool{}
	for _, id := range c.GetVotersOutgoing() {
		if id == 0 || outgoing[id] || slices.Contains(c.GetLearners(), id) {
			return false
		}
		outgoing[id] = true
	}
	for _, id := range c.GetLearnersNext() {
		if !outgoing[id] {
			return false
		}
	}
	return once(c.GetLearnersNext()) && (len(outgoing) > 0 || !c.GetAutoLeave())
}

// Local delivers what a durable write answers to raft itself.
func (r *Replica) Local(messages []*raftpb.Message) error {
	for _, m := range messages {
		if err := r.raw.Step(m); err != nil && !errors.Is(err, raft.ErrStepPeerNotFound) {
			return fmt.Errorf("%v: %v: %w", r.Group(), m.GetType(), err)
		}
	}
	return nil
}

// Unreachable tells raft that messages to a replica were lost.
func (r *Replica) Unreachable(node kv.NodeID) {
	if member, ok := r.descriptor.OnNode(node); ok && r.leader {
		r.raw.ReportUnreachable(uint64(member.Replica))
	}
}

// SnapshotSent tells raft how the sending of a snapshot ended. Every MsgSnap of a Work must be told of, else the
// follower stays stuck.
func (r *Replica) SnapshotSent(to kv.ReplicaID, ok bool) {
	r.snapshotting = false
	status := raft.SnapshotFinish
	if !ok {
		status = raft.SnapshotFailure
	}
	r.raw.ReportSnapshot(uint64(to), status)
}

// describe is raft's question for a snapshot. One is sent at a time. What is sent is read later, and its index
// replaces the one given here.
func (r *Replica) describe() (*raftpb.Snapshot, error) {
	if r.snapshotting {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	r.snapshotting = true
	index, term := r.machine.Applied()
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		Index: new(uint64(index)), Term: new(uint64(term)), ConfState: r.conf,
	}}, nil
}

// A voter that is handed the leadership may be behind by so many entries, or by what was committed in the last ticks: in a
// second of load each turn makes an entry, and far away all that is known of a voter is old.
const (
	levelEntries = 16
	levelTicks   = 5
)

// HandOver asks a voter that is active to take the leadership over (L5), at most once an election timeout: the voter
// on `to`, if it has nearly all of the log and has applied it, or with 0 the one that is furthest, on a node that is not
// in except: whoever leads next answers nothing before it has applied everything. It reports whether the hand-over has
// begun. From here on the lease is gone, which must be published before the next message leaves (T4).
func (r *Replica) HandOver(to kv.NodeID, except map[kv.NodeID]bool) bool {
	if !r.leader || r.sinceHanding < r.election || r.transferring > 0 {
		return false
	}
	best, furthest := uint64(0), uint64(0)
	level := min(max(uint64(r.last), levelEntries)-levelEntries, r.commits[0])
	for _, member := range r.descriptor.Replicas {
		if member.Replica == r.id || member.Learner || member.Outgoing || to != 0 && member.Node != to || except[member.Node] {
			continue
		}
		p, active := r.progress(uint64(member.Replica))
		p = min(p, r.applied[uint64(member.Replica)])
		if active && (to == 0 || p >= level) && (best == 0 || p > furthest) {
			best, furthest = uint64(member.Replica), p
		}
	}
	if best == 0 {
		return false
	}
	r.sinceHanding, r.transferring = 0, r.election
	r.lease.handOver()
	r.raw.TransferLeader(best)
	return true
}

// progress tells how far a follower has the log, and whether it was heard of lately.
func (r *Replica) progress(id uint64) (match uint64, active bool) {
	r.raw.WithProgress(func(of uint64, _ raft.ProgressType, p tracker.Progress) {
		if of == id {
			match, active = p.Match, p.RecentActive
		}
	})
	return match, active
}

// Wanted is the index up to which every active follower has the log; a leader keeps what is above it in memory.
func (r *Replica) Wanted() kv.Index {
	wanted := kv.Index(r.commit)
	if r.leader {
		r.raw.WithProgress(func(_ uint64, _ raft.ProgressType, p tracker.Progress) {
			if p.RecentActive {
				wanted = min(wanted, kv.Index(p.Match))
			}
		})
	}
	return wanted
}

// Level is the index up to which every member has the log, also those that were not heard of lately; 0 if that is not known.
// Nobody is ever sent what is at or below it: who comes later comes by a snapshot. A leader knows it, others what it has told.
func (r *Replica) Level() kv.Index {
	if !r.leader {
		return kv.Index(r.told)
	}
	level := r.commit
	r.raw.WithProgress(func(_ uint64, _ raft.ProgressType, p tracker.Progress) { level = min(level, p.Match) })
	return kv.Index(level)
}

// Digested is the index up to which raft knows that the log is applied, which is below what is while a part of what it handed out is
// left. Before it stands for election it reads all that is above.
func (r *Replica) Digested() kv.Index {
	if len(r.applyAnswers) > 0 {
		return r.handed - 1
	}
	applied, _ := r.machine.Applied()
	return applied
}

// Match tells how far the replica on a node has the log, as far as this leader knows.
func (r *Replica) Match(id kv.ReplicaID) kv.Index {
	match, _ := r.progress(uint64(id))
	return kv.Index(match)
}

// Check reports a broken invariant.
func (r *Replica) Check() error {
	applied, _ := r.machine.Applied()
	switch {
	case applied > kv.Index(r.commit):
		return fmt.Errorf("%v: applied %d is above committed %d", r.Group(), applied, r.commit)
	case r.Digested() < r.log.truncated:
		return fmt.Errorf("%v: raft knows of applied %d, below truncated %d", r.Group(), r.Digested(), r.log.truncated)
	case kv.Index(r.commit) > r.log.last && r.installing == nil:
		return fmt.Errorf("%v: committed %d is above the last entry %d", r.Group(), r.commit, r.log.last)
	case r.lease.until > 0 && !r.leader:
		return fmt.Errorf("%v: a lease without the lead", r.Group())
	}
	for i, p := range r.proposals {
		if i > 0 && p.index != 0 && p.index <= r.proposals[i-1].index {
			return fmt.Errorf("%v: proposals are out of order", r.Group())
		}
	}
	return nil
}

// Behind tells how many entries of the committed log a member lacks, as far as this leader knows, and whether it was heard
// of in the last election timeout: raft takes a new member for active, but one that has confirmed nothing yet may not even be
// there. The leader itself lacks nothing.
func (r *Replica) Behind(id kv.ReplicaID) (entries uint64, active bool) {
	if id == r.id {
		return 0, true
	}
	match, active := r.progress(uint64(id))
	return max(r.commit, match) - match, active && match > 0
}

// AllApplied reports that every member has applied up to an index, as far as this leader knows.
func (r *Replica) AllApplied(index kv.Index) bool {
	own, _ := r.machine.Applied()
	for _, member := range r.descriptor.Replicas {
		applied := uint64(own)
		if member.Replica != r.id {
			applied = r.applied[uint64(member.Replica)]
		}
		if applied < uint64(index) {
			return false
		}
	}
	return r.leader
}

// Shaping reports that a command that changes the shape is on its way.
func (r *Replica) Shaping() bool {
	return slices.ContainsFunc(r.proposals, func(p *proposed) bool { return p.shape })
}

// Blocked reports that the next committed entry may not be applied yet.
func (r *Replica) Blocked() bool { return r.blocked }
