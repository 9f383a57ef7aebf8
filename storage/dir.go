package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

// storeName is the file that says whose data directory this is: a checksum of 8 bytes, then kvdv1.StoreRecord.
const storeName = "STORE"

// storeFormat is the newest format of a data directory that this program knows.
const storeFormat = 1

// ballastName is a file that only takes room, so that there is some to be had when the disk is full.
const ballastName = "BALLAST"

// ReadStore reads the file STORE; ok is false when there is none.
func ReadStore(dir string) (rec *kvdv1.StoreRecord, ok bool, err error) {
	path := filepath.Join(dir, storeName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read the data directory's record: %w", err)
	}
	rec = &kvdv1.StoreRecord{}
	if len(b) < 8 || xxhash.Sum64(b[8:]) != binary.BigEndian.Uint64(b) || rec.UnmarshalVT(b[8:]) != nil {
		return nil, false, fmt.Errorf("%s is damaged; remove the data directory and add the node anew", path)
	}
	if rec.Format > storeFormat {
		return nil, false, fmt.Errorf("%s has format %d and this version of kvd knows up to %d: install a newer one", path, rec.Format, storeFormat)
	}
	return rec, true, nil
}

// WriteStore replaces the file STORE: after a crash it is the old one or the new one.
func WriteStore(dir string, rec *kvdv1.StoreRecord) error {
	rec.Format = storeFormat
	return writeStore(dir, rec)
}

func writeStore(dir string, rec *kvdv1.StoreRecord) error {
	body, err := rec.MarshalVT()
	if err != nil {
		return err
	}
	b := append(binary.BigEndian.AppendUint64(nil, xxhash.Sum64(body)), body...)
	temporary := filepath.Join(dir, storeName+".new")
	if err := writeSynced(temporary, b); err != nil {
		return fmt.Errorf("write the data directory's record: %w", err)
	}
	if err := os.Rename(temporary, filepath.Join(dir, storeName)); err != nil {
		return fmt.Errorf("write the data directory's record: %w", err)
	}
	return syncDir(dir)
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// LockDir makes a data directory and locks it against a second process.
func LockDir(dir string) (io.Closer, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("the data directory %s is in use by another process: %w", dir, err), f.Close())
	}
	return f, nil
}

// EnsureBallast makes a file of so many bytes that only takes room, unless there is one or 0 is asked for.
func EnsureBallast(dir string, bytes int64) error {
	path := filepath.Join(dir, ballastName)
	if info, err := os.Stat(path); err == nil && info.Size() >= bytes || bytes == 0 {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make the ballast file: %w", err)
	}
	if err := unix.Fallocate(int(f.Fd()), 0, 0, bytes); err != nil {
		return errors.Join(fmt.Errorf("make the ballast file: %w", err), f.Close(), os.Remove(path))
	}
	return f.Close()
}

// ReleaseBallast gives the ballast's room back. It reports whether there was one.
func ReleaseBallast(dir string) (bool, error) {
	err := os.Remove(filepath.Join(dir, ballastName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// DiskFree tells how many bytes are free for this process, and how many there are in all.
func DiskFree(dir string) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("ask for the free room of %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}
