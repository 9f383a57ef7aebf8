package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// The engines on Pebble as Crashers, on a disk in memory: for the tests that all engines share, and for the simulator to
// compare with the engines in memory.
//
// A crash is exact, where torn files would leave most of what was not synced in Pebble's own buffers. The wrapper keeps
// the batches that were not synced; a crash takes what the disk had synced, opens the store on it, and commits as many
// of them again as are to survive. Each batch also puts its number under numberKey, by which the wrapper sees how many
// the disk has kept by itself: Pebble syncs its log when it begins another.

// numberKey lies beside the keys of both stores.
var numberKey = []byte{'w'}

// crashFlushBytes is how much is written before a synced write is followed by a flush: Pebble's first memtable is small,
// and a log that is begun in the middle of unsynced writes makes those before it durable.
const crashFlushBytes = 100 << 10

// crashDisk is the disk of a store, and what was written to it and not synced.
type crashDisk struct {
	options  Options
	fs       *vfs.MemFS
	number   uint64   // Of the last batch.
	unsynced [][]byte // Batches, in the order of their numbers.
	bytes    int      // Written since the last flush.
}

func newCrashDisk(o Options) crashDisk {
	fs := vfs.NewCrashableMem()
	o.FS = fs
	return crashDisk{options: o, fs: fs}
}

// add numbers a batch that is about to be committed, and keeps it.
func (d *crashDisk) add(b *pebble.Batch) error {
	d.number++
	if err := b.Set(numberKey, binary.BigEndian.AppendUint64(nil, d.number), nil); err != nil {
		return err
	}
	d.unsynced = append(d.unsynced, slices.Clone(b.Repr()))
	d.bytes += b.Len()
	return nil
}

// synced notes that all batches are durable.
func (d *crashDisk) synced(db *pebble.DB) error {
	d.unsynced = nil
	if d.bytes < crashFlushBytes {
		return nil
	}
	d.bytes = 0
	return db.Flush()
}

// crash leaves a disk with what was synced.
func (d *crashDisk) crash() {
	d.fs = d.fs.CrashClone(vfs.CrashCloneCfg{})
	d.options.FS, d.bytes = d.fs, 0
}

// recover commits to the store, opened after a crash, the batches that survive besides those that the disk has kept.
func (d *crashDisk) recover(db *pebble.DB, keep func(n int) int) error {
	kept, err := readNumber(db)
	if err != nil {
		return err
	}
	durable := d.number - uint64(len(d.unsynced))
	if kept < durable || kept > d.number {
		return fmt.Errorf("%w: a crash left batch %d as the last, of %d of which %d were synced", ErrDamaged, kept, d.number, durable)
	}
	left := d.unsynced[kept-durable:]
	left = left[:keep(len(left))]
	for _, repr := range left {
		b := db.NewBatch()
		if err := b.SetRepr(repr); err != nil {
			return err
		}
		if err := errors.Join(b.Commit(pebble.Sync), b.Close()); err != nil {
			return err
		}
	}
	d.number, d.unsynced = kept+uint64(len(left)), nil
	return nil
}

func readNumber(db *pebble.DB) (uint64, error) {
	value, closer, err := db.Get(numberKey)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(value), closer.Close()
}

// CrashLog is the log store on Pebble, on a disk in memory that can crash. Nothing else may go on during a Crash.
type CrashLog struct {
	*PebbleLog
	disk crashDisk
}

var (
	_ Log     = (*CrashLog)(nil)
	_ Crasher = (*CrashLog)(nil)
)

// NewCrashLog makes an empty log store. The file system of the options is not used.
func NewCrashLog(o Options) (*CrashLog, error) {
	l := &CrashLog{disk: newCrashDisk(o)}
	var err error
	l.PebbleLog, err = OpenLog(l.disk.options)
	return l, err
}

// Write makes all of it take effect atomically.
func (l *CrashLog) Write(writes []LogWrite, sync bool) error {
	b, err := l.prepare(writes)
	if err != nil {
		return err
	}
	if err := l.disk.add(b); err != nil {
		return err
	}
	if err := l.commit(b, sync); err != nil || !sync {
		return err
	}
	return l.disk.synced(l.db)
}

// Crash forgets what was not synced, but for a beginning of it.
func (l *CrashLog) Crash(keep func(n int) int) error {
	l.disk.crash()
	if err := l.Close(); err != nil {
		return err
	}
	var err error
	if l.PebbleLog, err = OpenLog(l.disk.options); err != nil {
		return err
	}
	if err := l.disk.recover(l.db, keep); err != nil {
		return err
	}
	clear(l.groups)
	return l.scan()
}

// Hash is a checksum over the contents.
func (l *CrashLog) Hash() (uint64, error) { return hashLog(l) }

// CrashState is the state store on Pebble, on a disk in memory that can crash. Nothing else may go on during a Crash.
type CrashState struct {
	*PebbleState

	mu     sync.Mutex // Held while a batch gets its number and is committed.
	disk   crashDisk
	life   *life
	opened map[any]func() // How to close what was opened on the store.
}

var (
	_ State   = (*CrashState)(nil)
	_ Crasher = (*CrashState)(nil)
)

// NewCrashState makes an empty state store. The file system of the options is not used.
func NewCrashState(o Options) (*CrashState, error) {
	s := &CrashState{disk: newCrashDisk(o), life: &life{}, opened: map[any]func(){}}
	var err error
	s.PebbleState, err = OpenState(s.disk.options)
	return s, err
}

// Crash goes back to what is durable, and a beginning of what is not.
func (s *CrashState) Crash(keep func(n int) int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.disk.crash()
	for _, end := range s.opened {
		end()
	}
	clear(s.opened)
	s.life.over.Store(true)
	s.life = &life{}
	if err := s.Close(); err != nil {
		return err
	}
	var err error
	if s.PebbleState, err = OpenState(s.disk.options); err != nil {
		return err
	}
	return s.disk.recover(s.db, keep)
}

// Hash is a checksum over the contents.
func (s *CrashState) Hash() (uint64, error) { return hashState(s) }

// crashBatch is a batch of one life of the store.
type crashBatch struct {
	*pebbleBatch
	life *life
}

// NewBatch makes an empty batch.
func (s *CrashState) NewBatch() Batch {
	return &crashBatch{pebbleBatch: s.PebbleState.NewBatch().(*pebbleBatch), life: s.life}
}

// Commit makes a batch visible, not durable.
func (s *CrashState) Commit(b Batch) (Cut, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch := b.(*crashBatch)
	if err := batch.life.check(); err != nil {
		return 0, err
	}
	if batch.b != nil && batch.err == nil {
		batch.keep(s.disk.add(batch.b))
	}
	return s.PebbleState.Commit(batch.pebbleBatch)
}

// Sync makes every commit so far durable.
func (s *CrashState) Sync() (Cut, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cut, err := s.PebbleState.Sync()
	if err != nil {
		return cut, err
	}
	return cut, s.disk.synced(s.db)
}

// open notes what was opened, and gives what forgets it again.
func (s *CrashState) open(x any, end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened[x] = end
}

func (s *CrashState) forget(x any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.opened, x)
}

// crashIterator is an iterator of one life of the store.
type crashIterator struct {
	Iterator
	store *CrashState
	life  *life
}

func (s *CrashState) iterator(it Iterator, err error) (Iterator, error) {
	if err != nil {
		return nil, err
	}
	i := &crashIterator{Iterator: it, store: s, life: s.life}
	s.open(i, func() { _ = it.Close() })
	return i, nil
}

// Iter walks a span as of now.
func (s *CrashState) Iter(span kv.Span) (Iterator, error) {
	return s.iterator(s.PebbleState.Iter(span))
}

func (i *crashIterator) Next() bool           { return i.life.check() == nil && i.Iterator.Next() }
func (i *crashIterator) Seek(key []byte) bool { return i.life.check() == nil && i.Iterator.Seek(key) }

func (i *crashIterator) Record() (kv.Record, error) {
	if err := i.life.check(); err != nil {
		return kv.Record{}, err
	}
	return i.Iterator.Record()
}

func (i *crashIterator) Close() error {
	if err := i.life.check(); err != nil {
		return err
	}
	i.store.forget(i)
	return i.Iterator.Close()
}

// crashView is a view of one life of the store.
type crashView struct {
	View
	store *CrashState
	life  *life
}

// View is a consistent view of a shard as of now.
func (s *CrashState) View(shard kv.ShardID, span kv.Span) (View, error) {
	view, err := s.PebbleState.View(shard, span)
	if err != nil {
		return nil, err
	}
	v := &crashView{View: view, store: s, life: s.life}
	s.open(v, func() { _ = view.Close() })
	return v, nil
}

func (v *crashView) Get(key []byte) (kv.Record, bool, error) {
	if err := v.life.check(); err != nil {
		return kv.Record{}, false, err
	}
	return v.View.Get(key)
}

func (v *crashView) Iter(span kv.Span) (Iterator, error) {
	if err := v.life.check(); err != nil {
		return nil, err
	}
	return v.store.iterator(v.View.Iter(span))
}

func (v *crashView) Close() error {
	if v.life.check() != nil {
		return nil
	}
	v.store.forget(v)
	return v.View.Close()
}

// crashIngest is an ingest of one life of the store.
type crashIngest struct {
	Ingest
	store *CrashState
	life  *life
}

// NewIngest starts to gather the data that replaces a shard's.
func (s *CrashState) NewIngest(shard kv.ShardID, span kv.Span) (Ingest, error) {
	in, err := s.PebbleState.NewIngest(shard, span)
	if err != nil {
		return nil, err
	}
	i := &crashIngest{Ingest: in, store: s, life: s.life}
	s.open(i, in.Abort)
	return i, nil
}

func (i *crashIngest) Put(key []byte, rec kv.Record) error {
	if err := i.life.check(); err != nil {
		return err
	}
	return i.Ingest.Put(key, rec)
}

// Commit makes everything before durable, and then the ingest.
func (i *crashIngest) Commit(st *kvdv1.ShardState) error {
	i.store.mu.Lock()
	defer i.store.mu.Unlock()
	if err := i.life.check(); err != nil {
		return err
	}
	if err := i.Ingest.Commit(st); err != nil {
		return err
	}
	delete(i.store.opened, i)
	return i.store.disk.synced(i.store.db)
}

func (i *crashIngest) Abort() {
	if i.life.check() == nil {
		i.store.forget(i)
		i.Ingest.Abort()
	}
}
