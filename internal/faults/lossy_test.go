//go:build kvdtest

package faults

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// kill forgets what a process knew that used the file system, and gives that of the next one.
func kill() *lossy { return newFaults("", vfs.Default).files }

func write(t *testing.T, l vfs.FS, name, text string) vfs.File {
	f, err := l.Create(name, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = f.Write([]byte(text))
	require.NoError(t, err)
	return f
}

func contents(t *testing.T, l vfs.FS, name string) string {
	f, err := l.Open(name)
	if err != nil {
		require.ErrorIs(t, err, fs.ErrNotExist)
		return "none"
	}
	b, err := io.ReadAll(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	info, err := l.Stat(name)
	require.NoError(t, err)
	require.EqualValues(t, len(b), info.Size())
	return string(b)
}

func syncDir(t *testing.T, l vfs.FS, dir string) {
	d, err := l.OpenDir(dir)
	require.NoError(t, err)
	require.NoError(t, d.Sync())
	require.NoError(t, d.Close())
}

// TestUnsyncedData: what was written after the last sync is seen by the process, and lost when it is killed.
func TestUnsyncedData(t *testing.T) {
	dir := t.TempDir()
	l := kill()
	f := write(t, l, dir+"/x", "synced ")
	syncDir(t, l, dir)
	require.NoError(t, f.Sync())
	_, err := f.Write([]byte("lost"))
	require.NoError(t, err)
	_, err = f.SyncTo(11)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.Equal(t, "synced lost", contents(t, l, dir+"/x"))
	l = kill()
	require.Equal(t, "synced ", contents(t, l, dir+"/x"))

	// A file that is written over, as a log that is used again.
	f, err = l.ReuseForWrite(dir+"/x", dir+"/y", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = f.Write([]byte("SY"))
	require.NoError(t, err)
	require.Equal(t, "SYnced ", contents(t, l, dir+"/y"))
	syncDir(t, l, dir)
	require.Equal(t, "synced ", contents(t, kill(), dir+"/y"))
	require.NoError(t, f.SyncData())
	require.NoError(t, f.Close())
	require.Equal(t, "SYnced ", contents(t, kill(), dir+"/y"))
}

// TestUnsyncedNames: files that were made, renamed, linked or removed are as they were when the directory was not synced
// since.
func TestUnsyncedNames(t *testing.T) {
	for _, synced := range []bool{false, true} {
		dir := t.TempDir()
		l := kill()
		for _, name := range []string{"removed", "from", "over", "linked"} {
			f := write(t, l, dir+"/"+name, name)
			require.NoError(t, f.Sync())
			require.NoError(t, f.Close())
		}
		syncDir(t, l, dir)
		require.NoError(t, write(t, l, dir+"/made", "made").Sync())
		require.NoError(t, l.Remove(dir+"/removed"))
		require.NoError(t, l.Rename(dir+"/from", dir+"/to"))
		f := write(t, l, dir+"/over.new", "new")
		require.NoError(t, f.Sync())
		require.NoError(t, l.Rename(dir+"/over.new", dir+"/over"))
		require.NoError(t, l.Link(dir+"/linked", dir+"/again"))
		after := []string{"none", "made", "none", "from", "new", "linked", "linked", "none"}
		all := func(l vfs.FS) (got []string) {
			for _, name := range []string{"removed", "made", "from", "to", "over", "linked", "again", "over.new"} {
				got = append(got, contents(t, l, dir+"/"+name))
			}
			return got
		}
		require.Equal(t, after, all(l))
		names, err := l.List(dir)
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"made", "to", "over", "linked", "again"}, names)
		if synced {
			syncDir(t, l, dir)
			require.Equal(t, after, all(l))
			require.Equal(t, after, all(kill()))
		} else {
			require.Equal(t, []string{"removed", "none", "from", "none", "over", "linked", "none", "none"}, all(kill()))
		}
	}
}

// TestSyncOfADirectoryIsKilled: whatever step of a directory's sync is the last, a file that was durable and was only
// renamed or linked is found under one of its names.
func TestSyncOfADirectoryIsKilled(t *testing.T) {
	for last := 0; ; last++ {
		dir := t.TempDir()
		l := kill()
		for _, name := range []string{"a", "b"} {
			require.NoError(t, write(t, l, dir+"/"+name, name).Sync())
		}
		syncDir(t, l, dir)
		require.NoError(t, l.Rename(dir+"/a", dir+"/c"))
		require.NoError(t, l.Rename(dir+"/b", dir+"/a"))
		failing := &failFS{FS: vfs.Default, left: last}
		l.FS = failing
		d, err := l.OpenDir(dir)
		require.NoError(t, err)
		err = d.Sync()
		l = kill()
		var found []string
		for _, name := range []string{"a", "b", "c"} {
			found = append(found, contents(t, l, dir+"/"+name))
		}
		require.Contains(t, found, "a")
		require.Contains(t, found, "b")
		if err == nil {
			require.Equal(t, []string{"b", "none", "a"}, found)
			require.Greater(t, last, 3)
			return
		}
	}
}

// failFS fails after some changes of names.
type failFS struct {
	vfs.FS
	left int
}

func (f *failFS) next() error {
	if f.left--; f.left < 0 {
		return fs.ErrPermission
	}
	return nil
}

func (f *failFS) Link(a, b string) error {
	if err := f.next(); err != nil {
		return err
	}
	return f.FS.Link(a, b)
}

func (f *failFS) Rename(a, b string) error {
	if err := f.next(); err != nil {
		return err
	}
	return f.FS.Rename(a, b)
}

func (f *failFS) Remove(a string) error {
	if err := f.next(); err != nil {
		return err
	}
	return f.FS.Remove(a)
}

// TestReadsAndWrites: for the process it is a file system like another.
func TestReadsAndWrites(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	dir := t.TempDir()
	l := kill()
	mine, other := write(t, l, dir+"/x", ""), write(t, vfs.NewMem(), "x", "")
	for i := range 3000 {
		switch at, b := r.IntN(5000), bytes.Repeat([]byte{byte(i)}, r.IntN(300)); r.IntN(8) {
		case 0:
			require.NoError(t, mine.Sync())
		case 1, 2, 3:
			n, err := mine.WriteAt(b, int64(at))
			require.NoError(t, err)
			require.Equal(t, len(b), n)
			grow(t, other, at+len(b))
			_, err = other.WriteAt(b, int64(at))
			require.NoError(t, err)
		default:
			got, want := make([]byte, 400), make([]byte, 400)
			n, err := mine.ReadAt(got, int64(at))
			m, wanted := other.ReadAt(want, int64(at))
			require.Equal(t, m, n)
			require.Equal(t, want, got)
			require.Equal(t, wanted, err)
		}
	}
}

// grow makes a file at least so long: the one in memory writes no further than its end.
func grow(t *testing.T, f vfs.File, size int) {
	info, err := f.Stat()
	require.NoError(t, err)
	if missing := size - int(info.Size()); missing > 0 {
		_, err := f.WriteAt(make([]byte, missing), info.Size())
		require.NoError(t, err)
	}
}

// TestDirectories: directories are made and removed at once, and what is hidden is not seen.
func TestDirectories(t *testing.T) {
	dir := t.TempDir()
	l := kill()
	require.NoError(t, l.MkdirAll(dir+"/a/b", 0o750))
	require.NoError(t, write(t, l, dir+"/a/b/x", "x").Close())
	names, err := l.List(dir + "/a")
	require.NoError(t, err)
	require.Equal(t, []string{"b"}, names)
	require.Error(t, l.Remove(dir+"/a/b"))
	require.NoError(t, l.Remove(dir+"/a/b/x"))
	require.NoError(t, l.Remove(dir+"/a/b"))
	require.NoError(t, l.MkdirAll(dir+"/a/b", 0o750))
	require.NoError(t, write(t, l, dir+"/a/b/x", "x").Close())
	require.NoError(t, l.RemoveAll(dir+"/a"))
	_, err = os.Stat(dir + "/a")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = l.Stat(dir + "/a/b/x")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// TestPebble: a store of Pebble that is killed again and again holds what was written with a sync, and does lose what was
// not.
func TestPebble(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	real := vfs.NewCrashableMem()
	wanted, unsynced, lost := map[string]string{}, map[string]string{}, 0
	for life := range 12 {
		l := newFaults("", real).files
		require.NoError(t, l.MkdirAll("store", 0o750))
		db, err := pebble.Open("store", &pebble.Options{FS: l, FormatMajorVersion: pebble.FormatNewest, MemTableSize: 64 << 10, Logger: quiet{}})
		require.NoError(t, err)
		got := map[string]string{}
		it, err := db.NewIter(nil)
		require.NoError(t, err)
		for it.First(); it.Valid(); it.Next() {
			got[string(it.Key())] = string(it.Value())
		}
		require.NoError(t, it.Close())
		for key, value := range wanted {
			require.Equal(t, value, got[key], key)
		}
		for key, value := range unsynced {
			if got[key] != value {
				lost++
			}
		}
		wanted = got
		clear(unsynced)
		for i := range 400 {
			key, value := fmt.Sprint(r.IntN(500)), fmt.Sprintf("%d-%d-%s", life, i, bytes.Repeat([]byte("x"), r.IntN(900)))
			unsynced[key] = value
			sync := r.IntN(20) == 0
			require.NoError(t, db.Set([]byte(key), []byte(value), &pebble.WriteOptions{Sync: sync}))
			if sync {
				maps.Copy(wanted, unsynced)
				clear(unsynced)
			}
		}
		for key := range unsynced {
			delete(wanted, key) // A flush may have kept it.
		}
		// What the kernel knows survives the process.
		real = real.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: r})
		require.NoError(t, db.Close())
	}
	require.Positive(t, lost)
}

type quiet struct{ pebble.Logger }

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}

// TestDirectoryIsRemoved: what was linked, or renamed, out of a directory is still there when that is removed, and also after a
// kill if its new directory was synced.
func TestDirectoryIsRemoved(t *testing.T) {
	for _, all := range []bool{false, true} {
		for _, syncedBefore := range []bool{false, true} {
			for _, syncedNew := range []bool{false, true} {
				for _, renamed := range []bool{false, true} {
					dir := t.TempDir()
					l := kill()
					require.NoError(t, l.MkdirAll(dir+"/old/inner", 0o755))
					require.NoError(t, l.MkdirAll(dir+"/new", 0o755))
					f := write(t, l, dir+"/old/inner/x", "synced")
					require.NoError(t, f.Sync())
					require.NoError(t, f.Close())
					if syncedBefore {
						syncDir(t, l, dir+"/old/inner")
					}
					if renamed {
						require.NoError(t, l.Rename(dir+"/old/inner/x", dir+"/new/y"))
					} else {
						require.NoError(t, l.Link(dir+"/old/inner/x", dir+"/new/y"))
					}
					if syncedNew {
						syncDir(t, l, dir+"/new")
					}
					if all {
						require.NoError(t, l.RemoveAll(dir+"/old"))
					} else {
						if !renamed {
							require.NoError(t, l.Remove(dir+"/old/inner/x"))
						}
						require.NoError(t, l.Remove(dir+"/old/inner"))
						require.NoError(t, l.Remove(dir+"/old"))
					}
					require.Equal(t, "synced", contents(t, l, dir+"/new/y"), "%v %v %v %v", all, syncedBefore, syncedNew, renamed)
					_, err := l.Stat(dir + "/old")
					require.ErrorIs(t, err, fs.ErrNotExist)
					syncDir(t, l, dir+"/new")
					require.Equal(t, "synced", contents(t, l, dir+"/new/y"))
					require.Equal(t, "synced", contents(t, kill(), dir+"/new/y"))
				}
			}
		}
	}
}
