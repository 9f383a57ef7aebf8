package node

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// sender is a lone node that notes which snapshots it was asked to send.
type sender struct {
	*lone
	sends []*Outgoing
}

func (s *sender) SendSnapshot(o *Outgoing) {
	require.NoError(s.t, o.View.Close())
	s.sends = append(s.sends, o)
}

func newSender(t *testing.T) (s *sender, log *bytes.Buffer) {
	s, log = &sender{lone: newLone(t)}, &bytes.Buffer{}
	s.core.Host, s.core.Logger = s, slog.New(slog.NewTextHandler(log, nil))
	return s, log
}

// want makes a group want to send a snapshot to a replica, as raft would.
func (s *sender) want(shard kv.ShardID, to kv.ReplicaID) {
	g := s.core.groups[shard]
	term, _ := g.replica.Leading()
	s.core.snapshotWanted(g, &raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), From: new(uint64(g.member.Replica)), To: new(uint64(to)), Term: new(uint64(term)),
	})
	s.tick()
}

func (s *sender) sent(o *Outgoing, err error) {
	s.in.Sent = append(s.in.Sent, SnapshotSent{Snapshot: o, Err: err})
	s.tick()
}

// TestOneSnapshotAtATime (D4): the next of the node leaves when the one before has ended, in the order of asking, and its
// index is that of the state at that time.
func TestOneSnapshotAtATime(t *testing.T) {
	s, _ := newSender(t)
	s.want(1, 7)
	require.Len(t, s.sends, 1)
	s.want(kv.MetaShard, 8)
	require.Len(t, s.sends, 1)
	s.sent(s.sends[0], errors.New("the network lost it"))
	require.Len(t, s.sends, 2)
	require.Equal(t, kv.ReplicaID(8), s.sends[1].To.Replica)
	require.Equal(t, uint64(kv.MetaShard), s.sends[1].Message.Shard)
	s.want(1, 7)
	require.NoError(t, s.put("k").err)
	require.Len(t, s.sends, 2)
	s.sent(s.sends[1], nil)
	require.Len(t, s.sends, 3)
	require.Equal(t, s.sends[2].State.AppliedIndex, s.core.groups[1].machine.State().AppliedIndex)
	require.Greater(t, s.sends[2].State.AppliedIndex, s.sends[0].State.AppliedIndex)
}

// TestSnapshotOfAnEarlierLeadership: what was asked for in another term is not sent, and raft does not hear of one that was.
func TestSnapshotOfAnEarlierLeadership(t *testing.T) {
	s, log := newSender(t)
	s.want(1, 7)
	s.want(kv.MetaShard, 8)
	s.core.groups[kv.MetaShard].outgoing.message.Term = new(uint64(1 << 20))
	s.sends[0].Message.Term = 1 << 20
	s.core.groups[1].pinned[7] = 11 // Of the later leadership's.
	s.core.sent(SnapshotSent{Snapshot: s.sends[0], Err: errors.New("the network lost it")})
	require.Contains(t, s.core.groups[1].pinned, kv.ReplicaID(7))
	s.tick()
	require.Len(t, s.sends, 1)
	require.Empty(t, log.String())
	s.want(1, 7)
	require.Len(t, s.sends, 2, "the one that was given up still counts")
}

// TestSnapshotsThatFailAreToldOnce: raft asks again several times a second.
func TestSnapshotsThatFailAreToldOnce(t *testing.T) {
	s, log := newSender(t)
	fail := func(to kv.ReplicaID, err error) {
		s.want(1, to)
		s.sent(s.sends[len(s.sends)-1], err)
	}
	warnings := func() int { return strings.Count(log.String(), "level=WARN") }
	for range 5 {
		fail(7, errors.New("its disk is full"))
		fail(8, errors.New("another snapshot is coming in"))
	}
	require.Equal(t, 2, warnings())
	fail(7, nil)
	require.Contains(t, log.String(), "a snapshot was sent")
	fail(8, errors.New("another snapshot is coming in"))
	require.Equal(t, 2, warnings())
	fail(7, errors.New("its disk is full"))
	require.Equal(t, 3, warnings())
}

// TestNewReplicaIsChecked: what comes as the snapshot of a replica that is new on a node must be such that it can be opened. Once
// it is installed the process would stop, at each start again.
func TestNewReplicaIsChecked(t *testing.T) {
	for name, change := range map[string]func(st *kvdv1.ShardState){
		"":                                     func(*kvdv1.ShardState) {},
		"a base elsewhere":                     func(st *kvdv1.ShardState) { st.BaseIndex-- },
		"a base of another term":               func(st *kvdv1.ShardState) { st.BaseTerm++ },
		"the last index":                       func(st *kvdv1.ShardState) { st.AppliedIndex, st.BaseIndex = 1<<64-1, 1<<64-1 },
		"the last term":                        func(st *kvdv1.ShardState) { st.AppliedTerm, st.BaseTerm = 1<<64-1, 1<<64-1 },
		"a voter twice":                        func(st *kvdv1.ShardState) { st.Voters = append(st.Voters, st.Voters[0]) },
		"a voter that learns":                  func(st *kvdv1.ShardState) { st.Learners = st.Voters[:1] },
		"a joint configuration that is none":   func(st *kvdv1.ShardState) { st.AutoLeave = true },
		"a learner to be that voted never":     func(st *kvdv1.ShardState) { st.LearnersNext = st.Voters[:1] },
		"a learner that votes":                 func(st *kvdv1.ShardState) { st.Descriptor_.Replicas[0].Learner = true },
		"a voter that goes, in no joint group": func(st *kvdv1.ShardState) { st.Descriptor_.Replicas[0].Outgoing = true },
	} {
		t.Run(name, func(t *testing.T) {
			w := newTrio(t)
			w.elected()
			first, m := w.nodes[0], w.nodes[1]
			m.core.remove(m.core.groups[trioShard])
			for range 3 {
				w.tick(m)
			}
			g := first.core.groups[trioShard]
			st := g.machine.State()
			st.Replica, st.BaseIndex, st.BaseTerm = 99, st.AppliedIndex, st.AppliedTerm
			// As if the replica that was removed were another.
			renamed := func(ids []uint64) (to []uint64) {
				for _, id := range ids {
					if d := g.machine.Descriptor(); d.NodeOf(kv.ReplicaID(id)) == m.id {
						id = st.Replica
					}
					to = append(to, id)
				}
				return to
			}
			st.Voters = renamed(st.Voters)
			st.Descriptor_ = wire.FromDescriptor(g.machine.Descriptor(), 0)
			for _, r := range st.Descriptor_.Replicas {
				r.Replica = renamed([]uint64{r.Replica})[0]
			}
			change(st)
			term, _ := g.replica.Leading()
			ingest, err := m.core.State.NewIngest(trioShard, g.machine.Descriptor().Span)
			require.NoError(t, err)
			m.in.Received = append(m.in.Received, &Received{From: first.id, Life: 1, State: st, Ingest: ingest, Message: SnapshotMessage(
				&kvdv1.RaftMessage{From: uint64(g.member.Replica), To: st.Replica, Term: max(uint64(term), st.AppliedTerm)}, st)})
			for range 30 {
				w.tick(m)
			}
			require.NoError(t, m.fatal)
			_, here := m.core.groups[trioShard]
			require.Equal(t, name == "", here)
		})
	}
}
