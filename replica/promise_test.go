package replica

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

func message(kind raftpb.MessageType, term uint64, context string) *raftpb.Message {
	return &raftpb.Message{Type: kind.Enum(), Term: &term, Context: []byte(context)}
}

// TestPromiseRunsOneElectionTimeout: whatever raises the term in between, no vote is stepped before
// the promise has run out, and any vote after it.
func TestPromiseRunsOneElectionTimeout(t *testing.T) {
	const election = 10
	for _, accepted := range []raftpb.MessageType{raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap} {
		p := promise{election: election}
		p.heard(message(accepted, 4, ""), 4)
		p.heard(message(raftpb.MsgPreVoteResp, 9, ""), 4) // A rejection that raises raft's term.
		for tick := range election {
			for _, vote := range []raftpb.MessageType{raftpb.MsgVote, raftpb.MsgPreVote} {
				if !p.forbids(message(vote, 99, "")) {
					t.Fatalf("a vote passed %d ticks after %v", tick, accepted)
				}
			}
			p.tick()
		}
		if p.forbids(message(raftpb.MsgVote, 99, "")) {
			t.Fatalf("a vote is refused after the promise")
		}
	}
}

func TestPromiseLetsHandOverPass(t *testing.T) {
	p := promise{election: 10}
	p.give()
	if p.forbids(message(raftpb.MsgVote, 5, campaignTransfer)) {
		t.Error("the vote of a hand-over was refused")
	}
	for _, kind := range []raftpb.MessageType{raftpb.MsgApp, raftpb.MsgVoteResp, raftpb.MsgTimeoutNow} {
		if p.forbids(message(kind, 5, "")) {
			t.Errorf("%v was refused", kind)
		}
	}
}

func TestPromiseIgnoresEarlierTerms(t *testing.T) {
	p := promise{election: 10}
	p.heard(message(raftpb.MsgHeartbeat, 3, ""), 4)
	if p.forbids(message(raftpb.MsgVote, 5, "")) {
		t.Error("a deposed leader's heartbeat gave a promise")
	}
}
