package replica

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// told makes a follower hear of committed entries, one for each list of commands, and takes them to where they may be applied.
func told(t *testing.T, r *Replica, batches ...*kvdv1.Batch) {
	last := uint64(r.log.last)
	m := &kvdv1.RaftMessage{
		Shard: 1, From: 1, To: 2, Type: uint32(raftpb.MsgApp), Term: 6, LogTerm: 6, Index: last, Commit: last + uint64(len(batches)),
	}
	if r.log.last == kv.BirthIndex {
		m.LogTerm = uint64(kv.BirthTerm)
	}
	for i, b := range batches {
		data, err := b.MarshalVT()
		require.NoError(t, err)
		m.Entries = append(m.Entries, &kvdv1.RaftEntry{Term: 6, Index: last + 1 + uint64(i), Data: data})
	}
	require.NoError(t, r.Step(1, m))
	for w, ok := r.Ready(0); ok; w, ok = r.Ready(0) {
		for _, e := range w.Entries {
			r.log.store.(kept)[kv.Index(e.GetIndex())] = e
		}
		if w.Hard != nil {
			r.Synced(kv.Index(w.Hard.GetCommit()))
		}
		require.NoError(t, r.Local(w.Local))
	}
}

// TestFollowersGather: a replica that does not lead applies what is committed when there is much of it, after a tick, or when it
// changes the shape; and until then it asks for no further turn.
func TestFollowersGather(t *testing.T) {
	small := &kvdv1.Batch{Commands: []*kvdv1.Command{{Op: uint32(kv.OpPut), Key: []byte("k")}}}
	half := &kvdv1.Batch{Commands: []*kvdv1.Command{{Op: uint32(kv.OpPut), Key: []byte("k"), Value: bytes.Repeat([]byte("v"), kv.GatherBytesMax/2)}}}
	shape := &kvdv1.Batch{Commands: []*kvdv1.Command{{Op: uint32(kv.OpShape)}}}
	for name, then := range map[string]func(r *Replica){
		"much":    func(r *Replica) { told(t, r, half, half) },
		"a tick":  func(r *Replica) { r.Tick() },
		"a shape": func(r *Replica) { told(t, r, shape) },
		"configuration": func(r *Replica) {
			e := &raftpb.Entry{Type: raftpb.EntryConfChangeV2.Enum()}
			r.add(e, r.urgent(e))
		},
		"to lead":        func(r *Replica) { r.leader = true },
		"owed answers":   func(r *Replica) { r.doubtful = append(r.doubtful, &proposed{}) },
		"the meta group": func(r *Replica) { r.shard = kv.MetaShard },
	} {
		t.Run(name, func(t *testing.T) {
			r := member(t, 2, 3)
			r.log.store = kept{}
			told(t, r, small, half)
			require.False(t, r.Applies(), "it gathers")
			require.False(t, r.HasReady())
			then(r)
			require.True(t, r.Applies())
			require.True(t, r.HasReady())
			if name == "much" || name == "a tick" {
				require.NoError(t, apply(r))
				require.NoError(t, r.Applied())
				require.Zero(t, r.backlog.bytes)
				told(t, r, small)
				require.False(t, r.Applies(), "it gathers again")
			}
		})
	}
	r := member(t, 2, 3)
	r.log.store = kept{}
	small.Commands[0].Value = bytes.Repeat([]byte("v"), kv.GatherBytesMax/5)
	told(t, r, slices.Repeat([]*kvdv1.Batch{small}, 40)...)
	stalls := 0
	for applied := uint64(0); applied < uint64(r.log.last); {
		if !r.Applies() {
			stalls++
			r.Tick()
		}
		_, err := r.Apply(kv.FollowBytesMax)
		require.NoError(t, errors.Join(err, r.Applied()))
		told(t, r)
		index, _ := r.machine.Applied()
		applied = uint64(index)
	}
	require.LessOrEqual(t, stalls, 1, "what has begun goes on, also when raft hands out no more before it has ended")

	small.Commands[0].Value = nil
	r = leadAlone(t)
	require.NoError(t, r.Propose(1, small.Commands, []Waiter{nobody{}}))
	require.Len(t, settleAlone(t, r, 0), 1, "a leader does not")
}

// TestDigested: raft hears that entries are applied when all are that it has handed out. Until then it reads them again before it
// stands for election, so the log may be cut no further (T6).
func TestDigested(t *testing.T) {
	r := member(t, 2, 3)
	r.log.store = kept{}
	put := &kvdv1.Batch{Commands: []*kvdv1.Command{{Op: uint32(kv.OpPut), Key: []byte("k")}}}
	before := r.Digested()
	told(t, r, put, put, put)
	_, err := r.Apply(1)
	require.NoError(t, errors.Join(err, r.Applied()))
	applied, _ := r.machine.Applied()
	require.Equal(t, before+1, applied)
	require.Equal(t, before, r.Digested())
	require.NoError(t, r.Check())

	r.log.Truncate(applied, 6)
	require.Error(t, r.Check())
	require.Panics(t, func() {
		for range 100 {
			r.Tick()
		}
	})
}

// TestDigestedIsTheLast: once all is applied, raft knows.
func TestDigestedIsTheLast(t *testing.T) {
	r := member(t, 2, 3)
	r.log.store = kept{}
	put := &kvdv1.Batch{Commands: []*kvdv1.Command{{Op: uint32(kv.OpPut), Key: []byte("k")}}}
	told(t, r, put, put, put)
	require.NoError(t, apply(r))
	require.NoError(t, r.Applied())
	require.Equal(t, r.log.last, r.Digested())
	require.EqualValues(t, r.log.last, r.raw.BasicStatus().Applied)
	r.log.Truncate(r.Digested(), 6)
	require.NoError(t, r.Check())
	for range 100 {
		r.Tick()
	}
	require.NotZero(t, r.raw.BasicStatus().RaftState)
}
