package storage

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// sorterBytesMax is how many bytes of keys a sorter has in memory, and sorterKeyBytes what one takes there beside its own.
// sorterRunsMax tables are merged, and open, at once. Their blocks are large, as they are read from end to end: with a block for each
// of the longest keys, what is in memory of a table that is being written would be as large as all of it.
const (
	sorterBytesMax   = 4 << 20
	sorterKeyBytes   = 24
	sorterRunsMax    = 128
	sorterBlockBytes = 64 << 10
)

// keySorter sorts keys, no two of them alike, of which there may be more than memory has room for: those lie in tables, each in
// its own order. In the end the oldest tables become one, as many as are merged at once, until there are no more than that.
type keySorter struct {
	fs       vfs.FS
	path     string // What the tables' names begin with.
	tables   sstable.WriterOptions
	bytesMax int
	runsMax  int
	keys     [][]byte
	bytes    int
	runs     []string
	made     int
}

func newKeySorter(fs vfs.FS, path string, tables sstable.WriterOptions) *keySorter {
	tables.FilterPolicy = nil
	tables.BlockSize, tables.IndexBlockSize = sorterBlockBytes, 4*sorterBlockBytes
	return &keySorter{fs: fs, path: path, tables: tables, bytesMax: sorterBytesMax, runsMax: sorterRunsMax}
}

// setter takes a key.
type setter = func(key, value []byte) error

// add takes a key, which is the sorter's from then on. It never takes longer than a table of what memory holds.
func (s *keySorter) add(key []byte) error {
	s.keys = append(s.keys, key)
	if s.bytes += len(key) + sorterKeyBytes; s.bytes < s.bytesMax {
		return nil
	}
	return s.spill()
}

// spill writes what is in memory to a table.
func (s *keySorter) spill() error {
	if err := s.write(s.inMemory); err != nil {
		return err
	}
	s.keys, s.bytes = nil, 0
	return nil
}

// mergeOldest makes one table of the oldest.
func (s *keySorter) mergeOldest() error {
	oldest := s.runs[:s.runsMax]
	if err := s.write(func(set setter) error { return s.merge(oldest, set) }); err != nil {
		return err
	}
	s.remove(oldest)
	s.runs = s.runs[s.runsMax:]
	return nil
}

// write writes a table with the keys that each calls set with; whoever gets an error must not read it. Nobody needs it after a crash: so it is not
// synced, unless the file system has no other way to have it written bit by bit.
func (s *keySorter) write(each func(set setter) error) error {
	path := fmt.Sprintf("%s%d%s", s.path, s.made, ingestSuffix)
	f, err := s.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("make a table of keys to be sorted: %w", err)
	}
	s.made++
	s.runs = append(s.runs, path)
	w := newTable(neverSynced{f}, s.tables)
	if err := errors.Join(each(w.Set), w.Close()); err != nil {
		return fmt.Errorf("write a table of keys to be sorted: %w", err)
	}
	return nil
}

// neverSynced is a file that nobody waits for.
type neverSynced struct{ vfs.File }

func (neverSynced) SyncData() error { return nil }

// inMemory calls set with the keys in memory, in their order, and no values.
func (s *keySorter) inMemory(set setter) error {
	slices.SortFunc(s.keys, bytes.Compare)
	for _, key := range s.keys {
		if err := set(key, nil); err != nil {
			return err
		}
	}
	return nil
}

// each calls set with all keys, in their order, and no values; they are not set's to keep.
func (s *keySorter) each(set setter) error {
	if len(s.runs) == 0 {
		return s.inMemory(set)
	}
	if len(s.keys) > 0 {
		if err := s.spill(); err != nil {
			return err
		}
	}
	for len(s.runs) > s.runsMax {
		if err := s.mergeOldest(); err != nil {
			return err
		}
	}
	return s.merge(s.runs, set)
}

// merge calls set with the keys of some tables, in their order.
func (s *keySorter) merge(runs []string, set setter) error {
	it, err := s.merged(runs)
	if err != nil {
		return fmt.Errorf("merge tables of sorted keys (%s): %w", sortedAgain, err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		if err := set(it.Key(), nil); err != nil {
			return errors.Join(err, it.Close())
		}
	}
	if err := it.Close(); err != nil {
		return fmt.Errorf("read tables of sorted keys (%s): %w", sortedAgain, err)
	}
	return nil
}

// sortedAgain is what to do when such a table cannot be read.
const sortedAgain = "they are made anew when kvd is started again"

// merged opens the tables. The iterator closes their files.
func (s *keySorter) merged(runs []string) (*pebble.Iterator, error) {
	files := make([][]sstable.ReadableFile, 0, len(runs))
	for _, path := range runs {
		f, err := s.fs.Open(path, vfs.SequentialReadsOption)
		if err != nil {
			return nil, errors.Join(err, closeAll(files))
		}
		files = append(files, []sstable.ReadableFile{&closedOnce{File: f}})
	}
	opts := &pebble.Options{}
	opts.EnsureDefaults()
	it, err := pebble.NewExternalIter(opts, nil, files)
	if err != nil { // It has closed some of them.
		return nil, errors.Join(err, closeAll(files))
	}
	return it, nil
}

func closeAll(files [][]sstable.ReadableFile) (err error) {
	for _, f := range files {
		err = errors.Join(err, f[0].Close())
	}
	return err
}

// closedOnce is a file that may be closed several times.
type closedOnce struct {
	vfs.File
	closed bool
}

func (f *closedOnce) Close() error {
	if f.closed {
		return nil
	}
	f.closed = true
	return f.File.Close()
}

// close removes the tables.
func (s *keySorter) close() {
	s.remove(s.runs)
	s.keys, s.runs = nil, nil
}

// remove removes tables. One that cannot be removed is removed when the store is opened next.
func (s *keySorter) remove(runs []string) {
	for _, path := range runs {
		_ = s.fs.Remove(path)
	}
}
