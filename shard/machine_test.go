package shard

import (
	"fmt"
	"math"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

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
		Replica: 1, Descriptor_: &kvdv1.Descriptor{Shard: 1, Start: []byte("a"), End: []byte("z"), Epoch: &kvdv1.Epoch{Version: 1, Config: 1}, Replicas: []*kvdv1.Replica{{Node: 1, Replica: 1}}},
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
	return newShardOf(t, kv.Span{Start: []byte("a"), End: []byte("z")})
}

func newShardOf(t require.TestingT, span kv.Span) *shardUnderTest {
	st := birth()
	st.Descriptor_.Start, st.Descriptor_.End = span.Start, span.End
	s := store{storage.NewMemState()}
	return &shardUnderTest{t, s, New(st, s)}
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
	require.Empty(t, s.due(), "the index of expiries is not empty")
}

// TestUnknownCommandStops: what cannot be applied is never passed over, whatever comes next, and nothing of its step
// is stored.
func TestUnknownCommandStops(t *testing.T) {
	good := put("k", "v")
	for name, bad := range map[string]func(m *Machine) error{
		"an operation": func(m *Machine) error {
			_, err := m.Apply(12, 6, &kvdv1.Batch{Commands: []*kvdv1.Command{EncodeCommand(&good), {Op: 99}}})
			return err
		},
		"a condition": func(m *Machine) error {
			_, err := m.Apply(12, 6, &kvdv1.Batch{Commands: []*kvdv1.Command{
				{Op: uint32(kv.OpPut), Key: []byte("k"), Condition: &kvdv1.CommandCondition{Kind: 99}},
			}})
			return err
		},
		"a gap":           func(m *Machine) error { _, err := m.Apply(13, 6, nil); return err },
		"an entry again":  func(m *Machine) error { _, err := m.Apply(11, 6, nil); return err },
		"an earlier term": func(m *Machine) error { _, err := m.Apply(12, 5, nil); return err },
		"no voters":       func(m *Machine) error { return reconfigure(m, 12, &raftpb.ConfState{Learners: []uint64{2}}) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newShard(t)
			s.step(nil) // Entry 11.
			b := s.store.NewBatch()
			s.m.Begin(b)
			err := bad(s.m)
			require.Error(t, err)
			_, again := s.m.Apply(13, 6, nil)
			require.Equal(t, err, again, "the next entry was applied")
			require.Equal(t, err, reconfigure(s.m, 12, &raftpb.ConfState{Voters: []uint64{1}}))
			require.Equal(t, err, s.m.Check())
			s.m.Finish()
			require.True(t, b.Empty(), "a step that failed was stored")
		})
	}
}

// reconfigure applies a change that is admitted, with any outcome.
func reconfigure(m interface {
	Descriptor() *kv.Descriptor
	ApplyConf(kv.Index, kv.Term, *kvdv1.ConfChange, func() *raftpb.ConfState) (kv.Result, error)
}, index kv.Index, conf *raftpb.ConfState) error {
	d := m.Descriptor()
	change := &kvdv1.ConfChange{Epoch: &kvdv1.Epoch{Version: d.Epoch.Version, Config: d.Epoch.Config}, Leave: d.Joint()}
	if !change.Leave {
		change.Add = []*kvdv1.Replica{{Node: 1000 + d.Epoch.Config, Replica: 1000 + d.Epoch.Config}}
	}
	_, err := m.ApplyConf(index, 6, change, func() *raftpb.ConfState { return conf })
	return err
}
