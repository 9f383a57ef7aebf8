package replica

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

func triple() *kv.Descriptor {
	d := &kv.Descriptor{Shard: 1, Epoch: kv.Epoch{Version: 2, Config: 3}}
	for i := range 3 {
		d.Replicas = append(d.Replicas, kv.Replica{Node: kv.NodeID(i + 1), Replica: kv.ReplicaID(i + 1)})
	}
	return d
}

// TestAdmitConf: each way in which a change does not fit is refused.
func TestAdmitConf(t *testing.T) {
	learning, joint := triple(), triple()
	learning.Replicas = append(learning.Replicas, kv.Replica{Node: 4, Replica: 9, Learner: true})
	joint.Replicas = append(joint.Replicas, kv.Replica{Node: 4, Replica: 9, Incoming: true})
	joint.Replicas[0].Outgoing = true
	add := func(node, id uint64) []*kvdv1.Replica { return []*kvdv1.Replica{{Node: node, Replica: id}} }
	for name, c := range map[string]struct {
		d    *kv.Descriptor
		x    *kvdv1.ConfChange
		good bool
	}{
		"add":                       {triple(), &kvdv1.ConfChange{Add: add(4, 9)}, true},
		"add where there is one":    {triple(), &kvdv1.ConfChange{Add: add(3, 9)}, false},
		"add an id again":           {triple(), &kvdv1.ConfChange{Add: add(4, 2)}, false},
		"add nobody":                {triple(), &kvdv1.ConfChange{Add: add(0, 0)}, false},
		"add two":                   {triple(), &kvdv1.ConfChange{Add: append(add(4, 9), add(5, 10)...)}, false},
		"add while joint":           {joint, &kvdv1.ConfChange{Add: add(5, 10)}, false},
		"swap":                      {learning, &kvdv1.ConfChange{Promote: []uint64{9}, Demote: []uint64{1}}, true},
		"promote to an even number": {learning, &kvdv1.ConfChange{Promote: []uint64{9}}, false},
		"promote a voter":           {learning, &kvdv1.ConfChange{Promote: []uint64{2}, Demote: []uint64{1}}, false},
		"promote twice":             {learning, &kvdv1.ConfChange{Promote: []uint64{9, 9}}, false},
		"promote a stranger":        {learning, &kvdv1.ConfChange{Promote: []uint64{12}, Demote: []uint64{1}}, false},
		"demote a learner":          {learning, &kvdv1.ConfChange{Promote: []uint64{9}, Demote: []uint64{9}}, false},
		"demote all":                {triple(), &kvdv1.ConfChange{Demote: []uint64{1, 2, 3}}, false},
		"swap while joint":          {joint, &kvdv1.ConfChange{Demote: []uint64{2, 3}}, false},
		"leave":                     {joint, &kvdv1.ConfChange{Leave: true}, true},
		"leave what is not joint":   {triple(), &kvdv1.ConfChange{Leave: true}, false},
		"remove":                    {learning, &kvdv1.ConfChange{Remove: []uint64{9}}, true},
		"remove a voter":            {learning, &kvdv1.ConfChange{Remove: []uint64{1}}, false},
		"remove a stranger":         {learning, &kvdv1.ConfChange{Remove: []uint64{12}}, false},
		"nothing":                   {triple(), &kvdv1.ConfChange{}, false},
		"two kinds":                 {learning, &kvdv1.ConfChange{Add: add(5, 10), Remove: []uint64{9}}, false},
	} {
		c.x.Epoch = &kvdv1.Epoch{Version: 2, Config: 3}
		require.Equal(t, c.good, AdmitConf(c.d, c.x) == nil, name)
		for _, stale := range []*kvdv1.Epoch{{Version: 1, Config: 3}, {Version: 2, Config: 2}, {Version: 3, Config: 3}, nil} {
			c.x.Epoch = stale
			require.Error(t, AdmitConf(c.d, c.x), "%s of another epoch", name)
		}
	}
}

// kept is a log store of one group.
type kept map[kv.Index]*raftpb.Entry

func (k kept) Entries(_ kv.Group, lo, hi kv.Index, _ uint64) (list []*raftpb.Entry, err error) {
	for i := lo; i < hi; i++ {
		list = append(list, k[i])
	}
	return list, nil
}

// lone makes the only voter of a group, which leads it.
func lone(t testing.TB) *Replica {
	r := member(t, 1, 1)
	r.log.store = kept{}
	r.machine.(*counting).descriptor.Epoch = kv.Epoch{Version: 1, Config: 1}
	r.Tick()
	drive(t, r)
	require.True(t, r.leader)
	return r
}

// drive does what a replica's owner does, its log always durable, until there is nothing to do.
func drive(t testing.TB, r *Replica) (early []*raftpb.Message) {
	for range 100 {
		w, ok := r.Ready(time.Hour)
		early = append(early, w.Early...)
		for _, e := range w.Entries {
			r.log.store.(kept)[kv.Index(e.GetIndex())] = e
		}
		if w.Hard != nil {
			r.Synced(kv.Index(w.Hard.GetCommit()))
		}
		require.NoError(t, apply(r))
		require.NoError(t, r.Applied())
		require.NoError(t, r.Local(w.Local))
		if !ok && !r.HasReady() {
			return early
		}
	}
	t.Fatal("the replica is never done")
	return nil
}

// TestConfigurationChanges: a lone voter adds a learner, and cannot leave it at that; what was computed from an older
// epoch is not proposed.
func TestConfigurationChanges(t *testing.T) {
	r := lone(t)
	at := func() *kvdv1.Epoch { return wire.FromEpoch(r.descriptor.Epoch) }
	stale := at()
	require.NoError(t, r.ProposeConf(&kvdv1.ConfChange{Epoch: at(), Add: []*kvdv1.Replica{{Node: 2, Replica: 2}}}))
	drive(t, r)
	require.Equal(t, []kv.Replica{{Node: 1, Replica: 1}, {Node: 2, Replica: 2, Learner: true}}, r.descriptor.Replicas)
	require.Equal(t, kv.Epoch{Version: 1, Config: 2}, r.descriptor.Epoch)
	require.True(t, r.alone)
	require.Error(t, r.ProposeConf(&kvdv1.ConfChange{Epoch: stale, Add: []*kvdv1.Replica{{Node: 3, Replica: 3}}}))
	require.Error(t, r.ProposeConf(&kvdv1.ConfChange{Epoch: at(), Demote: []uint64{1}}))

	require.NoError(t, r.ProposeConf(&kvdv1.ConfChange{Epoch: at(), Promote: []uint64{2}, Demote: []uint64{1}}))
	drive(t, r)
	require.Equal(t, []kv.Replica{{Node: 1, Replica: 1, Outgoing: true}, {Node: 2, Replica: 2, Incoming: true}}, r.descriptor.Replicas)
	require.False(t, r.alone)
	require.Error(t, r.ProposeConf(&kvdv1.ConfChange{Epoch: at(), Leave: true}), "the leader would demote itself")
}

// TestShapesWaitForTheirCommit (T5): a configuration change is applied only when a hard state whose commit covers it is
// durable, and such a hard state is written for it alone.
func TestShapesWaitForTheirCommit(t *testing.T) {
	r := lone(t)
	require.NoError(t, r.ProposeConf(&kvdv1.ConfChange{Epoch: wire.FromEpoch(r.descriptor.Epoch), Add: []*kvdv1.Replica{{Node: 2, Replica: 2}}}))
	var hard *raftpb.HardState
	for range 20 {
		w, _ := r.Ready(time.Hour)
		if w.Hard != nil {
			hard = w.Hard
		}
		for _, e := range w.Entries {
			r.log.store.(kept)[kv.Index(e.GetIndex())] = e
		}
		require.NoError(t, apply(r))
		require.NoError(t, r.Applied())
		require.NoError(t, r.Local(w.Local))
	}
	require.Len(t, r.descriptor.Replicas, 1, "applied before its commit was durable")
	require.False(t, r.HasReady(), "busy while it waits")
	require.EqualValues(t, r.log.last, hard.GetCommit())
	r.Synced(kv.Index(hard.GetCommit()))
	require.NoError(t, apply(r))
	require.Len(t, r.descriptor.Replicas, 2)
}

// TestAbsent: the leader sends a snapshot to a member that has no replica yet, and not to one that it has heard of.
func TestAbsent(t *testing.T) {
	r := lone(t)
	require.NoError(t, r.ProposeConf(&kvdv1.ConfChange{Epoch: wire.FromEpoch(r.descriptor.Epoch), Add: []*kvdv1.Replica{{Node: 2, Replica: 2}}}))
	drive(t, r)
	_, active := r.Behind(2)
	require.False(t, active, "it has confirmed nothing, and may not even be there")
	term, _ := r.Leading()
	snapshots := func() int {
		w, _ := r.Ready(time.Hour)
		return len(w.Snapshots)
	}
	r.log.Truncate(r.log.last, kv.Term(r.term))
	require.NoError(t, r.Absent(2, term-1))
	require.Zero(t, snapshots(), "asked by another leader")
	require.NoError(t, r.Absent(7, term))
	require.Zero(t, snapshots(), "not a member")
	require.NoError(t, r.Absent(2, term))
	require.Equal(t, 1, snapshots())
	require.NoError(t, r.Absent(2, term))
	require.Zero(t, snapshots(), "one is on its way")
	r.SnapshotSent(2, false)
	require.NoError(t, r.Absent(2, term))
	require.Equal(t, 1, snapshots(), "it was lost")
}

// TestHeard: who follows a leader that is silent has not heard of it, whatever raft says of whom it follows.
func TestHeard(t *testing.T) {
	r := member(t, 2, 3)
	require.NoError(t, r.Step(1, heard(uint64(kv.BirthTerm)+1)))
	r.Ready(0)
	require.True(t, r.Heard())
	r.promise.left = 0 // As an election timeout later; a learner, which never campaigns, has its leader still.
	require.NotZero(t, r.Leader())
	require.False(t, r.Heard())
	require.True(t, leadAlone(t).Heard())
}

// TestStrangers: a sender with an id above all known must have become a member since; any other is refused.
func TestStrangers(t *testing.T) {
	r := member(t, 1, 3)
	heartbeat := func(from uint64) *kvdv1.RaftMessage {
		return &kvdv1.RaftMessage{Shard: 1, To: 1, From: from, Type: uint32(raftpb.MsgHeartbeat), Term: uint64(kv.BirthTerm) + 1}
	}
	require.NoError(t, r.Step(4, heartbeat(8)))
	require.Equal(t, kv.NodeID(4), r.NodeOf(8))
	require.Error(t, r.Step(5, heartbeat(8)), "the id is on another node")
	require.Error(t, r.Step(5, heartbeat(2)), "a member's id from a node that is not its")
	for id := uint64(9); id < 9+strangersMax-1; id++ {
		require.NoError(t, r.Step(4, heartbeat(id)))
	}
	require.Error(t, r.Step(4, heartbeat(100)), "strangers are bounded")
}

// TestStand (S5): the heir's votes leave and are taken in spite of the promise made at birth; without the mark they are not.
func TestStand(t *testing.T) {
	heir, other := member(t, 1, 3), member(t, 2, 3)
	require.NoError(t, heir.Stand())
	w, _ := heir.Ready(0)
	var votes []*raftpb.Message
	for _, m := range w.Held {
		if m.GetType() == raftpb.MsgVote && m.GetTo() == 2 {
			votes = append(votes, m)
		}
	}
	require.Len(t, votes, 1)
	encoded := Encode(1, votes[0], 0, 0)
	stranger := proto.CloneOf(encoded)
	stranger.Context = nil
	require.NoError(t, other.Step(1, stranger))
	w, _ = other.Ready(0)
	require.Empty(t, w.Held, "the promise was broken")
	require.NoError(t, other.Step(1, encoded))
	w, _ = other.Ready(0)
	require.Len(t, w.Held, 1)
	require.False(t, w.Held[0].GetReject())
}
