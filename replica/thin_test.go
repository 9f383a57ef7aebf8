package replica

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// appends does a leader's work and gives the appends to member 2.
func appends(t *testing.T, r *Replica) (list []*raftpb.Message) {
	for _, m := range drive(t, r) {
		if m.GetTo() == 2 && m.GetType() == raftpb.MsgApp {
			list = append(list, m)
		}
	}
	r.Answers()
	return list
}

// has answers as member 2 that its log goes up to an index.
func has(t *testing.T, r *Replica, index kv.Index) {
	term, _ := r.Leading()
	require.NoError(t, r.Step(2, &kvdv1.RaftMessage{
		Shard: 1, From: 2, To: 1, Type: uint32(raftpb.MsgAppResp), Term: uint64(term), Index: uint64(index),
	}))
}

func replicating(t *testing.T) *Replica {
	r := member(t, 1, 3)
	r.log.store = kept{}
	elect(t, r)
	appends(t, r)
	has(t, r, r.Log().last)
	appends(t, r)
	return r
}

func propose(t *testing.T, r *Replica) {
	require.NoError(t, r.Propose(1, []*kvdv1.Command{{Op: 1}}, []Waiter{nobody{}}))
}

// TestAppendsOfATurnAreOne: what a turn appends for one follower leaves as one message, with the newest commit.
func TestAppendsOfATurnAreOne(t *testing.T) {
	r := replicating(t)
	before := r.Log().last
	for range 3 {
		propose(t, r)
	}
	list := appends(t, r)
	require.Len(t, list, 1)
	require.Len(t, list[0].GetEntries(), 3)
	require.EqualValues(t, before, list[0].GetIndex())
	for i, e := range list[0].GetEntries() {
		require.EqualValues(t, before+1+kv.Index(i), e.GetIndex())
	}
	// A commit that moves in the same turn goes along.
	has(t, r, before+3)
	propose(t, r)
	list = appends(t, r)
	require.Len(t, list, 1)
	require.Len(t, list[0].GetEntries(), 1)
	require.EqualValues(t, before+3, list[0].GetCommit())
}

// TestCommitsAreToldWithEntries: of a commit alone nothing is told: the next append tells of it, or the next heartbeat.
func TestCommitsAreToldWithEntries(t *testing.T) {
	r := replicating(t)
	before := r.Log().last
	propose(t, r)
	require.Len(t, appends(t, r), 1)
	propose(t, r)
	require.Len(t, appends(t, r), 1)
	has(t, r, before+1)
	require.Empty(t, appends(t, r), "the commit of the second will tell of it")
	has(t, r, before+2)
	require.Empty(t, appends(t, r), "nobody waits for it")
	propose(t, r)
	list := appends(t, r)
	require.Len(t, list, 1)
	require.EqualValues(t, before+2, list[0].GetCommit())
	has(t, r, before+3)
	require.Empty(t, appends(t, r))
	require.EqualValues(t, before+3, heartbeat(t, r).GetCommit())
}

// heartbeat ticks until member 2 gets a heartbeat.
func heartbeat(t *testing.T, r *Replica) *raftpb.Message {
	for range 3 {
		r.Tick()
		for _, m := range drive(t, r) {
			if m.GetTo() == 2 && m.GetType() == raftpb.MsgHeartbeat {
				return m
			}
		}
	}
	require.Fail(t, "no heartbeat in three ticks")
	return nil
}

// TestAwaitedCommitsAreToldAtOnce: what changes the shape of a shard, all that the meta group decides, and what comes before a
// hand-over is waited for at other nodes.
func TestAwaitedCommitsAreToldAtOnce(t *testing.T) {
	for name, begin := range map[string]func(*testing.T, *Replica){
		"a change of the shape": func(t *testing.T, r *Replica) {
			require.NoError(t, r.Propose(1, []*kvdv1.Command{{Op: uint32(kv.OpShape)}}, []Waiter{nobody{}}))
		},
		"a configuration change": func(t *testing.T, r *Replica) {
			change := &kvdv1.ConfChange{Epoch: wire.FromEpoch(r.descriptor.Epoch), Add: []*kvdv1.Replica{{Node: 4, Replica: 4}}}
			require.NoError(t, r.ProposeConf(change))
		},
		"the meta group": func(t *testing.T, r *Replica) {
			r.shard = kv.MetaShard
			propose(t, r)
		},
		"a hand-over": func(t *testing.T, r *Replica) {
			propose(t, r)
			require.Len(t, appends(t, r), 1)
			r.applied[2], r.sinceHanding = uint64(r.Log().last), r.election
			require.True(t, r.HandOver(2, nil))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := replicating(t)
			before := r.Log().last
			begin(t, r)
			appends(t, r)
			has(t, r, before+1)
			list := appends(t, r)
			require.Len(t, list, 1)
			require.EqualValues(t, before+1, list[0].GetCommit())
		})
	}
	t.Run("the first entry of a term", func(t *testing.T) {
		r := member(t, 1, 3)
		r.log.store = kept{}
		elect(t, r)
		appends(t, r)
		has(t, r, r.Log().last)
		list := appends(t, r)
		require.Len(t, list, 1)
		require.EqualValues(t, r.Log().last, list[0].GetCommit())
	})
	t.Run("with a put behind it", func(t *testing.T) {
		r := replicating(t)
		before := r.Log().last
		require.NoError(t, r.Propose(1, []*kvdv1.Command{{Op: uint32(kv.OpShape)}}, []Waiter{nobody{}}))
		require.Len(t, appends(t, r), 1)
		propose(t, r)
		require.Len(t, appends(t, r), 1)
		has(t, r, before+1)
		require.Empty(t, appends(t, r), "the commit of the put will tell of it")
		has(t, r, before+2)
		list := appends(t, r)
		require.Len(t, list, 1)
		require.EqualValues(t, before+2, list[0].GetCommit())
	})
}

// TestFullWindowIsProbed: a replica that has lost all the appends that may be on their way to it at a time is sent nothing but one
// without entries for each heartbeat that it answers. That leaves whatever it tells.
func TestFullWindowIsProbed(t *testing.T) {
	answers := func(t *testing.T, r *Replica, from uint64, kind raftpb.MessageType, index kv.Index) {
		term, _ := r.Leading()
		require.NoError(t, r.Step(kv.NodeID(from), &kvdv1.RaftMessage{
			Shard: 1, From: from, To: 1, Type: uint32(kind), Term: uint64(term), Index: uint64(index),
		}))
	}
	for name, flowing := range map[string]bool{"puts now and then": false, "a put always on its way": true} {
		t.Run(name, func(t *testing.T) {
			r := replicating(t)
			round := func() (sent int) {
				propose(t, r)
				sent = len(appends(t, r))
				if !flowing {
					answers(t, r, 3, raftpb.MsgAppResp, r.Log().last)
					sent += len(appends(t, r))
				}
				heartbeat(t, r)
				answers(t, r, 2, raftpb.MsgHeartbeatResp, 0)
				sent += len(appends(t, r))
				answers(t, r, 3, raftpb.MsgAppResp, r.Log().last)
				return sent + len(appends(t, r))
			}
			full := 0
			for range 300 {
				if round() == 0 {
					full++
				}
			}
			require.Zero(t, full, "rounds in which nothing was sent")
		})
	}
}

// TestProbesAreSent: an append without entries that tells of nothing new asks whether the others were heard, and leaves.
func TestProbesAreSent(t *testing.T) {
	r := replicating(t)
	before := r.Log().last
	propose(t, r)
	propose(t, r)
	require.Len(t, appends(t, r), 1)
	has(t, r, before+1)
	require.Empty(t, appends(t, r))
	probe := func() *raftpb.Message {
		term, _ := r.Leading()
		return &raftpb.Message{
			Type: raftpb.MsgApp.Enum(), To: new(uint64(2)), From: new(uint64(1)), Term: new(uint64(term)), Index: new(uint64(before + 2)), Commit: new(uint64(before + 1)),
		}
	}
	require.Len(t, r.thin([]*raftpb.Message{probe()}), 1)
	// Nor is one left out for a follower whose log is being looked for.
	term, _ := r.Leading()
	require.NoError(t, r.Step(2, &kvdv1.RaftMessage{
		Shard: 1, From: 2, To: 1, Type: uint32(raftpb.MsgAppResp), Term: uint64(term), Index: uint64(before + 2), Reject: true, RejectHint: uint64(before + 1), LogTerm: uint64(term),
	}))
	clear(r.commitTold)
	require.Len(t, r.thin([]*raftpb.Message{probe()}), 1)
}

// TestLargeAppendsStayApart: joined appends keep to the bound of one.
func TestLargeAppendsStayApart(t *testing.T) {
	large := func(index uint64, bytes int) *raftpb.Message {
		return &raftpb.Message{
			Type: raftpb.MsgApp.Enum(), To: new(uint64(2)), Term: new(uint64(6)), Index: new(index), Commit: new(index),
			Entries: []*raftpb.Entry{{Index: new(index + 1), Data: make([]byte, bytes)}},
		}
	}
	r := replicating(t)
	list := r.thin([]*raftpb.Message{large(20, kv.AppendBytesMax/2), large(21, kv.AppendBytesMax/2), large(22, 1), large(30, 1)})
	require.Len(t, list, 3)
	require.Len(t, list[0].GetEntries(), 2)
	require.EqualValues(t, 21, list[0].GetCommit())
	require.EqualValues(t, 22, list[1].GetIndex())
	require.EqualValues(t, 30, list[2].GetIndex())
}
