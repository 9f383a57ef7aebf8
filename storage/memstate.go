package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/tidwall/btree"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// ErrClosed tells that a store, a view or an iterator was used after its end.
var ErrClosed = errors.New("the store is closed")

// MemState is a state store in memory, for the simulator: a Crash takes it back to an earlier cut.
type MemState struct {
	mu           sync.Mutex
	now, durable *tables
	unsynced     []*memBatch
	cut, synced  Cut
}

var (
	_ State   = (*MemState)(nil)
	_ Crasher = (*MemState)(nil)
)

// tables are the contents. A copy costs nothing; the trees are shared until one side writes.
type tables struct {
	data   *btree.BTreeG[kv.Item]
	due    *btree.BTreeG[kv.Due]
	shards map[kv.ShardID]*kvdv1.ShardState
}

func newTables() *tables {
	options := btree.Options{NoLocks: true}
	return &tables{
		data:   btree.NewBTreeGOptions(func(a, b kv.Item) bool { return bytes.Compare(a.Key, b.Key) < 0 }, options),
		due:    btree.NewBTreeGOptions(lessDue, options),
		shards: map[kv.ShardID]*kvdv1.ShardState{},
	}
}

func lessDue(a, b kv.Due) bool {
	if a.ExpireAt != b.ExpireAt {
		return a.ExpireAt < b.ExpireAt
	}
	return bytes.Compare(a.Key, b.Key) < 0
}

func (t *tables) copy() *tables {
	return &tables{data: t.data.Copy(), due: t.due.Copy(), shards: maps.Clone(t.shards)}
}

// NewMemState makes an empty state store.
func NewMemState() *MemState {
	return &MemState{now: newTables(), durable: newTables()}
}

// memBatch is a list of what it does to tables.
type memBatch struct {
	list  []func(*tables)
	bytes int
}

func (b *memBatch) add(bytes int, f func(*tables)) {
	b.list, b.bytes = append(b.list, f), b.bytes+bytes
}

func (b *memBatch) Put(key []byte, rec kv.Record) {
	item := kv.Item{Key: bytes.Clone(key), Record: rec}
	item.Record.Value = bytes.Clone(rec.Value)
	b.add(len(key)+len(rec.Value), func(t *tables) { t.data.Set(item) })
}

func (b *memBatch) Delete(key []byte) {
	item := kv.Item{Key: bytes.Clone(key)}
	b.add(len(key), func(t *tables) { t.data.Delete(item) })
}

func (b *memBatch) PutDue(d kv.Due) {
	d.Key = bytes.Clone(d.Key)
	b.add(8+len(d.Key), func(t *tables) { t.due.Set(d) })
}

func (b *memBatch) DeleteDue(d kv.Due) {
	d.Key = bytes.Clone(d.Key)
	b.add(8+len(d.Key), func(t *tables) { t.due.Delete(d) })
}

func (b *memBatch) PutShard(shard kv.ShardID, st *kvdv1.ShardState) {
	b.add(64, func(t *tables) { t.shards[shard] = st })
}

func (b *memBatch) Bytes() int  { return b.bytes }
func (b *memBatch) Empty() bool { return len(b.list) == 0 }

func (b *memBatch) apply(t *tables) {
	for _, f := range b.list {
		f(t)
	}
}

// NewBatch makes an empty batch.
func (s *MemState) NewBatch() Batch { return &memBatch{} }

// Commit makes a batch visible, not durable.
func (s *MemState) Commit(b Batch) (Cut, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch := b.(*memBatch)
	batch.apply(s.now)
	s.unsynced = append(s.unsynced, batch)
	s.cut++
	return s.cut, nil
}

// Sync makes every commit so far durable.
func (s *MemState) Sync() (Cut, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sync(), nil
}

func (s *MemState) sync() Cut {
	for _, b := range s.unsynced {
		b.apply(s.durable)
	}
	s.unsynced, s.synced = nil, s.cut
	return s.synced
}

// Durable is the last commit that is known to be durable.
func (s *MemState) Durable() Cut {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.synced
}

// Get reads a key.
func (s *MemState) Get(key []byte) (kv.Record, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, ok := s.now.get(key)
	return rec, ok, nil
}

func (t *tables) get(key []byte) (kv.Record, bool) {
	item, ok := t.data.Get(kv.Item{Key: key})
	item.Record.Value = bytes.Clone(item.Record.Value)
	return item.Record, ok
}

// snapshot is the contents as of now.
func (s *MemState) snapshot() *tables {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now.copy()
}

// Iter walks a span as of now.
func (s *MemState) Iter(span kv.Span) (Iterator, error) { return s.snapshot().iter(span), nil }

func (t *tables) iter(span kv.Span) Iterator {
	return &memIterator{it: t.data.Iter(), span: span}
}

type memIterator struct {
	it      btree.IterG[kv.Item]
	span    kv.Span
	started bool
}

func (i *memIterator) Next() bool {
	if !i.started {
		return i.Seek(i.span.Start)
	}
	return i.it.Next() && i.span.Contains(i.it.Item().Key)
}

func (i *memIterator) Seek(key []byte) bool {
	if bytes.Compare(key, i.span.Start) < 0 {
		key = i.span.Start
	}
	i.started = true
	return i.it.Seek(kv.Item{Key: key}) && i.span.Contains(i.it.Item().Key)
}

func (i *memIterator) Key() []byte                { return i.it.Item().Key }
func (i *memIterator) Record() (kv.Record, error) { return i.it.Item().Record, nil }
func (i *memIterator) Close() error               { i.it.Release(); return nil }

// Shards reads what the replicas keep of themselves, in shard order.
func (s *MemState) Shards() ([]*ShardRecord, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*ShardRecord
	for _, id := range slices.Sorted(maps.Keys(s.now.shards)) {
		list = append(list, &ShardRecord{Shard: id, State: s.now.shards[id]})
	}
	return list, nil
}

// Due calls f with expiries.
func (s *MemState) Due(from kv.Due, time int64, n int, f func(kv.Due) bool) (last kv.Due, all bool, err error) {
	s.mu.Lock()
	due := s.now.due.Copy()
	s.mu.Unlock()
	last, all = from, true
	seen := 0
	due.Ascend(from, func(d kv.Due) bool {
		if !lessDue(from, d) {
			return true
		}
		if d.ExpireAt > time {
			return false
		}
		if seen == n {
			all = false
			return false
		}
		seen, last = seen+1, d
		if !f(d) {
			all = false
			return false
		}
		return true
	})
	return last, all, nil
}

type memView struct {
	*tables
	state *kvdv1.ShardState
	span  kv.Span
}

func (v *memView) Get(key []byte) (kv.Record, bool, error) {
	rec, ok := v.get(key)
	return rec, ok, nil
}
func (v *memView) Iter(span kv.Span) (Iterator, error) { return v.iter(span.Intersect(v.span)), nil }
func (v *memView) State() *kvdv1.ShardState            { return v.state }
func (v *memView) Close() error                        { return nil }

// View is a consistent view of a shard as of now.
func (s *MemState) View(shard kv.ShardID, span kv.Span) (View, error) {
	t := s.snapshot()
	return &memView{tables: t, state: t.shards[shard], span: span}, nil
}

type memIngest struct {
	store *MemState
	shard kv.ShardID
	span  kv.Span
	items []kv.Item
	over  bool
}

// NewIngest starts to gather the data that replaces a shard's.
func (s *MemState) NewIngest(shard kv.ShardID, span kv.Span) (Ingest, error) {
	return &memIngest{store: s, shard: shard, span: span}, nil
}

func (i *memIngest) Put(key []byte, rec kv.Record) error {
	if err := checkIngested(i.span, i.last(), key); err != nil {
		return err
	}
	rec.Value = bytes.Clone(rec.Value)
	i.items = append(i.items, kv.Item{Key: bytes.Clone(key), Record: rec})
	return nil
}

func (i *memIngest) last() []byte {
	if len(i.items) == 0 {
		return nil
	}
	return i.items[len(i.items)-1].Key
}

// checkIngested refuses a key outside the span, or not above the last one.
func checkIngested(span kv.Span, last, key []byte) error {
	if !span.Contains(key) || last != nil && bytes.Compare(key, last) <= 0 {
		return &kv.InvalidError{Field: "key", Bound: "in the span " + span.String() + " and above the key before it, is " + kv.FormatKey(key)}
	}
	return nil
}

func (i *memIngest) Commit(st *kvdv1.ShardState) error {
	s := i.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if i.over {
		return ErrClosed
	}
	i.over = true
	s.sync()
	for _, t := range []*tables{s.now, s.durable} {
		var old []kv.Item
		t.data.Ascend(kv.Item{Key: i.span.Start}, func(item kv.Item) bool {
			if !i.span.Contains(item.Key) {
				return false
			}
			old = append(old, item)
			return true
		})
		for _, item := range old {
			t.data.Delete(item)
		}
		for _, item := range i.items {
			t.data.Set(item)
			if item.Record.ExpireAt != 0 {
				t.due.Set(kv.Due{ExpireAt: item.Record.ExpireAt, Key: item.Key})
			}
		}
		t.shards[i.shard] = st
	}
	return nil
}

func (i *memIngest) Abort() { i.items, i.over = nil, true }

// Crash goes back to what is durable, and a beginning of what is not.
func (s *MemState) Crash(keep func(n int) int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.unsynced[:keep(len(s.unsynced))] {
		b.apply(s.durable)
	}
	s.unsynced, s.cut, s.synced = nil, 0, 0
	s.now = s.durable.copy()
	return nil
}

// Hash is a checksum over the contents.
func (s *MemState) Hash() (uint64, error) { return hashState(s) }

// Metrics says nothing of memory.
func (s *MemState) Metrics() Metrics { return Metrics{} }

// Close does nothing.
func (s *MemState) Close() error { return nil }

// hashState is a checksum over what a state store holds.
func hashState(s State) (uint64, error) {
	h := xxhash.New()
	add := func(parts ...[]byte) {
		for _, p := range parts {
			_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
			_, _ = h.Write(p)
		}
	}
	shards, err := s.Shards()
	if err != nil {
		return 0, err
	}
	for _, record := range shards {
		state, err := record.State.MarshalVT()
		if err != nil {
			return 0, err
		}
		add(binary.BigEndian.AppendUint64(nil, uint64(record.Shard)), state)
	}
	it, err := s.Iter(kv.Span{})
	if err != nil {
		return 0, err
	}
	for it.Next() {
		rec, err := it.Record()
		if err != nil {
			return 0, errors.Join(err, it.Close())
		}
		add(it.Key(), rec.Value, binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(rec.Revision)), uint64(rec.ExpireAt)))
	}
	return h.Sum64(), it.Close()
}
