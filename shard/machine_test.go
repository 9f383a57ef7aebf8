package shard

import (
	"fmt"
	"math"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/storage"
)

// store is a state store as a machine sees it.
type store struct{ *storage.MemState }

func (s store) Scan(span kv.Span, f func(key []byte, rec kv.Record) bool) error {
	it, err := s.Iter(span)
	if err != nil {
		return err
	}
	for it.Next() {
		rec, err := it.Record()
		if err != nil {
			return err
		}
		if !f(it.Key(), rec) {
			break
		}
	}
	return it.Close()
}

func birth() *kvdv1.ShardState {
	return &kvdv1.ShardState{
		Replica: 1, Descriptor_: &kvdv1.Descriptor{Shard: 1, Start: []byte("a"), End: []byte("z"), Epoch: &kvdv1.Epoch{Version: 1, Config: 1}},
		AppliedIndex: 10, AppliedTerm: 5, BaseIndex: 10, BaseTerm: 5, Voters: []uint64{1},
	}
}

// shardUnderTest is a machine with its store.
type shardUnderTest struct {
	t     require.TestingT
	store store
	m     *Machine
}

func newShard(t require.TestingT) *shardUnderTest {
	s := store{storage.NewMemState()}
	return &shardUnderTest{t, s, New(birth(), s)}
}

// step applies entries in one step.
func (s *shardUnderTest) step(batches ...*kvdv1.Batch) [][]kv.Result {
	b := s.store.NewBatch()
	s.m.Begin(b)
	var all [][]kv.Result
	for _, batch := range batches {
		index, _ := s.m.Applied()
		results, err := s.m.Apply(index+1, 6, batch)
		require.NoError(s.t, err)
		all = append(all, results)
	}
	s.m.Finish()
	_, err := s.store.Commit(b)
	require.NoError(s.t, err)
	s.m.Committed()
	require.NoError(s.t, s.m.Check())
	return all
}

// one applies one command at a time in Unix milliseconds.
func (s *shardUnderTest) one(stamp int64, c kv.Command) kv.Result {
	return s.step(&kvdv1.Batch{StampMs: stamp, Commands: []*kvdv1.Command{EncodeCommand(&c)}})[0][0]
}

func (s *shardUnderTest) get(key string) string {
	rec, ok, err := s.store.Get([]byte(key))
	require.NoError(s.t, err)
	if !ok || rec.ExpiredAt(s.m.Time()) {
		return ""
	}
	return string(rec.Value)
}

func put(key, value string) kv.Command {
	return kv.Command{Op: kv.OpPut, Key: []byte(key), Value: []byte(value)}
}

func TestPutConditions(t *testing.T) {
	s := newShard(t)
	first := s.one(1, put("k", "1"))
	require.Equal(t, kv.Revision(1), first.Revision)
	c := put("k", "2")
	c.Cond = kv.Condition{Kind: kv.IfAbsent}
	r := s.one(1, c)
	require.Equal(t, kv.ConditionFailed, r.Status)
	require.Equal(t, kv.Revision(1), r.Revision)
	c.Cond = kv.Condition{Kind: kv.IfRevision, Revision: 1}
	require.Equal(t, kv.Done, s.one(1, c).Status)
	require.Equal(t, kv.ConditionFailed, s.one(1, c).Status)
	require.Equal(t, "2", s.get("k"))
	require.Equal(t, kv.WrongShard, s.one(1, put("zz", "x")).Status)
	require.Equal(t, kv.Revision(2), s.m.Revision(), "what was refused counts nothing")
}

func TestIncrement(t *testing.T) {
	s := newShard(t)
	by := func(n int64) kv.Result { return s.one(1, kv.Command{Op: kv.OpIncrement, Key: []byte("n"), Delta: n}) }
	require.EqualValues(t, 5, by(5).Counter)
	require.EqualValues(t, 3, by(-2).Counter)
	s.one(1, put("n", strconv.FormatInt(math.MaxInt64, 10)))
	require.Equal(t, kv.NotANumber, by(1).Status)
	s.one(1, put("n", "many"))
	require.Equal(t, kv.NotANumber, by(1).Status)
	require.Equal(t, "many", s.get("n"))
}

func TestTxnSeesItself(t *testing.T) {
	s := newShard(t)
	s.one(1, put("a", "1"))
	r := s.one(1, kv.Command{Op: kv.OpTxn, Txn: &kv.Txn{
		Compare: []kv.Compare{{Key: []byte("a"), Cond: kv.Condition{Kind: kv.IfValue, Value: []byte("1")}}},
		Then: []kv.TxnOp{
			{Kind: kv.TxnPut, Key: []byte("b"), Value: []byte("2")}, {Kind: kv.TxnGet, Key: []byte("b")},
			{Kind: kv.TxnDelete, Key: []byte("a")}, {Kind: kv.TxnGet, Key: []byte("a")},
		},
		Else: []kv.TxnOp{{Kind: kv.TxnGet, Key: []byte("a")}},
	}})
	require.True(t, r.Succeeded)
	require.Equal(t, "2", string(r.Ops[1].Record.Value))
	require.True(t, r.Ops[2].Found)
	require.False(t, r.Ops[3].Found)
	require.Equal(t, kv.Revision(2), r.Revision)
	require.Equal(t, kv.WrongShard, s.one(1, kv.Command{Op: kv.OpTxn, Txn: &kv.Txn{Then: []kv.TxnOp{
		{Kind: kv.TxnPut, Key: []byte("c"), Value: []byte("x")}, {Kind: kv.TxnPut, Key: []byte("zz"), Value: []byte("x")},
	}}}).Status)
	require.Empty(t, s.get("c"), "a refused transaction writes nothing")
}

func TestDeleteRangeInChunks(t *testing.T) {
	s := newShard(t)
	for i := range 10 {
		s.one(1, put(fmt.Sprintf("k%d", i), "x"))
	}
	r := s.one(1, kv.Command{Op: kv.OpDeleteRange, Key: []byte("k2"), End: []byte("k9"), Limit: 4})
	require.Equal(t, 4, r.Count)
	require.Equal(t, "k6", string(r.Resume))
	r = s.one(1, kv.Command{Op: kv.OpDeleteRange, Key: r.Resume, End: []byte("k9"), Limit: 4})
	require.Equal(t, 3, r.Count)
	require.Nil(t, r.Resume)
	require.EqualValues(t, 3, s.m.Keys())
}

// TestExpiry (R4): the shard's time decides, never goes back, and a purge takes only what is due.
func TestExpiry(t *testing.T) {
	s := newShard(t)
	c := put("k", "x")
	c.TTL = 100
	s.one(1000, c)
	require.Equal(t, "x", s.get("k"))
	s.one(500, put("other", "y"))
	require.EqualValues(t, 1000, s.m.Time(), "time went back")
	early := s.one(1050, kv.Command{Op: kv.OpExpire, Due: []kv.Due{{ExpireAt: 1100, Key: []byte("k")}}})
	require.Equal(t, kv.Done, early.Status)
	require.Equal(t, "x", s.get("k"))
	s.one(1100, put("other", "z"))
	require.Empty(t, s.get("k"), "its time has come")
	again := put("k", "new")
	again.Cond = kv.Condition{Kind: kv.IfAbsent}
	require.Equal(t, kv.Done, s.one(1100, again).Status)
	s.one(1200, kv.Command{Op: kv.OpExpire, Due: []kv.Due{{ExpireAt: 1100, Key: []byte("k")}}})
	require.Equal(t, "new", s.get("k"), "a purge took a key that was written anew")
	before := s.m.Revision()
	c.TTL = 10
	s.one(2000, c)
	s.one(2010, kv.Command{Op: kv.OpExpire, Due: []kv.Due{{ExpireAt: 2010, Key: []byte("k")}}})
	_, ok, err := s.store.Get([]byte("k"))
	require.NoError(t, err)
	require.False(t, ok, "not purged")
	require.Equal(t, before+1, s.m.Revision(), "a purge counts no revision")
	all := true
	_, all, err = s.store.Due(kv.Due{}, math.MaxInt64-1, 10, func(kv.Due) bool { return false })
	require.NoError(t, err)
	require.True(t, all, "the index of expiries is not empty")
}

func TestUnknownCommandStops(t *testing.T) {
	s := newShard(t)
	s.m.Begin(s.store.NewBatch())
	_, err := s.m.Apply(11, 6, &kvdv1.Batch{Commands: []*kvdv1.Command{{Op: 99}}})
	require.Error(t, err)
	_, err = New(birth(), s.store).Apply(12, 6, nil)
	require.Error(t, err, "a gap")
}

func drawCommand(t *rapid.T) kv.Command {
	key := []byte(rapid.StringMatching(`[a-c][0-3]`).Draw(t, "key"))
	c := kv.Command{Op: kv.OpPut, Key: key, Value: []byte(rapid.StringMatching(`[0-9]{0,2}`).Draw(t, "value"))}
	switch rapid.IntRange(0, 6).Draw(t, "op") {
	case 0:
		c.TTL = int64(rapid.IntRange(1, 50).Draw(t, "ttl"))
	case 1:
		c.Cond = kv.Condition{Kind: kv.IfRevision, Revision: kv.Revision(rapid.IntRange(1, 20).Draw(t, "revision"))}
	case 2:
		return kv.Command{Op: kv.OpDelete, Key: key}
	case 3:
		return kv.Command{Op: kv.OpIncrement, Key: key, Delta: int64(rapid.IntRange(-3, 3).Draw(t, "delta"))}
	case 4:
		return kv.Command{Op: kv.OpDeleteRange, Key: key, End: []byte("b2"), Limit: 3}
	case 5:
		return kv.Command{Op: kv.OpTxn, Txn: &kv.Txn{
			Compare: []kv.Compare{{Key: key, Cond: kv.Condition{Kind: kv.IfPresent}}},
			Then:    []kv.TxnOp{{Kind: kv.TxnDelete, Key: key}, {Kind: kv.TxnPut, Key: []byte("c9"), Value: key}},
			Else:    []kv.TxnOp{{Kind: kv.TxnPut, Key: key, Value: []byte("7")}},
		}}
	case 6:
		return kv.Command{Op: kv.OpExpire, Due: []kv.Due{{ExpireAt: int64(rapid.IntRange(1, 400).Draw(t, "due")), Key: key}}}
	}
	return c
}

// TestStepsDoNotMatter: the same entries cut into other steps, and replayed after a crash at any step, give the same
// results and the same state (T2); and plain maps say the same of puts, deletes and counters.
func TestStepsDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var log []*kvdv1.Batch
		for i := range rapid.IntRange(1, 25).Draw(t, "entries") {
			b := &kvdv1.Batch{StampMs: int64(i*10 + rapid.IntRange(-15, 15).Draw(t, "stamp"))}
			for range rapid.IntRange(1, 4).Draw(t, "commands") {
				c := drawCommand(t)
				b.Commands = append(b.Commands, EncodeCommand(&c))
			}
			payload, err := Encode(b)
			require.NoError(t, err)
			b, err = Decode(payload)
			require.NoError(t, err)
			log = append(log, b)
		}
		single := newShard(t)
		var want [][]kv.Result
		for _, b := range log {
			want = append(want, single.step(b)...)
		}
		cut := newShard(t)
		var got [][]kv.Result
		for rest := log; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "step")
			got = append(got, cut.step(rest[:n]...)...)
			rest = rest[n:]
			if rapid.IntRange(0, 3).Draw(t, "crash") == 0 {
				// What was stored is all that is left.
				shards, err := cut.store.Shards()
				require.NoError(t, err)
				cut.m = New(shards[0].State, cut.store)
			}
		}
		require.Equal(t, want, got)
		a, err := single.store.Hash()
		require.NoError(t, err)
		b, err := cut.store.Hash()
		require.NoError(t, err)
		require.Equal(t, a, b)
	})
}

// TestCountersAreRight: the counts of a shard are those of what is stored.
func TestCountersAreRight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newShard(t)
		for i := range rapid.IntRange(1, 40).Draw(t, "commands") {
			s.one(int64(i*7), drawCommand(t))
		}
		var keys, bytes, expiring uint64
		require.NoError(t, s.store.Scan(kv.Span{}, func(key []byte, rec kv.Record) bool {
			keys, bytes = keys+1, bytes+uint64(len(key)+len(rec.Value))
			if rec.ExpireAt != 0 {
				expiring++
			}
			return true
		}))
		require.Equal(t, []uint64{keys, bytes, expiring}, []uint64{s.m.Keys(), s.m.Bytes(), s.m.Expiring()})
	})
}

func FuzzDecode(f *testing.F) {
	c := put("k", "v")
	b, err := Encode(&kvdv1.Batch{Node: 1, Commands: []*kvdv1.Command{EncodeCommand(&c)}})
	require.NoError(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		batch, err := Decode(b)
		if err != nil {
			return
		}
		for _, p := range batch.Commands {
			if c, err := DecodeCommand(p); err == nil {
				_ = CheckCommand(&c)
			}
		}
	})
}

func BenchmarkApplyPut(b *testing.B) {
	s := newShard(b)
	c := put("k", string(make([]byte, 128)))
	batch := &kvdv1.Batch{Commands: []*kvdv1.Command{EncodeCommand(&c)}}
	b.ReportAllocs()
	for b.Loop() {
		s.step(batch)
	}
}
