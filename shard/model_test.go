package shard

import (
	"bytes"
	"maps"
	"math"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// model says what a shard does with plain maps: one command after the other, no steps, no overlay, no index.
type model struct {
	span     kv.Span
	stored   map[string]kv.Record
	time     int64
	revision kv.Revision
	stale    map[string][]int64 // What else the index of expiries holds of a key.
}

func newModel(span kv.Span) *model {
	return &model{span: span, stored: map[string]kv.Record{}, stale: map[string][]int64{}}
}

// live is what a reader sees.
func (m *model) live(key []byte) (kv.Record, bool) {
	rec, ok := m.stored[string(key)]
	if !ok || rec.ExpireAt != 0 && rec.ExpireAt <= m.time {
		return kv.Record{}, false
	}
	return rec, true
}

func (m *model) met(key []byte, c kv.Condition) bool {
	rec, ok := m.live(key)
	switch c.Kind {
	case kv.IfAbsent:
		return !ok
	case kv.IfPresent:
		return ok
	case kv.IfRevision:
		return ok && rec.Revision == c.Revision
	case kv.IfValue:
		return ok && string(rec.Value) == string(c.Value)
	}
	return true
}

func (m *model) put(key, value []byte, ttl, expireAt int64) kv.Record {
	if ttl != 0 {
		expireAt = m.time + ttl
	}
	rec := kv.Record{Value: value, Revision: m.revision, ExpireAt: expireAt}
	m.stored[string(key)] = rec
	if _, there := m.live(key); !there {
		delete(m.stored, string(key))
	}
	return rec
}

func (m *model) apply(c *kv.Command) kv.Result {
	outside := false
	c.Keys(func(key []byte) bool {
		outside = outside || !m.span.Contains(key)
		return true
	})
	if outside {
		return kv.Result{Status: kv.WrongShard}
	}
	rec, there := m.live(c.Key)
	if (c.Op == kv.OpPut || c.Op == kv.OpDelete) && !m.met(c.Key, c.Cond) {
		return kv.Result{Status: kv.ConditionFailed, Revision: rec.Revision}
	}
	switch c.Op {
	case kv.OpPut:
		m.revision++
		m.put(c.Key, c.Value, c.TTL, c.ExpireAt)
		return kv.Result{Status: kv.Done, Revision: m.revision}
	case kv.OpDelete:
		m.revision++
		delete(m.stored, string(c.Key))
		return kv.Result{Status: kv.Done, Revision: m.revision, Found: there}
	case kv.OpIncrement:
		n := int64(0)
		if there {
			var err error
			if n, err = strconv.ParseInt(string(rec.Value), 10, 64); err != nil {
				return kv.Result{Status: kv.NotANumber}
			}
		}
		m.revision++
		m.put(c.Key, strconv.AppendInt(nil, n+c.Delta, 10), 0, rec.ExpireAt)
		return kv.Result{Status: kv.Done, Revision: m.revision, Counter: n + c.Delta}
	case kv.OpDeleteRange:
		return m.deleteRange(c)
	case kv.OpTxn:
		return m.txn(c.Txn)
	}
	return m.expire(c.Due)
}

func (m *model) deleteRange(c *kv.Command) kv.Result {
	m.revision++
	r := kv.Result{Status: kv.Done, Revision: m.revision}
	for _, key := range slices.Sorted(maps.Keys(m.stored)) {
		if key < string(c.Key) || len(c.End) > 0 && key >= string(c.End) {
			continue
		}
		if c.Limit > 0 && r.Count == c.Limit {
			r.Resume = []byte(key)
			return r
		}
		if _, there := m.live([]byte(key)); there {
			r.Count++
		}
		delete(m.stored, key)
	}
	if len(m.span.End) > 0 && (len(c.End) == 0 || string(c.End) > string(m.span.End)) {
		r.Resume = m.span.End
	}
	return r
}

func (m *model) txn(c *kv.Txn) kv.Result {
	r := kv.Result{Status: kv.Done, Succeeded: true, Revision: m.revision, Ops: []kv.TxnOpResult{}}
	for _, x := range c.Compare {
		r.Succeeded = r.Succeeded && m.met(x.Key, x.Cond)
	}
	ops := c.Then
	if !r.Succeeded {
		ops = c.Else
	}
	if slices.ContainsFunc(ops, func(o kv.TxnOp) bool { return o.Kind != kv.TxnGet }) {
		m.revision++
		r.Revision = m.revision
	}
	for _, o := range ops {
		rec, there := m.live(o.Key)
		switch o.Kind {
		case kv.TxnGet:
			r.Ops = append(r.Ops, kv.TxnOpResult{Found: there, Record: rec})
		case kv.TxnPut:
			rec = m.put(o.Key, o.Value, o.TTL, o.ExpireAt)
			r.Ops = append(r.Ops, kv.TxnOpResult{Record: kv.Record{Revision: rec.Revision, ExpireAt: rec.ExpireAt}})
		case kv.TxnDelete:
			delete(m.stored, string(o.Key))
			r.Ops = append(r.Ops, kv.TxnOpResult{Found: there})
		}
	}
	return r
}

func (m *model) expire(due []kv.Due) kv.Result {
	r := kv.Result{Status: kv.Done}
	for _, d := range due {
		m.stale[string(d.Key)] = slices.DeleteFunc(m.stale[string(d.Key)], func(at int64) bool { return at == d.ExpireAt })
		if rec, ok := m.stored[string(d.Key)]; ok && rec.ExpireAt == d.ExpireAt && d.ExpireAt <= m.time {
			delete(m.stored, string(d.Key))
			r.Count++
		}
	}
	return r
}

// anyKey draws a key, now and then one outside the span.
func anyKey(t *rapid.T) []byte {
	return []byte(rapid.OneOf(rapid.StringMatching(`[ab][0-2]`), rapid.StringMatching(`[ab][0-2]`),
		rapid.SampledFrom([]string{"a", "y\xff\xff", "z", "Z", "zz"})).Draw(t, "key"))
}

func anyCondition(t *rapid.T, last kv.ConditionKind) kv.Condition {
	c := kv.Condition{Kind: kv.ConditionKind(rapid.IntRange(0, int(last)).Draw(t, "condition"))}
	switch c.Kind {
	case kv.IfRevision:
		c.Revision = kv.Revision(rapid.IntRange(0, 30).Draw(t, "revision"))
	case kv.IfValue:
		c.Value = []byte(rapid.StringMatching(`[0-9]?`).Draw(t, "value"))
	}
	return c
}

// anyTime draws one of few times, so that hints meet what is stored.
func anyTime(t *rapid.T) int64 { return rapid.SampledFrom([]int64{20, 50, 100, 200}).Draw(t, "time") }

// anyExpiry draws a time to live, a time, or neither.
func anyExpiry(t *rapid.T) (ttl, expireAt int64) {
	switch rapid.IntRange(0, 4).Draw(t, "expiry") {
	case 0:
		return 2 * rapid.Int64Range(1, 30).Draw(t, "ttl"), 0
	case 1:
		return kv.TTLMax.Milliseconds(), 0
	case 2:
		return 0, anyTime(t)
	}
	return 0, 0
}

func anyOps(t *rapid.T) []kv.TxnOp {
	var list []kv.TxnOp
	for range rapid.IntRange(0, 4).Draw(t, "operations") {
		o := kv.TxnOp{Kind: kv.TxnOpKind(rapid.IntRange(1, 3).Draw(t, "kind")), Key: anyKey(t)}
		if o.Kind == kv.TxnPut {
			o.Value = []byte(rapid.StringMatching(`[0-9]{1,2}`).Draw(t, "value"))
			o.TTL, o.ExpireAt = anyExpiry(t)
		}
		list = append(list, o)
	}
	return list
}

// anyCommand draws what CheckCommand accepts.
func anyCommand(t *rapid.T) *kv.Command {
	c := &kv.Command{Op: kv.Op(rapid.IntRange(int(kv.OpPut), int(kv.OpExpire)).Draw(t, "op")), Key: anyKey(t)}
	switch c.Op {
	case kv.OpPut:
		c.Value = []byte(rapid.StringMatching(`-?[0-9]{1,2}|x`).Draw(t, "value"))
		c.TTL, c.ExpireAt = anyExpiry(t)
		c.Cond = anyCondition(t, kv.IfRevision)
	case kv.OpDelete:
		c.Cond = anyCondition(t, kv.IfRevision)
	case kv.OpIncrement:
		c.Delta = rapid.Int64Range(-3, 3).Draw(t, "delta")
	case kv.OpDeleteRange:
		c.End = []byte(rapid.StringMatching(`([a-c][0-3]?)?`).Draw(t, "end"))
		c.Limit = rapid.IntRange(0, 4).Draw(t, "limit")
	case kv.OpTxn:
		c.Key = nil
		c.Txn = &kv.Txn{Then: anyOps(t), Else: anyOps(t)}
		for range rapid.IntRange(0, 2).Draw(t, "comparisons") {
			c.Txn.Compare = append(c.Txn.Compare, kv.Compare{Key: anyKey(t), Cond: anyCondition(t, kv.IfValue)})
		}
	case kv.OpExpire:
		c.Key = nil
		for range rapid.IntRange(0, 3).Draw(t, "hints") {
			c.Due = append(c.Due, kv.Due{ExpireAt: anyTime(t), Key: anyKey(t)})
		}
	}
	return c
}

// dueNow adds the hints that the index of expiries gives to an OpExpire, as a leader does.
func dueNow(t require.TestingT, s *shardUnderTest, c *kv.Command, time int64) {
	_, _, err := s.store.Due(kv.Due{}, time, 1000, func(d kv.Due) bool {
		c.Due = append(c.Due, kv.Due{ExpireAt: d.ExpireAt, Key: bytes.Clone(d.Key)})
		return true
	})
	require.NoError(t, err)
}

// TestModel: whatever the commands, the stamps and the steps, a shard answers and keeps what plain maps do (R1, R4),
// its counters are those of what is stored, and the index of expiries is that of what is stored, but for stale hints until they fall due.
// Under the build tag mutant_revision_by_index it fails.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		span := rapid.SampledFrom([]kv.Span{{Start: []byte("a"), End: []byte("z")}, {}, {Start: []byte("a1")}}).Draw(t, "span")
		s, m := newShardOf(t, span), newModel(span)
		// Hints of which the data knows nothing, as an ingest leaves them behind. Commands give even times only.
		stale := s.store.NewBatch()
		for _, at := range []int64{31, 71} {
			d := kv.Due{ExpireAt: at, Key: []byte(rapid.StringMatching(`b[0-2]`).Draw(t, "stale"))}
			m.stale[string(d.Key)] = append(m.stale[string(d.Key)], at)
			stale.PutDue(d)
		}
		_, err := s.store.Commit(stale)
		require.NoError(t, err)
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			var entries []*kvdv1.Batch
			var want [][]kv.Result
			for range rapid.IntRange(1, 3).Draw(t, "entries") {
				b := &kvdv1.Batch{StampMs: m.time + 2*rapid.Int64Range(-10, 15).Draw(t, "stamp")}
				m.time = max(m.time, b.StampMs)
				var results []kv.Result
				for range rapid.IntRange(1, 5).Draw(t, "commands") {
					c := anyCommand(t)
					if c.Op == kv.OpExpire {
						dueNow(t, s, c, m.time)
					}
					require.NoError(t, CheckCommand(c))
					b.Commands = append(b.Commands, EncodeCommand(c))
					results = append(results, m.apply(c))
				}
				entries, want = append(entries, b), append(want, results)
			}
			require.Equal(t, want, s.step(entries...))
			m.agrees(t, s)
		}
		// A purge at the end of time cleans the index of what was stale, too.
		purge := &kv.Command{Op: kv.OpExpire}
		dueNow(t, s, purge, math.MaxInt64-1)
		m.time = math.MaxInt64
		want := m.apply(purge)
		require.Equal(t, want, s.one(m.time, *purge))
		m.agrees(t, s)
		require.Empty(t, s.due(), "the index of expiries is not empty")
	})
}

// agrees compares all that a shard keeps.
func (m *model) agrees(t require.TestingT, s *shardUnderTest) {
	stored := map[string]kv.Record{}
	var bytesStored uint64
	var due []kv.Due
	for key, times := range m.stale {
		for _, at := range times {
			due = append(due, kv.Due{ExpireAt: at, Key: []byte(key)})
		}
	}
	expiring := uint64(0)
	require.NoError(t, s.store.Scan(kv.Span{}, func(key []byte, rec kv.Record) bool {
		rec.Value = bytes.Clone(rec.Value)
		stored[string(key)] = rec
		bytesStored += uint64(len(key) + len(rec.Value))
		if rec.ExpireAt != 0 {
			due = append(due, kv.Due{ExpireAt: rec.ExpireAt, Key: bytes.Clone(key)})
			expiring++
		}
		return true
	}))
	require.Equal(t, m.stored, stored)
	require.Equal(t, m.revision, s.m.Revision())
	require.Equal(t, m.time, s.m.Time())
	require.Equal(t, []uint64{uint64(len(stored)), bytesStored, expiring}, []uint64{s.m.Keys(), s.m.Bytes(), s.m.Expiring()})
	require.ElementsMatch(t, due, s.due(), "the index of expiries")
}

// due is the whole index of expiries.
func (s *shardUnderTest) due() []kv.Due {
	c := &kv.Command{}
	dueNow(s.t, s, c, math.MaxInt64)
	return c.Due
}
