package storage

import (
	"errors"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// TestFailedDisk: whatever write or sync of the disk fails, Fatal is called, once, with a message that says what to do,
// and nobody is told that something was done (T7).
func TestFailedDisk(t *testing.T) {
	for name, c := range map[string]struct {
		fails  func(op errorfs.Op) bool
		err    error
		remedy string
	}{
		"write of the log":     {func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite && isFile(op, ".log") }, errorfs.ErrInjected, "mend it"},
		"sync of the log":      {func(op errorfs.Op) bool { return isSync(op) && isFile(op, ".log") }, errorfs.ErrInjected, "mend it"},
		"full disk":            {func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite }, syscall.ENOSPC, "the disk is full; make room (the file BALLAST"},
		"making a table":       {func(op errorfs.Op) bool { return op.Kind == errorfs.OpCreate && isFile(op, ".sst") }, errorfs.ErrInjected, "mend it"},
		"full disk at a flush": {func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite && isFile(op, ".sst") }, syscall.ENOSPC, "the disk is full; make room (the file BALLAST"},
		"sync of a table":      {func(op errorfs.Op) bool { return isSync(op) && isFile(op, ".sst") }, errorfs.ErrInjected, "mend it"},
		"write of the manifest": {func(op errorfs.Op) bool {
			return op.Kind == errorfs.OpFileWrite && strings.Contains(op.Path, "MANIFEST")
		}, errorfs.ErrInjected, "mend it"},
	} {
		t.Run(name, func(t *testing.T) {
			toggle := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
				if c.fails(op) {
					return c.err
				}
				return nil
			})}
			for _, store := range []string{"log", "state"} {
				toggle.Off()
				o := options(t, errorfs.Wrap(vfs.NewMem(), toggle), store)
				fatal, done := make(chan error, 10), make(chan error, 1)
				o.Fatal = func(err error) { fatal <- err }
				write, flush := openFaulty(t, o)
				require.NoError(t, write())
				toggle.On()
				go func() { done <- errors.Join(write(), flush()) }()
				select {
				case err := <-fatal:
					require.ErrorContains(t, err, "the store in "+store+" cannot go on")
					require.ErrorContains(t, err, c.remedy)
					require.ErrorIs(t, err, c.err)
				case err := <-done:
					require.Fail(t, "the write came back", "%v", err)
				}
				require.Empty(t, done)
				require.Empty(t, fatal)
			}
		})
	}
}

func isFile(op errorfs.Op, suffix string) bool { return strings.HasSuffix(op.Path, suffix) }

func isSync(op errorfs.Op) bool {
	return op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo
}

// openFaulty opens a store, and gives a durable write to it and a flush.
func openFaulty(t *testing.T, o Options) (write, flush func() error) {
	if o.Dir == "log" {
		l, err := OpenLog(o)
		require.NoError(t, err)
		return func() error {
			return l.Write([]LogWrite{{Group: damagedGroup, Hard: &HardState{Term: 1}, Entries: []*raftpb.Entry{{Type: raftpb.EntryNormal.Enum(), Index: new(uint64(1))}}}}, true)
		}, l.db.Flush
	}
	s, err := OpenState(o)
	require.NoError(t, err)
	return func() error {
		b := s.NewBatch()
		b.PutShard(1, &kvdv1.ShardState{})
		if _, err := s.Commit(b); err != nil {
			return err
		}
		_, err := s.Sync()
		return err
	}, s.db.Flush
}

// TestFatalOnce: of many errors at the same time only one is told.
func TestFatalOnce(t *testing.T) {
	told := make(chan error, 10)
	l := &fatalLogger{dir: "d", fatal: func(err error) { told <- err }}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() { l.tell(errors.New("broken")) })
	}
	wg.Wait()
	require.ErrorContains(t, <-told, "broken")
	require.Empty(t, told)
}

// TestFailedIngest: an ingest whose tables cannot be written is an error, and leaves the store as it was.
func TestFailedIngest(t *testing.T) {
	for _, kind := range []errorfs.OpKind{errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpFileSyncData} {
		toggle := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == kind && strings.Contains(op.Path, ingestSuffix) {
				return errorfs.ErrInjected
			}
			return nil
		})}
		s := openState(t, errorfs.Wrap(vfs.NewMem(), toggle))
		commit(t, s, 1, "b", 10)
		before := hashOf(t, s)
		toggle.On()
		in, err := s.NewIngest(1, spanB)
		require.NoError(t, err)
		err = in.Put([]byte("b1"), kv.Record{Value: []byte("new")})
		if err == nil {
			err = in.Commit(&kvdv1.ShardState{Replica: 9})
		}
		in.Abort()
		require.ErrorIs(t, err, errorfs.ErrInjected, "%v", kind)
		require.Equal(t, before, hashOf(t, s))
		toggle.Off()
	}
}

// TestDamagedRecords: a record that does not decode is an error that names its group, and the entry's index.
func TestDamagedRecords(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(db *pebble.DB) error
		says   string
	}{
		"an entry of an unknown format": {func(db *pebble.DB) error { return db.Set(entryKey(damagedGroup, 12), []byte{9, 0, 5}, nil) }, "s1/r2: entry 12: a record of an unknown format"},
		"an entry in the middle":        {func(db *pebble.DB) error { return db.Delete(entryKey(damagedGroup, 12), nil) }, "s1/r2: the log store does not hold all entries of [12, 13)"},
		"the first entry":               {func(db *pebble.DB) error { return db.Delete(entryKey(damagedGroup, 11), nil) }, "s1/r2: the store is damaged: its entries begin at 12, and it was truncated at 10"},
		"an entry's key":                {func(db *pebble.DB) error { return db.Set(append(entryKey(damagedGroup, 13), 0), nil, nil) }, "s1/r2: the store is damaged"},
		"the record":                    {func(db *pebble.DB) error { return db.Set(logKey(damagedGroup, kindState), []byte{1, 2}, nil) }, "s1/r2: its record"},
		"no record":                     {func(db *pebble.DB) error { return db.Delete(logKey(damagedGroup, kindState), nil) }, "has no record of its group before it"},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			_, stop := damagedStores[0].fill(t, fs, 3)
			require.NoError(t, stop())
			o := options(t, fs, "store")
			require.NoError(t, o.validate())
			db, err := pebble.Open("store", pebbleOptions(&o))
			require.NoError(t, err)
			require.NoError(t, c.damage(db))
			require.NoError(t, db.Close())
			_, err = damagedStores[0].read(t, options(t, fs, "store"))
			require.ErrorContains(t, err, c.says)
		})
	}
}

func TestOptionsAreChecked(t *testing.T) {
	_, err := OpenState(Options{MemtableBytes: 8 << 30})
	for _, field := range []string{"Dir", "MemtableBytes", "Logger", "Fatal"} {
		require.ErrorContains(t, err, field+": ")
	}
}

// TestMissingStore: one that was there before is not made anew, and one that is there is opened.
func TestMissingStore(t *testing.T) {
	for name, open := range map[string]func(o Options) (io.Closer, error){
		"log":   func(o Options) (io.Closer, error) { return OpenLog(o) },
		"state": func(o Options) (io.Closer, error) { return OpenState(o) },
	} {
		o := options(t, vfs.NewMem(), name)
		o.MustExist = true
		_, err := open(o)
		require.ErrorIs(t, err, ErrMissing)
		require.ErrorContains(t, err, "open the store in "+name+": it was lost, or its disk is not mounted")
		for _, o.MustExist = range []bool{false, true} {
			s, err := open(o)
			require.NoError(t, err)
			require.NoError(t, s.Close())
		}
	}
}
