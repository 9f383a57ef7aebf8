package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

// storeName is the file that says whose data directory this is: a format byte, a checksum of 8 bytes over that byte and
// all that follows, then kvdv1.StoreRecord. The byte and the checksum stay in every format, so that a program tells a
// newer file, which it must leave alone, from a damaged one.
const (
	storeName   = "STORE"
	storeHeader = 1 + 8
)

// storeFormat is the newest format of a data directory that this program knows.
const storeFormat = 1

// ballastName is a file that only takes room, so that there is some to be had when the disk is full.
const ballastName = "BALLAST"

// ReadStore reads the file STORE; ok is false when there is none.
func ReadStore(dir string) (rec *kvdv1.StoreRecord, ok bool, err error) {
	return readStore(osFiles(), dir)
}

func readStore(files vfs.FS, dir string) (rec *kvdv1.StoreRecord, ok bool, err error) {
	path := files.PathJoin(dir, storeName)
	b, err := readFile(files, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read the data directory's record: %w", err)
	}
	rec, err = decodeStore(b)
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", path, err)
	}
	return rec, true, nil
}

func readFile(files vfs.FS, path string) ([]byte, error) {
	f, err := files.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	return b, errors.Join(err, f.Close())
}

func encodeStore(storeFormat byte, rec *kvdv1.StoreRecord) ([]byte, error) {
	body, err := rec.MarshalVT()
	if err != nil {
		return nil, err
	}
	b := append(make([]byte, storeHeader, storeHeader+len(body)), body...)
	b[0] = storeFormat
	binary.BigEndian.PutUint64(b[1:], storeSum(b))
	return b, nil
}

func decodeStore(b []byte) (*kvdv1.StoreRecord, error) {
	if len(b) < storeHeader || storeSum(b) != binary.BigEndian.Uint64(b[1:]) {
		return nil, fmt.Errorf("%w; set the data directory aside and add the node anew", ErrDamaged)
	}
	rec := &kvdv1.StoreRecord{}
	if b[0] != storeFormat {
		return nil, fmt.Errorf("format %d, and this version of kvd knows format %d: install a newer one", b[0], storeFormat)
	}
	if err := rec.UnmarshalVT(b[storeHeader:]); err != nil {
		return nil, fmt.Errorf("%w (%v); set the data directory aside and add the node anew", ErrDamaged, err)
	}
	return rec, nil
}

// storeSum is the checksum of a file STORE: over its format byte, and what comes after the checksum.
func storeSum(b []byte) uint64 {
	d := xxhash.New()
	_, _ = d.Write(b[:1])
	_, _ = d.Write(b[storeHeader:])
	return d.Sum64()
}

// WriteStore replaces the file STORE: after a crash it is the old one or the new one, and the new one once this returned.
func WriteStore(dir string, rec *kvdv1.StoreRecord) error {
	return writeStore(osFiles(), dir, rec)
}

func writeStore(files vfs.FS, dir string, rec *kvdv1.StoreRecord) error {
	rec.Format = storeFormat
	b, err := encodeStore(storeFormat, rec)
	if err == nil {
		err = replaceFile(files, dir, storeName, b)
	}
	if err != nil {
		return fmt.Errorf("write the data directory's record: %w", err)
	}
	return nil
}

// replaceFile puts b, synced, into the place of a file.
func replaceFile(files vfs.FS, dir, name string, b []byte) error {
	temporary := files.PathJoin(dir, name+".new")
	f, err := files.Create(temporary, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := files.Rename(temporary, files.PathJoin(dir, name)); err != nil {
		return err
	}
	return syncDir(files, dir)
}

func syncDir(files vfs.FS, dir string) error {
	d, err := files.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDir makes a directory, and those above it that are missing: they are there after a crash too.
func makeDir(files vfs.FS, dir string) error {
	parent := files.PathDir(dir)
	_, err := files.Stat(dir)
	there := err == nil
	if _, err := files.Stat(parent); errors.Is(err, fs.ErrNotExist) && parent != dir {
		if err := makeDir(files, parent); err != nil {
			return err
		}
	}
	if err := files.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	// Also when it was there: who made it may have been killed before this. A parent that may not be read is somebody
	// else's, who has made the directory.
	err = syncDir(files, parent)
	if there && errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

// LockDir makes a data directory and locks it against a second process.
func LockDir(dir string) (io.Closer, error) {
	if err := makeDir(osFiles(), dir); err != nil {
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
	path, size := filepath.Join(dir, ballastName), int64(0)
	if info, err := os.Stat(path); err == nil {
		size = info.Size()
	}
	if size >= bytes {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make the ballast file: %w", err)
	}
	if err = takeRoom(bytes - size); err == nil {
		err = allocate(f, bytes)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("make the ballast file: %w", err), f.Close(), os.Remove(path))
	}
	return f.Close()
}

// allocate gives a file its room, by writing where the file system knows no other way.
func allocate(f *os.File, bytes int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, bytes)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fill(f, bytes)
	}
	return err
}

// fill writes so many bytes, which no file system leaves out as it does zeros.
func fill(f *os.File, bytes int64) error {
	_, err := io.CopyN(f, rand.NewChaCha8([32]byte{}), bytes)
	return errors.Join(err, f.Sync())
}

// ReleaseBallast gives the ballast's room back, and leaves an empty file, for BallastReleased. It reports whether there
// was a ballast.
func ReleaseBallast(dir string) (bool, error) {
	path := filepath.Join(dir, ballastName)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return false, nil
	}
	if err == nil {
		err = os.Truncate(path, 0)
	}
	if err != nil {
		return false, fmt.Errorf("release the ballast file: %w", err)
	}
	giveRoom(info.Size())
	return true, nil
}

// BallastReleased reports whether the ballast was released, and not made again since.
func BallastReleased(dir string) (bool, error) {
	info, err := os.Stat(filepath.Join(dir, ballastName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at the ballast file: %w", err)
	}
	return info.Size() == 0, nil
}

// DiskFree tells how many bytes are free for this process, and how many there are in all.
func DiskFree(dir string) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("ask for the free room of %s: %w", dir, err)
	}
	return freeRoom(st.Bavail * uint64(st.Bsize)), st.Blocks * uint64(st.Bsize), nil
}
