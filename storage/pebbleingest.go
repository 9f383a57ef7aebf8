package storage

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// pebbleIngest writes tables beside the store.
type pebbleIngest struct {
	store    *PebbleState
	shard    kv.ShardID
	span     kv.Span
	replaced kv.Span
	absorbed map[kv.ShardID]kv.ReplicaID // The highest of each.
	name     string
	// tableBytes is after how many bytes of keys and values a table is followed by another.
	tableBytes int
	data       *ingestTables
	files      []string
	due        *keySorter // Keys of the index of expiries.
	last       []byte
	buf        []byte
	over       bool
	broken     error // What became of a record that was not put in whole.
}

// NewIngest starts to gather the data that replaces a shard's.
func (s *PebbleState) NewIngest(shard kv.ShardID, span kv.Span) (Ingest, error) {
	if err := checkIngestSpan(shard, span); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%d-%d", shard, s.ingests.Add(1))
	i := &pebbleIngest{
		store: s, shard: shard, span: span, replaced: span, absorbed: map[kv.ShardID]kv.ReplicaID{}, name: name,
		tableBytes: ingestTableBytes, due: newKeySorter(s.fs, s.fs.PathJoin(s.dir, name+"k"), s.tables),
	}
	i.data = i.tables("d")
	return i, nil
}

// ingestSyncBytes is after how many bytes of a table the disk is told to begin with them: all of a shard's at once, at the end, would
// keep the syncs of the logs waiting for a tenth of a second and more.
const ingestSyncBytes = 512 << 10

// ingestTableBytes is how large a table of an ingest may be. The index of one that is being
// written is in memory: where keys fill a block each, and differ at their ends only, several times what they take themselves.
const ingestTableBytes = 8 << 20

// ingestTables are tables of an ingest, each with greater keys than the one before.
type ingestTables struct {
	ingest *pebbleIngest
	part   string
	made   int
	w      *sstable.Writer // nil: the next key begins another.
	bytes  int
}

func (i *pebbleIngest) tables(part string) *ingestTables { return &ingestTables{ingest: i, part: part} }

// writer is the table that the next key goes to.
func (t *ingestTables) writer() (*sstable.Writer, error) {
	if t.bytes >= t.ingest.tableBytes {
		if err := t.finish(); err != nil {
			return nil, err
		}
	}
	if t.w != nil {
		return t.w, nil
	}
	i := t.ingest
	path := i.store.fs.PathJoin(i.store.dir, fmt.Sprintf("%s%s%d%s", i.name, t.part, t.made, ingestSuffix))
	f, err := i.store.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, fmt.Errorf("make a table: %w", err)
	}
	t.made++
	i.files = append(i.files, path)
	t.w = newTable(f, i.store.tables)
	return t.w, nil
}

// newTable begins a table that goes to the disk while it is written.
func newTable(f vfs.File, opts sstable.WriterOptions) *sstable.Writer {
	f = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: ingestSyncBytes})
	return sstable.NewWriter(objstorageprovider.NewFileWritable(f), opts)
}

func (t *ingestTables) set(key, value []byte) error {
	w, err := t.writer()
	if err != nil {
		return err
	}
	t.bytes += len(key) + len(value)
	return w.Set(key, value)
}

// finish makes what was written durable.
func (t *ingestTables) finish() error {
	if t.w == nil {
		return nil
	}
	w := t.w
	t.w, t.bytes = nil, 0
	if err := w.Close(); err != nil {
		return fmt.Errorf("finish a table: %w", err)
	}
	return nil
}

func (i *pebbleIngest) Put(key []byte, rec kv.Record) error {
	if err := i.check(); err != nil {
		return err
	}
	if err := checkIngested(i.span, i.last, key); err != nil {
		return err
	}
	i.last = append(i.last[:0], key...)
	if i.shard == kv.MetaShard {
		return nil
	}
	i.broken = i.put(key, rec)
	return i.broken
}

func (i *pebbleIngest) put(key []byte, rec kv.Record) error {
	i.buf = appendRecord(i.buf[:0], rec)
	if err := i.data.set(dataKey(key), i.buf); err != nil || rec.ExpireAt == 0 {
		return err
	}
	return i.due.add(dueKey(kv.Due{ExpireAt: rec.ExpireAt, Key: key}))
}

func (i *pebbleIngest) check() error {
	if i.over {
		return ErrClosed
	}
	return i.broken
}

func (i *pebbleIngest) Replace(span kv.Span) error {
	if err := cmp.Or(i.check(), checkReplaced(i.shard, i.replaced, span)); err != nil {
		return err
	}
	i.replaced = kv.Span{Start: bytes.Clone(span.Start), End: bytes.Clone(span.End)}
	return nil
}

func (i *pebbleIngest) Remove(absorbed kv.Group) error {
	if err := cmp.Or(i.check(), checkAbsorbed(i.shard, absorbed)); err != nil {
		return err
	}
	i.absorbed[absorbed.Shard] = max(i.absorbed[absorbed.Shard], absorbed.Replica)
	return nil
}

func (i *pebbleIngest) Commit(st *kvdv1.ShardState) error {
	if err := i.check(); err != nil {
		return err
	}
	defer i.Abort()
	if err := i.data.finish(); err != nil {
		return err
	}
	if err := i.rest(st); err != nil {
		return err
	}
	return i.store.ingest(i)
}

// ingest makes everything before durable, which must not be overtaken by what is durable at once (D1): most of it while
// other steps go on, and the rest with them held back, or one of them would come between.
func (s *PebbleState) ingest(i *pebbleIngest) error {
	if !mutantIngestOvertakes {
		if _, err := s.Sync(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !mutantIngestOvertakes {
		if err := s.syncTo(s.cut); err != nil {
			return err
		}
	}
	var span pebble.KeyRange // The meta group's excises nothing.
	if i.shard != kv.MetaShard {
		span.Start, span.End = dataSpan(i.replaced)
	}
	_, err := s.db.IngestAndExcise(context.Background(), i.files, nil, nil, span)
	s.heads.forget()
	if err != nil {
		return fmt.Errorf("ingest the data of shard %d: %w", i.shard, err)
	}
	return nil
}

// rest writes the tables beside the data's, which ride in one step: the states of the replica and of the absorbed ones, the
// tombstones of these, and the index of expiries. Tables of one ingest must not overlap.
func (i *pebbleIngest) rest(st *kvdv1.ShardState) error {
	value, err := encodeShard(st)
	if err != nil {
		return err
	}
	absorbed := slices.Sorted(maps.Keys(i.absorbed))
	if err := i.write("s", func(t *ingestTables) error { return i.states(t, value, absorbed) }); err != nil {
		return err
	}
	if len(absorbed) > 0 {
		if err := i.write("t", func(t *ingestTables) error { return i.tombstones(t, absorbed) }); err != nil {
			return err
		}
	}
	return i.write("x", func(t *ingestTables) error { return i.due.each(t.set) })
}

// states writes the replica's state, and deletes those of the absorbed ones, in the order of the keys.
func (i *pebbleIngest) states(t *ingestTables, value []byte, absorbed []kv.ShardID) error {
	w, err := t.writer()
	if err != nil {
		return err
	}
	at, _ := slices.BinarySearch(absorbed, i.shard)
	for _, shard := range absorbed[:at] {
		if err := w.Delete(shardKey(shard)); err != nil {
			return err
		}
	}
	if err := w.Set(shardKey(i.shard), value); err != nil {
		return err
	}
	for _, shard := range absorbed[at:] {
		if err := w.Delete(shardKey(shard)); err != nil {
			return err
		}
	}
	return nil
}

// tombstones writes as PutTombstone does.
func (i *pebbleIngest) tombstones(t *ingestTables, absorbed []kv.ShardID) error {
	w, err := t.writer()
	if err != nil {
		return err
	}
	for _, shard := range absorbed {
		key := tombstoneKey(shard, i.absorbed[shard])
		if err := errors.Join(w.DeleteRange(tombstoneKey(shard, 0), key), w.Set(key, nil)); err != nil {
			return err
		}
	}
	return nil
}

// write writes tables of one part.
func (i *pebbleIngest) write(part string, fill func(t *ingestTables) error) error {
	t := i.tables(part)
	return errors.Join(fill(t), t.finish())
}

// Abort drops what was gathered. A file that cannot be removed is removed when the store is opened next.
func (i *pebbleIngest) Abort() {
	if i.over {
		return
	}
	i.over = true
	_ = i.data.finish()
	for _, path := range i.files {
		_ = i.store.fs.Remove(path)
	}
	i.due.close()
}
