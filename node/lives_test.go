package node

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/storage"
)

// member is node 1 of three, whose messages go nowhere but into a list.
type member struct {
	*lone
	sent []*kvdv1.RaftMessage // Of shard 1, to node 2.
}

func (m *member) Send(to kv.NodeID, messages []*kvdv1.RaftMessage) {
	for _, w := range messages {
		if to == 2 && w.Shard == 1 {
			m.sent = append(m.sent, w)
		}
	}
}

func newMember(t *testing.T) *member {
	m := &member{lone: &lone{t: t, log: storage.NewMemLog(), state: storage.NewMemState()}}
	meta := foundingOf(t, 3)
	require.NoError(t, Found(meta, 1, m.log, m.state))
	m.start(meta, 1)
	return m
}

func (m *member) start(meta *kvdv1.MetaState, life kv.Life) {
	var err error
	m.in, m.last, m.sent = Input{}, 0, nil
	m.core, err = NewCore(coreConfig(m, 1, life, m.log, m.state, meta), Now{Boot: m.now})
	require.NoError(m.t, err)
}

// WriteLog loses what is written while the disk is stuck.
func (m *member) WriteLog(id uint64, writes []storage.LogWrite, sync bool) {
	if m.last = id; !m.stuck {
		m.lone.WriteLog(id, writes, sync)
	}
}

// asked is the last message of a type that went to node 2.
func (m *member) asked(kind raftpb.MessageType) *kvdv1.RaftMessage {
	for _, w := range slices.Backward(m.sent) {
		if raftpb.MessageType(w.Type) == kind {
			return w
		}
	}
	return nil
}

// until lets ticks pass until a message of a type is sent to node 2.
func (m *member) until(kind raftpb.MessageType) *kvdv1.RaftMessage {
	m.sent = nil
	for range 100 {
		if w := m.asked(kind); w != nil {
			return w
		}
		m.tick()
	}
	m.t.Fatalf("no %v", kind)
	return nil
}

// grant is how node 2 agrees to what a life asked of it, and step brings it.
func (m *member) grant(w *kvdv1.RaftMessage, kind raftpb.MessageType, life kv.Life) *kvdv1.RaftMessage {
	return &kvdv1.RaftMessage{Shard: 1, From: w.To, To: w.From, Type: uint32(kind), Term: w.Term, ToLife: uint64(life)}
}

func (m *member) step(w *kvdv1.RaftMessage) { m.hear(1, w); m.tick() }

// hear takes an envelope of a life of node 2.
func (m *member) hear(life kv.Life, messages ...*kvdv1.RaftMessage) {
	m.in.Envelopes = append(m.in.Envelopes, &kvdv1.Envelope{
		ClusterId: 7, FromNode: 2, ToNode: 1, FromLife: uint64(life), Messages: messages,
	})
}

// TestAnswersToAnEarlierLife (T3): what others granted to a life of the process whose entries a crash took does not
// help the next one to be elected.
func TestAnswersToAnEarlierLife(t *testing.T) {
	m := newMember(t)
	preVote := m.until(raftpb.MsgPreVote)
	m.stuck = true
	m.step(m.grant(preVote, raftpb.MsgPreVoteResp, 1))
	require.Nil(t, m.asked(raftpb.MsgVote), "a vote was asked for before the own one was durable")

	require.NoError(t, m.state.Crash(func(int) int { return 0 }))
	m.stuck = false
	meta := m.core.Meta
	m.start(meta, 2)
	again := m.until(raftpb.MsgPreVote)
	require.Equal(t, preVote.Term, again.Term)
	m.step(m.grant(again, raftpb.MsgPreVoteResp, 1))
	require.Nil(t, m.asked(raftpb.MsgVote), "an answer to the earlier life counted")
	m.step(m.grant(again, raftpb.MsgPreVoteResp, 2))
	vote := m.asked(raftpb.MsgVote)
	require.NotNil(t, vote)
	m.step(m.grant(vote, raftpb.MsgVoteResp, 1))
	_, leads := m.core.groups[1].replica.Leading()
	require.False(t, leads, "a vote for the earlier life counted")
	m.step(m.grant(vote, raftpb.MsgVoteResp, 2))
	_, leads = m.core.groups[1].replica.Leading()
	require.True(t, leads)
}

// TestMessagesOfAnEarlierLife: what a neighbour said before it started anew is dropped once its new life was heard of, in
// the same inbox or before.
func TestMessagesOfAnEarlierLife(t *testing.T) {
	m := newMember(t)
	grant := m.grant(m.until(raftpb.MsgPreVote), raftpb.MsgPreVoteResp, 1)
	m.hear(1, grant)
	m.hear(2)
	m.tick()
	require.Nil(t, m.asked(raftpb.MsgVote))
	m.hear(1, grant)
	m.tick()
	require.Nil(t, m.asked(raftpb.MsgVote))
	m.hear(2, grant)
	m.tick()
	require.NotNil(t, m.asked(raftpb.MsgVote))
}

// TestLoneVoterReadsNothingBeforeItsOwnEntry (L4): after a crash the commit of the last acknowledged write is forgotten
// with what was not synced; raft would answer a lone voter's ReadIndex at the older commit at once.
func TestLoneVoterReadsNothingBeforeItsOwnEntry(t *testing.T) {
	l := newLone(t)
	require.NoError(t, l.put("a").err)
	require.NoError(t, l.put("b").err)
	none := func(int) int { return 0 }
	require.NoError(t, l.log.Crash(none))
	require.NoError(t, l.state.Crash(none))
	config := l.core.CoreConfig
	config.Life++
	var err error
	l.core, err = NewCore(config, Now{Boot: l.now})
	require.NoError(t, err)
	l.in, l.last, l.stuck = Input{}, 0, true
	leads := func() bool { _, leads := l.core.groups[1].replica.Leading(); return leads }
	for range 40 {
		if leads() {
			break
		}
		l.tick()
		// One write more ends: at last that of the vote, and none after it.
		l.core.Turn(Input{Now: Now{Boot: l.now}, Written: l.last})
	}
	require.True(t, leads())
	read := &answer{}
	l.in.Submissions = append(l.in.Submissions, Submission{Shard: 1, Waiter: read})
	for range 8 {
		l.tick()
		require.False(t, read.done, "a read was confirmed before an entry of the leader's own term was applied")
	}
	l.stuck = false
	l.tick()
	require.True(t, read.done)
	require.NoError(t, read.err)
	_, found, err := l.state.Get([]byte("b"))
	require.NoError(t, err)
	require.True(t, found)
}
