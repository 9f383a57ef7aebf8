package replica

import (
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kvdstore/kvd/kv"
)

// Work is what a turn has to do for a replica, in this order: publish what its read state has lost (T4), send Early,
// write Entries and Hard and wait for their sync together with all earlier writes of the group, send Held and deliver
// Local, and meanwhile apply.
type Work struct {
	// Entries and Hard go to the log store; Hard is nil when nothing of it needs a sync (T9).
	Entries []*raftpb.Entry
	Hard    *raftpb.HardState
	// Early are messages that may leave before the sync: a leader's appends, heartbeats and hand-overs.
	Early []*raftpb.Message
	// Snapshots are MsgSnap messages whose data is to be sent. SnapshotSent must be called for each.
	Snapshots []*raftpb.Message
	// Held leave, and Local are delivered, when all of the group's writes so far are durable (T3).
	Held, Local []*raftpb.Message
	// Snapshot was accepted and is to be installed: the replica does nothing until Install, after
	// which Held and Local follow.
	Snapshot *raftpb.Snapshot
	// Refused: the snapshot that was stepped is of no use to raft.
	Refused bool
}

// Ready gathers the work that raft has, at the turn's clock (time since the machine's boot). ok is false when there
// is none.
func (r *Replica) Ready(now time.Duration) (w Work, ok bool) {
	if r.Installing() {
		return Work{}, false
	}
	offered := r.stepped != nil
	r.stepped = nil
	r.ask(now)
	if !r.raw.HasReady() {
		w = Work{Refused: offered, Hard: r.commitToWrite()}
		return w, offered || w.Hard != nil
	}
	rd := r.raw.Ready()
	r.observe(rd)
	w = Work{Entries: rd.Entries}
	if hard := rd.HardState; hard != nil {
		r.commit = max(r.commit, hard.GetCommit())
	}
	w.Hard = r.hardToWrite(rd)
	for _, m := range rd.Messages {
		r.sort(m, &w)
	}
	for _, s := range rd.ReadStates {
		if mutantLeaseFromTheAnswer {
			r.lease.noted = now
		}
		r.lease.confirm(contextOf(s.RequestCtx), s.Index)
	}
	if !raft.IsEmptySnap(rd.Snapshot) {
		w.Snapshot = rd.Snapshot
		r.installing = &installing{snapshot: rd.Snapshot, vote: r.written.GetVote()}
		w.Entries, w.Hard = nil, nil
		return w, true
	}
	w.Refused = offered
	r.log.Append(rd.Entries)
	r.last = r.log.last
	r.place(rd.Entries)
	if r.leader {
		r.await(rd.Entries)
	}
	w.Early = r.thin(w.Early)
	return w, true
}

// sort puts a message of raft where it belongs.
func (r *Replica) sort(m *raftpb.Message, w *Work) {
	switch m.GetType() {
	case raftpb.MsgStorageAppend:
		for _, response := range m.GetResponses() {
			if mutantVoteBeforeSync && response.GetTo() != uint64(r.id) && response.GetType() == raftpb.MsgVoteResp {
				w.Early = append(w.Early, response)
			} else if response.GetTo() == uint64(r.id) {
				w.Local = append(w.Local, response)
			} else {
				w.Held = append(w.Held, response)
			}
		}
	case raftpb.MsgStorageApply:
		if len(r.applyAnswers) == 0 {
			r.handed = kv.Index(m.GetEntries()[0].GetIndex())
		}
		for _, e := range m.GetEntries() {
			r.add(e, r.urgent(e))
		}
		r.applyAnswers = append(r.applyAnswers, m.GetResponses()...)
	case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgTimeoutNow:
		w.Early = append(w.Early, m)
	case raftpb.MsgReadIndex:
		// Of one that does not lead any more: reads are not forwarded, and this one is failed.
	case raftpb.MsgSnap:
		w.Snapshots = append(w.Snapshots, m)
	case raftpb.MsgVote, raftpb.MsgPreVote:
		if mutantExemptionKept && r.stood {
			m.Context = []byte(campaignTransfer)
		}
		// The replica's own promise keeps it from an election too (L1).
		if r.alone || !r.promise.forbids(m) {
			w.Held = append(w.Held, m)
		}
	default:
		w.Held = append(w.Held, m)
	}
}

// hardToWrite gives the hard state to be written, or nil: a moved commit alone needs no sync, and every write of
// entries carries the newest one (T5, T9).
func (r *Replica) hardToWrite(rd raft.Ready) *raftpb.HardState {
	term, vote := r.written.GetTerm(), r.written.GetVote()
	if rd.HardState != nil {
		term, vote = rd.HardState.GetTerm(), rd.HardState.GetVote()
	}
	if term == r.written.GetTerm() && vote == r.written.GetVote() && len(rd.Entries) == 0 {
		return r.commitToWrite()
	}
	r.written = &raftpb.HardState{Term: &term, Vote: &vote, Commit: new(r.commit)}
	return r.written
}

// commitWanted reports that an entry waits to be applied until a hard state with its commit is durable, and none that has
// it was handed out (T5).
func (r *Replica) commitWanted() bool {
	return r.blocked && len(r.toApply) > 0 && r.written.GetCommit() < r.toApply[0].GetIndex()
}

// commitToWrite gives a hard state with the newest commit, if one is wanted.
func (r *Replica) commitToWrite() *raftpb.HardState {
	if !r.commitWanted() {
		return nil
	}
	r.written = &raftpb.HardState{Term: r.written.Term, Vote: r.written.Vote, Commit: new(r.commit)}
	return r.written
}

// observe takes note of a change of term or role.
func (r *Replica) observe(rd raft.Ready) {
	term, leader := r.term, r.leader
	if rd.HardState != nil {
		term = rd.HardState.GetTerm()
	}
	if rd.SoftState != nil {
		r.state = rd.SoftState.RaftState
		leader = r.state == raft.StateLeader
		r.lead = kv.ReplicaID(rd.SoftState.Lead)
	}
	if term == r.term && leader == r.leader {
		return
	}
	r.term, r.leader = term, leader
	r.lease.reset()
	r.transferring = 0
	clear(r.applied)
	clear(r.commitTold)
	r.awaitedAt = 0
	r.doubt()
	r.snapshotting = r.snapshotting && leader
	r.failReads(r.notLeader())
}

// installing is a snapshot that raft has accepted.
type installing struct {
	snapshot *raftpb.Snapshot
	vote     uint64
}

// Install ends the installation of a snapshot: the data is in the state store, durable, and machine is the new state.
// The owner resets the log store to the point and writes the hard state, and then sends and delivers what came with
// the snapshot. Proposals that it jumped over are unknown.
func (r *Replica) Install(machine Machine) (index kv.Index, term kv.Term, hard *raftpb.HardState, err error) {
	// Raft counts what it handed out to be applied until it hears of it, also when a snapshot jumps over it.
	answers := r.applyAnswers
	if err := r.Local(answers); err != nil {
		return 0, 0, nil, err
	}
	in := r.installing
	r.installing = nil
	meta := in.snapshot.GetMetadata()
	index, term = kv.Index(meta.GetIndex()), kv.Term(meta.GetTerm())
	r.machine = machine
	r.descriptor, r.conf = machine.Descriptor(), meta.GetConfState()
	r.follow()
	r.log.Reset(index, term)
	r.last = index
	r.commit = max(r.commit, uint64(index))
	r.written = &raftpb.HardState{Term: new(r.term), Vote: new(in.vote), Commit: new(r.commit)}
	r.doubt()
	r.giveUp()
	r.backlog, r.applyAnswers = backlog{}, nil
	return index, term, r.written, nil
}
