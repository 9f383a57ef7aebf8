package storage

import (
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

func TestStoreRecord(t *testing.T) {
	dir := t.TempDir()
	_, ok, err := ReadStore(dir)
	require.NoError(t, err)
	require.False(t, ok)
	require.NoError(t, WriteStore(dir, &kvdv1.StoreRecord{StoreId: 7, Life: 3}))
	rec, ok, err := ReadStore(dir)
	require.NoError(t, err)
	require.True(t, ok)
	require.EqualValues(t, 7, rec.StoreId)

	path := filepath.Join(dir, storeName)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	for i := range whole {
		flipped := append([]byte(nil), whole...)
		flipped[i] ^= 4
		require.NoError(t, os.WriteFile(path, flipped, 0o600))
		_, _, err := ReadStore(dir)
		require.ErrorContains(t, err, "damaged")
		require.NoError(t, os.WriteFile(path, whole[:i], 0o600))
		_, _, err = ReadStore(dir)
		require.ErrorContains(t, err, "damaged")
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	dir := t.TempDir()
	b, err := encodeStore(storeFormat+1, &kvdv1.StoreRecord{StoreId: 7})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, storeName), b, 0o600))
	_, _, err = ReadStore(dir)
	require.ErrorContains(t, err, "install a newer one")
	require.NotErrorIs(t, err, ErrDamaged)
}

// TestMadeDirSurvivesACrash: of a data directory, and of what is above it, nothing waits for somebody else's sync.
func TestMadeDirSurvivesACrash(t *testing.T) {
	disk := vfs.NewCrashableMem()
	require.NoError(t, disk.MkdirAll("/srv", 0o755))
	require.NoError(t, syncDir(disk, "/"))
	crash := func() { disk = disk.CrashClone(vfs.CrashCloneCfg{}) }
	for range 2 {
		require.NoError(t, makeDir(disk, "/srv/kvd/n1"))
		crash()
		info, err := disk.Stat("/srv/kvd/n1")
		require.NoError(t, err)
		require.True(t, info.IsDir())
	}
	// One that was made by a process that did not live to sync it.
	require.NoError(t, disk.MkdirAll("/srv/kvd/n2", 0o755))
	require.NoError(t, makeDir(disk, "/srv/kvd/n2"))
	crash()
	_, err := disk.Stat("/srv/kvd/n2")
	require.NoError(t, err)

	f, err := disk.Create("/srv/file", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.Error(t, makeDir(disk, "/srv/file/n1"))
}

// TestDirBelowAPlaceThatIsNotOurs: a data directory that somebody else has made for us, where we may not look around.
func TestDirBelowAPlaceThatIsNotOurs(t *testing.T) {
	theirs := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpOpenDir && op.Path == "/srv" {
			return fs.ErrPermission
		}
		return nil
	})
	disk := vfs.NewMem()
	require.NoError(t, disk.MkdirAll("/srv/kvd", 0o755))
	require.NoError(t, makeDir(errorfs.Wrap(disk, theirs), "/srv/kvd"))
	require.ErrorIs(t, makeDir(errorfs.Wrap(disk, theirs), "/srv/new"), fs.ErrPermission)
}

func TestLockKeepsOthersOut(t *testing.T) {
	dir := t.TempDir()
	lock, err := LockDir(dir)
	require.NoError(t, err)
	_, err = LockDir(dir)
	require.ErrorContains(t, err, "in use")
	require.NoError(t, lock.Close())
	lock, err = LockDir(dir)
	require.NoError(t, err)
	require.NoError(t, lock.Close())
}

// TestBallast: it takes room until it is released, which is known until it is made again.
func TestBallast(t *testing.T) {
	dir := t.TempDir()
	releasedIs := func(want bool) {
		released, err := BallastReleased(dir)
		require.NoError(t, err)
		require.Equal(t, want, released)
	}
	releasedIs(false)
	released, err := ReleaseBallast(dir)
	require.NoError(t, err)
	require.False(t, released)
	releasedIs(false)
	require.NoError(t, EnsureBallast(dir, 1<<20))
	info, err := os.Stat(filepath.Join(dir, ballastName))
	require.NoError(t, err)
	require.EqualValues(t, 1<<20, info.Size())
	releasedIs(false)
	released, err = ReleaseBallast(dir)
	require.NoError(t, err)
	require.True(t, released)
	releasedIs(true)
	released, err = ReleaseBallast(dir)
	require.NoError(t, err)
	require.False(t, released)
	require.NoError(t, EnsureBallast(dir, 1<<20))
	releasedIs(false)
	free, total, err := DiskFree(dir)
	require.NoError(t, err)
	require.LessOrEqual(t, free, total)
}

// TestStoreRecordCrashes: a crash before any write to the disk leaves the old record or the new one, whole, and once the
// writing has returned it is the new one (B1).
func TestStoreRecordCrashes(t *testing.T) {
	disk := vfs.NewCrashableMem()
	require.NoError(t, makeDir(disk, "/kvd"))
	var crashes []vfs.FS
	watching := watched(disk, func(errorfs.Op) {
		for _, percent := range []int{0, 50, 100} {
			r := rand.New(rand.NewPCG(1, uint64(len(crashes))))
			crashes = append(crashes, disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: r}))
		}
	})
	stored := func(fs vfs.FS) uint64 {
		rec, ok, err := readStore(fs, "/kvd")
		require.NoError(t, err)
		if !ok {
			return 0
		}
		return rec.StoreId
	}
	for id := uint64(1); id <= 3; id++ {
		crashes = nil
		require.NoError(t, writeStore(watching, "/kvd", &kvdv1.StoreRecord{StoreId: id}))
		seen := map[uint64]bool{}
		for _, fs := range crashes {
			seen[stored(fs)] = true
		}
		require.Equal(t, id, stored(disk.CrashClone(vfs.CrashCloneCfg{})))
		require.Subset(t, map[uint64]bool{id - 1: true, id: true}, seen)
		require.Contains(t, seen, id-1, "no crash came before the new record was durable")
	}
}
