package replica

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// TestOnlyItsOwnEntryAnswers: after its leader was deposed, a proposal is done if the entry applied at its index is the
// very one, by node, life and number, and not done if it is any other, however alike.
func TestOnlyItsOwnEntryAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		node, life, seq uint64
		done            bool
	}{
		"itself":          {1, 1, 1, true},
		"another node's":  {2, 1, 1, false},
		"an earlier life": {1, 0, 1, false},
		"another number":  {1, 1, 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := member(t, 1, 3)
			elect(t, r)
			work(t, r)
			term, _ := r.Leading()
			require.NoError(t, r.Propose(1, []*kvdv1.Command{{Op: 1}}, []Waiter{nobody{}}))
			require.Empty(t, work(t, r))
			index := r.Log().last
			payload, err := plain{}.EncodeBatch(&kvdv1.Batch{
				Node: test.node, Life: test.life, Seq: test.seq, StampMs: 1, Commands: []*kvdv1.Command{{Op: 1}},
			})
			require.NoError(t, err)
			next := uint64(term) + 1
			app := &kvdv1.RaftMessage{
				Shard: 1, From: 2, To: 1, Type: uint32(raftpb.MsgApp), Term: next, LogTerm: uint64(kv.BirthTerm), Index: uint64(kv.BirthIndex),
				Entries: []*kvdv1.RaftEntry{{Term: next, Index: uint64(kv.BirthIndex) + 1}, {Term: next, Index: uint64(index), Data: payload}},
				Commit:  uint64(index),
			}
			require.NoError(t, r.Step(2, app))
			answers := work(t, r)
			require.Len(t, answers, 1)
			if test.done {
				require.NoError(t, answers[0].Err)
				require.Equal(t, kv.Revision(1), answers[0].Result.Revision)
				return
			}
			require.ErrorAs(t, answers[0].Err, new(*kv.NotLeaderError))
		})
	}
}

// candidate makes member 1 of three win the pre-vote of member 2, up to where it would ask for votes.
func candidate(t *testing.T) *Replica {
	r := member(t, 1, 3)
	for range 60 {
		r.Tick()
		w, _ := r.Ready(0)
		require.NoError(t, r.Local(w.Local))
		for _, m := range w.Held {
			if m.GetType() == raftpb.MsgPreVote && m.GetTo() == 2 {
				require.NoError(t, r.Step(2, &kvdv1.RaftMessage{
					Shard: 1, From: 2, To: 1, Type: uint32(raftpb.MsgPreVoteResp), Term: m.GetTerm(),
				}))
				return r
			}
		}
	}
	t.Fatal("never a candidate")
	return nil
}

func asks(m *raftpb.Message) bool { return m.GetType() == raftpb.MsgVote }

// TestCandidacyWaitsForTheSync (T3): a candidate's vote for itself, and the entries that it speaks of, are on disk
// before it asks the others.
func TestCandidacyWaitsForTheSync(t *testing.T) {
	r := candidate(t)
	w, ok := r.Ready(0)
	require.True(t, ok)
	require.Empty(t, w.Early)
	require.True(t, slices.ContainsFunc(w.Held, asks))
	require.EqualValues(t, 1, w.Hard.GetVote())
	_, leads := r.Leading()
	require.False(t, leads)
}

// TestPromiseHoldsItsOwnCandidacy (L1): a replica that hears of a leader just as it has won the pre-vote does not go on
// with its election.
func TestPromiseHoldsItsOwnCandidacy(t *testing.T) {
	r := candidate(t)
	require.NoError(t, r.Step(3, &kvdv1.RaftMessage{Shard: 1, From: 3, To: 1, Type: uint32(raftpb.MsgHeartbeat), Term: uint64(kv.BirthTerm)}))
	for range 9 {
		w, _ := r.Ready(0)
		require.False(t, slices.ContainsFunc(w.Held, asks))
		require.NoError(t, r.Local(w.Local))
		r.Tick()
	}
}

// TestAbsorbedIsNotDone (G1): what a replica has proposed and not applied when its neighbour has absorbed it is not done,
// whether it has an index, or is of a leadership that has ended; of one that was only removed it is not known.
func TestAbsorbedIsNotDone(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(r *Replica)
		want any
	}{
		"absorbed": {func(r *Replica) { r.Absorbed(&kv.NotLeaderError{Shard: 7, Leader: 2}) }, &kv.NotLeaderError{Shard: 7, Leader: 2}},
		"removed":  {(*Replica).Close, kv.ErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			r := member(t, 1, 3)
			elect(t, r)
			work(t, r)
			propose := func() {
				require.NoError(t, r.Propose(1, []*kvdv1.Command{{Op: 1}}, []Waiter{nobody{}}))
			}
			propose()
			require.Empty(t, work(t, r))
			term, _ := r.Leading()
			require.NoError(t, r.Step(2, &kvdv1.RaftMessage{Shard: 1, From: 2, To: 1, Type: uint32(raftpb.MsgHeartbeat), Term: uint64(term) + 1}))
			require.Empty(t, work(t, r))
			test.end(r)
			answers := r.Answers()
			require.Len(t, answers, 1)
			require.Equal(t, test.want, answers[0].Err)
			require.Zero(t, r.Pending())

			r = member(t, 1, 3)
			elect(t, r)
			work(t, r)
			propose()
			require.Empty(t, work(t, r))
			propose()
			test.end(r)
			answers = r.Answers()
			require.Len(t, answers, 2)
			require.Equal(t, test.want, answers[0].Err)
			require.Equal(t, test.want, answers[1].Err)
		})
	}
}
