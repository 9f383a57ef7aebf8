package replica

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// TestLeaderWithoutAMajority: past a bound of what is not committed further writes are refused as not done, past another
// one of those that wait so are reads, and what is on its way to a follower that is heard but takes nothing has a bound
// of its own.
func TestLeaderWithoutAMajority(t *testing.T) {
	r := member(t, 1, 3)
	elect(t, r)
	work(t, r)
	term, _ := r.Leading()
	require.NoError(t, r.Step(2, &kvdv1.RaftMessage{
		Shard: 1, From: 2, To: 1, Type: uint32(raftpb.MsgAppResp), Term: uint64(term), Index: uint64(kv.BirthIndex),
	}))
	const each = 1 << 20
	taken, sent := 0, 0
	for range 2 * kv.UncommittedBytesMax / each {
		require.NoError(t, r.Propose(1, []*kvdv1.Command{{Op: 1, Value: make([]byte, each)}}, []Waiter{nobody{}}))
		w, _ := r.Ready(0)
		for _, m := range w.Early {
			for _, e := range m.GetEntries() {
				sent += len(e.GetData())
			}
		}
		require.NoError(t, r.Local(w.Local))
		answers := r.Answers()
		if len(answers) == 0 {
			taken += each
			continue
		}
		require.ErrorAs(t, answers[0].Err, new(*kv.OverloadError))
		require.Equal(t, kv.NotDone, kv.OutcomeOf(answers[0].Err))
	}
	require.Positive(t, sent)
	require.LessOrEqual(t, sent, kv.InflightBytesMax+2*kv.AppendBytesMax, "on its way to the one follower that is heard")
	require.Greater(t, taken, kv.UncommittedBytesMax/2)
	require.LessOrEqual(t, taken, kv.UncommittedBytesMax)

	for range kv.ReadsWaitingMax {
		r.Read(nobody{})
	}
	require.Empty(t, r.Answers())
	r.Read(nobody{})
	answers := r.Answers()
	require.Len(t, answers, 1)
	require.ErrorAs(t, answers[0].Err, new(*kv.OverloadError))
	require.NoError(t, r.Check())
}
