package replica

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// answers are the messages that answer one of another node: they go to the life of the process that asked (T3).
var answers = map[raftpb.MessageType]bool{
	raftpb.MsgAppResp: true, raftpb.MsgVoteResp: true, raftpb.MsgPreVoteResp: true, raftpb.MsgHeartbeatResp: true,
}

// requests are the other messages that nodes exchange in envelopes. MsgSnap travels at the head of a snapshot's
// stream; everything else of raft's is local, or is never used here (proposals and reads are not forwarded).
var requests = map[raftpb.MessageType]bool{
	raftpb.MsgApp: true, raftpb.MsgVote: true, raftpb.MsgPreVote: true, raftpb.MsgHeartbeat: true,
	raftpb.MsgTimeoutNow: true,
}

// IsAnswer reports whether a message answers one of the receiver's.
func IsAnswer(t raftpb.MessageType) bool { return answers[t] }

// Encode turns raft's message into the one for an envelope. toLife is the life of the receiver's process as
// known now, and applied the index up to which the sender has applied; they are set on answers only. Entry payloads are
// shared, not copied.
func Encode(shard kv.ShardID, m *raftpb.Message, toLife kv.Life, applied kv.Index) *kvdv1.RaftMessage {
	w := &kvdv1.RaftMessage{
		Shard: uint64(shard), To: m.GetTo(), From: m.GetFrom(), Type: uint32(m.GetType()),
		Term: m.GetTerm(), LogTerm: m.GetLogTerm(), Index: m.GetIndex(), Commit: m.GetCommit(), Vote: m.GetVote(),
		Reject: m.GetReject(), RejectHint: m.GetRejectHint(), Context: m.GetContext(),
	}
	if answers[m.GetType()] {
		w.ToLife, w.Applied = uint64(toLife), uint64(applied)
	}
	for _, e := range m.GetEntries() {
		w.Entries = append(w.Entries, &kvdv1.RaftEntry{
			Term: e.GetTerm(), Index: e.GetIndex(), Type: uint32(e.GetType()), Data: e.GetData(),
		})
	}
	return w
}

// contextFits reports whether a context is one that raft sends: it reads those of heartbeats without a look at their
// length.
func contextFits(kind raftpb.MessageType, context []byte) bool {
	switch kind {
	case raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp:
		return len(context) == 0 || len(context) == 8
	case raftpb.MsgVote, raftpb.MsgPreVote:
		return len(context) == 0 || string(context) == campaignTransfer
	}
	return len(context) == 0
}

// Decode turns a message of an envelope into raft's, and refuses what no replica sends: a crafted message must
// neither panic raft nor change anything. Whether the sender is a member, and whether the indexes fit this
// replica's log, is for the replica to say.
func Decode(w *kvdv1.RaftMessage) (*raftpb.Message, error) {
	kind := raftpb.MessageType(w.GetType())
	switch {
	case !requests[kind] && !answers[kind]:
		return nil, &kv.InvalidError{Field: "type", Bound: fmt.Sprintf("a message that nodes exchange, is %d", w.GetType())}
	case w.GetFrom() == 0 || w.GetTo() == 0 || w.GetFrom() == w.GetTo() || max(w.GetFrom(), w.GetTo()) > kv.ReplicaIDMax:
		return nil, &kv.InvalidError{Field: "from, to", Bound: "two replicas of the shard"}
	case w.GetTerm() == 0:
		return nil, &kv.InvalidError{Field: "term", Bound: "at least 1"}
	case len(w.GetEntries()) > 0 && kind != raftpb.MsgApp:
		return nil, &kv.InvalidError{Field: "entries", Bound: "only in an append"}
	case !contextFits(kind, w.GetContext()):
		return nil, &kv.InvalidError{Field: "context", Bound: "a number of 8 bytes with a heartbeat and its answer, the mark of a hand-over with a vote, or none"}
	}
	m := &raftpb.Message{
		Type: kind.Enum(), To: &w.To, From: &w.From, Term: &w.Term, LogTerm: &w.LogTerm, Index: &w.Index,
		Commit: &w.Commit, Vote: &w.Vote, Reject: &w.Reject, RejectHint: &w.RejectHint, Context: w.GetContext(),
	}
	index, term := w.GetIndex(), w.GetLogTerm()
	for i, e := range w.GetEntries() {
		kind := raftpb.EntryType(e.GetType())
		if _, known := raftpb.EntryType_name[int32(e.GetType())]; !known {
			return nil, &kv.InvalidError{Field: fmt.Sprintf("entries[%d].type", i), Bound: "a type of entry"}
		}
		if e.GetIndex() != index+1 || e.GetIndex() == 0 {
			return nil, &kv.InvalidError{Field: fmt.Sprintf("entries[%d].index", i), Bound: "one more than the entry before"}
		}
		if e.GetTerm() < term || e.GetTerm() > w.GetTerm() || e.GetTerm() == 0 {
			return nil, &kv.InvalidError{Field: fmt.Sprintf("entries[%d].term", i), Bound: "from the term of the entry before to the message's"}
		}
		if len(e.GetData()) > kv.EntryBytesMax {
			return nil, &kv.InvalidError{Field: fmt.Sprintf("entries[%d].data", i), Bound: fmt.Sprintf("at most %d bytes", kv.EntryBytesMax)}
		}
		index, term = e.GetIndex(), e.GetTerm()
		m.Entries = append(m.Entries, &raftpb.Entry{Type: kind.Enum(), Term: &e.Term, Index: &e.Index, Data: e.GetData()})
	}
	return m, nil
}
