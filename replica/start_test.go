package replica

import (
	"io"
	"log"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// left is what a crash has left of a replica: the stores need not fit each other (T2).
type left struct {
	hard               *raftpb.HardState
	truncated, applied kv.Index
	truncatedTerm      kv.Term
	log                []uint64 // The terms of the entries above truncated.
}

// restarted makes member 2 of a group whose voters are 1 to n, or alone if n is 0, from what a crash has left.
func restarted(t *testing.T, n uint64, l left) (*Replica, error) {
	d, conf, entries := &kv.Descriptor{Shard: 1}, &raftpb.ConfState{}, written{}
	for id := uint64(1); id <= n; id++ {
		d.Replicas = append(d.Replicas, kv.Replica{Node: kv.NodeID(id), Replica: kv.ReplicaID(id)})
		conf.Voters = append(conf.Voters, id)
	}
	if n == 0 {
		d.Replicas, conf.Voters = []kv.Replica{{Node: 2, Replica: 2}}, []uint64{2}
	}
	term := l.truncatedTerm
	for i, of := range l.log {
		index := l.truncated + kv.Index(i) + 1
		entries[index] = &raftpb.Entry{Type: raftpb.EntryNormal.Enum(), Index: new(uint64(index)), Term: new(of)}
		if index == l.applied {
			term = kv.Term(of)
		}
	}
	return New(Config{
		Node: 2, Life: 2, Replica: 2, Descriptor: d, Conf: conf, Machine: &counting{index: l.applied, term: term, descriptor: d}, Codec: plain{}, Store: entries,
		Hard: l.hard, Truncated: l.truncated, TruncatedTerm: l.truncatedTerm, Last: l.truncated + kv.Index(len(l.log)),
		Tick: testTick, ElectionTicks: 10, HeartbeatTicks: 3, Logger: &raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)},
	})
}

func hardState(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: &term, Vote: &vote, Commit: &commit}
}

// TestStoresThatDoNotFit (T5): the state may have survived where the commit that it was applied under did not, and a log
// may have been reset or truncated above what its hard state knows. What neither store can have left is refused.
func TestStoresThatDoNotFit(t *testing.T) {
	for name, c := range map[string]struct {
		left
		term, vote, commit uint64
	}{
		"applied above the commit":            {left{hardState(6, 3, 11), 10, 13, 5, []uint64{6, 6, 6}}, 6, 3, 13},
		"truncated above the commit":          {left{hardState(6, 3, 11), 20, 20, 6, []uint64{6}}, 6, 3, 20},
		"truncated in a later term":           {left{hardState(6, 3, 11), 20, 20, 7, []uint64{7}}, 7, 0, 20},
		"a commit that is to be applied anew": {left{hardState(6, 1, 13), 10, 10, 5, []uint64{6, 6, 6}}, 6, 1, 13},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := restarted(t, 3, c.left)
			require.NoError(t, err)
			status := r.raw.BasicStatus()
			require.Equal(t, []uint64{c.term, c.vote, c.commit},
				[]uint64{status.HardState.GetTerm(), status.HardState.GetVote(), status.HardState.GetCommit()})
			require.NoError(t, r.Check())
			work(t, r)
			applied, _ := r.machine.Applied()
			require.EqualValues(t, c.commit, applied)
		})
	}
	for name, l := range map[string]left{
		"a commit above the log":     {hardState(6, 0, 14), 10, 10, 5, []uint64{6, 6, 6}},
		"applied above the log":      {hardState(6, 0, 11), 10, 14, 5, []uint64{6, 6, 6}},
		"applied below the log":      {hardState(6, 0, 11), 10, 9, 5, []uint64{6}},
		"truncated above all of it":  {hardState(6, 0, 11), 20, 9, 5, nil},
		"a state without its log":    {hardState(0, 0, 0), 0, 11, 0, nil},
		"a hard state without a log": {hardState(6, 0, 11), 10, 10, 5, nil},
	} {
		_, err := restarted(t, 3, l)
		require.ErrorContains(t, err, "the log holds", name)
	}
}

// TestReplayComesFirst (T5): until a replica has applied again what was committed at its start it takes no part in
// elections and takes no snapshot: its configuration may be one that was left since.
func TestReplayComesFirst(t *testing.T) {
	replaying := left{hardState(6, 0, 12), 10, 10, 5, []uint64{6, 6}}
	const forced = "CampaignTransfer" // So that the promise lets it pass.
	for name, step := range map[string]func(r *Replica) error{
		"a vote": func(r *Replica) error {
			return r.Step(3, &kvdv1.RaftMessage{Shard: 1, From: 3, To: 2, Type: uint32(raftpb.MsgVote), Term: 9, LogTerm: 8, Index: 99, Context: []byte(forced)})
		},
		"a pre-vote": func(r *Replica) error {
			return r.Step(3, &kvdv1.RaftMessage{Shard: 1, From: 3, To: 2, Type: uint32(raftpb.MsgPreVote), Term: 9, LogTerm: 8, Index: 99, Context: []byte(forced)})
		},
		"a hand-over": func(r *Replica) error {
			return r.Step(3, &kvdv1.RaftMessage{Shard: 1, From: 3, To: 2, Type: uint32(raftpb.MsgTimeoutNow), Term: 6})
		},
		"a snapshot": func(r *Replica) error {
			stepped, err := r.StepSnapshot(3, snapshotOf(7, 50))
			require.Equal(t, !r.Replaying(), stepped)
			return err
		},
		"time": func(r *Replica) error {
			for range 40 {
				r.Tick()
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			speaks := func(r *Replica) bool {
				require.NoError(t, step(r))
				w, _ := r.Ready(0)
				return len(w.Held) > 0 || w.Hard != nil || w.Snapshot != nil
			}
			r, err := restarted(t, 3, replaying)
			require.NoError(t, err)
			require.True(t, r.Replaying())
			require.False(t, speaks(r))
			work(t, r)
			require.False(t, r.Replaying())
			require.True(t, speaks(r), "afterwards it does")
		})
	}
	t.Run("alone", func(t *testing.T) {
		r, err := restarted(t, 0, replaying)
		require.NoError(t, err)
		r.Tick()
		w, _ := r.Ready(0)
		require.Nil(t, w.Hard, "it may be alone only in a configuration that was left since")
		work(t, r)
		r.Tick()
		work(t, r)
		_, leads := r.Leading()
		require.True(t, leads)
	})
}

func snapshotOf(term, index uint64) *raftpb.Message {
	return &raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), From: new(uint64(3)), To: new(uint64(2)), Term: &term,
		Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
			Index: &index, Term: &term, ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}},
		}},
	}
}

// vote asks member 2 for its vote, which a hand-over has forced.
func vote(from, term, lastTerm, last uint64) *kvdv1.RaftMessage {
	return &kvdv1.RaftMessage{
		Shard: 1, From: from, To: 2, Type: uint32(raftpb.MsgVote), Term: term, LogTerm: lastTerm, Index: last, Context: []byte("CampaignTransfer"),
	}
}

// TestVoteIsWritten (T9): a vote is to be synced before it is given, also one in a term that was written already.
func TestVoteIsWritten(t *testing.T) {
	r := member(t, 2, 3)
	require.NoError(t, r.Step(1, vote(1, 9, 1, 1))) // Its log is too short.
	w, _ := r.Ready(0)
	require.EqualValues(t, 9, w.Hard.GetTerm())
	require.Zero(t, w.Hard.GetVote())
	require.NoError(t, r.Step(3, vote(3, 9, 8, 99)))
	w, _ = r.Ready(0)
	require.NotNil(t, w.Hard)
	require.EqualValues(t, 3, w.Hard.GetVote())
	require.Empty(t, w.Early)
	require.False(t, w.Held[0].GetReject())
}

// TestEntriesCarryTheCommit (T5, T9): a moved commit alone is not written, and the next write of entries carries it.
func TestEntriesCarryTheCommit(t *testing.T) {
	r := member(t, 2, 3)
	require.NoError(t, r.Step(1, heard(6)))
	w, _ := r.Ready(0)
	require.EqualValues(t, kv.BirthIndex, w.Hard.GetCommit())
	require.NoError(t, r.Local(w.Local))
	require.NoError(t, r.Step(1, &kvdv1.RaftMessage{
		Shard: 1, From: 1, To: 2, Type: uint32(raftpb.MsgHeartbeat), Term: 6, Commit: uint64(kv.BirthIndex) + 1,
	}))
	w, ok := r.Ready(0)
	require.True(t, ok)
	require.Nil(t, w.Hard)
	require.NoError(t, r.Step(1, &kvdv1.RaftMessage{
		Shard: 1, From: 1, To: 2, Type: uint32(raftpb.MsgApp), Term: 6, LogTerm: 6, Index: uint64(kv.BirthIndex) + 1,
		Entries: []*kvdv1.RaftEntry{{Term: 6, Index: uint64(kv.BirthIndex) + 2}}, Commit: uint64(kv.BirthIndex) + 1,
	}))
	w, _ = r.Ready(0)
	require.Len(t, w.Entries, 1)
	require.EqualValues(t, kv.BirthIndex+1, w.Hard.GetCommit())
}

// TestSnapshotKeepsTheVote (D2): the hard state that goes with the reset of the log holds the vote of its term.
func TestSnapshotKeepsTheVote(t *testing.T) {
	r := member(t, 2, 3)
	require.NoError(t, r.Step(3, vote(3, 9, 8, 99)))
	w, _ := r.Ready(0)
	require.NoError(t, r.Local(w.Local))
	stepped, err := r.StepSnapshot(3, snapshotOf(9, 50))
	require.NoError(t, err)
	require.True(t, stepped)
	w, _ = r.Ready(0)
	require.NotNil(t, w.Snapshot)
	require.Nil(t, w.Hard, "it goes with the reset")
	_, _, hard, err := r.Install(&counting{index: 50, term: 9, descriptor: r.descriptor})
	require.NoError(t, err)
	require.Equal(t, []uint64{9, 3, 50}, []uint64{hard.GetTerm(), hard.GetVote(), hard.GetCommit()})
}

// TestSnapshotOverProposals: what a snapshot has jumped over may be in it, or not.
func TestSnapshotOverProposals(t *testing.T) {
	r := member(t, 1, 3)
	elect(t, r)
	work(t, r)
	require.NoError(t, r.Propose(1, []*kvdv1.Command{{Op: 1}}, []Waiter{nobody{}}))
	require.Empty(t, work(t, r))
	m := snapshotOf(9, 50)
	m.From, m.To = new(uint64(2)), new(uint64(1))
	stepped, err := r.StepSnapshot(2, m)
	require.NoError(t, err)
	require.True(t, stepped)
	w, _ := r.Ready(0)
	require.NotNil(t, w.Snapshot)
	require.Empty(t, r.Answers())
	_, _, _, err = r.Install(&counting{index: 50, term: 9, descriptor: r.descriptor})
	require.NoError(t, err)
	answers := r.Answers()
	require.Len(t, answers, 1)
	require.ErrorIs(t, answers[0].Err, kv.ErrUnknown)
	require.Equal(t, kv.Unknown, kv.OutcomeOf(answers[0].Err))
}
