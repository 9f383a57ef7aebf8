package shard

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// entry is one of a log: a batch, as it comes out of the log, or a configuration.
type entry struct {
	batch *kvdv1.Batch
	conf  *raftpb.ConfState
}

// anyLog draws entries; some have no commands, some are configuration changes, some change the shape.
func anyLog(t *rapid.T) []entry {
	var log []entry
	sofar := newShard(t)
	for i := range rapid.IntRange(1, 16).Draw(t, "entries") {
		sofar.play(log, oneByOne)
		switch rapid.IntRange(0, 12).Draw(t, "kind of entry") {
		case 0:
			log = append(log, entry{})
			continue
		case 1:
			log = append(log, entry{conf: &raftpb.ConfState{
				Voters: []uint64{1, uint64(i + 2)}, VotersOutgoing: []uint64{1}, Learners: []uint64{uint64(i + 3)},
				LearnersNext: []uint64{7}, AutoLeave: new(i%2 == 0),
			}})
			continue
		case 2, 3, 4:
			shape := &kvdv1.Batch{StampMs: int64(i * 10), Commands: []*kvdv1.Command{EncodeShape(anyShape(t, sofar))}}
			log = append(log, entry{batch: shape})
			continue
		}
		b := &kvdv1.Batch{Node: 1, Life: 2, Seq: uint64(i), StampMs: int64(i*10 + rapid.IntRange(-15, 15).Draw(t, "stamp"))}
		for range rapid.IntRange(1, 4).Draw(t, "commands") {
			b.Commands = append(b.Commands, EncodeCommand(anyCommand(t)))
		}
		payload, err := Encode(b)
		require.NoError(t, err)
		b, err = Decode(payload)
		require.NoError(t, err)
		log = append(log, entry{batch: b})
	}
	return log
}

// anyShape draws a shape command that fits the shard for the most part. What its right neighbour holds is what lies
// there.
func anyShape(t *rapid.T, s *shardUnderTest) *kvdv1.Shape {
	d, st := s.m.Descriptor(), s.m.State()
	x := &kvdv1.Shape{Epoch: &kvdv1.Epoch{Version: d.Epoch.Version + rapid.SampledFrom([]uint64{0, 0, 0, 1}).Draw(t, "version"), Config: d.Epoch.Config}}
	id := rapid.Uint64Range(1, 2).Draw(t, "id")
	switch rapid.IntRange(0, 6).Draw(t, "kind of shape") {
	case 0:
		x.Shape = &kvdv1.Shape_Freeze{Freeze: &kvdv1.Freeze{Id: id, Left: 9}}
	case 1:
		x.Shape = &kvdv1.Shape_Unfreeze{Unfreeze: &kvdv1.Unfreeze{Id: id}}
	case 2, 3:
		if in := st.Intent; in == nil {
			right := &kvdv1.Descriptor{Shard: 7, Start: d.Span.End, End: []byte("zzz"), Epoch: &kvdv1.Epoch{Version: 3, Config: 1}}
			for _, r := range d.Replicas {
				right.Replicas = append(right.Replicas, &kvdv1.Replica{Node: uint64(r.Node), Replica: uint64(70 + r.Node)})
			}
			x.Shape = &kvdv1.Shape_Intent{Intent: &kvdv1.Intent{Id: id, Right: right, Forget: []uint64{7}}}
		} else if in.Aborted {
			x.Shape = &kvdv1.Shape_Settle{Settle: &kvdv1.Settle{Id: in.Id}}
		} else if rapid.Bool().Draw(t, "gives up") {
			x.Shape = &kvdv1.Shape_Abort{Abort: &kvdv1.Abort{Id: in.Id}}
		} else {
			right := &kvdv1.ShardState{
				Descriptor_: in.Right, AppliedIndex: 30, Frozen: &kvdv1.FrozenState{Id: in.Id, Left: 1, Index: 30},
				Revision: st.Revision + 5, TimeMs: st.TimeMs - 5,
			}
			right.Keys, right.Bytes, right.Expiring = s.store.counted(s.t, kv.Span{Start: in.Right.Start, End: in.Right.End})
			x.Shape = &kvdv1.Shape_Merge{Merge: &kvdv1.Merge{Id: in.Id, Right: right}}
		}
	default:
		if ms := st.Measure; ms != nil && rapid.Bool().Draw(t, "splits") {
			split := &kvdv1.Split{Key: ms.Key, Child: 100 + d.Epoch.Version, Measure: ms.Id, Index: ms.Index, Heir: uint64(d.Replicas[0].Node)}
			keys, bytes, expiring := s.store.counted(s.t, kv.Span{Start: ms.Key, End: d.Span.End})
			split.Keys, split.Bytes, split.Expiring = keys-uint64(ms.Keys), bytes-uint64(ms.Bytes), expiring-uint64(ms.Expiring)
			for _, r := range d.Replicas {
				split.Replicas = append(split.Replicas, &kvdv1.Replica{Node: uint64(r.Node), Replica: uint64(r.Node), Learner: r.Learner})
			}
			x.Shape = &kvdv1.Shape_Split{Split: split}
		} else {
			x.Shape = &kvdv1.Shape_Measure{Measure: &kvdv1.Measure{Id: id, Key: anyKey(t)}}
		}
	}
	return x
}

// play applies the rest of a log from where the machine is, cut into steps by `cut`. It gives the results by index.
func (s *shardUnderTest) play(log []entry, cut func(left int) int) map[kv.Index][]kv.Result {
	results := map[kv.Index][]kv.Result{}
	applied, _ := s.m.Applied()
	for rest := log[applied-kv.BirthIndex:]; len(rest) > 0; {
		n := cut(len(rest))
		b := s.store.NewBatch()
		s.m.Begin(b)
		for i, e := range rest[:n] {
			if s.m.Ends() {
				n = i
				break
			}
			applied++
			if e.conf != nil {
				require.NoError(s.t, reconfigure(s.m, applied, e.conf))
				continue
			}
			r, err := s.m.Apply(applied, 6, e.batch)
			require.NoError(s.t, err)
			require.NoError(s.t, s.m.Check())
			results[applied] = r
		}
		s.m.Finish()
		if st := s.m.Birth(); st != nil {
			b.PutShard(kv.ShardID(st.Descriptor_.Shard), st)
		}
		_, err := s.store.Commit(b)
		require.NoError(s.t, err)
		s.m.Committed()
		require.NoError(s.t, s.m.Check())
		rest = rest[n:]
	}
	return results
}

// crash goes back to the first n steps that were committed, and starts the process again.
func (s *shardUnderTest) crash(n int) {
	require.NoError(s.t, s.store.Crash(func(all int) int {
		require.LessOrEqual(s.t, n, all)
		return n
	}))
	shards, err := s.store.Shards()
	require.NoError(s.t, err)
	st := birth()
	for _, stored := range shards {
		if stored.Shard == 1 {
			st = stored.State
		}
	}
	s.m = New(st, s.store)
	require.NoError(s.t, s.m.Check())
}

func (s *shardUnderTest) hash() uint64 {
	h, err := s.store.Hash()
	require.NoError(s.t, err)
	return h
}

func oneByOne(int) int      { return 1 }
func atOnce(left int) int   { return left }
func byThrees(left int) int { return min(3, left) }

// TestStepsDoNotMatter: replicas that apply the same log cut into different steps give the same results and keep the
// same bytes.
func TestStepsDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := anyLog(t)
		first := newShard(t)
		want := first.play(log, oneByOne)
		for _, cut := range []func(int) int{
			atOnce, byThrees, func(left int) int { return rapid.IntRange(1, left).Draw(t, "step") },
		} {
			other := newShard(t)
			require.Equal(t, want, other.play(log, cut))
			require.Equal(t, first.hash(), other.hash())
			require.Equal(t, first.m.State(), other.m.State())
		}
	})
}

// TestReplayFromAnyPrefix: a crash takes the store back to any of its steps (T2), and the log, replayed from there in
// other steps, gives the results that were given before and the same bytes: nothing is applied twice or left out.
// Under the build tag mutant_applied_apart it fails.
func TestReplayFromAnyPrefix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := anyLog(t)
		steps := make([]int, len(log)) // How long a step of the first life is that begins there.
		for i := range steps {
			steps[i] = rapid.IntRange(1, len(log)-i).Draw(t, "step")
		}
		again := rapid.SampledFrom([]func(int) int{oneByOne, atOnce, byThrees}).Draw(t, "cut of the replay")
		for kept, commits := 0, 1; kept <= commits; kept++ {
			s := newShard(t)
			commits = 0
			want := s.play(log, func(left int) int {
				commits++
				return steps[len(log)-left]
			})
			before, state := s.hash(), s.m.State()
			s.crash(kept)
			for index, results := range s.play(log, again) {
				require.Equal(t, want[index], results, "entry %d", index)
			}
			require.Equal(t, before, s.hash(), "after a crash that kept %d of %d steps", kept, commits)
			require.True(t, proto.Equal(state, s.m.State()))
		}
	})
}

// TestConfigurationIsInItsStep (T5): what a configuration change leaves is stored with its index, the joint part too,
// and survives a restart; a machine that was given a configuration keeps it.
func TestConfigurationIsInItsStep(t *testing.T) {
	s := newShard(t)
	joint := &raftpb.ConfState{
		Voters: []uint64{1, 2, 3}, VotersOutgoing: []uint64{1}, Learners: []uint64{4}, LearnersNext: []uint64{5}, AutoLeave: new(true),
	}
	k := put("k", "v")
	write := entry{batch: &kvdv1.Batch{Commands: []*kvdv1.Command{EncodeCommand(&k)}}}
	log := []entry{write, {conf: joint}, write, {conf: &raftpb.ConfState{Voters: []uint64{1, 2, 3}}}}
	want := func(index int, conf *raftpb.ConfState, revision uint64) {
		t.Helper()
		shards, err := s.store.Shards()
		require.NoError(t, err)
		st := shards[0].State
		require.EqualValues(t, index, st.AppliedIndex)
		require.Equal(t, revision, st.Revision, "a configuration is no write command")
		require.Equal(t, []any{conf.GetVoters(), conf.GetVotersOutgoing(), conf.GetLearners(), conf.GetLearnersNext(), conf.GetAutoLeave()},
			[]any{st.Voters, st.VotersOutgoing, st.Learners, st.LearnersNext, st.AutoLeave})
	}
	s.play(log[:1], oneByOne)
	want(11, &raftpb.ConfState{Voters: []uint64{1}}, 1)
	s.play(log[:2], oneByOne)
	want(12, joint, 1)
	s.play(log[:3], oneByOne)
	want(13, joint, 2)
	_, err := s.store.Sync()
	require.NoError(t, err)
	s.play(log, oneByOne)
	want(14, log[3].conf, 2)
	s.crash(0)
	want(13, joint, 2)
	require.Equal(t, joint.GetVotersOutgoing(), s.m.State().VotersOutgoing)
}
