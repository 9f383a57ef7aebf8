package shard

import (
	"bytes"
	"maps"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// order is a shape command that was proposed to a shard; its entry may come late, or twice.
type order struct {
	shard uint64
	shape *kvdv1.Shape
}

// shapes is a fleet and what plain maps make of its commands.
type shapes struct {
	*fleet
	t      *rapid.T
	models map[uint64]*model
	split  map[uint64]*kvdv1.Shape // The split that a measure in force is for.
	late   []order
	next   uint64                 // The next id of a shard or a measure.
	goal   uint64                 // Of the last merge; it may be begun again.
	right  map[uint64]order       // The end of the freeze of a merge, by the left shard.
	seen   map[string]kv.Revision // The last write of a key.
}

// TestShapesModel: whatever the commands, splits and merges, in whatever steps and however late their entries come, the
// shards together hold what plain maps do; the counts of each are those of what is stored in its span, a key's
// revision only rises (R1), time does not go back (R4), and a merge takes only a shard that stands still (G1).
func TestShapesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &shapes{
			fleet: newFleet(t, founded(1, "a", "b"), founded(2, "b", "z")), t: t, next: 3,
			models: map[uint64]*model{
				1: newModel(kv.Span{Start: []byte("a"), End: []byte("b")}), 2: newModel(kv.Span{Start: []byte("b"), End: []byte("z")}),
			},
			split: map[uint64]*kvdv1.Shape{}, right: map[uint64]order{}, seen: map[string]kv.Revision{},
		}
		for range rapid.IntRange(10, 40).Draw(t, "turns") {
			shard := rapid.SampledFrom(slices.Sorted(maps.Keys(s.models))).Draw(t, "shard")
			switch rapid.IntRange(0, 6).Draw(t, "turn") {
			case 0, 1:
				s.commands(shard, nil)
			case 2:
				s.commands(shard, s.proposeSplit(shard))
			case 3, 4:
				for range rapid.IntRange(1, 5).Draw(t, "steps of a merge") {
					if s.models[shard] != nil {
						s.proposeMerge(shard)
						s.compare()
					}
				}
			case 5:
				for range rapid.IntRange(1, 4).Draw(t, "late ones") {
					s.hear()
					s.compare()
				}
			case 6:
				s.restart(shard)
			}
			s.compare()
		}
	})
}

// hear applies a command that was proposed before, the last ones rather than others.
func (s *shapes) hear() {
	n := len(s.late)
	if n == 0 {
		return
	}
	back := min(n, rapid.SampledFrom([]int{6, 6, n}).Draw(s.t, "of the last"))
	if o := s.late[n-rapid.IntRange(1, back).Draw(s.t, "late")]; s.models[o.shard] != nil {
		s.commands(o.shard, o.shape)
	}
}

// commands applies some entries in one step, of which the last changes the shape.
func (s *shapes) commands(shard uint64, last *kvdv1.Shape) {
	m, machine := s.models[shard], s.shards[shard].m
	var entries []*kvdv1.Batch
	var want [][]kv.Result
	for range rapid.IntRange(0, 2).Draw(s.t, "entries") {
		b := &kvdv1.Batch{StampMs: m.time + 2*rapid.Int64Range(-10, 15).Draw(s.t, "stamp")}
		if machine.Frozen() == nil {
			m.time = max(m.time, b.StampMs)
		}
		var results []kv.Result
		for range rapid.IntRange(1, 4).Draw(s.t, "commands") {
			c := anyCommand(s.t)
			if c.Op == kv.OpExpire {
				dueNow(s.t, s.shards[shard], c, m.time)
			}
			b.Commands = append(b.Commands, EncodeCommand(c))
			if machine.Frozen() != nil {
				results = append(results, kv.Result{Status: kv.Frozen})
				continue
			}
			results = append(results, m.apply(c))
		}
		entries, want = append(entries, b), append(want, results)
	}
	if last == nil {
		require.Equal(s.t, want, emptyIsNil(s.step(shard, entries...)))
		return
	}
	s.late = append(s.late, order{shard, last})
	still := s.stands(last)
	entries = append(entries, &kvdv1.Batch{StampMs: m.time, Commands: []*kvdv1.Command{EncodeShape(last)}})
	got := s.step(shard, entries...)
	require.Equal(s.t, want, emptyIsNil(got[:len(got)-1]))
	if got[len(got)-1][0].Status == kv.Done {
		s.took(shard, last, still)
	}
}

func emptyIsNil(r [][]kv.Result) [][]kv.Result {
	if len(r) == 0 {
		return nil
	}
	return r
}

// stands reports whether the right shard of a merge is frozen by it.
func (s *shapes) stands(x *kvdv1.Shape) bool {
	m := x.GetMerge()
	right := s.shards[m.GetRight().GetDescriptor_().GetShard()]
	return m != nil && right != nil && right.m.Frozen().GetId() == m.Id
}

// took does to the models what a shape command did to the shards.
func (s *shapes) took(shard uint64, x *kvdv1.Shape, still bool) {
	left := s.models[shard]
	switch x := x.Shape.(type) {
	case *kvdv1.Shape_Split:
		child := newModel(kv.Span{Start: x.Split.Key, End: left.span.End})
		child.revision, child.time = left.revision, left.time
		left.span.End = x.Split.Key
		for key, rec := range left.stored {
			if child.span.Contains([]byte(key)) {
				child.stored[key] = rec
				delete(left.stored, key)
			}
		}
		s.models[x.Split.Child] = child
	case *kvdv1.Shape_Merge:
		require.True(s.t, still, "merge %d takes a shard that does not stand still", x.Merge.Id)
		id := x.Merge.Right.Descriptor_.Shard
		right := s.models[id]
		left.span.End = right.span.End
		left.revision, left.time = max(left.revision, right.revision), max(left.time, right.time)
		maps.Copy(left.stored, right.stored)
		delete(s.models, id)
	}
}

// proposeSplit gives the split that the last measure was for, or applies another measure.
func (s *shapes) proposeSplit(shard uint64) *kvdv1.Shape {
	if x := s.split[shard]; x != nil && rapid.Bool().Draw(s.t, "splits") {
		x.Epoch = s.epoch(shard)
		return x
	}
	d := s.shards[shard].m.Descriptor()
	key := anyKey(s.t)
	if s.shards[shard].m.Frozen() != nil || !d.Span.Contains(key) || bytes.Equal(key, d.Span.Start) {
		return nil
	}
	s.next++
	s.split[shard] = s.measured(shard, s.next, string(key), s.next)
	return nil
}

// proposeMerge makes the next step of a merge with the right neighbour.
func (s *shapes) proposeMerge(shard uint64) {
	left := s.shards[shard].m
	var right *Machine
	for id := range s.models {
		if d := s.shards[id].m.Descriptor(); bytes.Equal(d.Span.Start, left.Descriptor().Span.End) {
			right = s.shards[id].m
		}
	}
	if right == nil {
		return
	}
	id := uint64(right.Descriptor().Shard)
	x := &kvdv1.Shape{Epoch: s.epoch(shard)}
	switch in := left.Intent(); {
	case in == nil:
		if s.goal == 0 || rapid.Bool().Draw(s.t, "another goal") {
			s.goal++
		}
		intent := &kvdv1.Intent{Id: s.goal, Right: wire.FromDescriptor(right.Descriptor(), 0)}
		for _, a := range left.State().Absorbed {
			intent.Forget = append(intent.Forget, a.Shard)
		}
		x.Shape = &kvdv1.Shape_Intent{Intent: intent}
		s.right[shard] = order{id, &kvdv1.Shape{Epoch: s.epoch(id), Shape: &kvdv1.Shape_Unfreeze{Unfreeze: &kvdv1.Unfreeze{Id: s.goal}}}}
		s.late = append(s.late, order{id, &kvdv1.Shape{Epoch: s.epoch(id), Shape: &kvdv1.Shape_Freeze{Freeze: &kvdv1.Freeze{Id: s.goal, Left: shard}}}})
	case in.Aborted:
		o := s.right[shard]
		if s.models[o.shard] != nil {
			s.commands(o.shard, o.shape)
			if r := s.shards[o.shard]; r != nil && (r.m.Frozen().GetId() == in.Id || !r.m.Descriptor().Epoch.Newer(wire.ToEpoch(o.shape.Epoch))) {
				return
			}
		}
		x.Shape = &kvdv1.Shape_Settle{Settle: &kvdv1.Settle{Id: in.Id}}
	case right.Frozen().GetId() == in.Id:
		x.Shape = &kvdv1.Shape_Merge{Merge: &kvdv1.Merge{Id: in.Id, Right: right.State()}}
		switch rapid.IntRange(0, 3).Draw(s.t, "goes on") {
		case 0:
			s.late = append(s.late, order{shard, x})
			return
		case 1:
			s.late = append(s.late, order{shard, x})
			x = &kvdv1.Shape{Epoch: s.epoch(shard), Shape: &kvdv1.Shape_Abort{Abort: &kvdv1.Abort{Id: in.Id}}}
		}
	case rapid.IntRange(0, 3).Draw(s.t, "gives up early") == 0:
		x.Shape = &kvdv1.Shape_Abort{Abort: &kvdv1.Abort{Id: in.Id}}
	default:
		shard = id
		x = &kvdv1.Shape{Epoch: wire.FromEpoch(wire.ToEpoch(in.Right.Epoch)), Shape: &kvdv1.Shape_Freeze{
			Freeze: &kvdv1.Freeze{Id: in.Id, Left: uint64(left.Descriptor().Shard)},
		}}
	}
	s.commands(shard, x)
}

// compare compares all that the shards keep.
func (s *shapes) compare() {
	want, stored := map[string]kv.Record{}, map[string]kv.Record{}
	var due []kv.Due
	for id, m := range s.models {
		maps.Copy(want, m.stored)
		machine := s.shards[id].m
		require.Equal(s.t, m.span, machine.Descriptor().Span)
		require.Equal(s.t, []int64{int64(m.revision), m.time}, []int64{int64(machine.Revision()), machine.Time()}, "shard %d", id)
	}
	require.Len(s.t, s.shards, len(s.models))
	require.NoError(s.t, s.store.Scan(kv.Span{}, func(key []byte, rec kv.Record) bool {
		rec.Value = bytes.Clone(rec.Value)
		stored[string(key)] = rec
		require.GreaterOrEqual(s.t, rec.Revision, s.seen[string(key)], "the revision of %s went back", key)
		s.seen[string(key)] = rec.Revision
		if rec.ExpireAt != 0 {
			due = append(due, kv.Due{ExpireAt: rec.ExpireAt, Key: bytes.Clone(key)})
		}
		return true
	}))
	require.Equal(s.t, want, stored)
	index := &kv.Command{}
	dueNow(s.t, &shardUnderTest{s.t, s.store, nil}, index, math.MaxInt64)
	require.ElementsMatch(s.t, due, index.Due, "the index of expiries")
	s.agrees()
}
