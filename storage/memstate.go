package storage

import (
	"bytes"
	"cmp"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tidwall/btree"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// ErrClosed tells that a store, a view or an iterator was used after its end.
var ErrClosed = errors.New("the store is closed")

// MemState is a state store in memory, for the simulator: a Crash takes it back to an earlier cut. It shares no memory
// with its callers.
type MemState struct {
	mu           sync.Mutex
	now, durable *tables
	unsynced     []*memBatch
	cut, synced  Cut
	life         *life
}

var (
	_ State   = (*MemState)(nil)
	_ Crasher = (*MemState)(nil)
)

// life is shared by a store and what was opened on it. A Crash ends it, and the store begins another.
type life struct{ over atomic.Bool }

// check refuses to go on after a crash.
func (l *life) check() error {
	if l.over.Load() {
		return ErrClosed
	}
	return nil
}

// tables are the contents. A copy of a tree costs nothing; it is shared until one side writes.
type tables struct {
	data   *btree.BTreeG[kv.Item]
	due    *btree.BTreeG[kv.Due]
	shards map[kv.ShardID][]byte // As encodeShard writes them.
	// removed are the tombstones.
	removed map[kv.ShardID]kv.ReplicaID
}

func newTables() *tables {
	options := btree.Options{NoLocks: true}
	return &tables{
		data:   btree.NewBTreeGOptions(func(a, b kv.Item) bool { return bytes.Compare(a.Key, b.Key) < 0 }, options),
		due:    btree.NewBTreeGOptions(lessDue, options),
		shards: map[kv.ShardID][]byte{}, removed: map[kv.ShardID]kv.ReplicaID{},
	}
}

func lessDue(a, b kv.Due) bool {
	if a.ExpireAt != b.ExpireAt {
		return a.ExpireAt < b.ExpireAt
	}
	return bytes.Compare(a.Key, b.Key) < 0
}

func (t *tables) copy() *tables {
	return &tables{data: t.data.Copy(), due: t.due.Copy(), shards: maps.Clone(t.shards), removed: maps.Clone(t.removed)}
}

func (t *tables) deleteSpan(span kv.Span) {
	var old []kv.Item
	t.data.Ascend(kv.Item{Key: span.Start}, func(item kv.Item) bool {
		if !span.Contains(item.Key) {
			return false
		}
		old = append(old, item)
		return true
	})
	for _, item := range old {
		t.data.Delete(item)
	}
}

func (t *tables) putTombstone(shard kv.ShardID, replica kv.ReplicaID) {
	t.removed[shard] = max(t.removed[shard], replica)
}

// NewMemState makes an empty state store.
func NewMemState() *MemState {
	return &MemState{now: newTables(), durable: newTables(), life: &life{}}
}

// memBatch is a list of what it does to tables. The first error is kept for Commit.
type memBatch struct {
	life  *life
	list  []func(*tables)
	bytes int
	err   error
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
	value, err := encodeShard(st)
	if err != nil {
		b.err = err
		return
	}
	b.add(8+len(value), func(t *tables) { t.shards[shard] = value })
}

func (b *memBatch) DeleteSpan(span kv.Span) {
	if span.Empty() {
		return
	}
	span = kv.Span{Start: bytes.Clone(span.Start), End: bytes.Clone(span.End)}
	b.add(len(span.Start)+len(span.End), func(t *tables) { t.deleteSpan(span) })
}

func (b *memBatch) RemoveShard(shard kv.ShardID) {
	b.add(8, func(t *tables) { delete(t.shards, shard) })
}

func (b *memBatch) PutTombstone(shard kv.ShardID, replica kv.ReplicaID) {
	b.add(16, func(t *tables) { t.putTombstone(shard, replica) })
}

func (b *memBatch) Bytes() int  { return b.bytes }
func (b *memBatch) Empty() bool { return len(b.list) == 0 }

func (b *memBatch) apply(t *tables) {
	for _, f := range b.list {
		f(t)
	}
}

// NewBatch makes an empty batch.
func (s *MemState) NewBatch() Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &memBatch{life: s.life}
}

// Commit makes a batch visible, not durable.
func (s *MemState) Commit(b Batch) (Cut, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch := b.(*memBatch)
	if err := cmp.Or(batch.err, batch.life.check()); err != nil {
		return 0, err
	}
	batch.apply(s.now)
	batch.err = ErrClosed // It is used up.
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
	rec, ok := getItem(s.now.data, key)
	return rec, ok, nil
}

// Head is Get without the value.
func (s *MemState) Head(key []byte) (kv.Head, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, ok := getItem(s.now.data, key)
	return rec.Head(), ok, nil
}

func getItem(data *btree.BTreeG[kv.Item], key []byte) (kv.Record, bool) {
	item, ok := data.Get(kv.Item{Key: key})
	item.Record.Value = bytes.Clone(item.Record.Value)
	return item.Record, ok
}

// Iter walks a span as of now.
func (s *MemState) Iter(span kv.Span) (Iterator, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return iterate(s.life, s.now.data.Copy(), span), nil
}

func iterate(l *life, data *btree.BTreeG[kv.Item], span kv.Span) Iterator {
	return &memIterator{life: l, it: data.Iter(), span: span}
}

type memIterator struct {
	life    *life
	it      btree.IterG[kv.Item]
	span    kv.Span
	started bool
}

func (i *memIterator) Next() bool {
	if !i.started {
		return i.Seek(i.span.Start)
	}
	return i.life.check() == nil && i.it.Next() && i.span.Contains(i.it.Item().Key)
}

func (i *memIterator) Seek(key []byte) bool {
	if bytes.Compare(key, i.span.Start) < 0 {
		key = i.span.Start
	}
	i.started = true
	return i.life.check() == nil && i.it.Seek(kv.Item{Key: key}) && i.span.Contains(i.it.Item().Key)
}

func (i *memIterator) Key() []byte { return i.it.Item().Key }

func (i *memIterator) Record() (kv.Record, error) { return i.it.Item().Record, i.life.check() }

func (i *memIterator) Close() error {
	i.it.Release()
	return i.life.check()
}

// Shards reads what the replicas keep of themselves, in shard order.
func (s *MemState) Shards() ([]*ShardRecord, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*ShardRecord
	for _, id := range slices.Sorted(maps.Keys(s.now.shards)) {
		st, err := decodeShard(s.now.shards[id])
		if err != nil {
			return nil, err
		}
		list = append(list, &ShardRecord{Shard: id, State: st})
	}
	return list, nil
}

// Tombstones reads the highest replica of each shard that was removed.
func (s *MemState) Tombstones() (map[kv.ShardID]kv.ReplicaID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.now.removed), nil
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
	life  *life
	data  *btree.BTreeG[kv.Item]
	state *kvdv1.ShardState
	span  kv.Span
}

func (v *memView) Get(key []byte) (kv.Record, bool, error) {
	if err := v.life.check(); err != nil || !v.span.Contains(key) {
		return kv.Record{}, false, err
	}
	rec, ok := getItem(v.data, key)
	return rec, ok, nil
}

func (v *memView) Iter(span kv.Span) (Iterator, error) {
	return iterate(v.life, v.data, span.Intersect(v.span)), v.life.check()
}

func (v *memView) State() *kvdv1.ShardState { return v.state }
func (v *memView) Close() error             { return nil }

// View is a consistent view of a shard as of now.
func (s *MemState) View(shard kv.ShardID, span kv.Span) (View, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := &memView{life: s.life, data: s.now.data.Copy(), span: span}
	if value, ok := s.now.shards[shard]; ok {
		st, err := decodeShard(value)
		if err != nil {
			return nil, err
		}
		v.state = st
	}
	return v, nil
}

type memIngest struct {
	store    *MemState
	life     *life
	shard    kv.ShardID
	span     kv.Span
	replaced kv.Span
	absorbed []kv.Group
	items    []kv.Item
	over     bool
}

// NewIngest starts to gather the data that replaces a shard's.
func (s *MemState) NewIngest(shard kv.ShardID, span kv.Span) (Ingest, error) {
	if err := checkIngestSpan(shard, span); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return &memIngest{store: s, life: s.life, shard: shard, span: span, replaced: span}, nil
}

func (i *memIngest) Put(key []byte, rec kv.Record) error {
	if err := i.check(); err != nil {
		return err
	}
	if err := checkIngested(i.span, i.last(), key); err != nil {
		return err
	}
	rec.Value = bytes.Clone(rec.Value)
	i.items = append(i.items, kv.Item{Key: bytes.Clone(key), Record: rec})
	return nil
}

func (i *memIngest) check() error {
	if i.over {
		return ErrClosed
	}
	return i.life.check()
}

func (i *memIngest) last() []byte {
	if len(i.items) == 0 {
		return nil
	}
	return i.items[len(i.items)-1].Key
}

func (i *memIngest) Replace(span kv.Span) error {
	if err := cmp.Or(i.check(), checkReplaced(i.shard, i.replaced, span)); err != nil {
		return err
	}
	i.replaced = kv.Span{Start: bytes.Clone(span.Start), End: bytes.Clone(span.End)}
	return nil
}

func (i *memIngest) Remove(absorbed kv.Group) error {
	if err := cmp.Or(i.check(), checkAbsorbed(i.shard, absorbed)); err != nil {
		return err
	}
	i.absorbed = append(i.absorbed, absorbed)
	return nil
}

func (i *memIngest) Commit(st *kvdv1.ShardState) error {
	s := i.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := i.check(); err != nil {
		return err
	}
	i.over = true
	value, err := encodeShard(st)
	if err != nil {
		return err
	}
	if !mutantIngestOvertakes {
		s.sync()
	}
	for _, t := range []*tables{s.now, s.durable} {
		i.replace(t)
		for _, g := range i.absorbed {
			delete(t.shards, g.Shard)
			t.putTombstone(g.Shard, g.Replica)
		}
		t.shards[i.shard] = value
	}
	return nil
}

// replace puts what was gathered into the place of the data that is replaced.
func (i *memIngest) replace(t *tables) {
	if i.shard == kv.MetaShard {
		return
	}
	t.deleteSpan(i.replaced)
	for _, item := range i.items {
		t.data.Set(item)
		if item.Record.ExpireAt != 0 {
			t.due.Set(kv.Due{ExpireAt: item.Record.ExpireAt, Key: item.Key})
		}
	}
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
	s.life.over.Store(true)
	s.life = &life{}
	return nil
}

// Hash is a checksum over the contents.
func (s *MemState) Hash() (uint64, error) { return hashState(s) }

// Metrics says nothing of memory.
func (s *MemState) Metrics() Metrics { return Metrics{} }

// Close does nothing.
func (s *MemState) Close() error { return nil }
