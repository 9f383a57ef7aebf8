package replica

import (
	"errors"
	"io"
	"log"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// counting is a state machine that counts.
type counting struct {
	index kv.Index
	term  kv.Term
	count kv.Revision

	descriptor *kv.Descriptor
}

func (m *counting) Apply(index kv.Index, term kv.Term, b *kvdv1.Batch) ([]kv.Result, error) {
	if index != m.index+1 {
		return nil, errors.New("a gap")
	}
	m.index, m.term = index, term
	var results []kv.Result
	for range b.GetCommands() {
		m.count++
		results = append(results, kv.Result{Status: kv.Done, Revision: m.count})
	}
	return results, nil
}
func (m *counting) ApplyConf(index kv.Index, term kv.Term, change *kvdv1.ConfChange, apply func() *raftpb.ConfState) (kv.Result, error) {
	m.index, m.term = index, term
	if err := AdmitConf(m.descriptor, change); err != nil {
		return kv.Result{Status: kv.Refused}, nil
	}
	m.descriptor = Reconfigure(m.descriptor, change, apply())
	return kv.Result{Status: kv.Done}, nil
}
func (m *counting) Ends() bool                   { return false }
func (m *counting) Descriptor() *kv.Descriptor   { return m.descriptor }
func (m *counting) Applied() (kv.Index, kv.Term) { return m.index, m.term }
func (m *counting) Revision() kv.Revision        { return m.count }

type plain struct{}

func (plain) EncodeBatch(b *kvdv1.Batch) ([]byte, error) { return b.MarshalVT() }
func (plain) DecodeBatch(p []byte) (*kvdv1.Batch, error) {
	b := &kvdv1.Batch{}
	return b, b.UnmarshalVT(p)
}
func (p plain) ShareBatch(b []byte) (*kvdv1.Batch, error) { return p.DecodeBatch(b) }
func (plain) Shapes(p []byte) bool {
	b, err := plain{}.DecodeBatch(p)
	return err != nil || shapes(b)
}

// member makes a replica of a group whose voters are 1 to n, on nodes of the same numbers.
func member(t testing.TB, id, n uint64) *Replica {
	d := &kv.Descriptor{Shard: 1}
	conf := &raftpb.ConfState{}
	for i := range n {
		d.Replicas = append(d.Replicas, kv.Replica{Node: kv.NodeID(i + 1), Replica: kv.ReplicaID(i + 1)})
		conf.Voters = append(conf.Voters, i+1)
	}
	r, err := New(Config{
		Node: kv.NodeID(id), Life: 1, Replica: kv.ReplicaID(id), Descriptor: d, Conf: conf,
		Machine: &counting{index: kv.BirthIndex, term: kv.BirthTerm, descriptor: d}, Codec: plain{}, Store: written{},
		Hard:      &raftpb.HardState{Term: new(uint64(kv.BirthTerm)), Commit: new(uint64(kv.BirthIndex))},
		Truncated: kv.BirthIndex, TruncatedTerm: kv.BirthTerm, Last: kv.BirthIndex, Tick: testTick, ElectionTicks: 10, HeartbeatTicks: 3,
		Logger: &raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)},
	})
	require.NoError(t, err)
	return r
}

// settleAlone does the work of a lone voter until there is none.
func settleAlone(t testing.TB, r *Replica, now time.Duration) []Answer {
	var answers []Answer
	for {
		w, ok := r.Ready(now)
		require.NoError(t, apply(r))
		require.NoError(t, r.Applied())
		require.NoError(t, r.Local(w.Local))
		answers = append(answers, r.Answers()...)
		if !ok && !r.HasReady() {
			return answers
		}
	}
}

func apply(r *Replica) error {
	_, err := r.Apply(kv.ApplyBytesMax)
	return err
}

type nobody struct{}

func (nobody) Done(kv.Result, error) {}

func leadAlone(t testing.TB) *Replica {
	r := member(t, 1, 1)
	r.Tick()
	settleAlone(t, r, 0)
	_, leads := r.Leading()
	require.True(t, leads)
	return r
}

func TestLoneVoterLeadsAtOnceAndAnswers(t *testing.T) {
	r := leadAlone(t)
	require.NoError(t, r.Propose(5, []*kvdv1.Command{{Op: 1}, {Op: 1}}, []Waiter{nobody{}, nil}))
	answers := settleAlone(t, r, 0)
	require.Len(t, answers, 2)
	require.Equal(t, kv.Revision(1), answers[0].Result.Revision)
	require.Equal(t, kv.Revision(2), answers[1].Result.Revision)
	require.NoError(t, r.Check())
}

func TestReadGivesALease(t *testing.T) {
	r := leadAlone(t)
	require.Zero(t, r.LeaseUntil())
	const now = time.Minute
	r.Read(nobody{})
	answers := settleAlone(t, r, now)
	require.Len(t, answers, 1)
	require.NoError(t, answers[0].Err)
	full := 9 * testTick
	require.Equal(t, now+full-full/10, r.LeaseUntil())
}

func TestFollowerSendsToNobodyInParticular(t *testing.T) {
	r := member(t, 2, 3)
	require.NoError(t, r.Propose(5, []*kvdv1.Command{{Op: 1}}, []Waiter{nobody{}}))
	r.Read(nobody{})
	for _, a := range r.Answers() {
		require.ErrorAs(t, a.Err, new(*kv.NotLeaderError))
	}
}

// heard is an append of a leader with one entry.
func heard(term uint64) *kvdv1.RaftMessage {
	return &kvdv1.RaftMessage{
		Shard: 1, From: 1, To: 2, Type: uint32(raftpb.MsgApp), Term: term, LogTerm: uint64(kv.BirthTerm), Index: uint64(kv.BirthIndex),
		Entries: []*kvdv1.RaftEntry{{Term: term, Index: uint64(kv.BirthIndex) + 1}},
	}
}

// TestAnswersWaitForTheSync (T3): of what a follower says nothing leaves early, and its vote and entries are to be
// synced (T9).
func TestAnswersWaitForTheSync(t *testing.T) {
	r := member(t, 2, 3)
	require.NoError(t, r.Step(1, heard(6)))
	w, ok := r.Ready(0)
	require.True(t, ok)
	require.Empty(t, w.Early)
	require.Len(t, w.Entries, 1)
	require.NotNil(t, w.Hard)
	require.Equal(t, raftpb.MsgAppResp, w.Held[0].GetType())
}

// TestPromiseHolds (L1): while it runs no vote is given, whatever the term, and none is asked for; a hand-over passes.
func TestPromiseHolds(t *testing.T) {
	ask := &kvdv1.RaftMessage{Shard: 1, From: 3, To: 2, Type: uint32(raftpb.MsgPreVote), Term: 9, LogTerm: 8, Index: 99}
	r := member(t, 2, 3)
	require.NoError(t, r.Step(1, heard(6)))
	r.Ready(0)
	for range 9 {
		r.Tick()
		require.NoError(t, r.Step(3, ask))
		w, _ := r.Ready(0)
		require.Empty(t, w.Held)
	}
	r.Tick()
	require.NoError(t, r.Step(3, ask))
	w, _ := r.Ready(0)
	// Raft may have drawn this tick for an election of its own.
	given := slices.DeleteFunc(w.Held, func(m *raftpb.Message) bool { return m.GetType() != raftpb.MsgPreVoteResp })
	require.Len(t, given, 1)
	require.False(t, given[0].GetReject())

	forced := member(t, 2, 3)
	require.NoError(t, forced.Step(3, &kvdv1.RaftMessage{
		Shard: 1, From: 3, To: 2, Type: uint32(raftpb.MsgVote), Term: 9, LogTerm: 8, Index: 99, Context: []byte("CampaignTransfer"),
	}))
	w, _ = forced.Ready(0)
	require.Equal(t, raftpb.MsgVoteResp, w.Held[0].GetType())
}

// TestCraftedMessages: what no member sends is refused, and changes nothing.
func TestCraftedMessages(t *testing.T) {
	for name, m := range map[string]*kvdv1.RaftMessage{
		"of a member elsewhere":    {Shard: 1, From: 3, To: 2, Type: uint32(raftpb.MsgHeartbeat), Term: 6},
		"for another":              {Shard: 1, From: 1, To: 3, Type: uint32(raftpb.MsgHeartbeat), Term: 6},
		"a commit above the log":   {Shard: 1, From: 1, To: 2, Type: uint32(raftpb.MsgHeartbeat), Term: 6, Commit: 1 << 40},
		"an answer above the log":  {Shard: 1, From: 1, To: 2, Type: uint32(raftpb.MsgAppResp), Term: 6, Index: 1 << 40},
		"a term out of reach":      {Shard: 1, From: 1, To: 2, Type: uint32(raftpb.MsgHeartbeat), Term: 1<<64 - 1},
		"a context cut short":      {Shard: 1, From: 1, To: 2, Type: uint32(raftpb.MsgHeartbeatResp), Term: 6, Context: []byte{1}},
		"a proposal":               {Shard: 1, From: 1, To: 2, Type: uint32(raftpb.MsgProp), Term: 6},
		"of raft's own storage":    {Shard: 1, From: 1, To: 2, Type: uint32(raftpb.MsgStorageAppendResp), Term: 6},
		"a gap in its entries":     {Shard: 1, From: 1, To: 2, Type: uint32(raftpb.MsgApp), Term: 6, Index: 10, LogTerm: 5, Entries: []*kvdv1.RaftEntry{{Term: 6, Index: 13}}},
		"an entry of a later term": {Shard: 1, From: 1, To: 2, Type: uint32(raftpb.MsgApp), Term: 6, Index: 10, LogTerm: 5, Entries: []*kvdv1.RaftEntry{{Term: 7, Index: 11}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := member(t, 2, 3)
			require.Error(t, r.Step(1, m))
			require.False(t, r.HasReady())
		})
	}
}

// TestSnapshotReplacesTheLog: the replica does nothing until the snapshot is installed, and then goes on from its point.
func TestSnapshotReplacesTheLog(t *testing.T) {
	r := member(t, 2, 3)
	stepped, err := r.StepSnapshot(1, &raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), From: new(uint64(1)), To: new(uint64(2)), Term: new(uint64(7)),
		Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
			Index: new(uint64(50)), Term: new(uint64(7)), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}},
		}},
	})
	require.NoError(t, err)
	require.True(t, stepped)
	w, ok := r.Ready(0)
	require.True(t, ok)
	require.NotNil(t, w.Snapshot)
	require.True(t, r.Installing())
	require.NoError(t, r.Step(1, heard(7)))
	require.False(t, r.HasReady())
	index, term, hard, err := r.Install(&counting{index: 50, term: 7, descriptor: r.descriptor})
	require.NoError(t, err)
	require.Equal(t, kv.Index(50), index)
	require.Equal(t, kv.Term(7), term)
	require.EqualValues(t, 7, hard.GetTerm())
	require.EqualValues(t, 50, hard.GetCommit())
	require.NoError(t, r.Local(w.Local))
	require.NoError(t, r.Applied())
	require.NoError(t, r.Check())
}

// BenchmarkPropose is a write of a lone voter through propose, log, commit, apply and answer, without stores.
func BenchmarkPropose(b *testing.B) {
	r := leadAlone(b)
	command := []*kvdv1.Command{{Op: 1, Key: []byte("key"), Value: make([]byte, 128)}}
	waiters := []Waiter{nobody{}}
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Propose(1, command, waiters); err != nil {
			b.Fatal(err)
		}
		for done := 0; done == 0; {
			w, _ := r.Ready(0)
			if err := errors.Join(r.Local(w.Local), apply(r), r.Applied()); err != nil {
				b.Fatal(err)
			}
			done = len(r.Answers())
		}
	}
}

// BenchmarkReadIndex is a read of a lone voter without a lease.
func BenchmarkReadIndex(b *testing.B) {
	r := leadAlone(b)
	b.ReportAllocs()
	for b.Loop() {
		r.Read(nobody{})
		for done := 0; done == 0; {
			w, _ := r.Ready(0)
			if err := errors.Join(r.Local(w.Local), apply(r), r.Applied()); err != nil {
				b.Fatal(err)
			}
			done = len(r.Answers())
		}
	}
}

// elect makes member 1 of three lead, with the votes of member 2.
func elect(t *testing.T, r *Replica) {
	for range 60 {
		if _, leads := r.Leading(); leads {
			return
		}
		r.Tick()
		for w, ok := r.Ready(0); ok; w, ok = r.Ready(0) {
			for _, e := range w.Entries {
				if store, ok := r.log.store.(kept); ok {
					store[kv.Index(e.GetIndex())] = e
				}
			}
			require.NoError(t, errors.Join(r.Local(w.Local), apply(r), r.Applied()))
			for _, m := range w.Held {
				if m.GetTo() != 2 {
					continue
				}
				kind := raftpb.MsgVoteResp
				if m.GetType() == raftpb.MsgPreVote {
					kind = raftpb.MsgPreVoteResp
				}
				require.NoError(t, r.Step(2, &kvdv1.RaftMessage{Shard: 1, From: 2, To: 1, Type: uint32(kind), Term: m.GetTerm()}))
			}
		}
	}
	t.Fatal("never elected")
}

// work does what is to be done, with durable writes, and gives the answers.
func work(t *testing.T, r *Replica) (answers []Answer) {
	for w, ok := r.Ready(0); ok || r.HasReady(); w, ok = r.Ready(0) {
		require.NoError(t, errors.Join(r.Local(w.Local), apply(r), r.Applied()))
		answers = append(answers, r.Answers()...)
	}
	return append(answers, r.Answers()...)
}

// TestOverwrittenIsNotYetNotDone: a proposal whose entry was replaced in this log, by another leader or by this one
// elected again, may still be committed from another replica's log. It is unknown until an entry is applied at its index.
func TestOverwrittenIsNotYetNotDone(t *testing.T) {
	for name, known := range map[string]bool{"nothing is heard": false, "another entry is applied there": true} {
		t.Run(name, func(t *testing.T) {
			r := member(t, 1, 3)
			elect(t, r)
			work(t, r)
			term, _ := r.Leading()
			require.NoError(t, r.Propose(1, []*kvdv1.Command{{Op: 1}}, []Waiter{nobody{}}))
			require.Empty(t, work(t, r))
			index := r.Log().last
			// Another leader, in a later term, replaces all of it by one entry.
			app := &kvdv1.RaftMessage{
				Shard: 1, From: 2, To: 1, Type: uint32(raftpb.MsgApp), Term: uint64(term) + 1, LogTerm: uint64(kv.BirthTerm), Index: uint64(kv.BirthIndex),
				Entries: []*kvdv1.RaftEntry{{Term: uint64(term) + 1, Index: uint64(kv.BirthIndex) + 1}},
			}
			require.NoError(t, r.Step(2, app))
			require.Empty(t, work(t, r), "it may still be committed")
			require.Less(t, r.Log().last, index)
			if known {
				app.Index, app.LogTerm, app.Commit = uint64(kv.BirthIndex)+1, app.Term, uint64(index)
				app.Entries = []*kvdv1.RaftEntry{{Term: app.Term, Index: uint64(index)}}
				require.NoError(t, r.Step(2, app))
				answers := work(t, r)
				require.Len(t, answers, 1)
				require.ErrorAs(t, answers[0].Err, new(*kv.NotLeaderError))
				return
			}
			elect(t, r)
			require.NoError(t, r.Propose(1, []*kvdv1.Command{{Op: 1}}, []Waiter{nobody{}}))
			var answers []Answer
			for range 12 {
				r.Tick()
				answers = append(answers, work(t, r)...)
			}
			require.NotEmpty(t, answers)
			require.ErrorIs(t, answers[0].Err, kv.ErrUnknown)
		})
	}
}

// TestHandOverToTheLevel: leadership goes to a named voter only when it has nearly all of the log, or what was committed some
// ticks ago, and has applied it;
// of all the others to the one that has applied most.
func TestHandOverToTheLevel(t *testing.T) {
	lead := func(t *testing.T) (r *Replica, last uint64, tell func(from, match, applied uint64)) {
		r = member(t, 1, 3)
		elect(t, r)
		work(t, r)
		term, _ := r.Leading()
		for range 2 * levelEntries {
			require.NoError(t, r.Propose(1, []*kvdv1.Command{{Op: 1}}, []Waiter{nobody{}}))
			work(t, r)
		}
		return r, uint64(r.Log().last), func(from, match, applied uint64) {
			require.NoError(t, r.Step(kv.NodeID(from), &kvdv1.RaftMessage{
				Shard: 1, From: from, To: 1, Type: uint32(raftpb.MsgAppResp), Term: uint64(term), Index: match, Applied: applied,
			}))
		}
	}
	r, last, tell := lead(t)
	require.False(t, r.HandOver(2, nil), "nothing was heard of it")
	tell(2, last-levelEntries-1, last-levelEntries-1)
	tell(3, last, 0) // So that all of it is committed.
	work(t, r)
	for range levelTicks {
		r.Tick()
	}
	require.False(t, r.HandOver(2, nil), "it lacks a part of the log")
	tell(2, last, last-levelEntries-1)
	require.False(t, r.HandOver(2, nil), "it has not applied its log")
	require.False(t, r.HandOver(3, nil))
	tell(2, last, last-levelEntries)
	require.True(t, r.HandOver(2, nil))

	// What was committed just now a voter need not have.
	r, last, tell = lead(t)
	before := r.commits[0]
	require.Less(t, before, last-levelEntries)
	tell(2, before, before-1)
	tell(3, last, 0)
	work(t, r)
	for range levelTicks - 1 {
		r.Tick()
	}
	require.False(t, r.HandOver(2, nil), "it has not applied what was committed before")
	tell(2, before, before)
	require.True(t, r.HandOver(2, nil))

	r, last, tell = lead(t)
	tell(2, last, last-20)
	tell(3, last, last-10)
	require.True(t, r.HandOver(0, nil))
	require.EqualValues(t, 3, r.raw.BasicStatus().LeadTransferee)
}
