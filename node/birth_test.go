package node

import (
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/storage"
)

// begin opens both stores on a disk, makes the first replicas with found, if it is given, and starts.
func begin(t *testing.T, fs vfs.FS, meta *kvdv1.MetaState, found func(storage.Log, storage.State)) (core *Core, end func()) {
	blocks := pebble.NewCache(8 << 20)
	o := storage.Options{FS: fs, Cache: blocks, Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }}
	o.Dir = "/kvd/log"
	log, err := storage.OpenLog(o)
	require.NoError(t, err)
	o.Dir = "/kvd/state"
	state, err := storage.OpenState(o)
	require.NoError(t, err)
	if found != nil {
		found(log, state)
	}
	core, err = NewCore(coreConfig(&lone{t: t}, 2, 1, log, state, meta), Now{})
	require.NoError(t, err)
	require.NoError(t, core.Check())
	return core, func() {
		require.NoError(t, log.Close())
		require.NoError(t, state.Close())
		blocks.Unref()
	}
}

// locksApart takes no lock while the disk is cloned: MemFS.Lock would wait for the clone's end, and the clone for its.
type locksApart struct {
	vfs.FS
	mu *sync.Mutex
}

func (f locksApart) Lock(name string) (io.Closer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.FS.Lock(name)
}

// TestCrashAtBirth crashes before every write to the disk with which a founded node makes its stores and its first
// replicas. The next start makes them all, and needs not to once they were made (B1).
func TestCrashAtBirth(t *testing.T) {
	meta := foundingOf(t, 3, []byte("m"))
	disk := vfs.NewCrashableMem()
	require.NoError(t, disk.MkdirAll("/kvd", 0o755))
	root, err := disk.OpenDir("/")
	require.NoError(t, err)
	require.NoError(t, root.Sync())
	var mu sync.Mutex // Pebble writes beside the test.
	var crashes []vfs.FS
	made := 0 // So many crashes came before all was made.
	clone := func() {
		mu.Lock()
		defer mu.Unlock()
		for _, percent := range []int{0, 100} {
			crashes = append(crashes, disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(1, uint64(len(crashes))))}))
		}
	}
	found := func(log storage.Log, state storage.State) { require.NoError(t, Found(meta, 2, log, state)) }
	core, end := begin(t, errorfs.Wrap(locksApart{disk, &mu}, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			clone()
		}
		return nil
	})), meta, func(log storage.Log, state storage.State) {
		found(log, state)
		mu.Lock()
		made = len(crashes)
		mu.Unlock()
		clone()
	})
	want := tellGroups(t, core)
	end()
	require.Greater(t, made, 50)
	for i, fs := range crashes {
		again := found
		if i >= made {
			again = nil
		}
		core, end := begin(t, fs, meta, again)
		require.Equal(t, want, tellGroups(t, core), "crash %d", i)
		end()
	}
}

// born is what a node holds of a group.
type born struct {
	group kv.Group
	log   storage.LogState
	state string
}

func tellGroups(t *testing.T, c *Core) (list []born) {
	for _, g := range c.order {
		log, ok, err := c.Log.Load(g.replica.Group())
		require.NoError(t, err)
		require.True(t, ok)
		list = append(list, born{g.replica.Group(), log, g.machine.State().String()})
	}
	require.Len(t, list, 3)
	return list
}
