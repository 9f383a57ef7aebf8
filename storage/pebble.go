package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/kvdstore/kvd/kv"
)

// Options are those of both stores on Pebble.
type Options struct {
	// Dir is the store's directory; it is made if it is missing.
	Dir string
	// MustExist refuses to make the store: one that was there before has been lost.
	MustExist bool
	// FS is the file system; nil is the operating system's.
	FS vfs.FS
	// Cache is Pebble's block cache, shared by both stores. The caller releases its own reference.
	Cache *pebble.Cache
	// MemtableBytes is the size of a memtable, at least memtableBytesMin; there are at most memtablesMax.
	MemtableBytes uint64
	// HeadBytes is about how much memory the state store keeps the heads of records in.
	HeadBytes int
	Logger    *slog.Logger
	// Fatal is called once, when a write failed or data is damaged; the error says what to do. It must stop the
	// process: nothing is retried (T7), and whoever waits for the store waits for ever.
	Fatal func(err error)
	// brief: what is stored is soon deleted, and not worth to be compressed.
	brief bool
}

// validate reports everything that is wrong, and fills in what may be left out.
func (o *Options) validate() error {
	var errs []error
	if o.Dir == "" {
		errs = append(errs, &kv.InvalidError{Field: "Dir", Bound: "not empty"})
	}
	if o.MemtableBytes > memtableBytesMax {
		errs = append(errs, &kv.InvalidError{Field: "MemtableBytes", Bound: fmt.Sprintf("at most %d, is %d", memtableBytesMax, o.MemtableBytes)})
	}
	if o.Logger == nil {
		errs = append(errs, &kv.InvalidError{Field: "Logger", Bound: "not nil"})
	}
	if o.Fatal == nil {
		errs = append(errs, &kv.InvalidError{Field: "Fatal", Bound: "not nil: somebody must stop the process"})
	}
	if o.FS == nil {
		o.FS = osFiles()
	}
	o.FS = witnessFS{o.FS}
	o.MemtableBytes = max(o.MemtableBytes, memtableBytesMin)
	return errors.Join(errs...)
}

const (
	// format is the first byte of every record on disk.
	format = 1
	// separateBytes is the size from which on Pebble keeps a value apart from its key.
	separateBytes = 1 << 10
	// compactionsMax bounds the compactions of a store that run at the same time.
	compactionsMax = 2
	// memtableBytesMin and memtableBytesMax bound a memtable, memtablesMax how many there are before writes wait.
	memtableBytesMin = 1 << 20
	memtableBytesMax = 1 << 30
	memtablesMax     = 4
	// compactFrom is how many layers of new files are merged into the old ones at a time: where each of those has keys from
	// everywhere, all of the old ones are written anew each time. A key that is in no memory is looked for in so many more.
	compactFrom = 8
	// pebbleFormat is the format of Pebble's files.
	pebbleFormat = pebble.FormatValueSeparation
)

// ErrDamaged tells that what a store holds breaks its own rules.
var ErrDamaged = errors.New("the store is damaged")

// ErrMissing tells that a store which was there is not any more.
var ErrMissing = errors.New("there is no store")

// ErrFormat tells of a record that a newer version has written, or that is damaged.
var ErrFormat = errors.New("a record of an unknown format: the data directory was written by a newer version, or is damaged")

// openPebble opens a store. A new one, or one of an older format, is closed and opened again before anything goes into
// it: a log that was begun before Pebble has reached its newest format loses its end after a flipped bit without a word.
func openPebble(o *Options) (*pebble.DB, *pebble.Options, error) {
	if err := o.validate(); err != nil {
		return nil, nil, fmt.Errorf("open a store: %w", err)
	}
	if err := makeDir(o.FS, o.Dir); err != nil {
		return nil, nil, fmt.Errorf("make the directory of a store: %w", err)
	}
	if err := removeLeftovers(o.FS, o.Dir); err != nil {
		return nil, nil, explain(o.Dir, err)
	}
	desc, err := pebble.Peek(o.Dir, o.FS)
	if err != nil {
		return nil, nil, explain(o.Dir, err)
	}
	if o.MustExist && !desc.Exists {
		return nil, nil, explain(o.Dir, ErrMissing)
	}
	if err := checkNewestLog(o.FS, o.Dir); err != nil {
		return nil, nil, explain(o.Dir, err)
	}
	if desc.Exists {
		if err := checkManifest(o.FS, desc.ManifestFilename); err != nil {
			return nil, nil, explain(o.Dir, err)
		}
	}
	if !desc.Exists || desc.FormatMajorVersion < pebbleFormat {
		db, err := pebble.Open(o.Dir, pebbleOptions(o))
		if err == nil {
			err = db.Close()
		}
		if err != nil {
			return nil, nil, explain(o.Dir, err)
		}
	}
	opts := pebbleOptions(o)
	db, err := pebble.Open(o.Dir, opts)
	return db, opts, explain(o.Dir, err)
}

// ingestSuffix marks the tables that an ingest gathers; those of an earlier process are removed before the store opens, which needs
// room itself where they may have filled the disk.
const ingestSuffix = ".ingest"

func removeLeftovers(fs vfs.FS, dir string) error {
	names, err := fs.List(dir)
	if err != nil {
		return fmt.Errorf("list the directory: %w", err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ingestSuffix) {
			if err := fs.Remove(fs.PathJoin(dir, name)); err != nil {
				return fmt.Errorf("remove what an unfinished snapshot left: %w", err)
			}
		}
	}
	return nil
}

// explain tells of a store that could not be opened what to do.
func explain(dir string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("open the store in %s: %s: %w", dir, remedy(err), err)
}

// remedy is what to do about an error of a store.
func remedy(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return "the disk is full; make room (the file " + ballastName + " of the data directory only takes room, unless it is empty) and start kvd again"
	case errors.Is(err, ErrMissing):
		return "it was lost, or its disk is not mounted; mount it, or set the data directory aside and add the node anew"
	case pebble.IsCorruptionError(err) || errors.Is(err, ErrFormat) || errors.Is(err, ErrDamaged):
		return "its data is damaged, or from a newer version of kvd; set the data directory aside and add the node anew"
	}
	return "the disk or its file system failed; mend it and start kvd again, or set the data directory aside and add the node anew"
}

func pebbleOptions(o *Options) *pebble.Options {
	fatal := &fatalLogger{dir: o.Dir, logger: o.Logger, fatal: o.Fatal}
	opts := &pebble.Options{
		FS: o.FS, Cache: o.Cache, FormatMajorVersion: pebbleFormat, MemTableSize: o.MemtableBytes,
		MemTableStopWritesThreshold: memtablesMax, L0CompactionThreshold: compactFrom, L0StopWritesThreshold: 1000,
		CompactionConcurrencyRange: func() (int, int) { return 1, compactionsMax }, Logger: fatal,
		EventListener: &pebble.EventListener{
			BackgroundError: fatal.background,
			DataCorruption:  func(info pebble.DataCorruptionInfo) { fatal.stop(info.Details) },
		},
	}
	opts.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{Enabled: true, MinimumSize: separateBytes, MaxBlobReferenceDepth: 8, TargetGarbageRatio: 0.3}
	}
	opts.EnsureDefaults()
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		if o.brief || i == 0 { // What is in level 0 is written anew before long.
			opts.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
		}
	}
	return opts
}

// batchKeptBytes is up to which size the memory of a batch is used again. A turn of a busy node writes more than the megabyte
// that Pebble keeps: each one would grow its batch anew.
const batchKeptBytes = 4 << 20

func newBatch(db *pebble.DB) *pebble.Batch {
	return db.NewBatch(pebble.WithMaxRetainedSizeBytes(batchKeptBytes))
}

// fatalLogger stops the process when Pebble finds that it cannot go on.
type fatalLogger struct {
	dir    string
	logger *slog.Logger
	once   sync.Once
	fatal  func(error)
}

func (l *fatalLogger) Infof(string, ...any) {}

func (l *fatalLogger) Errorf(format string, args ...any) {
	l.logger.Warn("pebble", "dir", l.dir, "message", fmt.Sprintf(format, args...))
}

// Fatalf is how Pebble tells that a write failed. The error among args, if there is one, says why.
func (l *fatalLogger) Fatalf(format string, args ...any) {
	err := failure{text: fmt.Sprintf(format, args...)}
	for _, a := range args {
		if cause, ok := a.(error); ok {
			err.cause = cause
		}
	}
	l.stop(err)
}

// failure is an error that was told in a text.
type failure struct {
	text  string
	cause error
}

func (f failure) Error() string { return f.text }
func (f failure) Unwrap() error { return f.cause }

// background hears of failed flushes and compactions, which Pebble would try again at once and for ever. One that an
// ingest made it give up is to be tried again.
func (l *fatalLogger) background(err error) {
	if !errors.Is(err, pebble.ErrCancelledCompaction) {
		l.stop(err)
	}
}

// stop never returns: whoever waits for the write must not hear that it was done.
func (l *fatalLogger) stop(err error) {
	l.tell(err)
	select {}
}

func (l *fatalLogger) tell(err error) {
	l.once.Do(func() { l.fatal(fmt.Errorf("the store in %s cannot go on: %s: %w", l.dir, remedy(err), err)) })
}

// panicOfBlob is how Pebble's panic begins when it finds a file of separated values damaged. It means to report that as
// it does a table's damage, and does not know its own call.
const panicOfBlob = "unknown metadata type"

// guard is deferred where values are read: it stops the process over a damaged file of separated values.
func (l *fatalLogger) guard() {
	switch r := recover(); {
	case r == nil:
	case strings.HasPrefix(fmt.Sprint(r), panicOfBlob):
		l.stop(fmt.Errorf("%w: a file of values does not check", ErrDamaged))
	default:
		panic(r)
	}
}

// checked stops the process over an error that tells of damage: Pebble's listener does not hear of a damaged value that is kept
// apart from its key.
func (l *fatalLogger) checked(err error) error {
	if pebble.IsCorruptionError(err) {
		l.stop(err)
	}
	return err
}

// metricsOf describes a store.
func metricsOf(db *pebble.DB) Metrics {
	m := db.Metrics()
	total := m.Total()
	return Metrics{
		DiskBytes: m.DiskSpaceUsage(), MemtableBytes: m.MemTable.Size, ReadAmp: m.ReadAmp(), Compactions: m.Compact.Count,
		FlushedBytes: total.TableBytesFlushed, CompactedBytes: total.TableBytesCompacted, WALBytes: m.WAL.BytesWritten,
		Syncs: observations(m.LogWriter.FsyncLatency),
	}
}

// observations counts what a histogram has seen: Pebble gives the number of its syncs in no other way.
func observations(h prometheus.Histogram) uint64 {
	m := &dto.Metric{}
	if h == nil || h.Write(m) != nil {
		return 0
	}
	return m.GetHistogram().GetSampleCount()
}

// tableOptions are those of a table that is to be ingested.
func tableOptions(db *pebble.DB, o *pebble.Options) sstable.WriterOptions {
	return o.MakeWriterOptions(0, db.TableFormat())
}
