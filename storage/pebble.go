package storage

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Options are those of both stores on Pebble.
type Options struct {
	// Dir is the store's directory; it is made if it is missing.
	Dir string
	// FS is the file system; nil is the operating system's.
	FS vfs.FS
	// Cache is Pebble's block cache, shared by both stores. The caller releases its own reference.
	Cache *pebble.Cache
	// MemtableBytes is the size of a memtable; there are at most three.
	MemtableBytes uint64
	Logger        *slog.Logger
	// Fatal is called when a write failed or data is damaged. It must stop the process: nothing is retried (T7).
	Fatal func(err error)
}

const (
	// format is the first byte of every record on disk.
	format = 1
	// separateBytes is the size from which on Pebble keeps a value apart from its key.
	separateBytes = 1 << 10
	// compactionsMax bounds the compactions of a store that run at the same time.
	compactionsMax = 2
)

// ErrFormat tells of a record that a newer version has written, or that is damaged.
var ErrFormat = errors.New("a record of an unknown format: the data directory was written by a newer version, or is damaged")

// openPebble opens a store. A new one is closed and opened again before anything goes into it: the first log of a new
// store would lose its end after a flipped bit without a word.
func openPebble(o Options, adapt func(*pebble.Options)) (*pebble.DB, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if err := o.FS.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the directory of a store: %w", err)
	}
	desc, err := pebble.Peek(o.Dir, o.FS)
	if err != nil {
		return nil, fmt.Errorf("look into %s: %w", o.Dir, err)
	}
	opts := pebbleOptions(o)
	adapt(opts)
	db, err := pebble.Open(o.Dir, opts)
	if err != nil || desc.Exists {
		return db, explain(o.Dir, err)
	}
	if err := db.Close(); err != nil {
		return nil, explain(o.Dir, err)
	}
	opts = pebbleOptions(o)
	adapt(opts)
	db, err = pebble.Open(o.Dir, opts)
	return db, explain(o.Dir, err)
}

func explain(dir string, err error) error {
	switch {
	case err == nil:
		return nil
	case pebble.IsCorruptionError(err):
		return fmt.Errorf("the store in %s is damaged; remove the data directory and add the node anew: %w", dir, err)
	}
	return fmt.Errorf("open the store in %s: %w", dir, err)
}

func pebbleOptions(o Options) *pebble.Options {
	fatal := fatalLogger{logger: o.Logger, fatal: o.Fatal}
	opts := &pebble.Options{
		FS: o.FS, Cache: o.Cache, FormatMajorVersion: pebble.FormatValueSeparation, MemTableSize: max(o.MemtableBytes, 1<<20),
		MemTableStopWritesThreshold: 4, L0CompactionThreshold: 4, L0StopWritesThreshold: 1000,
		CompactionConcurrencyRange: func() (int, int) { return 1, compactionsMax }, Logger: fatal,
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) {
				if pebble.IsCorruptionError(err) {
					fatal.stop(err)
					return
				}
				o.Logger.Error("the store works on after an error in the background", "dir", o.Dir, "error", err)
			},
			DataCorruption: func(info pebble.DataCorruptionInfo) { fatal.stop(info.Details) },
		},
	}
	opts.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{Enabled: true, MinimumSize: separateBytes, MaxBlobReferenceDepth: 8, TargetGarbageRatio: 0.3}
	}
	opts.EnsureDefaults()
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return opts
}

// fatalLogger stops the process when Pebble finds that it cannot go on.
type fatalLogger struct {
	logger *slog.Logger
	fatal  func(error)
}

func (l fatalLogger) Infof(string, ...any) {}

func (l fatalLogger) Errorf(format string, args ...any) {
	l.logger.Warn("pebble", "message", fmt.Sprintf(format, args...))
}

func (l fatalLogger) Fatalf(format string, args ...any) { l.stop(fmt.Errorf(format, args...)) }

// stop never returns: whoever waits for the write must not hear that it was done.
func (l fatalLogger) stop(err error) {
	l.fatal(fmt.Errorf("the store cannot go on: the disk failed or its data is damaged; mend the disk, or remove the data directory and add the node anew: %w", err))
	select {}
}

// metricsOf describes a store.
func metricsOf(db *pebble.DB) Metrics {
	m := db.Metrics()
	total := m.Total()
	return Metrics{
		DiskBytes: m.DiskSpaceUsage(), MemtableBytes: m.MemTable.Size, ReadAmp: m.ReadAmp(), Compactions: m.Compact.Count,
		FlushedBytes: total.TableBytesFlushed, CompactedBytes: total.TableBytesCompacted, WALBytes: m.WAL.BytesWritten,
	}
}

// tableOptions are those of a table that is to be ingested.
func tableOptions(db *pebble.DB, o *pebble.Options) sstable.WriterOptions {
	return o.MakeWriterOptions(0, db.TableFormat())
}
