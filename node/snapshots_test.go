package node

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

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
