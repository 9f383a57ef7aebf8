package replica

import "go.etcd.io/raft/v3/raftpb"

// campaignTransfer is the context by which raft marks the votes of a hand-over.
const campaignTransfer = "CampaignTransfer"

// promise is a replica's word not to help elect another leader for one election timeout (L1). A leader's lease
// stands on the promises of a majority.
//
// It is kept here and not left to raft: raft forgets whom it follows when a rejected pre-vote raises its term,
// and then votes at once. It counts ticks, and a turn steps at most one (T1), so it never runs shorter than the
// lease that it answers for.
//
// A group whose only voter is this replica makes no promise (L2): its election takes nobody's lease away.
type promise struct {
	election int // Ticks of an election timeout.
	left     int // Ticks until the promise ends; 0 when none was given.
}

// give starts the promise anew: at process start, at a child's birth, and whenever a heartbeat, an append or a
// snapshot of the replica's current term was accepted.
func (p *promise) give() { p.left = p.election }

// tick lets one tick pass.
func (p *promise) tick() { p.left = max(p.left-1, 0) }

// heard takes note of a message that raft has just stepped, at the replica's term before the step.
func (p *promise) heard(m *raftpb.Message, term uint64) {
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap:
		if m.GetTerm() >= term {
			p.give()
		}
	}
}

// forbids reports whether the promise keeps a message from being stepped, or from leaving: any vote or pre-vote
// while it runs, unless the leader itself has handed over.
func (p *promise) forbids(m *raftpb.Message) bool {
	switch m.GetType() {
	case raftpb.MsgVote, raftpb.MsgPreVote:
		return p.left > 0 && !mutantPromiseLeftToRaft && string(m.GetContext()) != campaignTransfer
	}
	return false
}
