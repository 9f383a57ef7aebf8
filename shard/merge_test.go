package shard

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// pair are two neighbours, [a, k) and [k, z), of which the right one has the higher version.
func pair(t require.TestingT) *fleet {
	right := founded(2, "k", "z")
	right.Descriptor_.Epoch = &kvdv1.Epoch{Version: 9, Config: 3}
	return newFleet(t, founded(1, "a", "k"), right)
}

func (f *fleet) intent(id uint64) *kvdv1.Shape {
	return &kvdv1.Shape{Epoch: f.epoch(1), Shape: &kvdv1.Shape_Intent{Intent: &kvdv1.Intent{
		Id: id, Right: wire.FromDescriptor(f.shards[2].m.Descriptor(), 1),
	}}}
}

func (f *fleet) freeze(id uint64) *kvdv1.Shape {
	return &kvdv1.Shape{Epoch: f.epoch(2), Shape: &kvdv1.Shape_Freeze{Freeze: &kvdv1.Freeze{Id: id, Left: 1}}}
}

func (f *fleet) merge(id uint64) *kvdv1.Shape {
	return &kvdv1.Shape{Epoch: f.epoch(1), Shape: &kvdv1.Shape_Merge{Merge: &kvdv1.Merge{
		Id: id, Right: proto.CloneOf(f.shards[2].m.State()),
	}}}
}

func (f *fleet) abort(id uint64) *kvdv1.Shape {
	return &kvdv1.Shape{Epoch: f.epoch(1), Shape: &kvdv1.Shape_Abort{Abort: &kvdv1.Abort{Id: id}}}
}

func (f *fleet) settle(id uint64) *kvdv1.Shape {
	return &kvdv1.Shape{Epoch: f.epoch(1), Shape: &kvdv1.Shape_Settle{Settle: &kvdv1.Settle{Id: id}}}
}

// unfreeze names the epoch that the right shard had when the merge was intended.
func unfreeze(id uint64, version, config uint64) *kvdv1.Shape {
	return &kvdv1.Shape{Epoch: &kvdv1.Epoch{Version: version, Config: config}, Shape: &kvdv1.Shape_Unfreeze{Unfreeze: &kvdv1.Unfreeze{Id: id}}}
}

// TestMerge (G1, G3): the left shard has the span, the counts and the larger of revision and time of both, and names
// what it absorbed.
func TestMerge(t *testing.T) {
	f := pair(t)
	f.one(1, 3000, put("b", "1"))
	f.one(1, 3000, expiring("c", "12", 9000))
	for range 5 {
		f.one(2, 5000, put("m", "123"))
	}
	f.one(2, 5000, expiring("n", "1", 9000))
	f.measured(1, 1, "c", 8)
	f.done(1, f.intent(7))
	require.EqualValues(t, 7, f.shards[1].m.Intent().Id)
	f.done(2, f.freeze(7))
	f.one(2, 6000, put("m", "late"))
	f.restart(1)
	f.restart(2)
	right := f.shards[2].m.Descriptor()
	frozen := f.shards[2].m.Frozen()
	require.True(t, proto.Equal(&kvdv1.FrozenState{Id: 7, Left: 1, Index: 17}, frozen), "%v", frozen)
	f.done(1, f.merge(7))
	f.agrees()
	f.restart(1)
	left := f.shards[1].m
	require.Len(t, f.shards, 1)
	require.Nil(t, left.Absorbed(), "the absorption is the step's")
	require.Equal(t, kv.Span{Start: []byte("a"), End: []byte("z")}, left.Descriptor().Span)
	require.Equal(t, kv.Epoch{Version: 10, Config: 7}, left.Descriptor().Epoch)
	require.Equal(t, []int64{6, 5000, 5000}, []int64{int64(left.Revision()), left.Time(), left.State().SinceMs})
	st := left.State()
	require.Nil(t, st.Intent)
	require.Nil(t, st.Measure)
	index, _ := left.Applied()
	require.True(t, proto.Equal(&kvdv1.Absorbed{
		Shard: 2, Index: 17, Replicas: wire.FromDescriptor(right, 0).Replicas, Merged: uint64(index),
	}, st.Absorbed[0]), "%v", st.Absorbed)
	r := f.one(1, 5000, put("m", "x"))
	require.Equal(t, kv.Result{Status: kv.Done, Revision: 7}, r, "a revision went back (R1)")
	f.agrees()
}

// TestMergeKeepsTheLarger (R1, R4): nor does the left shard's revision and time go back when the right one's are smaller;
// and the version goes above the left one's when that is the higher.
func TestMergeKeepsTheLarger(t *testing.T) {
	st := founded(1, "a", "k")
	st.Descriptor_.Epoch.Version = 6
	f := newFleet(t, st, founded(2, "k", "z"))
	for range 3 {
		f.one(1, 3000, put("b", "1"))
	}
	f.one(2, 2000, put("m", "1"))
	f.done(1, f.intent(7))
	f.done(2, f.freeze(7))
	f.done(1, f.merge(7))
	left := f.shards[1].m
	require.EqualValues(t, 3, left.Revision())
	require.EqualValues(t, 3000, left.Time())
	require.Equal(t, kv.Epoch{Version: 7, Config: 7}, left.Descriptor().Epoch)
}

// TestSplitThenMerge: what was split can be merged, again and again; keys keep rising revisions, and the last split is
// no longer told.
func TestSplitThenMerge(t *testing.T) {
	f := newFleet(t, founded(1, "a", "z"))
	last := kv.Revision(0)
	write := func(shard uint64) {
		r := f.one(shard, 0, put("p", "1"))
		require.Greater(t, r.Revision, last)
		last = r.Revision
	}
	for i := range uint64(3) {
		write(1)
		f.done(1, f.measured(1, i+1, "m", 2))
		require.NotNil(t, f.shards[1].m.State().Birth)
		write(2)
		x := f.intent(i + 1)
		x.GetIntent().Forget = []uint64{2}
		f.done(1, x)
		f.done(2, f.freeze(i+1))
		f.done(1, f.merge(i+1))
		require.Nil(t, f.shards[1].m.State().Birth)
		require.Len(t, f.shards[1].m.State().Absorbed, 1)
		write(1)
		f.agrees()
	}
	require.Equal(t, kv.Epoch{Version: 10, Config: 7}, f.shards[1].m.Descriptor().Epoch)
}

// absorbedShards are so many that a shard remembers.
func absorbedShards(n int) []*kvdv1.Absorbed {
	var list []*kvdv1.Absorbed
	for i := range n {
		list = append(list, &kvdv1.Absorbed{Shard: uint64(100 + i), Index: 30, Merged: 40})
	}
	return list
}

// TestIntentForgets (G3): absorbed shards are remembered until no node holds them; where there is no room for another the
// merge does not begin.
func TestIntentForgets(t *testing.T) {
	left := founded(1, "a", "k")
	left.Absorbed = absorbedShards(kv.AbsorbedMax)
	f := newFleet(t, left, founded(2, "k", "z"))
	x := f.intent(7)
	f.refused(1, x, "intent")
	x.GetIntent().Forget = []uint64{99}
	f.refused(1, x, "intent")
	x.GetIntent().Forget = []uint64{103, 100, 99}
	before := f.shards[1].m.State()
	f.done(1, x)
	require.Len(t, before.Absorbed, kv.AbsorbedMax, "a state that was given out has changed")
	var kept []uint64
	for _, a := range f.shards[1].m.State().Absorbed {
		kept = append(kept, a.Shard)
	}
	require.Equal(t, []uint64{101, 102, 104, 105, 106, 107}, kept)
	f.done(2, f.freeze(7))
	f.done(1, f.merge(7))
	require.Len(t, f.shards[1].m.State().Absorbed, kv.AbsorbedMax-1)
}

// TestIntentIsRefused (G1).
func TestIntentIsRefused(t *testing.T) {
	for name, x := range map[string]struct {
		before func(f *fleet)
		change func(s *kvdv1.Shape, right *kvdv1.Descriptor)
		field  string
	}{
		"an older version":       {change: func(s *kvdv1.Shape, right *kvdv1.Descriptor) { s.Epoch.Version-- }, field: "epoch"},
		"an older configuration": {change: func(s *kvdv1.Shape, right *kvdv1.Descriptor) { s.Epoch.Config-- }, field: "epoch"},
		"a joint configuration": {
			before: func(f *fleet) { f.joint(1) },
			change: func(s *kvdv1.Shape, right *kvdv1.Descriptor) { s.Epoch.Config++ }, field: "shape",
		},
		"an open merge": {before: func(f *fleet) { f.done(1, f.intent(6)) }, field: "shape"},
		"one that was given up": {
			before: func(f *fleet) {
				f.done(1, f.intent(6))
				f.done(1, f.abort(6))
			},
			change: func(s *kvdv1.Shape, right *kvdv1.Descriptor) { s.Epoch.Version++ }, field: "intent",
		},
		"no id":                {change: func(s *kvdv1.Shape, right *kvdv1.Descriptor) { s.GetIntent().Id = 0 }, field: "intent.id"},
		"no right shard":       {change: func(s *kvdv1.Shape, right *kvdv1.Descriptor) { s.GetIntent().Right = nil }, field: "intent.right"},
		"the meta group":       {change: func(s *kvdv1.Shape, right *kvdv1.Descriptor) { right.Shard = 0 }, field: "intent.right"},
		"itself":               {change: func(s *kvdv1.Shape, right *kvdv1.Descriptor) { right.Shard = 1 }, field: "intent.right"},
		"a shard further away": {change: func(s *kvdv1.Shape, right *kvdv1.Descriptor) { right.Start = []byte("l") }, field: "intent.right"},
		"a shard without keys": {change: func(s *kvdv1.Shape, right *kvdv1.Descriptor) { right.End = []byte("k") }, field: "intent.right"},
		"the left neighbour": {
			change: func(s *kvdv1.Shape, right *kvdv1.Descriptor) { right.Start, right.End = nil, []byte("a") }, field: "intent.right",
		},
		"a joint right shard": {change: func(s *kvdv1.Shape, right *kvdv1.Descriptor) { right.Replicas[1].Outgoing = true }, field: "intent.right"},
		"another node":        {change: func(s *kvdv1.Shape, right *kvdv1.Descriptor) { right.Replicas[1].Node = 4 }, field: "intent.right"},
		"a node less":         {change: func(s *kvdv1.Shape, right *kvdv1.Descriptor) { right.Replicas = right.Replicas[:2] }, field: "intent.right"},
		"a node more": {change: func(s *kvdv1.Shape, right *kvdv1.Descriptor) {
			right.Replicas = append(right.Replicas, &kvdv1.Replica{Node: 4, Replica: 24})
		}, field: "intent.right"},
	} {
		t.Run(name, func(t *testing.T) {
			f := pair(t)
			good := f.intent(7)
			bad := proto.CloneOf(good)
			if x.before != nil {
				x.before(f)
			}
			if x.change != nil {
				x.change(bad, bad.GetIntent().Right)
			}
			f.refused(1, bad, x.field)
			if x.before == nil {
				f.done(1, good)
			}
		})
	}
	f := newFleet(t, founded(1, "k", ""), founded(2, "", "k"))
	f.refused(1, f.intent(7), "intent.right")
}

// TestUnderAnOpenMerge (G1): the left shard stays as the merge found it, until it is given up.
func TestUnderAnOpenMerge(t *testing.T) {
	f := pair(t)
	split := f.measured(1, 5, "c", 3)
	f.done(1, f.intent(7))
	frozen := &kvdv1.Shape{Epoch: f.epoch(1), Shape: &kvdv1.Shape_Freeze{Freeze: &kvdv1.Freeze{Id: 8, Left: 9}}}
	change := &kvdv1.ConfChange{Epoch: f.epoch(1), Remove: []uint64{13}}
	conf := &raftpb.ConfState{Voters: []uint64{11, 12}}
	f.refused(1, split, "shape")
	f.refused(1, frozen, "shape")
	r := f.conf(1, change, conf)
	require.Equal(t, kv.Refused, r.Status)
	require.Contains(t, r.Reason, "merge 7")
	require.EqualValues(t, 7, f.shards[1].m.Descriptor().Epoch.Config)
	require.Equal(t, kv.Done, f.one(1, 0, put("b", "1")).Status)

	f.done(1, f.abort(7))
	frozen.Epoch, split.Epoch = f.epoch(1), f.epoch(1)
	f.refused(1, frozen, "shape") // Until the right shard has confirmed it (G2).
	f.done(1, split)
	change.Epoch = f.epoch(1)
	require.Equal(t, kv.Done, f.conf(1, change, conf).Status)
	f.done(1, f.settle(7))
	frozen.Epoch = f.epoch(1)
	f.done(1, frozen)
}

// TestFreezeIsRefused (G1).
func TestFreezeIsRefused(t *testing.T) {
	for name, x := range map[string]struct {
		before func(f *fleet)
		change func(s *kvdv1.Shape, x *kvdv1.Freeze)
		field  string
	}{
		"an older version":       {change: func(s *kvdv1.Shape, x *kvdv1.Freeze) { s.Epoch.Version-- }, field: "epoch"},
		"a newer version":        {change: func(s *kvdv1.Shape, x *kvdv1.Freeze) { s.Epoch.Version++ }, field: "epoch"},
		"an older configuration": {change: func(s *kvdv1.Shape, x *kvdv1.Freeze) { s.Epoch.Config-- }, field: "epoch"},
		"a newer configuration":  {change: func(s *kvdv1.Shape, x *kvdv1.Freeze) { s.Epoch.Config++ }, field: "epoch"},
		"a joint configuration": {
			before: func(f *fleet) { f.joint(2) },
			change: func(s *kvdv1.Shape, x *kvdv1.Freeze) { s.Epoch.Config++ }, field: "shape",
		},
		"no id":     {change: func(s *kvdv1.Shape, x *kvdv1.Freeze) { x.Id = 0 }, field: "freeze.id"},
		"no left":   {change: func(s *kvdv1.Shape, x *kvdv1.Freeze) { x.Left = 0 }, field: "freeze.left"},
		"by itself": {change: func(s *kvdv1.Shape, x *kvdv1.Freeze) { x.Left = 2 }, field: "freeze.left"},
	} {
		t.Run(name, func(t *testing.T) {
			f := pair(t)
			good := f.freeze(7)
			bad := proto.CloneOf(good)
			if x.before != nil {
				x.before(f)
			}
			if x.change != nil {
				x.change(bad, bad.GetFreeze())
			}
			f.refused(2, bad, x.field)
			if x.before == nil {
				f.done(2, good)
			}
		})
	}
	f := newFleet(t, founded(1, "k", ""), founded(2, "", "k"))
	f.refused(2, f.freeze(7), "freeze.left")
}

// TestFrozen (G1): after f nothing changes the shard, neither a write nor a purge, a stamp, a checksum or another
// configuration; only the Unfreeze of the same merge ends it.
func TestFrozen(t *testing.T) {
	f := pair(t)
	f.one(2, 500, expiring("m", "1", 1000))
	split := f.measured(2, 5, "n", 3)
	f.done(2, f.freeze(7))
	m := f.shards[2].m
	before := m.State()
	for name, c := range map[string]*kvdv1.Command{
		"a write":           EncodeCommand(&kv.Command{Op: kv.OpPut, Key: []byte("m")}),
		"a key outside":     EncodeCommand(&kv.Command{Op: kv.OpPut, Key: []byte("b")}),
		"a range":           EncodeCommand(&kv.Command{Op: kv.OpDeleteRange, Key: []byte("m")}),
		"a purge":           EncodeCommand(&kv.Command{Op: kv.OpExpire, Due: []kv.Due{{ExpireAt: 1000, Key: []byte("m")}}}),
		"a checksum":        EncodeCommand(&kv.Command{Op: kv.OpChecksum, ID: 1}),
		"a split":           EncodeShape(split),
		"a measure":         EncodeShape(&kvdv1.Shape{Epoch: f.epoch(2), Shape: &kvdv1.Shape_Measure{Measure: &kvdv1.Measure{Id: 1, Key: []byte("p")}}}),
		"the freeze again":  EncodeShape(f.freeze(7)),
		"another freeze":    EncodeShape(f.freeze(8)),
		"another unfreeze":  EncodeShape(unfreeze(8, 9, 3)),
		"an older unfreeze": EncodeShape(unfreeze(7, 8, 3)),
		"a newer unfreeze":  EncodeShape(unfreeze(7, 9, 4)),
	} {
		r := f.step(2, &kvdv1.Batch{StampMs: 2000, Commands: []*kvdv1.Command{c}})
		require.Equal(t, [][]kv.Result{{{Status: kv.Frozen}}}, r, name)
		require.Empty(t, m.Checksums(), name)
	}
	r := f.step(2, &kvdv1.Batch{StampMs: 2000, Commands: []*kvdv1.Command{
		EncodeShape(unfreeze(7, 9, 3)), EncodeCommand(&kv.Command{Op: kv.OpPut, Key: []byte("m")}),
	}})
	require.Equal(t, [][]kv.Result{{{Status: kv.Frozen}, {Status: kv.Frozen}}}, r, "not alone in its entry")
	require.Equal(t, kv.Result{Status: kv.Frozen}, f.conf(2, &kvdv1.ConfChange{Epoch: f.epoch(2), Remove: []uint64{23}}, nil))
	require.Error(t, m.AdmitShape(split))
	require.Error(t, m.AdmitShape(unfreeze(8, 9, 3)))
	index, term := m.Applied()
	before.AppliedIndex, before.AppliedTerm = uint64(index), uint64(term)
	require.True(t, proto.Equal(before, m.State()), "%v became %v", before, m.State())
	require.Equal(t, "1", f.shards[2].get("m"))

	x := unfreeze(7, 9, 3)
	require.NoError(t, m.AdmitShape(x))
	f.step(2, &kvdv1.Batch{StampMs: 2000, Commands: []*kvdv1.Command{EncodeShape(x)}})
	require.EqualValues(t, 500, m.Time(), "the time stood still up to the end of the freeze")
	require.Nil(t, m.Frozen())
	require.Equal(t, kv.Epoch{Version: 10, Config: 3}, m.Descriptor().Epoch)
	require.EqualValues(t, 7, m.State().Unfrozen)
	f.restart(2)
	require.Equal(t, kv.Done, f.one(2, 2000, put("m", "2")).Status)
}

// TestUnfreeze (G2): it ends the freeze of its own merge or keeps it from coming, whichever of the two the log has
// first; a late one ends no other.
func TestUnfreeze(t *testing.T) {
	f := pair(t)
	m := f.shards[2].m
	freeze, first := f.freeze(7), unfreeze(7, 9, 3)
	f.done(2, first)
	require.Equal(t, kv.Epoch{Version: 10, Config: 3}, m.Descriptor().Epoch)
	require.EqualValues(t, 7, m.State().Unfrozen)
	f.refused(2, freeze, "epoch")

	f.done(2, first)
	require.Equal(t, kv.Epoch{Version: 10, Config: 3}, m.Descriptor().Epoch, "its freeze cannot come: nothing is to be done")

	again := f.freeze(8)
	f.done(2, again)
	require.Equal(t, kv.Frozen, f.shape(2, first).Status)
	require.EqualValues(t, 8, m.Frozen().Id, "a late unfreeze has ended a newer freeze")
	require.EqualValues(t, 7, m.State().Unfrozen)
	f.done(2, unfreeze(8, 10, 3))
	require.Nil(t, m.Frozen())
	require.Equal(t, kv.Epoch{Version: 11, Config: 3}, m.Descriptor().Epoch)
	require.EqualValues(t, 8, m.State().Unfrozen)

	// Either half that is past the epoch tells that the freeze would be refused; one that is not yet at it does not.
	f.done(2, unfreeze(9, 12, 2))
	require.EqualValues(t, 9, m.State().Unfrozen)
	f.done(2, unfreeze(10, 10, 4))
	require.EqualValues(t, 10, m.State().Unfrozen)
	f.refused(2, unfreeze(11, 12, 3), "epoch")
	f.refused(2, unfreeze(11, 11, 4), "epoch")
	f.refused(2, unfreeze(0, 11, 3), "unfreeze.id")
	require.Equal(t, kv.Epoch{Version: 11, Config: 3}, m.Descriptor().Epoch)
	require.EqualValues(t, 10, m.State().Unfrozen)
}

// TestMergeOrAbort (G1, G2): the one that the log has first ends the merge; what was given up is settled before the next.
func TestMergeOrAbort(t *testing.T) {
	f := pair(t)
	f.refused(1, f.abort(7), "abort.id")
	f.refused(1, f.settle(7), "settle.id")
	f.done(1, f.intent(7))
	f.done(2, f.freeze(7))
	merge := f.merge(7)
	f.refused(1, f.abort(6), "abort.id")
	f.refused(1, f.settle(7), "settle.id") // It is open.
	f.done(1, f.abort(7))
	require.True(t, f.shards[1].m.Intent().Aborted)
	f.restart(1)
	f.refused(1, merge, "epoch")
	merge.Epoch = f.epoch(1)
	f.refused(1, merge, "merge.id")
	f.refused(1, f.abort(7), "abort.id")
	f.refused(1, f.settle(6), "settle.id")
	f.done(1, f.settle(7))
	require.Nil(t, f.shards[1].m.Intent())
	f.refused(1, merge, "merge.id")

	f.done(2, unfreeze(7, 9, 3))
	f.done(1, f.intent(8))
	f.done(2, f.freeze(8))
	abort := f.abort(8)
	f.done(1, f.merge(8))
	abort.Epoch = f.epoch(1)
	f.refused(1, abort, "abort.id")
	require.Equal(t, kv.Epoch{Version: 11, Config: 7}, f.shards[1].m.Descriptor().Epoch)
}

// TestTheSameGoalMergesAgain (G1, G2): a merge that was given up may be begun anew under its id. What was proposed for the
// first one, by a leader that had not heard of its end, does nothing then, though the right shard was as it is now.
func TestTheSameGoalMergesAgain(t *testing.T) {
	f := pair(t)
	intent := f.intent(7)
	f.done(1, intent)
	abort := f.abort(7)
	f.done(2, f.freeze(7))
	merge := f.merge(7)
	f.done(1, abort)
	require.Equal(t, kv.Epoch{Version: 5, Config: 7}, f.shards[1].m.Descriptor().Epoch)
	f.done(2, unfreeze(7, 9, 3))
	f.done(1, f.settle(7))
	f.one(2, 0, put("m", "1"))
	f.refused(1, intent, "epoch")
	intent.Epoch = f.epoch(1) // The map does not know yet that the right one is another.
	f.done(1, intent)
	f.refused(1, merge, "epoch")
	f.refused(1, abort, "epoch")
	f.done(1, f.abort(7))
	f.done(1, f.settle(7))

	f.done(1, f.intent(7))
	f.done(2, f.freeze(7))
	require.Equal(t, kv.Frozen, f.shape(2, unfreeze(7, 9, 3)).Status)
	require.NotNil(t, f.shards[2].m.Frozen(), "the end of the first freeze has ended the second")
	require.Error(t, f.shards[2].m.AdmitShape(unfreeze(7, 9, 3)))
	f.done(1, f.merge(7))
	f.agrees()
}

// TestMergeIsRefused (G1): it takes the state of the intent's right shard, frozen by it, and no other.
func TestMergeIsRefused(t *testing.T) {
	for name, x := range map[string]struct {
		change func(s *kvdv1.Shape, right *kvdv1.ShardState)
		field  string
	}{
		"an older version":          {func(s *kvdv1.Shape, right *kvdv1.ShardState) { s.Epoch.Version-- }, "epoch"},
		"an older configuration":    {func(s *kvdv1.Shape, right *kvdv1.ShardState) { s.Epoch.Config-- }, "epoch"},
		"another merge":             {func(s *kvdv1.Shape, right *kvdv1.ShardState) { s.GetMerge().Id = 6 }, "merge.id"},
		"no state":                  {func(s *kvdv1.Shape, right *kvdv1.ShardState) { s.GetMerge().Right = nil }, "merge.right"},
		"another shard":             {func(s *kvdv1.Shape, right *kvdv1.ShardState) { right.Descriptor_.Shard = 3 }, "merge.right"},
		"another start":             {func(s *kvdv1.Shape, right *kvdv1.ShardState) { right.Descriptor_.Start = []byte("l") }, "merge.right"},
		"another end":               {func(s *kvdv1.Shape, right *kvdv1.ShardState) { right.Descriptor_.End = []byte("y") }, "merge.right"},
		"another node":              {func(s *kvdv1.Shape, right *kvdv1.ShardState) { right.Descriptor_.Replicas[0].Node = 4 }, "merge.right"},
		"the right one's version":   {func(s *kvdv1.Shape, right *kvdv1.ShardState) { right.Descriptor_.Epoch.Version++ }, "merge.right.epoch"},
		"its configuration":         {func(s *kvdv1.Shape, right *kvdv1.ShardState) { right.Descriptor_.Epoch.Config++ }, "merge.right.epoch"},
		"a state before the freeze": {func(s *kvdv1.Shape, right *kvdv1.ShardState) { right.Frozen = nil }, "merge.right.frozen"},
		"frozen by another merge":   {func(s *kvdv1.Shape, right *kvdv1.ShardState) { right.Frozen.Id = 6 }, "merge.right.frozen"},
		"frozen by another shard":   {func(s *kvdv1.Shape, right *kvdv1.ShardState) { right.Frozen.Left = 3 }, "merge.right.frozen"},
		"not applied up to f":       {func(s *kvdv1.Shape, right *kvdv1.ShardState) { right.AppliedIndex = right.Frozen.Index - 1 }, "merge.right.frozen"},
		"a time before 1970":        {func(s *kvdv1.Shape, right *kvdv1.ShardState) { right.TimeMs = -1 }, "merge.right"},
		"keys without bytes":        {func(s *kvdv1.Shape, right *kvdv1.ShardState) { right.Bytes = 0 }, "merge.right"},
		"more than can be counted":  {func(s *kvdv1.Shape, right *kvdv1.ShardState) { right.Bytes = math.MaxInt64 }, "merge.right"},
	} {
		t.Run(name, func(t *testing.T) {
			f := pair(t)
			f.one(1, 0, put("b", "1"))
			f.one(2, 0, put("m", "1"))
			f.done(1, f.intent(7))
			f.done(2, f.freeze(7))
			good := f.merge(7)
			bad := proto.CloneOf(good)
			x.change(bad, bad.GetMerge().Right)
			f.refused(1, bad, x.field)
			f.done(1, good)
		})
	}
}
