//go:build kvdtest

package faults

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// say replaces a file of the directory as a harness does, and waits until it must have been seen.
func say(t *testing.T, dir, name, text string) {
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
	time.Sleep(lookInterval) // Of the bubble: no time passes.
}

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		f := newFaults(dir, vfs.Default)
		require.Zero(t, *f.clock.now())
		say(t, dir, "clock", "-30s\n")
		require.Equal(t, -30*time.Second, *f.clock.now())
		say(t, dir, "clock", "nonsense")
		require.Equal(t, -30*time.Second, *f.clock.now(), "nonsense changes nothing")
		say(t, dir, "clock", "1h")
		require.Equal(t, time.Hour, *f.clock.now())
		require.NoError(t, os.Remove(filepath.Join(dir, "clock")))
		time.Sleep(lookInterval)
		require.Zero(t, *f.clock.now())
	})
}

// TestStall: each text that is another asks for one more.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		f := newFaults(dir, vfs.Default)
		none := f.stall.now()
		require.Zero(t, *none)
		say(t, dir, "stall", "1s")
		first := f.stall.now()
		require.Equal(t, time.Second, *first)
		time.Sleep(time.Minute)
		require.Same(t, first, f.stall.now())
		say(t, dir, "stall", "")
		require.Zero(t, *f.stall.now())
		say(t, dir, "stall", "1s")
		require.NotSame(t, first, f.stall.now())
		require.Equal(t, time.Second, *f.stall.now())
	})
}

func TestLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		f := newFaults(dir, vfs.Default)
		require.Equal(t, "a:1", f.dialled("a:1"))
		say(t, dir, "links", `{"a:1": "b:2"}`)
		require.Equal(t, "b:2", f.dialled("a:1"))
		require.Equal(t, "c:3", f.dialled("c:3"))
		say(t, dir, "links", `{"c:3": "d:4"}`)
		require.Equal(t, "a:1", f.dialled("a:1"))
	})
}

// TestNoDirectory: without a directory no file is looked at.
func TestNoDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, os.WriteFile("clock", []byte("1h"), 0o600))
	require.Zero(t, *newFaults("", vfs.Default).clock.now())
}

func TestSlowAndStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, data := t.TempDir(), t.TempDir()
		f := newFaults(dir, vfs.Default)
		w, err := f.files.Create(data+"/x", vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		say(t, dir, "disk", `{"slow": "50ms"}`)
		began := time.Now()
		_, err = w.Write([]byte("x"))
		require.NoError(t, err)
		require.NoError(t, w.Sync())
		require.Equal(t, 100*time.Millisecond, time.Since(began))

		say(t, dir, "disk", `{"stall": true}`)
		done := make(chan error, 1)
		go func() { done <- w.Sync() }()
		time.Sleep(time.Hour)
		require.Empty(t, done)
		say(t, dir, "disk", "")
		require.NoError(t, <-done)
		require.NoError(t, w.Close())
	})
}

func TestFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, data := t.TempDir(), t.TempDir()
		f := newFaults(dir, vfs.Default)
		w, err := f.files.Create(data+"/x", vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		say(t, dir, "disk", `{"fail": true}`)
		require.ErrorIs(t, w.Sync(), syscall.EIO)
		_, err = w.Write([]byte("x"))
		require.ErrorIs(t, err, syscall.EIO)
		require.ErrorIs(t, f.files.Remove(data+"/x"), syscall.EIO)
		require.NoError(t, w.Close())
	})
}

// TestFull: what is free shrinks and grows with what is written and removed, and nothing is when that is said.
func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, data := t.TempDir(), t.TempDir()
		f := newFaults(dir, vfs.Default)
		w, err := f.files.Create(data+"/x", vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		require.EqualValues(t, 5000, f.disk.free(5000))

		say(t, dir, "disk", `{"free": 1000}`)
		require.EqualValues(t, 1000, f.disk.free(5000))
		require.EqualValues(t, 500, f.disk.free(500))
		_, err = w.Write(make([]byte, 900))
		require.NoError(t, err)
		require.EqualValues(t, 100, f.disk.free(5000))
		_, err = w.Write(make([]byte, 900))
		require.ErrorIs(t, err, syscall.ENOSPC)
		usage, err := f.files.GetDiskUsage(data)
		require.NoError(t, err)
		require.EqualValues(t, 100, usage.AvailBytes)
		require.NoError(t, f.files.Remove(data+"/x"))
		require.EqualValues(t, 1000, f.disk.free(5000))
		require.NoError(t, f.disk.take("ballast", 1000))
		_, err = f.files.Create(data+"/y", vfs.WriteCategoryUnspecified)
		require.ErrorIs(t, err, syscall.ENOSPC)
		f.disk.give(1000)
		require.EqualValues(t, 1000, f.disk.free(5000))

		say(t, dir, "disk", `{"full": true}`)
		require.Zero(t, f.disk.free(5000))
		_, err = w.Write(make([]byte, 1))
		require.ErrorIs(t, err, syscall.ENOSPC)
		say(t, dir, "disk", `{"nonsense": true}`)
		require.Zero(t, f.disk.free(5000), "nonsense changes nothing")
		require.NoError(t, w.Close())
	})
}
