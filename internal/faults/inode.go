//go:build kvdtest

package faults

import (
	"errors"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// inode is a file, whatever names it has.
type inode struct {
	// Guarded by the mutex of lossy: where the synced bytes lie, whether that is in the hidden directory, and how many
	// names the process sees.
	path   string
	hidden bool
	names  int

	mu     sync.Mutex
	pieces []piece // Written and not synced, in the order of writing.
}

// piece is what was written at an offset.
type piece struct {
	off  int64
	data []byte
}

// pieceBytes is about where a piece ends and another begins.
const pieceBytes = 1 << 20

// size is that of a file of which so many bytes are synced.
func (i *inode) size(synced int64) int64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.end(synced)
}

func (i *inode) end(synced int64) int64 {
	for _, p := range i.pieces {
		synced = max(synced, p.off+int64(len(p.data)))
	}
	return synced
}

// write keeps what is written.
func (i *inode) write(b []byte, off int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if n := len(i.pieces); n > 0 {
		last := &i.pieces[n-1]
		if last.off+int64(len(last.data)) == off && len(last.data) < pieceBytes {
			last.data = append(last.data, b...)
			return
		}
	}
	i.pieces = append(i.pieces, piece{off: off, data: append([]byte(nil), b...)})
}

// read reads what was written, synced or not.
func (i *inode) read(f vfs.File, b []byte, off int64) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.pieces) == 0 {
		return f.ReadAt(b, off)
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	left := i.end(info.Size()) - off
	if left <= 0 {
		return 0, io.EOF
	}
	n := int(min(left, int64(len(b))))
	got, err := f.ReadAt(b[:n], off)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	clear(b[got:n])
	for _, p := range i.pieces {
		begin, end := max(p.off, off), min(p.off+int64(len(p.data)), off+int64(n))
		if begin < end {
			copy(b[begin-off:end-off], p.data[begin-p.off:end-p.off])
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// flush gives the real file what was not synced.
func (i *inode) flush(f vfs.File) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, p := range i.pieces {
		if _, err := f.WriteAt(p.data, p.off); err != nil {
			return err
		}
	}
	i.pieces = nil
	return nil
}

// file is an open file.
type file struct {
	vfs.File // The real one, opened for writing too if writes.
	l        *lossy
	i        *inode
	name     string
	category vfs.DiskWriteCategory
	writes   bool
	off      int64
}

func (f *file) Read(b []byte) (int, error) {
	n, err := f.i.read(f.File, b, f.off)
	f.off += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (f *file) ReadAt(b []byte, off int64) (int, error) { return f.i.read(f.File, b, off) }

func (f *file) Write(b []byte) (int, error) {
	n, err := f.WriteAt(b, f.off)
	f.off += int64(n)
	return n, err
}

func (f *file) WriteAt(b []byte, off int64) (int, error) {
	if err := f.l.disk.change("write", f.name); err != nil {
		return 0, err
	}
	info, err := f.File.Stat()
	if err != nil {
		return 0, err
	}
	if more := off + int64(len(b)) - f.i.size(info.Size()); more > 0 {
		if err := f.l.disk.take(f.name, more); err != nil {
			return 0, err
		}
	}
	f.i.write(b, off)
	return len(b), nil
}

func (f *file) Preallocate(int64, int64) error { return nil }

func (f *file) Stat() (vfs.FileInfo, error) {
	real, err := f.File.Stat()
	if err != nil {
		return nil, err
	}
	return info{FileInfo: real, name: f.l.PathBase(f.name), size: f.i.size(real.Size())}, nil
}

func (f *file) Sync() error { return f.sync(vfs.File.Sync) }

func (f *file) SyncData() error { return f.sync(vfs.File.SyncData) }

// SyncTo syncs nothing, as it may.
func (f *file) SyncTo(int64) (bool, error) { return false, nil }

func (f *file) sync(real func(vfs.File) error) error {
	if err := f.l.disk.change("sync", f.name); err != nil {
		return err
	}
	if f.writes {
		return errors.Join(f.i.flush(f.File), real(f.File))
	}
	w, err := f.l.again(f)
	if err != nil {
		return err
	}
	return errors.Join(f.i.flush(w), real(w), w.Close())
}

// again opens for writing the real file of one that was opened for reading.
func (l *lossy) again(f *file) (vfs.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.FS.OpenReadWrite(f.i.path, f.category)
}

// Fd is none: nobody may go round this file.
func (f *file) Fd() uintptr { return vfs.InvalidFd }

// info describes a file.
type info struct {
	vfs.FileInfo
	name string
	size int64
}

func (i info) Name() string { return i.name }
func (i info) Size() int64  { return i.size }
