//go:build kvdtest

package node

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/internal/faults"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/storage"
)

// TestTermsRise: a log that begins anew at a snapshot of a later term has nothing of its old end (D2). Built with
// mutant_old_tail_kept it has.
func TestTermsRise(t *testing.T) {
	log, id := storage.NewMemLog(), kv.Group{Shard: 5, Replica: 7}
	var old []*raftpb.Entry
	for i := range uint64(30) {
		old = append(old, &raftpb.Entry{Index: new(i + 1), Term: new(uint64(2))})
	}
	var p probe
	for _, w := range []storage.LogWrite{
		{Group: id, Entries: old},
		{Group: id, Reset: &storage.Point{Index: 20, Term: 5}, Hard: &storage.HardState{Term: 5, Commit: 20}},
		{Group: id, Entries: []*raftpb.Entry{{Index: new(uint64(21)), Term: new(uint64(5))}}},
	} {
		require.NoError(t, log.Write([]storage.LogWrite{w}, true))
		require.NoError(t, p.wrote(log, []storage.LogWrite{w}, true))
	}
	require.ErrorContains(t, termsRise(tailed{log}, id), "begins after index 20 of term 5 and ends with index 21 of term 2")
}

// tailed is a log store whose entries are all of term 2.
type tailed struct{ storage.Log }

func (tailed) Entries(_ kv.Group, lo, _ kv.Index, _ uint64) ([]*raftpb.Entry, error) {
	return []*raftpb.Entry{{Index: new(uint64(lo)), Term: new(uint64(2))}}, nil
}

// TestVotesInMessages: a vote is one that is given, or a candidate's for itself.
func TestVotesInMessages(t *testing.T) {
	message := func(kind raftpb.MessageType) *kvdv1.RaftMessage {
		return &kvdv1.RaftMessage{Type: uint32(kind), Shard: 5, From: 7, To: 8, Term: 3}
	}
	given, ok := vote(message(raftpb.MsgVoteResp))
	require.True(t, ok)
	require.Equal(t, faults.Vote{Term: 3, Candidate: 8}, given)
	own, ok := vote(message(raftpb.MsgVote))
	require.True(t, ok)
	require.Equal(t, faults.Vote{Term: 3, Candidate: 7}, own)
	refused := message(raftpb.MsgVoteResp)
	refused.Reject = true
	for _, none := range []*kvdv1.RaftMessage{refused, message(raftpb.MsgPreVote), message(raftpb.MsgPreVoteResp), message(raftpb.MsgAppResp)} {
		_, ok := vote(none)
		require.False(t, ok, "%v", none)
	}
}
