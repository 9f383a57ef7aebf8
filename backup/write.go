package backup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

const (
	// manifest is the file of a directory that lists the others; part names those.
	manifest = "MANIFEST"
	partName = "part-%06d"
	// partial is what the names of files end with that are not complete.
	partial = ".partial"
	// writeBuffer is gathered before it is written.
	writeBuffer = 1 << 20
)

// file is one that is being written.
type file struct {
	name string // When it is complete.
	f    *os.File
	buf  *bufio.Writer
	records
	keys, bytes, parts uint64
	// Of the part that is under way.
	start   int64
	before  []byte // The state of all at its start.
	partSum sums
	partN   kvdv1.BackupPartEnd
}

func createFile(name string, h *kvdv1.BackupHeader) (*file, error) {
	f, err := os.OpenFile(name+partial, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	buf := bufio.NewWriterSize(f, writeBuffer)
	w := &file{name: name, f: f, buf: buf, records: records{out: buf, all: newSums()}}
	_, _ = buf.WriteString(magic + string(rune(Version)))
	if err := w.message(kindHeader, h); err != nil {
		return nil, errors.Join(err, w.discard())
	}
	return w, nil
}

// message writes a record that is a message.
func (w *file) message(k kind, m interface{ MarshalVT() ([]byte, error) }) error {
	payload, err := m.MarshalVT()
	if err != nil {
		return err
	}
	return w.write(k, payload)
}

func (w *file) begin(p *kvdv1.BackupPart) (err error) {
	if err = w.buf.Flush(); err != nil {
		return err
	}
	if w.start, err = w.f.Seek(0, 1); err != nil {
		return err
	}
	if w.before, err = w.all.MarshalBinary(); err != nil {
		return err
	}
	w.partSum, w.partN = newSums(), kvdv1.BackupPartEnd{}
	return w.message(kindPart, p)
}

// pairs writes pairs of which the bytes of keys and values are known.
func (w *file) pairs(b []byte, sum uint64) error {
	w.partSum.add(sum)
	return w.write(kindPairs, b)
}

func (w *file) endPart(end *kvdv1.BackupPartEnd) error {
	w.parts, w.keys, w.bytes = w.parts+1, w.keys+end.Keys, w.bytes+end.Bytes
	return w.message(kindPartEnd, end)
}

// abort drops the part that is under way.
func (w *file) abort() error {
	w.buf.Reset(w.f)
	if err := w.f.Truncate(w.start); err != nil {
		return err
	}
	if _, err := w.f.Seek(w.start, 0); err != nil {
		return err
	}
	return w.all.UnmarshalBinary(w.before)
}

// close completes the file, and gives it its name.
func (w *file) close() error {
	err := w.message(kindTrailer, &kvdv1.BackupTrailer{
		Parts: w.parts, Keys: w.keys, Bytes: w.bytes, EndedMs: time.Now().UnixMilli(), Checksum: w.all.Sum64(),
	})
	if err == nil {
		err = w.buf.Flush()
	}
	if err == nil {
		err = w.f.Sync()
	}
	if err = errors.Join(err, w.f.Close()); err != nil {
		return err
	}
	if err := os.Rename(w.name+partial, w.name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(w.name))
}

func (w *file) discard() error { return errors.Join(w.f.Close(), os.Remove(w.name+partial)) }

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Totals are what a backup holds.
type Totals struct{ Parts, Keys, Bytes uint64 }

// Writer writes a backup: for each part Begin, Pairs any number of times and End, or Abort to begin the part anew; then
// Close, or Discard. It is a client.BackupSink.
type Writer struct {
	path   string
	header *kvdv1.BackupHeader
	main   *file // The only file, or MANIFEST.
	dir    bool
	made   bool // The directory.
	part   *file
	next   []byte // Where the next part begins.
	over   bool   // The last part reached the end of the keys.
	begun  *kvdv1.BackupPart
	count  counter
	parts  uint64
	wrote  Totals
	files  []string // Of complete parts.
}

// Create begins a backup at a path at which there is nothing yet: a directory if the path ends with a slash, or is an
// empty directory, else a file.
func Create(path string, h *kvdv1.BackupHeader) (*Writer, error) {
	w := &Writer{path: filepath.Clean(path), header: h}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		w.dir = strings.HasSuffix(path, "/")
		w.made = w.dir
	case err != nil:
		return nil, err
	case info.IsDir():
		w.dir = true
		if list, err := os.ReadDir(path); err != nil || len(list) > 0 {
			return nil, errors.Join(err, &kv.InvalidError{Field: path, Bound: "an empty directory, or nothing yet"})
		}
	default:
		return nil, &kv.InvalidError{Field: path, Bound: "an empty directory, or nothing yet"}
	}
	name := w.path
	if w.dir {
		if err := os.MkdirAll(w.path, 0o755); err != nil {
			return nil, err
		}
		name = filepath.Join(w.path, manifest)
	}
	if w.main, err = createFile(name, h); err != nil {
		if w.made {
			err = errors.Join(err, os.Remove(w.path))
		}
		return nil, err
	}
	return w, nil
}

// Begin begins a part.
func (w *Writer) Begin(span kv.Span, shard *kvdv1.ShardInfo) error {
	if w.over || string(span.Start) != string(w.next) {
		return fmt.Errorf("a part that begins at %s cannot follow one that ends at %s", kv.FormatKey(span.Start), kv.FormatKey(w.next))
	}
	w.begun = &kvdv1.BackupPart{
		Number: w.parts + 1, Start: span.Start, End: span.End, Shard: shard.GetDescriptor_().GetShard(),
		Epoch: shard.GetDescriptor_().GetEpoch(), Revision: shard.GetRevision(),
	}
	w.count = counter{span: span}
	if !w.dir {
		w.part = w.main
		return w.part.begin(w.begun)
	}
	var err error
	w.part, err = createFile(filepath.Join(w.path, fmt.Sprintf(partName, w.begun.Number)), &kvdv1.BackupHeader{
		BackupId: w.header.GetBackupId(), ClusterId: w.header.GetClusterId(), BeganMs: w.header.GetBeganMs(), Version: w.header.GetVersion(),
	})
	if err != nil {
		return err
	}
	return w.part.begin(w.begun)
}

// Pairs takes pairs of the part, with their checksum.
func (w *Writer) Pairs(b []byte, sum uint64) error {
	if err := w.count.add(b); err != nil {
		return err
	}
	return w.part.pairs(b, sum)
}

// End ends the part, whose keys and checksum must be what came.
func (w *Writer) End(keys, checksum uint64) error {
	if keys != w.count.keys || checksum != w.part.partSum.Sum64() {
		return fmt.Errorf("a part of %d keys came with %d, or with another checksum", keys, w.count.keys)
	}
	end := &kvdv1.BackupPartEnd{Keys: keys, Bytes: w.count.bytes, Checksum: checksum}
	if err := w.part.endPart(end); err != nil {
		return err
	}
	if w.dir {
		if err := w.part.close(); err != nil {
			return err
		}
		w.files = append(w.files, w.part.name)
		listed := proto.CloneOf(w.begun)
		listed.File = filepath.Base(w.part.name)
		if err := errors.Join(w.main.begin(listed), w.main.endPart(end)); err != nil {
			return err
		}
	}
	w.part = nil
	w.parts++
	w.wrote = Totals{w.parts, w.wrote.Keys + end.Keys, w.wrote.Bytes + end.Bytes}
	w.next, w.over = w.begun.End, len(w.begun.End) == 0
	return nil
}

// Abort drops the part that was begun.
func (w *Writer) Abort() error {
	part := w.part
	w.part = nil
	switch {
	case part == nil:
		return nil
	case w.dir:
		return part.discard()
	}
	return part.abort()
}

// Wrote tells what is complete.
func (w *Writer) Wrote() Totals { return w.wrote }

// Close completes the backup, which must cover all keys.
func (w *Writer) Close() error {
	if !w.over {
		return fmt.Errorf("the parts end at %s, not at the end of the keys", kv.FormatKey(w.next))
	}
	return w.main.close()
}

// Discard removes what was written, after an error or instead of Close.
func (w *Writer) Discard() error {
	err := w.main.discard()
	if w.dir {
		if w.part != nil {
			err = errors.Join(err, w.part.discard())
		}
		for _, name := range w.files {
			err = errors.Join(err, os.Remove(name))
		}
	}
	if w.made {
		err = errors.Join(err, os.Remove(w.path))
	}
	return err
}
