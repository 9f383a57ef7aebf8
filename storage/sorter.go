package storage

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// sorterBytesMax is how many bytes of keys a sorter has in memory, and sorterKeyBytes what one takes there beside its own.
const (
	sorterBytesMax = 4 << 20
	sorterKeyBytes = 24
)

// keySorter sorts keys, no two of them alike, of which there may be more than memory has room for: those lie in tables, each in
// its own order, which are merged in the end: as many files are open then as memory was full of keys.
type keySorter struct {
	fs     vfs.FS
	path   string // What the tables' names begin with.
	tables sstable.WriterOptions
	keys   [][]byte
	bytes  int
	runs   []string
}

func newKeySorter(fs vfs.FS, path string, tables sstable.WriterOptions) *keySorter {
	tables.FilterPolicy = nil // They are read from end to end.
	return &keySorter{fs: fs, path: path, tables: tables}
}

// empty reports whether nothing was added.
func (s *keySorter) empty() bool { return len(s.keys) == 0 && len(s.runs) == 0 }

// add takes a key, which is the sorter's from then on.
func (s *keySorter) add(key []byte) error {
	s.keys = append(s.keys, key)
	if s.bytes += len(key) + sorterKeyBytes; s.bytes < sorterBytesMax {
		return nil
	}
	return s.spill()
}

// spill writes what is in memory to a table.
func (s *keySorter) spill() error {
	path := fmt.Sprintf("%s%d%s", s.path, len(s.runs), ingestSuffix)
	f, err := s.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("make a table of keys to be sorted: %w", err)
	}
	s.runs = append(s.runs, path)
	f = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: ingestSyncBytes})
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(f), s.tables)
	if err := errors.Join(s.inMemory(w.Set), w.Close()); err != nil {
		return fmt.Errorf("write a table of keys to be sorted: %w", err)
	}
	s.keys, s.bytes = nil, 0
	return nil
}

// inMemory calls set with the keys in memory, in their order, and no values.
func (s *keySorter) inMemory(set func(key, value []byte) error) error {
	slices.SortFunc(s.keys, bytes.Compare)
	for _, key := range s.keys {
		if err := set(key, nil); err != nil {
			return err
		}
	}
	return nil
}

// each calls set with all keys, in their order, and no values; they are not set's to keep.
func (s *keySorter) each(set func(key, value []byte) error) error {
	if len(s.runs) == 0 {
		return s.inMemory(set)
	}
	if len(s.keys) > 0 {
		if err := s.spill(); err != nil {
			return err
		}
	}
	it, err := s.merged()
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
func (s *keySorter) merged() (*pebble.Iterator, error) {
	files := make([][]sstable.ReadableFile, 0, len(s.runs))
	for _, path := range s.runs {
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

// close removes the tables. One that cannot be removed is removed when the store is opened next.
func (s *keySorter) close() {
	for _, path := range s.runs {
		_ = s.fs.Remove(path)
	}
	s.keys, s.runs = nil, nil
}
