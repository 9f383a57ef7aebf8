//go:build kvdtest

package faults

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// lossy is a file system on a real one that keeps in memory what was not synced: a process that is killed loses it, as
// a machine would that loses its power.
//
// What a file holds lies in the real file as far as it was synced. What its directory holds is the real directory's as of the
// directory's last sync; a file that was made since lies in a hidden directory beside it until then, and what is left there
// was lost: it is removed when the directory is first used again. Only directories are made and removed at once.
//
// Names are cached; nobody else may make or remove files in a directory that is used through this.
type lossy struct {
	vfs.FS // The real one.
	disk   *disk

	mu    sync.Mutex // Guards what follows, and all directories and names.
	dirs  map[string]*directory
	files int // Numbers hidden files.
}

// hiddenName is the directory of files that their directory's sync has not shown yet.
const hiddenName = ".unsynced"

// directory is a directory as the process sees it, and as it will be found after a kill.
type directory struct {
	path         string
	now, durable map[string]*inode
}

func newLossy(real vfs.FS, d *disk) *lossy {
	return &lossy{FS: real, disk: d, dirs: map[string]*directory{}}
}

// open gives a directory, reading it when it is first asked for.
func (l *lossy) open(path string) (*directory, error) {
	if d := l.dirs[path]; d != nil {
		return d, nil
	}
	if err := l.FS.RemoveAll(l.PathJoin(path, hiddenName)); err != nil {
		return nil, err
	}
	names, err := l.FS.List(path)
	if err != nil {
		return nil, err
	}
	d := &directory{path: path, now: map[string]*inode{}, durable: map[string]*inode{}}
	for _, name := range names {
		full := l.PathJoin(path, name)
		info, err := l.FS.Stat(full)
		if errors.Is(err, fs.ErrNotExist) {
			continue // A link to nowhere, or somebody else's.
		}
		if err != nil {
			return nil, err
		}
		if info.Mode().IsRegular() {
			i := &inode{path: full, names: 1}
			d.now[name], d.durable[name] = i, i
		}
	}
	l.dirs[path] = d
	return d, nil
}

// find gives the directory of a name and the file, nil if there is none.
func (l *lossy) find(name string) (*directory, *inode, error) {
	d, err := l.open(l.PathDir(name))
	if err != nil {
		return nil, nil, err
	}
	return d, d.now[l.PathBase(name)], nil
}

// want is find for a file that must be there.
func (l *lossy) want(op, name string) (*directory, *inode, error) {
	d, i, err := l.find(name)
	if err == nil && i == nil {
		err = &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return d, i, err
}

// hide gives a file that no directory will show after a kill a place to be.
func (l *lossy) hide(dir string) (string, error) {
	l.files++
	hidden := l.PathJoin(dir, hiddenName)
	return l.PathJoin(hidden, fmt.Sprint(l.files)), l.FS.MkdirAll(hidden, 0o750)
}

// name gives a file a name, which may be another's.
func (l *lossy) name(d *directory, name string, i *inode) {
	l.unname(d, name)
	d.now[name] = i
	i.names++
}

// unname takes a file a name.
func (l *lossy) unname(d *directory, name string) {
	i := d.now[name]
	if i == nil {
		return
	}
	delete(d.now, name)
	if i.names--; i.names > 0 {
		return
	}
	if info, err := l.FS.Stat(i.path); err == nil {
		l.disk.give(i.size(info.Size()))
	}
	if i.hidden {
		_ = l.FS.Remove(i.path)
	}
}

// Create makes a file; one that was there lives on under its other names.
func (l *lossy) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := errors.Join(l.disk.change("create", name), l.disk.take(name, 0)); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.create(name, category)
}

func (l *lossy) create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	d, err := l.open(l.PathDir(name))
	if err != nil {
		return nil, err
	}
	path, err := l.hide(d.path)
	if err != nil {
		return nil, err
	}
	f, err := l.FS.OpenReadWrite(path, category)
	if err != nil {
		return nil, err
	}
	i := &inode{path: path, hidden: true}
	l.name(d, l.PathBase(name), i)
	return &file{File: f, l: l, i: i, name: name, category: category, writes: true}, nil
}

// Open opens a file for reading, or a directory.
func (l *lossy) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, i, err := l.find(name)
	if err != nil {
		return nil, err
	}
	if i == nil {
		if info, err := l.FS.Stat(name); err != nil || !info.IsDir() {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		return l.FS.Open(name, opts...)
	}
	f, err := l.FS.Open(i.path)
	if err != nil {
		return nil, err
	}
	opened := &file{File: f, l: l, i: i, name: name}
	for _, o := range opts {
		o.Apply(opened)
	}
	return opened, nil
}

// OpenReadWrite opens a file for both, and makes it if there is none.
func (l *lossy) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, i, err := l.find(name)
	if err != nil {
		return nil, err
	}
	if i == nil {
		if err := errors.Join(l.disk.change("create", name), l.disk.take(name, 0)); err != nil {
			return nil, err
		}
		return l.create(name, category)
	}
	return l.openInode(i, name, category, opts...)
}

func (l *lossy) openInode(i *inode, name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := l.FS.OpenReadWrite(i.path, category)
	if err != nil {
		return nil, err
	}
	opened := &file{File: f, l: l, i: i, name: name, category: category, writes: true}
	for _, o := range opts {
		o.Apply(opened)
	}
	return opened, nil
}

// ReuseForWrite renames a file, and opens it for writing over what it holds.
func (l *lossy) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := l.Rename(oldname, newname); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, i, err := l.want("open", newname)
	if err != nil {
		return nil, err
	}
	return l.openInode(i, newname, category)
}

// Link gives a file another name.
func (l *lossy) Link(oldname, newname string) error {
	if err := errors.Join(l.disk.change("link", newname), l.disk.take(newname, 0)); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, i, err := l.want("link", oldname)
	if err != nil {
		return err
	}
	d, there, err := l.find(newname)
	if err != nil {
		return err
	}
	if there != nil {
		return &fs.PathError{Op: "link", Path: newname, Err: fs.ErrExist}
	}
	l.name(d, l.PathBase(newname), i)
	return nil
}

// Rename renames a file.
func (l *lossy) Rename(oldname, newname string) error {
	if err := l.disk.change("rename", newname); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	from, i, err := l.want("rename", oldname)
	if err != nil {
		return err
	}
	to, there, err := l.find(newname)
	if err != nil || there == i {
		return err
	}
	l.name(to, l.PathBase(newname), i)
	l.unname(from, l.PathBase(oldname))
	return nil
}

// Remove removes a file, or an empty directory.
func (l *lossy) Remove(name string) error {
	if err := l.disk.change("remove", name); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if info, err := l.FS.Stat(name); err == nil && info.IsDir() {
		return l.removeDir(name)
	}
	d, _, err := l.want("remove", name)
	if err == nil {
		l.unname(d, l.PathBase(name))
	}
	return err
}

// removeDir removes a directory at once, if nothing is left in it.
func (l *lossy) removeDir(name string) error {
	d, err := l.open(name)
	if err != nil {
		return err
	}
	if len(d.now) == 0 {
		if err := errors.Join(l.vacate(name), l.syncDir(name)); err != nil {
			return err
		}
		if err := l.FS.RemoveAll(l.PathJoin(name, hiddenName)); err != nil {
			return err
		}
	}
	if err := l.FS.Remove(name); err != nil {
		return err
	}
	delete(l.dirs, name)
	return nil
}

// RemoveAll removes a file, or a directory with all that is in it, at once.
func (l *lossy) RemoveAll(name string) error {
	if err := l.disk.change("remove", name); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if info, err := l.FS.Stat(name); err != nil || !info.IsDir() {
		if d, _, err := l.want("remove", name); err == nil {
			l.unname(d, l.PathBase(name))
		}
		return nil
	}
	if err := l.vacate(name); err != nil {
		return err
	}
	for path, d := range l.dirs {
		if l.within(path, name) {
			for file := range d.now {
				l.unname(d, file)
			}
			delete(l.dirs, path)
		}
	}
	return l.FS.RemoveAll(name)
}

// within tells whether a path is that of a directory or lies in it.
func (l *lossy) within(path, dir string) bool {
	for ; path != dir; path = l.PathDir(path) {
		if path == l.PathDir(path) {
			return false
		}
	}
	return true
}

// vacate finds files that lie in a directory that is about to go, and have a name in another too, a place there.
func (l *lossy) vacate(dir string) error {
	for path, d := range l.dirs {
		if l.within(path, dir) {
			continue
		}
		for name, i := range d.now {
			switch {
			case !l.within(i.path, dir):
			case d.durable[name] == i:
				i.path, i.hidden = l.PathJoin(path, name), false
			default:
				if err := l.move(d, i); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// List gives the files as the process sees them, and the directories.
func (l *lossy) List(dir string) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d, err := l.open(dir)
	if err != nil {
		return nil, err
	}
	there, err := l.FS.List(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, name := range there {
		if d.durable[name] == nil && d.now[name] == nil && name != hiddenName {
			names = append(names, name) // A directory, or a lock.
		}
	}
	for name := range d.now {
		names = append(names, name)
	}
	return names, nil
}

// Stat describes a file or a directory.
func (l *lossy) Stat(name string) (vfs.FileInfo, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if info, err := l.FS.Stat(name); err == nil && info.IsDir() {
		return info, nil
	}
	_, i, err := l.want("stat", name)
	if err != nil {
		return nil, err
	}
	real, err := l.FS.Stat(i.path)
	if err != nil {
		return nil, err
	}
	return info{FileInfo: real, name: l.PathBase(name), size: i.size(real.Size())}, nil
}

// OpenDir opens a directory, to sync it.
func (l *lossy) OpenDir(name string) (vfs.File, error) {
	f, err := l.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &dirFile{File: f, l: l, name: name}, nil
}

// GetDiskUsage tells what is free.
func (l *lossy) GetDiskUsage(path string) (vfs.DiskUsage, error) {
	u, err := l.FS.GetDiskUsage(path)
	u.AvailBytes = l.disk.free(u.AvailBytes)
	return u, err
}

// Unwrap gives the real file system.
func (l *lossy) Unwrap() vfs.FS { return l.FS }

// dirFile is an open directory.
type dirFile struct {
	vfs.File
	l    *lossy
	name string
}

func (f *dirFile) Sync() error {
	if err := f.l.disk.change("sync", f.name); err != nil {
		return err
	}
	f.l.mu.Lock()
	err := f.l.syncDir(f.name)
	f.l.mu.Unlock()
	return errors.Join(err, f.File.Sync())
}

func (f *dirFile) SyncData() error { return f.Sync() }

// syncDir makes a directory durable as it is now: names that are new or another file's first, then what has none any more.
// Whatever was durable and is still seen somewhere keeps a place through it all.
func (l *lossy) syncDir(path string) error {
	d := l.dirs[path]
	if d == nil {
		return nil // Nothing has changed in it.
	}
	for name, i := range d.durable {
		if d.now[name] != i && i.names > 0 && i.path == l.PathJoin(path, name) {
			if err := l.move(d, i); err != nil {
				return err
			}
		}
	}
	for _, name := range d.fresh() {
		if err := l.show(d, name); err != nil {
			return err
		}
	}
	for name := range d.durable {
		if d.now[name] == nil {
			if err := l.FS.Remove(l.PathJoin(path, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			delete(d.durable, name)
		}
	}
	return nil
}

// fresh are the names that are not durable as they are. A name whose file is to be found under another one comes after that.
func (d *directory) fresh() []string {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(d.now)), func(name string) bool { return d.durable[name] == d.now[name] })
	before := func(name string) (n int) { // How many names come before this one, one for the other.
		for next := name; n < len(names); n++ {
			i := slices.IndexFunc(names, func(other string) bool { return d.durable[next] != nil && d.now[other] == d.durable[next] })
			if i < 0 {
				break
			}
			next = names[i]
		}
		return n
	}
	slices.SortStableFunc(names, func(a, b string) int { return before(a) - before(b) })
	return names
}

// move gives a file that is about to lose the place where it lies another one, hidden.
func (l *lossy) move(d *directory, i *inode) error {
	path, err := l.hide(d.path)
	if err != nil {
		return err
	}
	if err := l.FS.Link(i.path, path); err != nil {
		return err
	}
	i.path, i.hidden = path, true
	return nil
}

// show gives a file a name that it keeps after a kill.
func (l *lossy) show(d *directory, name string) error {
	i := d.now[name]
	from, to := i.path, l.PathJoin(d.path, name)
	if !i.hidden {
		var err error
		if from, err = l.hide(d.path); err == nil {
			err = l.FS.Link(i.path, from)
		}
		if err != nil {
			return err
		}
	}
	if err := l.FS.Rename(from, to); err != nil {
		return err
	}
	if i.hidden {
		i.path, i.hidden = to, false
	}
	d.durable[name] = i
	return nil
}
