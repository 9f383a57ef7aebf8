package storage

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// TestManifest: a MANIFEST of which something is missing that was synced gives no store, as the logs of what it no longer names
// are gone. What was not synced may be there or not, or be rubbish.
func TestManifest(t *testing.T) {
	const things = 60
	for _, d := range damagedStores {
		t.Run(d.name, func(t *testing.T) {
			disk := vfs.NewCrashableMem()
			_, stop := d.fill(t, disk, things)
			require.NoError(t, stop())
			n, err := d.count(t, disk) // Opened again, it makes a table of the log, which goes.
			require.NoError(t, err)
			require.Equal(t, things, n)
			manifest, size := newestManifest(t, disk)
			for cut := range size {
				for _, flip := range []bool{false, true} {
					again := disk.CrashClone(vfs.CrashCloneCfg{})
					rewrite(t, again, manifest, func(b []byte) []byte {
						if flip {
							b[cut] ^= 1 << (cut % 8)
							return b
						}
						return b[:cut]
					})
					_, err := d.count(t, again)
					require.ErrorIs(t, err, ErrDamaged)
					require.ErrorContains(t, err, manifest[len("store/"):])
					require.ErrorContains(t, err, "set the data directory aside")
				}
			}
			for _, more := range []string{"\x00", "rubbish", strings.Repeat("\x00", 100)} {
				again := disk.CrashClone(vfs.CrashCloneCfg{})
				rewrite(t, again, manifest, func(b []byte) []byte { return append(b, more...) })
				n, err := d.count(t, again)
				require.NoError(t, err)
				require.Equal(t, things, n)
			}
			for _, f := range []func([]byte) []byte{
				func([]byte) []byte { return nil },
				func(b []byte) []byte { b[3] ^= 1; return b },
			} {
				again := disk.CrashClone(vfs.CrashCloneCfg{})
				rewrite(t, again, manifest+witnessSuffix, f)
				n, err := d.count(t, again)
				require.NoError(t, err)
				require.Equal(t, things, n)
			}
		})
	}
}

// TestWitnessesGo: they go with their files.
func TestWitnessesGo(t *testing.T) {
	disk := vfs.NewMem()
	for range 5 {
		l, err := OpenLog(options(t, disk, "store"))
		require.NoError(t, err)
		require.NoError(t, l.Close())
	}
	names, err := disk.List("store")
	require.NoError(t, err)
	for _, name := range names {
		if of, ok := strings.CutSuffix(name, witnessSuffix); ok {
			_, err := disk.Stat("store/" + of)
			require.NotErrorIs(t, err, fs.ErrNotExist, name)
		}
	}
}

func newestManifest(t *testing.T, files vfs.FS) (path string, size int) {
	names, err := files.List("store")
	require.NoError(t, err)
	for _, name := range names {
		if isManifest(files, name) && "store/"+name > path {
			info, err := files.Stat("store/" + name)
			require.NoError(t, err)
			path, size = "store/"+name, int(info.Size())
		}
	}
	require.NotEmpty(t, path)
	return path, size
}
