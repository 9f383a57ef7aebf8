package sim

import (
	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// ballot names what a candidate asks a voter. One that asks again in the same term may have another log.
type ballot struct {
	shard            kv.ShardID
	candidate, voter kv.ReplicaID
	kind             raftpb.MessageType
	term             uint64
}

// checkVotes fails if a replica gives its vote, or its word before one, to a candidate whose log ended below what the voter
// had applied when it was asked: what is committed is in the log of whoever leads (D2). Such a vote need not decide
// an election, so that no lost write would tell of it.
func (h host) checkVotes(to kv.NodeID, messages []*kvdv1.RaftMessage) {
	for _, m := range messages {
		shard, from, to, target := kv.ShardID(m.Shard), kv.ReplicaID(m.From), kv.ReplicaID(m.To), h.node(to)
		kind := raftpb.MessageType(m.Type)
		switch kind {
		case raftpb.MsgVote, raftpb.MsgPreVote:
			asked := ballot{shard, from, to, kind, m.Term}
			lacked, again := h.ballots[asked]
			h.ballots[asked] = target != nil && target.hasMore(m) && (lacked || !again)
		case raftpb.MsgVoteResp, raftpb.MsgPreVoteResp:
			request := raftpb.MsgVote
			if kind == raftpb.MsgPreVoteResp {
				request = raftpb.MsgPreVote
			}
			if !m.Reject && h.ballots[ballot{shard, to, from, request, m.Term}] {
				h.fail("shard %d: node %d answers replica %d, which lacks what was committed, with a %v of term %d", shard, h.id, to, kind, m.Term)
			}
		}
	}
}

// hasMore reports whether the replica that a candidate asks has applied what the candidate's log lacks.
func (m *machine) hasMore(request *kvdv1.RaftMessage) bool {
	records, err := m.state.Shards()
	if err != nil {
		m.fail("node %d: %v", m.id, err)
		return false
	}
	for _, r := range records {
		if st := r.State; uint64(r.Shard) == request.Shard && st.GetReplica() == request.To {
			return st.GetAppliedTerm() > request.LogTerm || st.GetAppliedTerm() == request.LogTerm && st.GetAppliedIndex() > request.Index
		}
	}
	return false
}
