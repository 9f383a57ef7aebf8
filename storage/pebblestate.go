package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// The keys of the state store, numbers big-endian:
//
//	'd' | key                     user data: format, revision, expiry, value
//	's' | shard 8                 what the replica keeps of itself: format, kvdv1.ShardState
//	't' | shard 8 | replica 8     tombstone: this replica was removed
//	'x' | expiry 8 | key          index of expiries, of the whole node
const (
	dataPrefix      = 'd'
	shardPrefix     = 's'
	tombstonePrefix = 't'
	duePrefix       = 'x'
)

func dataKey(key []byte) []byte {
	return append(append(make([]byte, 0, 1+len(key)), dataPrefix), key...)
}

// dataSpan gives the bounds of a span's data.
func dataSpan(span kv.Span) (start, end []byte) {
	start, end = dataKey(span.Start), []byte{dataPrefix + 1}
	if len(span.End) > 0 {
		end = dataKey(span.End)
	}
	return start, end
}

func shardKey(shard kv.ShardID) []byte {
	return binary.BigEndian.AppendUint64([]byte{shardPrefix}, uint64(shard))
}

// tombstoneKey has the replica in the key, not in a value: a lower one that is put later does not hide the higher, though
// nobody reads before writing.
func tombstoneKey(shard kv.ShardID, replica kv.ReplicaID) []byte {
	key := binary.BigEndian.AppendUint64([]byte{tombstonePrefix}, uint64(shard))
	return binary.BigEndian.AppendUint64(key, uint64(replica))
}

func dueKey(d kv.Due) []byte {
	key := append(make([]byte, 0, 9+len(d.Key)), duePrefix)
	return append(binary.BigEndian.AppendUint64(key, uint64(d.ExpireAt)), d.Key...)
}

func appendRecord(dst []byte, rec kv.Record) []byte {
	dst = append(dst, format)
	dst = binary.AppendUvarint(dst, uint64(rec.Revision))
	dst = binary.AppendUvarint(dst, uint64(rec.ExpireAt))
	return append(dst, rec.Value...)
}

// decodeRecord reads a stored record; the value is not copied.
func decodeRecord(b []byte) (kv.Record, error) {
	if len(b) == 0 || b[0] != format {
		return kv.Record{}, ErrFormat
	}
	b = b[1:]
	revision, n := binary.Uvarint(b)
	if n <= 0 {
		return kv.Record{}, ErrFormat
	}
	expire, m := binary.Uvarint(b[n:])
	if m <= 0 || int64(expire) < 0 {
		return kv.Record{}, ErrFormat
	}
	return kv.Record{Value: b[n+m:], Revision: kv.Revision(revision), ExpireAt: int64(expire)}, nil
}

func encodeShard(st *kvdv1.ShardState) ([]byte, error) {
	b, err := st.MarshalVT()
	if err != nil {
		return nil, err
	}
	return append([]byte{format}, b...), nil
}

func decodeShard(b []byte) (*kvdv1.ShardState, error) {
	if len(b) == 0 || b[0] != format {
		return nil, ErrFormat
	}
	st := &kvdv1.ShardState{}
	if err := st.UnmarshalVT(b[1:]); err != nil {
		return nil, errors.Join(ErrFormat, err)
	}
	return st, nil
}

// PebbleState is the state store on disk.
type PebbleState struct {
	db    *pebble.DB
	fatal *fatalLogger
	dir   string
	fs    vfs.FS
	// tables are the options of tables to be ingested.
	tables sstable.WriterOptions
	close  func() error

	mu      sync.Mutex // Orders commits, ingests and their numbers.
	cut     Cut
	durable atomic.Uint64
	ingests atomic.Uint64 // Names the tables of ingests.
	heads   *heads
	scratch sync.Pool
}

var _ State = (*PebbleState)(nil)

// OpenState opens the state store of a directory.
func OpenState(o Options) (*PebbleState, error) {
	db, opts, err := openPebble(&o)
	if err != nil {
		return nil, err
	}
	s := &PebbleState{
		db: db, fatal: opts.Logger.(*fatalLogger), dir: o.Dir, fs: o.FS, tables: tableOptions(db, opts), heads: newHeads(o.HeadBytes),
	}
	s.scratch.New = func() any { return &scratch{} }
	s.close = sync.OnceValue(func() error { return errors.Join(seal(db, uint64(s.cut)), db.Close()) })
	return s, nil
}

// getter is what a store and a view of it have in common.
type getter interface {
	pebble.Reader
}

func get(r getter, key []byte) (kv.Record, bool, error) {
	var buf [256]byte
	value, closer, err := r.Get(append(append(buf[:0], dataPrefix), key...))
	if errors.Is(err, pebble.ErrNotFound) {
		return kv.Record{}, false, nil
	}
	if err != nil {
		return kv.Record{}, false, fmt.Errorf("read %s: %w", kv.FormatKey(key), err)
	}
	rec, err := decodeRecord(value)
	if err != nil {
		return kv.Record{}, false, errors.Join(fmt.Errorf("read %s: %w", kv.FormatKey(key), err), closer.Close())
	}
	rec.Value = append(make([]byte, 0, len(rec.Value)), rec.Value...)
	return rec, true, closer.Close()
}

// head is get without the value.
func head(r getter, key []byte) (kv.Head, bool, error) {
	var buf [256]byte
	value, closer, err := r.Get(append(append(buf[:0], dataPrefix), key...))
	if errors.Is(err, pebble.ErrNotFound) {
		return kv.Head{}, false, nil
	}
	if err != nil {
		return kv.Head{}, false, fmt.Errorf("read %s: %w", kv.FormatKey(key), err)
	}
	rec, err := decodeRecord(value)
	if err != nil {
		err = fmt.Errorf("read %s: %w", kv.FormatKey(key), err)
	}
	return rec.Head(), true, errors.Join(err, closer.Close())
}

func iter(r getter, fatal *fatalLogger, span kv.Span) (Iterator, error) {
	if span.Empty() {
		return nothing{}, nil
	}
	start, end := dataSpan(span)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: end})
	if err != nil {
		return nil, err
	}
	return &pebbleIterator{it: it, fatal: fatal}, nil
}

// nothing is the iterator of an empty span.
type nothing struct{}

func (nothing) Next() bool                 { return false }
func (nothing) Seek([]byte) bool           { return false }
func (nothing) Key() []byte                { return nil }
func (nothing) Record() (kv.Record, error) { return kv.Record{}, ErrClosed }
func (nothing) Close() error               { return nil }

type pebbleIterator struct {
	it      *pebble.Iterator
	fatal   *fatalLogger
	started bool
}

func (i *pebbleIterator) Next() bool {
	if !i.started {
		i.started = true
		return i.it.First()
	}
	return i.it.Next()
}

func (i *pebbleIterator) Seek(key []byte) bool {
	i.started = true
	return i.it.SeekGE(dataKey(key))
}

func (i *pebbleIterator) Key() []byte { return i.it.Key()[1:] }

func (i *pebbleIterator) Record() (kv.Record, error) {
	defer i.fatal.guard()
	value, err := i.it.ValueAndErr()
	if err != nil {
		return kv.Record{}, i.fatal.checked(err)
	}
	return decodeRecord(value)
}

func (i *pebbleIterator) Close() error { return i.it.Close() }

// Get reads a key.
func (s *PebbleState) Get(key []byte) (kv.Record, bool, error) {
	defer s.fatal.guard()
	rec, found, err := get(s.db, key)
	return rec, found, s.fatal.checked(err)
}

// Head is Get without the value. Keys that were written or asked for lately are answered from memory, where a commit under way may
// not be seen yet though Get sees it.
func (s *PebbleState) Head(key []byte) (kv.Head, bool, error) {
	h, ok, known, asked := s.heads.get(key)
	if known {
		return h, ok, nil
	}
	defer s.fatal.guard()
	h, ok, err := head(s.db, key)
	if err != nil {
		return kv.Head{}, false, s.fatal.checked(err)
	}
	s.heads.put(asked, key, h, ok)
	return h, ok, nil
}

// Lacks reports whether Head would have to look a key up. Who can do that beside the one that will ask goes on with Foresee or
// Foreseen, and asked. It waits for nobody: hundreds of callers ask at a time, and where it would have to wait, nothing is lacked.
func (s *PebbleState) Lacks(key []byte) (lacks bool, asked uint64) { return s.heads.lacks(key) }

// Foresee looks a key up, so that Head answers from memory before long.
func (s *PebbleState) Foresee(key []byte, asked uint64) {
	defer s.fatal.guard()
	if h, ok, err := head(s.db, key); s.fatal.checked(err) == nil {
		s.heads.put(asked, key, h, ok)
	}
}

// Foreseen takes a key's head, which was committed last at some moment since Lacks.
func (s *PebbleState) Foreseen(key []byte, asked uint64, head kv.Head) {
	s.heads.put(asked, key, head, true)
}

// Iter walks a span as of now.
func (s *PebbleState) Iter(span kv.Span) (Iterator, error) { return iter(s.db, s.fatal, span) }

// pebbleBatch gathers a step. The first error is kept for Commit.
type pebbleBatch struct {
	*scratch
	store *PebbleState
	b     *pebble.Batch
	spans bool // It changes more than what is in changes.
	err   error
}

// scratch is memory of a batch that the next uses again.
type scratch struct {
	key, value []byte // Pebble copies both.
	changes    []change
}

func (b *pebbleBatch) keep(err error) {
	if b.err == nil {
		b.err = err
	}
}

func (b *pebbleBatch) Put(key []byte, rec kv.Record) {
	b.value = appendRecord(b.value[:0], rec)
	b.keep(b.b.Set(b.dataKey(key), b.value, nil))
	b.changes = append(b.changes, change{b.store.heads.hashes(key), rec.Head(), true})
}

func (b *pebbleBatch) Delete(key []byte) {
	b.keep(b.b.Delete(b.dataKey(key), nil))
	b.changes = append(b.changes, change{b.store.heads.hashes(key), kv.Head{}, false})
}

func (b *pebbleBatch) dataKey(key []byte) []byte {
	b.key = append(append(b.key[:0], dataPrefix), key...)
	return b.key
}
func (b *pebbleBatch) PutDue(d kv.Due)    { b.keep(b.b.Set(dueKey(d), nil, nil)) }
func (b *pebbleBatch) DeleteDue(d kv.Due) { b.keep(b.b.Delete(dueKey(d), nil)) }
func (b *pebbleBatch) Bytes() int         { return b.b.Len() }
func (b *pebbleBatch) Empty() bool        { return b.b.Empty() }
func (b *pebbleBatch) PutShard(shard kv.ShardID, st *kvdv1.ShardState) {
	value, err := encodeShard(st)
	if err != nil {
		b.keep(err)
		return
	}
	b.keep(b.b.Set(shardKey(shard), value, nil))
}

func (b *pebbleBatch) DeleteSpan(span kv.Span) {
	if span.Empty() {
		return
	}
	start, end := dataSpan(span)
	b.keep(b.b.DeleteRange(start, end, nil))
	b.spans = true
}
func (b *pebbleBatch) RemoveShard(shard kv.ShardID) { b.keep(b.b.Delete(shardKey(shard), nil)) }

// PutTombstone deletes the lower ones, which are of no use any more.
func (b *pebbleBatch) PutTombstone(shard kv.ShardID, replica kv.ReplicaID) {
	key := tombstoneKey(shard, replica)
	b.keep(b.b.DeleteRange(tombstoneKey(shard, 0), key, nil))
	b.keep(b.b.Set(key, nil, nil))
}

// changesKept is up to how many changes of a batch have their memory used again: those of a megabyte or two.
const changesKept = 32 << 10

// NewBatch makes an empty batch.
func (s *PebbleState) NewBatch() Batch {
	return &pebbleBatch{store: s, b: newBatch(s.db), scratch: s.scratch.Get().(*scratch)}
}

// Commit makes a batch visible, not durable.
func (s *PebbleState) Commit(b Batch) (Cut, error) {
	batch := b.(*pebbleBatch)
	if batch.b == nil {
		return 0, ErrClosed
	}
	defer batch.end()
	if batch.err != nil {
		return 0, batch.err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := errors.Join(addMark(batch.b, uint64(s.cut+1), s.durable.Load()), batch.b.Commit(pebble.NoSync)); err != nil {
		s.heads.forget()
		return 0, fmt.Errorf("write to the state store: %w", err)
	}
	if batch.spans {
		s.heads.forget() // It is rare.
	} else {
		s.heads.changed(batch.changes)
	}
	s.cut++
	return s.cut, nil
}

// end gives the batch's memory back; closing a batch fails only when that was done already.
func (b *pebbleBatch) end() {
	_ = b.b.Close()
	b.b = nil
	if cap(b.changes) <= changesKept {
		b.changes = b.changes[:0]
		b.store.scratch.Put(b.scratch)
	}
	b.scratch = nil
}

// Sync makes every commit so far durable.
func (s *PebbleState) Sync() (Cut, error) {
	s.mu.Lock()
	cut := s.cut
	s.mu.Unlock()
	return cut, s.syncTo(cut)
}

// syncTo makes the commits up to a cut durable.
func (s *PebbleState) syncTo(cut Cut) error {
	if cut <= s.Durable() {
		return nil
	}
	if err := syncLog(s.db, s.durable.Load()); err != nil {
		return fmt.Errorf("sync the state store: %w", err)
	}
	for {
		old := s.durable.Load()
		if uint64(cut) <= old || s.durable.CompareAndSwap(old, uint64(cut)) {
			return nil
		}
	}
}

// Durable is the last commit that is known to be durable.
func (s *PebbleState) Durable() Cut { return Cut(s.durable.Load()) }

// Shards reads what the replicas keep of themselves, in shard order.
func (s *PebbleState) Shards() ([]*ShardRecord, error) {
	defer s.fatal.guard()
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{shardPrefix}, UpperBound: []byte{shardPrefix + 1}})
	if err != nil {
		return nil, err
	}
	var list []*ShardRecord
	for ok := it.First(); ok; ok = it.Next() {
		if len(it.Key()) != 9 {
			return nil, errors.Join(fmt.Errorf("a key of the state store is damaged: %x", it.Key()), it.Close())
		}
		shard := kv.ShardID(binary.BigEndian.Uint64(it.Key()[1:]))
		st, err := decodeShard(it.Value())
		if err != nil {
			return nil, errors.Join(fmt.Errorf("shard %d: %w", shard, err), it.Close())
		}
		list = append(list, &ShardRecord{Shard: shard, State: st})
	}
	return list, it.Close()
}

// Tombstones reads the highest replica of each shard that was removed.
func (s *PebbleState) Tombstones() (map[kv.ShardID]kv.ReplicaID, error) {
	defer s.fatal.guard()
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{tombstonePrefix}, UpperBound: []byte{tombstonePrefix + 1}})
	if err != nil {
		return nil, err
	}
	list := map[kv.ShardID]kv.ReplicaID{}
	for ok := it.First(); ok; ok = it.Next() {
		key := it.Key()
		if len(key) != 17 {
			return nil, errors.Join(fmt.Errorf("a key of the state store is damaged: %x", key), it.Close())
		}
		// They come in order: of a shard's the highest comes last.
		list[kv.ShardID(binary.BigEndian.Uint64(key[1:]))] = kv.ReplicaID(binary.BigEndian.Uint64(key[9:]))
	}
	return list, it.Close()
}

// Due calls f with expiries.
func (s *PebbleState) Due(from kv.Due, time int64, n int, f func(kv.Due) bool) (last kv.Due, all bool, err error) {
	upper := binary.BigEndian.AppendUint64([]byte{duePrefix}, uint64(time)+1)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: dueKey(from), UpperBound: upper})
	if err != nil {
		return from, false, err
	}
	last = from
	for ok := it.First(); ok; ok = it.Next() {
		d := kv.Due{ExpireAt: int64(binary.BigEndian.Uint64(it.Key()[1:])), Key: bytes.Clone(it.Key()[9:])}
		if !lessDue(from, d) {
			continue
		}
		if n == 0 {
			return last, false, it.Close()
		}
		n--
		last = d
		if !f(d) {
			return last, false, it.Close()
		}
	}
	return last, true, it.Close()
}

type pebbleView struct {
	snapshot *pebble.EventuallyFileOnlySnapshot
	fatal    *fatalLogger
	state    *kvdv1.ShardState
	span     kv.Span
}

// View is a consistent view of a shard as of now.
func (s *PebbleState) View(shard kv.ShardID, span kv.Span) (View, error) {
	defer s.fatal.guard()
	start, end := dataSpan(span)
	key := shardKey(shard)
	v := &pebbleView{span: span, fatal: s.fatal, snapshot: s.db.NewEventuallyFileOnlySnapshot([]pebble.KeyRange{
		{Start: start, End: end}, {Start: key, End: append(bytes.Clone(key), 0)},
	})}
	value, closer, err := v.snapshot.Get(key)
	if err == nil {
		v.state, err = decodeShard(value)
		err = errors.Join(err, closer.Close())
	} else if errors.Is(err, pebble.ErrNotFound) {
		err = nil
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the state of shard %d: %w", shard, err), v.Close())
	}
	return v, nil
}

func (v *pebbleView) Get(key []byte) (kv.Record, bool, error) {
	defer v.fatal.guard()
	if !v.span.Contains(key) {
		return kv.Record{}, false, nil
	}
	rec, found, err := get(v.snapshot, key)
	return rec, found, v.fatal.checked(err)
}
func (v *pebbleView) Iter(span kv.Span) (Iterator, error) {
	return iter(v.snapshot, v.fatal, span.Intersect(v.span))
}
func (v *pebbleView) State() *kvdv1.ShardState { return v.state }
func (v *pebbleView) Close() error             { return v.snapshot.Close() }

// Metrics describes the store for operators.
func (s *PebbleState) Metrics() Metrics { return metricsOf(s.db) }

// Close makes everything durable and closes the store.
func (s *PebbleState) Close() error { return s.close() }
