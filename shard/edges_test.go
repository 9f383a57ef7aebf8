package shard

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

func batch(stamp int64, commands ...kv.Command) *kvdv1.Batch {
	b := &kvdv1.Batch{StampMs: stamp}
	for i := range commands {
		b.Commands = append(b.Commands, EncodeCommand(&commands[i]))
	}
	return b
}

func TestCounterBounds(t *testing.T) {
	low, high := strconv.FormatInt(math.MinInt64, 10), strconv.FormatInt(math.MaxInt64, 10)
	for _, x := range []struct {
		stored string
		delta  int64
		want   string // Empty: refused.
	}{
		{high, 0, high}, {high, 1, ""}, {high, math.MaxInt64, ""}, {high, math.MinInt64, "-1"}, {high, -1, "9223372036854775806"},
		{low, 0, low}, {low, -1, ""}, {low, math.MinInt64, ""}, {low, math.MaxInt64, "-1"}, {low, 1, "-9223372036854775807"},
		{"-1", math.MinInt64, ""}, {"0", math.MinInt64, low}, {"0", math.MaxInt64, high}, {"1", math.MaxInt64, ""},
		{"9223372036854775808", 0, ""}, {"-9223372036854775809", 1, ""}, {strings.Repeat("0", 21), 1, ""},
		{"", 1, ""}, {" 1", 1, ""}, {"1.0", 1, ""}, {"0x1", 1, ""}, {"1_0", 1, ""}, {"1\n", 1, ""}, {"-", 1, ""},
	} {
		s := newShard(t)
		s.one(1, put("n", x.stored))
		r := s.one(1, kv.Command{Op: kv.OpIncrement, Key: []byte("n"), Delta: x.delta})
		if x.want == "" {
			require.Equal(t, kv.Result{Status: kv.NotANumber}, r, "%q by %d", x.stored, x.delta)
			require.Equal(t, x.stored, s.get("n"))
			require.EqualValues(t, 1, s.m.Revision(), "what was refused counts nothing")
			continue
		}
		require.Equal(t, kv.Done, r.Status, "%q by %d", x.stored, x.delta)
		require.Equal(t, x.want, s.get("n"))
		require.Equal(t, x.want, strconv.FormatInt(r.Counter, 10))
	}
}

// TestTimesNearTheEnd: a time to live never overflows, whatever the shard's time has become.
func TestTimesNearTheEnd(t *testing.T) {
	s := newShard(t)
	c := put("k", "v")
	c.TTL = kv.TTLMax.Milliseconds()
	s.one(1_790_000_000_000, c)
	rec, ok, err := s.store.Get([]byte("k"))
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, 1_790_000_000_000+kv.TTLMax.Milliseconds(), rec.ExpireAt)
	require.Equal(t, kv.Done, s.one(math.MaxInt64-5, c).Status)
	rec, ok, err = s.store.Get([]byte("k"))
	require.NoError(t, err)
	require.True(t, ok, "it lives for all the time there is")
	require.EqualValues(t, math.MaxInt64, rec.ExpireAt)
	s.one(math.MinInt64, put("other", "v"))
	require.EqualValues(t, math.MaxInt64-5, s.m.Time(), "time went back")
	require.Equal(t, "v", s.get("k"))
	s.one(math.MaxInt64, put("other", "v"))
	require.Empty(t, s.get("k"))
	require.Equal(t, kv.Done, s.one(math.MaxInt64, c).Status, "a write that is gone at once is still a write")
	require.EqualValues(t, 1, s.m.Keys())
}

func TestKeysOutsideTheSpan(t *testing.T) {
	s := newShard(t)
	s.one(1, put("a", "in"))
	before := s.m.State()
	in, out := kv.TxnOp{Kind: kv.TxnPut, Key: []byte("b")}, kv.TxnOp{Kind: kv.TxnGet, Key: []byte("z")}
	for _, key := range []string{"z", "zz", "Z", "\x00", "\xff"} {
		for _, c := range []kv.Command{
			put(key, "x"), {Op: kv.OpDelete, Key: []byte(key)}, {Op: kv.OpIncrement, Key: []byte(key)},
			{Op: kv.OpDeleteRange, Key: []byte(key)},
			{Op: kv.OpTxn, Txn: &kv.Txn{Then: []kv.TxnOp{in, {Kind: kv.TxnPut, Key: []byte(key)}}}},
			{Op: kv.OpTxn, Txn: &kv.Txn{Then: []kv.TxnOp{in}, Else: []kv.TxnOp{out}}},
			{Op: kv.OpTxn, Txn: &kv.Txn{Compare: []kv.Compare{{Key: []byte(key)}}, Then: []kv.TxnOp{in}}},
		} {
			require.Equal(t, kv.Result{Status: kv.WrongShard}, s.one(1, c), "%+v", c)
		}
	}
	require.Equal(t, 0, s.one(1, kv.Command{Op: kv.OpExpire, Due: []kv.Due{{ExpireAt: 1, Key: []byte("zz")}}}).Count)
	after := s.m.State()
	after.AppliedIndex = before.AppliedIndex
	require.Equal(t, before, after, "what was refused has left something")
	r := s.one(1, kv.Command{Op: kv.OpDeleteRange, Key: []byte("a"), End: []byte("zzz")})
	require.Equal(t, kv.Result{Status: kv.Done, Revision: 2, Count: 1, Resume: []byte("z")}, r, "a range may reach past the shard's end, and goes on there")
}

// TestPurgeOfAnotherHint: an OpExpire that comes between two writes of one step takes the entry of the index away;
// what is stored with that expiry in the end has one.
func TestPurgeOfAnotherHint(t *testing.T) {
	s := newShard(t)
	with := put("k", "v")
	with.ExpireAt = 100
	s.one(1, with)
	s.step(batch(2, put("k", "v")), batch(2, kv.Command{Op: kv.OpExpire, Due: []kv.Due{{ExpireAt: 100, Key: []byte("k")}}}), batch(2, with))
	require.Equal(t, []kv.Due{{ExpireAt: 100, Key: []byte("k")}}, s.due())
}

// TestDeleteChunk: one command removes a bounded number of keys, also where all of them were purged on the way.
func TestDeleteChunk(t *testing.T) {
	for _, expired := range []bool{false, true} {
		s := newShard(t)
		var log []*kvdv1.Batch
		for i := range kv.DeleteChunkMax + 2 {
			c := put(fmt.Sprintf("k%05d", i), "x")
			if expired {
				c.ExpireAt = 100
			}
			log = append(log, batch(1, c))
		}
		s.step(log...)
		for _, limit := range []int{0, kv.DeleteChunkMax + 1, math.MaxInt32} {
			r := s.step(batch(100, kv.Command{Op: kv.OpDeleteRange, Key: []byte("a"), End: []byte("z"), Limit: limit}))[0][0]
			if limit != 0 {
				require.Nil(t, r.Resume)
				continue
			}
			require.Equal(t, fmt.Sprintf("k%05d", kv.DeleteChunkMax), string(r.Resume))
			require.EqualValues(t, 2, s.m.Keys())
			if expired {
				require.Zero(t, r.Count, "what had expired was counted")
			} else {
				require.Equal(t, kv.DeleteChunkMax, r.Count)
			}
		}
		require.Zero(t, s.m.Keys())
		require.Empty(t, s.due())
	}
}

// TestTxnAnswerIsBounded: a transaction whose answer would outgrow its bound is refused, and nothing of it is written.
func TestTxnAnswerIsBounded(t *testing.T) {
	s := newShard(t)
	s.one(1, put("big", strings.Repeat("x", kv.ValueBytesMax)))
	get, write := kv.TxnOp{Kind: kv.TxnGet, Key: []byte("big")}, kv.TxnOp{Kind: kv.TxnPut, Key: []byte("k"), Value: []byte("v")}
	fits := s.one(1, kv.Command{Op: kv.OpTxn, Txn: &kv.Txn{Then: []kv.TxnOp{write, get, get}}})
	require.Equal(t, kv.Done, fits.Status)
	require.Len(t, fits.Ops, 3)
	s.one(1, kv.Command{Op: kv.OpDelete, Key: []byte("k")})
	revision := s.m.Revision()
	r := s.one(1, kv.Command{Op: kv.OpTxn, Txn: &kv.Txn{Then: []kv.TxnOp{write, get, get, get}}})
	require.Equal(t, kv.Refused, r.Status)
	require.Contains(t, r.Reason, strconv.Itoa(kv.AnswerBytesMax))
	require.Empty(t, s.get("k"))
	require.Equal(t, revision, s.m.Revision())
}

// TestRefusalsNameFieldAndBound: what breaks a bound is refused by who proposes, and by every replica if it comes
// through the log all the same, without an effect.
func TestRefusalsNameFieldAndBound(t *testing.T) {
	long, big := bytes.Repeat([]byte("k"), kv.KeyBytesMax+1), make([]byte, kv.ValueBytesMax+1)
	key, half := []byte("k"), make([]byte, kv.ValueBytesMax)
	txn := func(t kv.Txn) kv.Command { return kv.Command{Op: kv.OpTxn, Txn: &t} }
	op := func(o kv.TxnOp) kv.Command { return txn(kv.Txn{Else: []kv.TxnOp{o}}) }
	with := func(change func(*kv.Command)) kv.Command {
		c := put("k", "v")
		change(&c)
		return c
	}
	for _, x := range []struct {
		field   string
		command kv.Command
	}{
		{"key", put("", "v")},
		{"key", kv.Command{Op: kv.OpPut, Key: long}},
		{"key", kv.Command{Op: kv.OpDelete}},
		{"key", kv.Command{Op: kv.OpIncrement, Key: long}},
		{"value", kv.Command{Op: kv.OpPut, Key: key, Value: big}},
		{"value", kv.Command{Op: kv.OpMeta, Value: big}},
		{"ttl_ms", with(func(c *kv.Command) { c.TTL = -1 })},
		{"ttl_ms", with(func(c *kv.Command) { c.TTL = kv.TTLMax.Milliseconds() + 1 })},
		{"expire_at_ms", with(func(c *kv.Command) { c.ExpireAt = -1 })},
		{"expire_at_ms", with(func(c *kv.Command) { c.TTL, c.ExpireAt = 1, 1 })},
		{"condition", with(func(c *kv.Command) { c.Cond.Kind = kv.IfPresent })},
		{"condition", kv.Command{Op: kv.OpDelete, Key: key, Cond: kv.Condition{Kind: kv.IfValue}}},
		{"start", kv.Command{Op: kv.OpDeleteRange, Key: long}},
		{"end", kv.Command{Op: kv.OpDeleteRange, Key: key, End: long}},
		{"txn", txn(kv.Txn{Then: make([]kv.TxnOp, kv.TxnOpsMax), Else: make([]kv.TxnOp, 1)})},
		{"txn", txn(kv.Txn{Then: []kv.TxnOp{
			{Kind: kv.TxnPut, Key: key, Value: half}, {Kind: kv.TxnPut, Key: key, Value: half}, {Kind: kv.TxnPut, Key: key, Value: half},
		}})},
		{"compare.key", txn(kv.Txn{Compare: []kv.Compare{{}}})},
		{"compare.value", txn(kv.Txn{Compare: []kv.Compare{{Key: key, Cond: kv.Condition{Kind: kv.IfValue, Value: big}}}})},
		{"else.key", op(kv.TxnOp{Kind: kv.TxnGet})},
		{"else.value", op(kv.TxnOp{Kind: kv.TxnPut, Key: key, Value: big})},
		{"else.ttl_ms", op(kv.TxnOp{Kind: kv.TxnPut, Key: key, TTL: -1})},
		{"else.expire_at_ms", op(kv.TxnOp{Kind: kv.TxnPut, Key: key, TTL: 1, ExpireAt: 1})},
		{"then.key", txn(kv.Txn{Then: []kv.TxnOp{{Kind: kv.TxnDelete, Key: long}}})},
		{"due.key", kv.Command{Op: kv.OpExpire, Due: []kv.Due{{ExpireAt: 1}}}},
		{"due.expire_at_ms", kv.Command{Op: kv.OpExpire, Due: []kv.Due{{Key: key}}}},
	} {
		err := CheckCommand(&x.command)
		var invalid *kv.InvalidError
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, x.field, invalid.Field, "%v", err)
		require.NotEmpty(t, invalid.Bound)
		s := newShard(t)
		if x.command.Op == kv.OpTxn && len(x.command.Txn.Then) == kv.TxnOpsMax {
			for i := range x.command.Txn.Then {
				x.command.Txn.Then[i] = kv.TxnOp{Kind: kv.TxnPut, Key: key}
			}
			x.command.Txn.Else[0] = kv.TxnOp{Kind: kv.TxnGet, Key: key}
		}
		require.Equal(t, kv.Result{Status: kv.Refused, Reason: err.Error()}, s.one(1, x.command))
		require.Zero(t, s.m.Revision())
		require.Zero(t, s.m.Keys())
	}
	for _, c := range []kv.Command{{}, {Op: kv.OpMeta + 1}, {Op: kv.OpTxn}, {Op: kv.OpDeleteRange, Limit: -1}, op(kv.TxnOp{Key: key})} {
		require.ErrorAs(t, CheckCommand(&c), new(*kv.InvalidError), "%+v", c)
	}
	meta := newShard(t).one(1, kv.Command{Op: kv.OpMeta, Value: []byte("x")})
	require.Equal(t, kv.Refused, meta.Status, "a command of the meta group")
}

// TestChangesAreOfTheStep: who keeps a cache learns each changed key once, with what is stored in the end (C1, C3).
func TestChangesAreOfTheStep(t *testing.T) {
	s := newShard(t)
	s.one(1, put("gone", "v"))
	s.m.Begin(s.store.NewBatch())
	gone := kv.Command{Op: kv.OpDelete, Key: []byte("gone")}
	_, err := s.m.Apply(12, 6, batch(1, put("k", "1"), gone, put("k", "2"), kv.Command{Op: kv.OpDelete, Key: []byte("never")}))
	require.NoError(t, err)
	require.Equal(t, []Change{
		{Key: []byte("k"), Record: &kv.Record{Value: []byte("2"), Revision: 4}}, {Key: []byte("gone")},
	}, s.m.Changes())
	require.EqualValues(t, 5, s.m.Revision(), "a delete of nothing counts")
	s.m.Finish()
	s.m.Committed()
	require.Empty(t, s.m.Changes())
}

// TestChecksumIsAtItsIndex: a request names the index of its entry, is of its step only, and counts no revision.
func TestChecksumIsAtItsIndex(t *testing.T) {
	s := newShard(t)
	s.m.Begin(s.store.NewBatch())
	r, err := s.m.Apply(11, 6, batch(1, put("k", "v"), kv.Command{Op: kv.OpChecksum, ID: 7}))
	require.NoError(t, err)
	require.Equal(t, kv.Result{Status: kv.Done}, r[1])
	require.Equal(t, []kv.ChecksumRequest{{ID: 7, Index: 11}}, s.m.Checksums())
	require.EqualValues(t, 1, s.m.Revision())
	s.m.Finish()
	s.m.Committed()
	require.Empty(t, s.m.Checksums())
}

// TestStepWithoutEntriesWritesNothing: an idle group costs nothing.
func TestStepWithoutEntriesWritesNothing(t *testing.T) {
	s := newShard(t)
	b := s.store.NewBatch()
	s.m.Begin(b)
	s.m.Finish()
	s.m.Committed()
	require.True(t, b.Empty())
}

// brokenDisk fails every read.
type brokenDisk struct{ err error }

func (d brokenDisk) Get([]byte) (kv.Record, bool, error)                      { return kv.Record{}, false, d.err }
func (d brokenDisk) Head([]byte) (kv.Head, bool, error)                       { return kv.Head{}, false, d.err }
func (d brokenDisk) Scan(kv.Span, func(key []byte, rec kv.Record) bool) error { return d.err }

// TestFailedDiskStops: what could not be read is never taken for absent.
func TestFailedDiskStops(t *testing.T) {
	disk := brokenDisk{errors.New("the disk is gone")}
	key := []byte("k")
	for _, c := range []kv.Command{
		put("k", "v"), {Op: kv.OpDelete, Key: key}, {Op: kv.OpIncrement, Key: key}, {Op: kv.OpDeleteRange, Key: key},
		{Op: kv.OpExpire, Due: []kv.Due{{ExpireAt: 1, Key: key}}},
		{Op: kv.OpTxn, Txn: &kv.Txn{Compare: []kv.Compare{{Key: key}}}},
		{Op: kv.OpTxn, Txn: &kv.Txn{Then: []kv.TxnOp{{Kind: kv.TxnGet, Key: key}}}},
		{Op: kv.OpTxn, Txn: &kv.Txn{Then: []kv.TxnOp{{Kind: kv.TxnPut, Key: key}}}},
	} {
		s := newShard(t)
		m := New(birth(), disk)
		b := s.store.NewBatch()
		m.Begin(b)
		_, err := m.Apply(11, 6, batch(1, c))
		require.ErrorIs(t, err, disk.err, "%+v", c)
		m.Finish()
		require.True(t, b.Empty())
	}
}

// TestCheckSeesDamage: each change breaks one invariant, and a store that does not hold what is counted is found out.
func TestCheckSeesDamage(t *testing.T) {
	for name, change := range map[string]func(*kvdv1.ShardState){
		"the meta group":          func(st *kvdv1.ShardState) { st.Descriptor_.Shard = 0 },
		"an empty span":           func(st *kvdv1.ShardState) { st.Descriptor_.End = []byte("a") },
		"no voters":               func(st *kvdv1.ShardState) { st.Voters = nil },
		"a time before 1970":      func(st *kvdv1.ShardState) { st.TimeMs = -1 },
		"keys without bytes":      func(st *kvdv1.ShardState) { st.Keys = 2 },
		"bytes without keys":      func(st *kvdv1.ShardState) { st.Bytes = 2 },
		"more expiring than keys": func(st *kvdv1.ShardState) { st.Expiring = 1 },
		"applied below the base":  func(st *kvdv1.ShardState) { st.AppliedIndex = 9 },
	} {
		st := birth()
		require.NoError(t, New(st, store{}).Check())
		change(st)
		require.Error(t, New(st, store{}).Check(), name)
	}
	s := newShard(t)
	s.one(1, put("k", "value"))
	st := s.m.State()
	st.Bytes = 2
	m := New(st, s.store)
	m.Begin(s.store.NewBatch())
	_, err := m.Apply(12, 6, batch(1, kv.Command{Op: kv.OpDelete, Key: []byte("k")}))
	require.ErrorContains(t, err, "counted")
}
