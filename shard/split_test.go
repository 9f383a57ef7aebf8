package shard

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

func expiring(key, value string, at int64) kv.Command {
	c := put(key, value)
	c.ExpireAt = at
	return c
}

// TestSplit (S1, S2): the parent narrows and the child appears in one step, with the counts of what each holds, however
// the right part changed after it was counted and in the step of the split itself.
func TestSplit(t *testing.T) {
	f := newFleet(t, founded(1, "a", "z"))
	for _, c := range []kv.Command{put("b", "12"), put("k", "1"), put("m", "12345"), expiring("n", "1", 900), expiring("o", "1", 900), put("p1", ""), put("p2", ""), put("q", "1")} {
		f.one(1, 100, c)
	}
	split := f.measured(1, 5, "k", 2)
	require.EqualValues(t, 19, f.shards[1].m.State().Measure.Index)
	for _, c := range []kv.Command{
		put("b", "123"), put("c", "1"), put("l", "1"), put("m", "1"), expiring("m", "22", 800), put("n", "1"),
		{Op: kv.OpDelete, Key: []byte("l")}, {Op: kv.OpDelete, Key: []byte("r")},
		{Op: kv.OpDeleteRange, Key: []byte("p"), End: []byte("q")},
		{Op: kv.OpIncrement, Key: []byte("k"), Delta: 99},
		{Op: kv.OpTxn, Txn: &kv.Txn{Then: []kv.TxnOp{
			{Kind: kv.TxnPut, Key: []byte("d"), Value: []byte("1")}, {Kind: kv.TxnPut, Key: []byte("s"), Value: []byte("1")},
			{Kind: kv.TxnPut, Key: []byte("s"), Value: []byte("12")}, {Kind: kv.TxnDelete, Key: []byte("q")},
		}}},
	} {
		require.Equal(t, kv.Done, f.one(1, 100, c).Status)
	}
	f.restart(1)
	parent := f.shards[1].m
	// Of the step of the split: a purge, a write that the child shall have, one that is written again, one taken back.
	r := f.step(1,
		batch(950, kv.Command{Op: kv.OpExpire, Due: []kv.Due{{ExpireAt: 800, Key: []byte("m")}, {ExpireAt: 900, Key: []byte("o")}}}),
		batch(950, put("t", "1"), put("t", "12"), put("u", "1"), kv.Command{Op: kv.OpDelete, Key: []byte("u")}, put("a", "x")),
		&kvdv1.Batch{StampMs: 1000, Commands: []*kvdv1.Command{EncodeShape(split)}})
	require.Equal(t, 2, r[0][0].Count)
	require.Equal(t, kv.Result{Status: kv.Done}, r[2][0])
	require.Nil(t, parent.Birth(), "the birth is the step's")
	f.agrees()

	child := f.shards[2].m
	span := func(start, end string) kv.Span { return kv.Span{Start: []byte(start), End: []byte(end)} }
	require.Equal(t, span("a", "k"), parent.Descriptor().Span)
	require.Equal(t, span("k", "z"), child.Descriptor().Span)
	require.Equal(t, kv.Epoch{Version: 5, Config: 7}, parent.Descriptor().Epoch)
	require.Equal(t, kv.Epoch{Version: 5, Config: 7}, child.Descriptor().Epoch)
	require.True(t, child.Descriptor().Epoch.Newer(kv.Epoch{Version: 4, Config: 7}), "the map would not take it")
	require.Equal(t, []kv.Replica{{Node: 1, Replica: 21}, {Node: 2, Replica: 22}, {Node: 3, Replica: 23, Learner: true}}, child.Descriptor().Replicas)
	st := child.State()
	pair := &kvdv1.SplitPair{Left: wire.FromDescriptor(parent.Descriptor(), 0), Right: wire.FromDescriptor(child.Descriptor(), 0)}
	require.True(t, proto.Equal(&kvdv1.ShardState{
		Replica: 21, Descriptor_: pair.Right, AppliedIndex: 10, AppliedTerm: 5, BaseIndex: 10, BaseTerm: 5, Voters: []uint64{21, 22},
		Learners: []uint64{23}, Revision: uint64(parent.Revision()), TimeMs: 1000, Keys: 4, Bytes: 12, Birth: pair, SinceMs: 1000,
	}, st), "%v", st)
	require.True(t, proto.Equal(pair, parent.State().Birth))
	require.Nil(t, parent.State().Measure)
	require.EqualValues(t, 1000, parent.State().SinceMs)
	require.Equal(t, "12", f.shards[2].get("t"), "what the step wrote before is the child's")

	require.Equal(t, kv.WrongShard, f.one(1, 1000, put("k", "x")).Status)
	require.Equal(t, kv.WrongShard, f.one(2, 1000, put("a", "x")).Status)
	before := child.Revision()
	require.Equal(t, before+1, f.one(2, 1000, put("t", "3")).Revision, "a revision went back (R1)")
	f.restart(1)
	f.restart(2)
	f.refused(1, split, "epoch")
	f.done(2, f.measured(2, 6, "s", 3))
	f.agrees()
	require.Equal(t, kv.Epoch{Version: 6, Config: 7}, f.shards[3].m.Descriptor().Epoch)
}

// TestSplitIsRefused (S1): whatever does not fit, or comes at the wrong time, changes nothing.
func TestSplitIsRefused(t *testing.T) {
	for name, x := range map[string]struct {
		before func(f *fleet)
		change func(s *kvdv1.Shape, x *kvdv1.Split)
		field  string
	}{
		"an older version":       {change: func(s *kvdv1.Shape, x *kvdv1.Split) { s.Epoch.Version-- }, field: "epoch"},
		"a newer version":        {change: func(s *kvdv1.Shape, x *kvdv1.Split) { s.Epoch.Version++ }, field: "epoch"},
		"an older configuration": {change: func(s *kvdv1.Shape, x *kvdv1.Split) { s.Epoch.Config-- }, field: "epoch"},
		"a newer configuration":  {change: func(s *kvdv1.Shape, x *kvdv1.Split) { s.Epoch.Config++ }, field: "epoch"},
		"no epoch":               {change: func(s *kvdv1.Shape, x *kvdv1.Split) { s.Epoch = nil }, field: "epoch"},
		"a joint configuration": {
			before: func(f *fleet) { f.joint(1) },
			change: func(s *kvdv1.Shape, x *kvdv1.Split) { s.Epoch.Config++ }, field: "shape",
		},
		"the start":               {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Key = []byte("a") }, field: "split.key"},
		"the end":                 {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Key = []byte("z") }, field: "split.key"},
		"below the span":          {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Key = []byte("Z") }, field: "split.key"},
		"no key":                  {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Key = nil }, field: "split.key"},
		"a key that is too long":  {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Key = []byte(strings.Repeat("k", kv.KeyBytesMax+1)) }, field: "split.key"},
		"a key not measured at":   {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Key = []byte("l") }, field: "split.measure"},
		"another measure":         {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Measure = 4 }, field: "split.measure"},
		"the same measured again": {before: func(f *fleet) { f.measured(1, 5, "k", 2) }, field: "split.measure"},
		"a measure since":         {before: func(f *fleet) { f.measured(1, 6, "k", 2) }, field: "split.measure"},
		"the meta group's id":     {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Child = 0 }, field: "split.child"},
		"its own id":              {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Child = 1 }, field: "split.child"},
		"a replica less":          {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Replicas = x.Replicas[:2] }, field: "split.replicas"},
		"a replica more": {change: func(s *kvdv1.Shape, x *kvdv1.Split) {
			x.Replicas = append(x.Replicas, &kvdv1.Replica{Node: 4, Replica: 24})
		}, field: "split.replicas"},
		"another node":             {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Replicas[1].Node = 4 }, field: "split.replicas"},
		"a node twice":             {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Replicas[1].Node = 1 }, field: "split.replicas"},
		"no replica id":            {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Replicas[1].Replica = 0 }, field: "split.replicas"},
		"a replica id twice":       {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Replicas[1].Replica = 21 }, field: "split.replicas"},
		"a learner that votes":     {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Replicas[2].Learner = false }, field: "split.replicas"},
		"a voter that learns":      {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Replicas[1].Learner = true }, field: "split.replicas"},
		"an incoming voter":        {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Replicas[1].Incoming = true }, field: "split.replicas"},
		"an outgoing voter":        {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Replicas[1].Outgoing = true }, field: "split.replicas"},
		"an heir that learns":      {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Heir = 3 }, field: "split.heir"},
		"an heir elsewhere":        {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Heir = 4 }, field: "split.heir"},
		"more keys than all":       {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Keys = 4 }, field: "split.keys, split.bytes, split.expiring"},
		"more bytes than all":      {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Bytes = 100 }, field: "split.keys, split.bytes, split.expiring"},
		"more expiring than all":   {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Expiring = 2 }, field: "split.keys, split.bytes, split.expiring"},
		"more keys than bytes":     {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Bytes = 1 }, field: "split.keys, split.bytes, split.expiring"},
		"bytes without a key":      {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Keys, x.Expiring = 0, 0 }, field: "split.keys, split.bytes, split.expiring"},
		"bytes left without a key": {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Keys = 3 }, field: "split.keys, split.bytes, split.expiring"},
		"fewer keys than went since": {
			before: func(f *fleet) { f.one(1, 1, kv.Command{Op: kv.OpDelete, Key: []byte("m")}) },
			change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Keys, x.Bytes, x.Expiring = 0, 0, 0 }, field: "split.keys, split.bytes, split.expiring",
		},
		"keys without end": {change: func(s *kvdv1.Shape, x *kvdv1.Split) { x.Keys = math.MaxUint64 }, field: "split.keys, split.bytes, split.expiring"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, founded(1, "a", "z"))
			for _, c := range []kv.Command{put("b", "1"), put("m", "12"), expiring("n", "1", 1000)} {
				f.one(1, 1, c)
			}
			good := f.measured(1, 5, "k", 2)
			bad := proto.CloneOf(good)
			if x.before != nil {
				x.before(f)
			}
			if x.change != nil {
				x.change(bad, bad.GetSplit())
			}
			f.refused(1, bad, x.field)
			require.Len(t, f.shards, 1)
			if x.before == nil {
				f.done(1, good)
			}
		})
	}
}

// TestMeasureIsRefused: a measure is of a part of the span.
func TestMeasureIsRefused(t *testing.T) {
	f := newFleet(t, founded(1, "a", "z"))
	measure := func(id uint64, key string) *kvdv1.Shape {
		return &kvdv1.Shape{Epoch: f.epoch(1), Shape: &kvdv1.Shape_Measure{Measure: &kvdv1.Measure{Id: id, Key: []byte(key)}}}
	}
	f.refused(1, measure(0, "k"), "measure.id")
	for _, key := range []string{"", "a", "z", "Z"} {
		f.refused(1, measure(1, key), "measure.key")
	}
	late := measure(1, "k")
	late.Epoch.Version--
	f.refused(1, late, "epoch")
	f.done(1, measure(1, "k"))
}
