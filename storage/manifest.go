package storage

// Pebble's MANIFEST is a log of the changes of its tables. It takes a record of it that does not check for the torn end that
// a crash leaves, as it may be: so a flipped bit, or a file that has become shorter, gives a store without its last tables,
// whose logs are long gone, without a word.
//
// Each MANIFEST has a witness here, a file beside it that says up to where it was synced. It is written after each sync, before
// Pebble goes on and removes what the change has made obsolete. It holds that length and a checksum over it; one that does not
// check was about to be written when a crash came, and says nothing.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	manifestPrefix = "MANIFEST-"
	witnessSuffix  = ".synced"
	witnessBytes   = 8 + 8
)

func isManifest(files vfs.FS, path string) bool {
	name := files.PathBase(path)
	return strings.HasPrefix(name, manifestPrefix) && !strings.HasSuffix(name, witnessSuffix)
}

// witnessFS is a file system that keeps the witnesses.
type witnessFS struct{ vfs.FS }

// Create makes a file; Pebble makes each MANIFEST anew.
func (w witnessFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := w.FS.Create(name, category)
	if err != nil || !isManifest(w.FS, name) {
		return f, err
	}
	witness, err := w.FS.Create(name+witnessSuffix, category)
	if err == nil {
		err = witness.Close()
	}
	if err == nil {
		witness, err = w.FS.OpenReadWrite(name+witnessSuffix, category)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &witnessed{File: f, witness: witness}, nil
}

// Remove removes a file, and its witness.
func (w witnessFS) Remove(name string) error {
	err := w.FS.Remove(name)
	if err == nil && isManifest(w.FS, name) {
		if err := w.FS.Remove(name + witnessSuffix); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return err
}

func (w witnessFS) Unwrap() vfs.FS { return w.FS }

// witnessed is a MANIFEST that is being written.
type witnessed struct {
	vfs.File
	witness vfs.File
	size    uint64
}

func (w *witnessed) Write(b []byte) (int, error) {
	n, err := w.File.Write(b)
	w.size += uint64(n)
	return n, err
}

func (w *witnessed) Sync() error { return w.sync(w.File.Sync) }

func (w *witnessed) SyncData() error { return w.sync(w.File.SyncData) }

func (w *witnessed) sync(f func() error) error {
	if err := f(); err != nil {
		return err
	}
	if _, err := w.witness.WriteAt(encodeWitness(w.size), 0); err != nil {
		return err
	}
	return w.witness.SyncData()
}

func (w *witnessed) Close() error { return errors.Join(w.File.Close(), w.witness.Close()) }

func encodeWitness(size uint64) []byte {
	b := binary.BigEndian.AppendUint64(nil, size)
	return binary.BigEndian.AppendUint64(b, xxhash.Sum64(b))
}

// decodeWitness gives a length; 0 if it says nothing.
func decodeWitness(b []byte) uint64 {
	if len(b) != witnessBytes || xxhash.Sum64(b[:8]) != binary.BigEndian.Uint64(b[8:]) {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// checkManifest looks for damage in the MANIFEST that a store is about to be opened by.
func checkManifest(files vfs.FS, path string) error {
	b, err := readFile(files, path+witnessSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // An older kvd made it, or a crash came.
	}
	if err != nil {
		return err
	}
	f, err := files.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return err
	}
	whole, err := wholeRecords(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if synced := decodeWitness(b); whole < synced {
		return fmt.Errorf("%w: %s: byte %d does not check, and %d were synced", ErrDamaged, files.PathBase(path), whole, synced)
	}
	return nil
}

// wholeRecords is how far the records of a log check, in bytes.
func wholeRecords(r io.Reader) (uint64, error) {
	records, whole := record.NewReader(r, 0), uint64(0)
	for {
		one, err := records.Next()
		if err == nil {
			_, err = io.Copy(io.Discard, one)
		}
		if err == io.EOF || record.IsInvalidRecord(err) {
			return whole, nil
		}
		if err != nil {
			return whole, err
		}
		whole = uint64(records.Offset())
	}
}
