package shard

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// TestCommandsSurviveTheLog: a command that goes through a payload is the same afterwards, field by field.
func TestCommandsSurviveTheLog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := anyCommand(t)
		c.ID = rapid.Uint64().Draw(t, "id")
		payload, err := Encode(&kvdv1.Batch{Commands: []*kvdv1.Command{EncodeCommand(c)}})
		require.NoError(t, err)
		b, err := Decode(payload)
		require.NoError(t, err)
		clear(payload) // The batch shares no memory with it.
		got, err := DecodeCommand(b.Commands[0])
		require.NoError(t, err)
		require.True(t, proto.Equal(EncodeCommand(c), EncodeCommand(&got)), "%+v became %+v", c, got)
		require.Equal(t, []any{c.Op, c.TTL, c.ExpireAt, c.Delta, c.Limit, c.ID, c.Cond.Kind, c.Cond.Revision},
			[]any{got.Op, got.TTL, got.ExpireAt, got.Delta, got.Limit, got.ID, got.Cond.Kind, got.Cond.Revision})
	})
}

// TestResultsTravel: a forwarded result is the same on the other side.
func TestResultsTravel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := kv.Result{
			Status:   kv.Status(rapid.IntRange(int(kv.Done), int(kv.Frozen)).Draw(t, "status")),
			Revision: kv.Revision(rapid.Uint64().Draw(t, "revision")), Found: rapid.Bool().Draw(t, "found"),
			Counter: rapid.Int64().Draw(t, "counter"), Count: rapid.IntRange(0, kv.DeleteChunkMax).Draw(t, "count"),
			Succeeded: rapid.Bool().Draw(t, "succeeded"), Reason: rapid.StringMatching(`[a-z ]*`).Draw(t, "reason"),
		}
		if rapid.Bool().Draw(t, "resumes") {
			r.Resume = []byte("k")
		}
		for range rapid.IntRange(0, 3).Draw(t, "operations") {
			r.Ops = append(r.Ops, kv.TxnOpResult{Found: rapid.Bool().Draw(t, "found"), Record: kv.Record{
				Value: []byte(rapid.StringMatching(`[a-z]+`).Draw(t, "value")), Revision: 3, ExpireAt: rapid.Int64().Draw(t, "expiry"),
			}})
		}
		b, err := EncodeResult(&r).MarshalVT()
		require.NoError(t, err)
		p := &kvdv1.CommandResult{}
		require.NoError(t, p.UnmarshalVT(b))
		got, err := DecodeResult(p)
		require.NoError(t, err)
		require.Equal(t, r, got)
	})
	for _, status := range []uint32{0, uint32(kv.Frozen) + 1, 256 + uint32(kv.Done)} {
		_, err := DecodeResult(&kvdv1.CommandResult{Status: status})
		require.ErrorIs(t, err, kv.ErrUnknown, "status %d: nobody knows whether it was done", status)
	}
	_, err := DecodeResult(nil)
	require.ErrorIs(t, err, kv.ErrUnknown)
}

// newer appends a field that this version does not know to a message.
func newer[M proto.Message](m M) M {
	m.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1))
	return m
}

// TestDecodeStopsAtWhatItDoesNotKnow: a newer version's format, operation or field is never skipped, however deep.
func TestDecodeStopsAtWhatItDoesNotKnow(t *testing.T) {
	put := func() *kvdv1.Command { return &kvdv1.Command{Op: uint32(kv.OpPut), Key: []byte("k")} }
	txn := func(change func(*kvdv1.Command)) *kvdv1.Command {
		c := &kvdv1.Command{Op: uint32(kv.OpTxn)}
		change(c)
		return c
	}
	for name, c := range map[string]*kvdv1.Command{
		"operation 0":           {},
		"an operation":          {Op: uint32(kv.OpShape) + 1},
		"an operation past 255": {Op: 256 + uint32(kv.OpPut)},
		"a condition":           {Op: uint32(kv.OpPut), Condition: &kvdv1.CommandCondition{Kind: uint32(kv.IfValue) + 1}},
		"a field":               newer(put()),
		"a condition's field": func() *kvdv1.Command {
			c := put()
			c.Condition = newer(&kvdv1.CommandCondition{})
			return c
		}(),
		"a comparison": txn(func(c *kvdv1.Command) {
			c.Compare = []*kvdv1.CommandCompare{{Condition: &kvdv1.CommandCondition{Kind: 256}}}
		}),
		"a comparison's field": txn(func(c *kvdv1.Command) { c.Compare = []*kvdv1.CommandCompare{newer(&kvdv1.CommandCompare{})} }),
		"a field of a comparison's condition": txn(func(c *kvdv1.Command) {
			c.Compare = []*kvdv1.CommandCompare{{Condition: newer(&kvdv1.CommandCondition{})}}
		}),
		"an operation of then":         txn(func(c *kvdv1.Command) { c.Then = []*kvdv1.CommandTxnOp{{Kind: 4}} }),
		"an operation of else":         txn(func(c *kvdv1.Command) { c.Else = []*kvdv1.CommandTxnOp{{}} }),
		"a field of an operation":      txn(func(c *kvdv1.Command) { c.Else = []*kvdv1.CommandTxnOp{newer(&kvdv1.CommandTxnOp{Kind: 1})} }),
		"a field of an expiry's hints": {Op: uint32(kv.OpExpire), Due: []*kvdv1.CommandDue{newer(&kvdv1.CommandDue{})}},
		"no shape":                     {Op: uint32(kv.OpShape)},
		"a shape":                      EncodeShape(newer(&kvdv1.Shape{})),
		"a field of a shape":           EncodeShape(newer(&kvdv1.Shape{Shape: &kvdv1.Shape_Abort{Abort: &kvdv1.Abort{}}})),
		"a field of a shape's epoch": EncodeShape(&kvdv1.Shape{
			Epoch: newer(&kvdv1.Epoch{}), Shape: &kvdv1.Shape_Abort{Abort: &kvdv1.Abort{}},
		}),
		"a field of a measure": EncodeShape(&kvdv1.Shape{Shape: &kvdv1.Shape_Measure{Measure: newer(&kvdv1.Measure{})}}),
		"a field of a child's replica": EncodeShape(&kvdv1.Shape{Shape: &kvdv1.Shape_Split{Split: &kvdv1.Split{
			Replicas: []*kvdv1.Replica{{Node: 1}, newer(&kvdv1.Replica{})},
		}}}),
		"a field of a merge's state": EncodeShape(&kvdv1.Shape{Shape: &kvdv1.Shape_Merge{Merge: &kvdv1.Merge{
			Right: &kvdv1.ShardState{Descriptor_: &kvdv1.Descriptor{Epoch: newer(&kvdv1.Epoch{})}},
		}}}),
		"a field of the shape of a put": {Op: uint32(kv.OpPut), Key: []byte("k"), Shape: newer(&kvdv1.Shape{})},
	} {
		payload, err := Encode(&kvdv1.Batch{Commands: []*kvdv1.Command{put(), c}})
		require.NoError(t, err)
		_, err = Decode(payload)
		require.ErrorIs(t, err, ErrUnknownCommand, name)
		require.ErrorContains(t, err, "command 1", name)
	}
	payload, err := Encode(newer(&kvdv1.Batch{Commands: []*kvdv1.Command{put()}}))
	require.NoError(t, err)
	_, err = Decode(payload)
	require.ErrorIs(t, err, ErrUnknownCommand, "a field of the batch")
	payload, err = Encode(&kvdv1.Batch{Commands: []*kvdv1.Command{put()}})
	require.NoError(t, err)
	payload[0] = format + 1
	_, err = Decode(payload)
	require.ErrorIs(t, err, ErrUnknownCommand, "the format")
	for n := 2; n < len(payload); n++ {
		if b, err := Decode(append([]byte{format}, payload[1:n]...)); err == nil {
			require.Empty(t, b.Commands, "a torn payload gave a command")
		}
	}
	b, err := Decode(nil)
	require.NoError(t, err)
	require.Nil(t, b, "a new leader's entry has no batch")
}

// FuzzApply: whatever bytes an entry holds, it is refused, or applied by every replica with the same outcome in
// whatever steps, and what comes out of it can be forwarded.
func FuzzApply(f *testing.F) {
	for _, c := range []kv.Command{
		put("k", "v"),
		{Op: kv.OpDeleteRange, Key: []byte("a"), End: []byte("m"), Limit: 2},
		{Op: kv.OpIncrement, Key: []byte("n"), Delta: -1},
		{Op: kv.OpExpire, Due: []kv.Due{{ExpireAt: 5, Key: []byte("e")}}},
		{Op: kv.OpMeta, Value: []byte("x")}, {Op: kv.OpChecksum, ID: 7},
		{Op: kv.OpTxn, Txn: &kv.Txn{
			Compare: []kv.Compare{{Key: []byte("k"), Cond: kv.Condition{Kind: kv.IfValue, Value: []byte("v")}}},
			Then:    []kv.TxnOp{{Kind: kv.TxnPut, Key: []byte("b"), TTL: 5}, {Kind: kv.TxnGet, Key: []byte("b")}},
			Else:    []kv.TxnOp{{Kind: kv.TxnDelete, Key: []byte("k")}},
		}},
	} {
		b, err := Encode(&kvdv1.Batch{Node: 1, StampMs: 4, Commands: []*kvdv1.Command{EncodeCommand(&c)}})
		require.NoError(f, err)
		f.Add(b)
	}
	split := &kvdv1.Split{Key: []byte("k"), Child: 2, Heir: 1, Measure: 1, Index: 12, Replicas: []*kvdv1.Replica{{Node: 1, Replica: 2}}}
	right := &kvdv1.Descriptor{Shard: 3, Start: []byte("z"), Epoch: &kvdv1.Epoch{Version: 1, Config: 1}, Replicas: []*kvdv1.Replica{{Node: 1, Replica: 3}}}
	for _, s := range []*kvdv1.Shape{
		{Shape: &kvdv1.Shape_Measure{Measure: &kvdv1.Measure{Id: 1, Key: []byte("k")}}},
		{Shape: &kvdv1.Shape_Split{Split: split}},
		{Shape: &kvdv1.Shape_Intent{Intent: &kvdv1.Intent{Id: 1, Right: right, Forget: []uint64{7}}}},
		{Shape: &kvdv1.Shape_Freeze{Freeze: &kvdv1.Freeze{Id: 1, Left: 9}}},
		{Shape: &kvdv1.Shape_Merge{Merge: &kvdv1.Merge{Id: 1, Right: &kvdv1.ShardState{
			Descriptor_: right, AppliedIndex: 20, Frozen: &kvdv1.FrozenState{Id: 1, Left: 1, Index: 20}, Keys: 1, Bytes: 2,
		}}}},
		{Shape: &kvdv1.Shape_Abort{Abort: &kvdv1.Abort{Id: 1}}},
		{Shape: &kvdv1.Shape_Unfreeze{Unfreeze: &kvdv1.Unfreeze{Id: 1}}},
		{Shape: &kvdv1.Shape_Settle{Settle: &kvdv1.Settle{Id: 1}}},
	} {
		s.Epoch = &kvdv1.Epoch{Version: 1, Config: 1}
		b, err := Encode(&kvdv1.Batch{Node: 1, StampMs: 4, Commands: []*kvdv1.Command{EncodeShape(s)}})
		require.NoError(f, err)
		f.Add(b)
	}
	expiring := put("e", "5")
	expiring.ExpireAt = 5
	counter := put("n", "9223372036854775807")
	measure := &kvdv1.Batch{Commands: []*kvdv1.Command{EncodeShape(&kvdv1.Shape{
		Epoch: &kvdv1.Epoch{Version: 1, Config: 1}, Shape: &kvdv1.Shape_Measure{Measure: &kvdv1.Measure{Id: 1, Key: []byte("k")}},
	})}}
	f.Fuzz(func(t *testing.T, payload []byte) {
		b, err := Decode(payload)
		shared, otherwise := DecodeShared(payload)
		require.Equal(t, err == nil, otherwise == nil)
		if len(payload) > 0 && payload[0] == format {
			plain := &kvdv1.Batch{}
			if failed := plain.UnmarshalVT(payload[1:]); err == nil {
				require.NoError(t, failed)
				require.True(t, proto.Equal(plain, b))
				require.True(t, proto.Equal(plain, shared))
			}
		}
		if err != nil || b == nil {
			return
		}
		again, err := Decode(payload)
		require.NoError(t, err)
		log := []entry{{batch: &kvdv1.Batch{Commands: []*kvdv1.Command{EncodeCommand(&expiring), EncodeCommand(&counter)}}}, {batch: measure}, {batch: b}, {batch: again}}
		// Nothing is kept of a payload that is shared.
		keeper, other := newShard(t), newShard(t)
		before := []entry{{batch: &kvdv1.Batch{Commands: []*kvdv1.Command{EncodeCommand(&expiring), EncodeCommand(&counter)}}}, {batch: measure}}
		kept := keeper.play(append(before, entry{batch: again}), oneByOne)
		text := bytes.Clone(payload)
		lent, err := DecodeShared(text)
		require.NoError(t, err)
		if !Shapes(payload) {
			require.Equal(t, kept, other.play(append(before, entry{batch: lent}), oneByOne))
			for i := range text {
				text[i] = 0xff
			}
			require.Equal(t, keeper.hash(), other.hash())
			require.True(t, proto.Equal(keeper.m.State(), other.m.State()))
		}
		one, all := newShard(t), newShard(t)
		results := one.play(log, oneByOne)
		require.Equal(t, results, all.play(log, atOnce))
		require.Equal(t, one.hash(), all.hash())
		for i := range results[13] {
			if _, err := DecodeResult(EncodeResult(&results[13][i])); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzDecodeResult: whatever a node answers, it is understood or refused.
func FuzzDecodeResult(f *testing.F) {
	b, err := EncodeResult(&kv.Result{Status: kv.Done, Resume: []byte("k"), Ops: []kv.TxnOpResult{{Found: true}}}).MarshalVT()
	require.NoError(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &kvdv1.CommandResult{}
		if p.UnmarshalVT(b) != nil {
			return
		}
		r, err := DecodeResult(p)
		if err != nil {
			require.ErrorIs(t, err, kv.ErrUnknown)
			return
		}
		require.GreaterOrEqual(t, r.Count, 0)
	})
}

// FuzzDecodeCommand: a command that travels is refused, or is what it was when it is encoded again; one that may be proposed
// is within its bounds, and one that may not is refused by the name of a field.
func FuzzDecodeCommand(f *testing.F) {
	for _, c := range []kv.Command{
		put("k", "v"), {Op: kv.OpDeleteRange, Key: []byte("a"), End: []byte("m"), Limit: 2}, {Op: kv.OpIncrement, Key: []byte("n"), Delta: -1},
		{Op: kv.OpTxn, Txn: &kv.Txn{Compare: []kv.Compare{{Key: []byte("k")}}, Then: []kv.TxnOp{{Kind: kv.TxnPut, Key: []byte("b"), TTL: 5}}}},
	} {
		b, err := EncodeCommand(&c).MarshalVT()
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &kvdv1.Command{}
		if p.UnmarshalVT(b) != nil {
			return
		}
		c, err := DecodeCommand(p)
		if err != nil {
			return
		}
		if err := CheckCommand(&c); err != nil {
			var invalid *kv.InvalidError
			require.ErrorAs(t, err, &invalid)
			require.NotEmpty(t, invalid.Field)
			return
		}
		again, err := DecodeCommand(EncodeCommand(&c))
		require.NoError(t, err)
		require.NoError(t, CheckCommand(&again))
		require.True(t, proto.Equal(EncodeCommand(&c), EncodeCommand(&again)))
		require.Equal(t, c.Size(), again.Size())
	})
}

// TestShapes: what changes the shape is known from its payload alone, and what cannot be read counts as that.
func TestShapes(t *testing.T) {
	shape, err := Encode(&kvdv1.Batch{Node: 1, Life: 1 << 60, Seq: 9, StampMs: 5, Commands: []*kvdv1.Command{
		{Op: uint32(kv.OpShape), Shape: &kvdv1.Shape{Shape: &kvdv1.Shape_Abort{Abort: &kvdv1.Abort{}}}},
	}})
	require.NoError(t, err)
	put, err := Encode(&kvdv1.Batch{Node: 1, StampMs: 5, Commands: []*kvdv1.Command{EncodeCommand(&kv.Command{Op: kv.OpPut, Key: []byte("k")})}})
	require.NoError(t, err)
	empty, err := Encode(&kvdv1.Batch{Node: 1})
	require.NoError(t, err)
	require.True(t, Shapes(shape))
	require.False(t, Shapes(put))
	require.False(t, Shapes(empty))
	require.False(t, Shapes(nil))
	require.True(t, Shapes([]byte{format + 1}))
	for i := range put {
		_, err := Decode(put[:i])
		if err != nil {
			require.True(t, Shapes(put[:i]), "the first %d bytes cannot be read", i)
		}
		_, err = Decode(shape[:i])
		require.True(t, err == nil || Shapes(shape[:i]), "the first %d bytes cannot be read", i)
	}
}
