package storage

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// watched is a file system that calls f before every operation that writes.
func watched(fs vfs.FS, f func(op errorfs.Op)) vfs.FS {
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			f(op)
		}
		return nil
	}))
}

func openState(t testing.TB, fs vfs.FS) *PebbleState {
	s, err := OpenState(options(t, fs, "state"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// commit writes keys of a prefix and the state of a shard in one step.
func commit(t testing.TB, s State, shard kv.ShardID, prefix string, applied uint64) {
	b := s.NewBatch()
	for i := range 5 {
		b.Put(fmt.Appendf(nil, "%s%d", prefix, i), kv.Record{Value: fmt.Append(nil, applied), Revision: kv.Revision(applied)})
	}
	b.PutShard(shard, &kvdv1.ShardState{Replica: 1, AppliedIndex: applied})
	_, err := s.Commit(b)
	require.NoError(t, err)
}

var spanB = kv.Span{Start: []byte("b"), End: []byte("c")}

// TestIngestCrashes crashes before every write of an ingest that absorbs another shard: the store is as it was before or
// as it is after, whole, and once Commit has returned it is as after. Nothing is left beside it.
func TestIngestCrashes(t *testing.T) {
	mem := vfs.NewCrashableMem()
	var crashes []*vfs.MemFS
	var mu sync.Mutex // Pebble removes old files beside the ingest.
	watching := false
	all := vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))}
	s := openState(t, watched(mem, func(errorfs.Op) {
		mu.Lock()
		defer mu.Unlock()
		if watching {
			crashes = append(crashes, mem.CrashClone(vfs.CrashCloneCfg{}), mem.CrashClone(all))
		}
	}))
	commit(t, s, 1, "b", 10)
	commit(t, s, 2, "a", 20)
	commit(t, s, 3, "c", 10)
	_, err := s.Sync()
	require.NoError(t, err)
	before := hashOf(t, s)

	watch := func(on bool) {
		mu.Lock()
		defer mu.Unlock()
		watching = on
	}
	watch(true)
	in, err := s.NewIngest(1, spanB)
	require.NoError(t, err)
	small := in.(*pebbleIngest) // A table for each record, and more of them than are merged at once.
	small.tableBytes, small.due.bytesMax, small.due.runsMax = 1, 1, 2
	for i := range 3 {
		require.NoError(t, in.Put(fmt.Appendf(nil, "b%d", i), kv.Record{Value: []byte("new"), Revision: 30, ExpireAt: 5}))
	}
	require.NoError(t, in.Replace(kv.Span{Start: []byte("b"), End: []byte("d")}))
	require.NoError(t, in.Remove(kv.Group{Shard: 3, Replica: 1}))
	require.NoError(t, in.Commit(&kvdv1.ShardState{Replica: 1, AppliedIndex: 30}))
	watch(false)
	require.Greater(t, len(small.files), 6)
	after := hashOf(t, s)
	require.NotEqual(t, before, after)
	keys := 0
	it, err := s.Iter(kv.Span{Start: []byte("b")})
	require.NoError(t, err)
	for it.Next() {
		keys++
	}
	require.NoError(t, it.Close())
	require.Equal(t, 3, keys, "what the absorbed shard held is there still")
	shards, err := s.Shards()
	require.NoError(t, err)
	require.Len(t, shards, 2)
	removed, err := s.Tombstones()
	require.NoError(t, err)
	require.Equal(t, map[kv.ShardID]kv.ReplicaID{3: 1}, removed)

	seen := map[uint64]int{}
	for i, fs := range crashes {
		crashed := openState(t, fs)
		h := hashOf(t, crashed)
		require.Contains(t, []uint64{before, after}, h, "a crash before write %d left a part of an ingest", i/2)
		seen[h]++
		require.Zero(t, besideStore(t, fs), "tables are left")
	}
	require.Positive(t, seen[before])
	require.Positive(t, seen[after], "no crash came after the ingest was durable")
	require.Equal(t, after, hashOf(t, openState(t, mem.CrashClone(vfs.CrashCloneCfg{}))), "an ingest that was committed is lost")
}

// TestIngestDuringFlush: an ingest into the midst of what is being flushed makes Pebble give that flush up and begin it
// anew, which is not a failure of the disk.
func TestIngestDuringFlush(t *testing.T) {
	var s *PebbleState
	var armed atomic.Bool
	ingested := make(chan error, 1)
	ingest := func() error {
		in, err := s.NewIngest(1, spanB)
		if err != nil {
			return err
		}
		if err := in.Put([]byte("b1"), kv.Record{Value: []byte("new")}); err != nil {
			return err
		}
		return in.Commit(&kvdv1.ShardState{Replica: 1, AppliedIndex: 30})
	}
	mem := vfs.NewCrashableMem()
	o := options(t, watched(mem, func(op errorfs.Op) {
		if op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".sst") && armed.Swap(false) {
			ingested <- ingest()
		}
	}), "state")
	failed := make(chan error, 1)
	o.Fatal = func(err error) { failed <- err }
	o.MemtableBytes = 16 << 20 // The flush makes several tables: Pebble looks between them whether it goes on.
	s, err := OpenState(o)
	require.NoError(t, err)
	commit(t, s, 2, "a", 20)
	chance := rand.NewChaCha8([32]byte{})
	for i := range 16 {
		b := s.NewBatch()
		for j := range 1000 {
			value := make([]byte, separateBytes/2)
			_, _ = chance.Read(value)
			b.Put(fmt.Appendf(nil, "c%03d%03d", i, j), kv.Record{Value: value, Revision: 20})
		}
		_, err := s.Commit(b)
		require.NoError(t, err)
	}
	armed.Store(true)
	flushed := make(chan error, 1)
	go func() { flushed <- s.db.Flush() }()
	select {
	case err := <-failed:
		t.Fatal(err)
	case err := <-flushed:
		require.NoError(t, err)
	}
	require.NoError(t, <-ingested)
	want := hashOf(t, s)
	require.NoError(t, s.Close())
	require.Equal(t, want, hashOf(t, openState(t, mem.CrashClone(vfs.CrashCloneCfg{}))))
}

// TestIngestDoesNotOvertake: what another loop commits while an ingest is at work is not overtaken by it: what was
// visible before the ingest is there after a crash if the ingest is (D1).
func TestIngestDoesNotOvertake(t *testing.T) {
	for name, moment := range map[string]func(op errorfs.Op) bool{
		"while what came before is made durable": func(op errorfs.Op) bool { return isSync(op) && isFile(op, ".log") },
		"while its tables come in":               func(op errorfs.Op) bool { return op.Kind == errorfs.OpLink },
	} {
		t.Run(name, func(t *testing.T) { ingestBeside(t, moment) })
	}
}

func ingestBeside(t *testing.T, moment func(op errorfs.Op) bool) {
	mem := vfs.NewCrashableMem()
	var s *PebbleState
	var armed atomic.Bool
	before := false
	other := make(chan error, 1)
	s = openState(t, watched(mem, func(op errorfs.Op) {
		if !moment(op) || !armed.CompareAndSwap(true, false) {
			return
		}
		if before = s.mu.TryLock(); before { // Nobody holds commits back: the other loop's comes before the ingest.
			s.mu.Unlock()
		}
		go func() {
			b := s.NewBatch()
			b.PutShard(2, &kvdv1.ShardState{Replica: 1, AppliedIndex: 99})
			_, err := s.Commit(b)
			other <- err
		}()
		if before {
			other <- <-other
		}
	}))
	commit(t, s, 1, "b", 10)
	// Where the memtable holds something of what is replaced, Pebble makes all of its log durable by itself.
	require.NoError(t, s.db.Flush())
	commit(t, s, 3, "c", 10)
	in, err := s.NewIngest(1, spanB)
	require.NoError(t, err)
	require.NoError(t, in.Put([]byte("b1"), kv.Record{Revision: 30}))
	armed.Store(true)
	require.NoError(t, in.Commit(&kvdv1.ShardState{Replica: 1, AppliedIndex: 30}))
	require.False(t, armed.Load(), "that moment does not come: the test must look elsewhere")
	require.NoError(t, <-other)

	shards, err := openState(t, mem.CrashClone(vfs.CrashCloneCfg{})).Shards()
	require.NoError(t, err)
	applied := map[kv.ShardID]uint64{}
	for _, r := range shards {
		applied[r.Shard] = r.State.AppliedIndex
	}
	require.EqualValues(t, 30, applied[1])
	require.EqualValues(t, 10, applied[3], "the ingest has overtaken a commit")
	if before {
		require.EqualValues(t, 99, applied[2], "the ingest has overtaken a commit")
	}
	shards, err = s.Shards()
	require.NoError(t, err)
	require.Len(t, shards, 3)
}

// TestIngestMakesDurable: what was committed and not synced before an ingest is durable after it, in both engines (D1).
func TestIngestMakesDurable(t *testing.T) {
	mem := vfs.NewCrashableMem()
	s, m := openState(t, mem), NewMemState()
	for _, s := range []State{s, m} {
		commit(t, s, 2, "a", 20)
		in, err := s.NewIngest(1, spanB)
		require.NoError(t, err)
		require.NoError(t, in.Commit(&kvdv1.ShardState{Replica: 1, AppliedIndex: 30}))
		require.EqualValues(t, 1, s.Durable())
	}
	want := hashOf(t, s)
	require.Equal(t, want, hashOf(t, openState(t, mem.CrashClone(vfs.CrashCloneCfg{}))))
	require.NoError(t, m.Crash(func(int) int { return 0 }))
	require.Equal(t, want, hashOf(t, m))
}

// TestMetaIngest: the meta group's descriptor spans the whole key space, and its ingest takes no user's key away.
func TestMetaIngest(t *testing.T) {
	for _, s := range []State{openState(t, vfs.NewMem()), NewMemState()} {
		commit(t, s, 1, "b", 10)
		in, err := s.NewIngest(kv.MetaShard, kv.Span{})
		require.NoError(t, err)
		require.NoError(t, in.Put([]byte("b0"), kv.Record{Value: []byte("of another node")}))
		require.Error(t, in.Replace(kv.Span{}))
		require.NoError(t, in.Commit(&kvdv1.ShardState{Replica: 4, AppliedIndex: 30}))
		for i := range 5 {
			rec, ok, err := s.Get(fmt.Appendf(nil, "b%d", i))
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, "10", string(rec.Value))
		}
		shards, err := s.Shards()
		require.NoError(t, err)
		require.Len(t, shards, 2)
		require.EqualValues(t, 4, shards[0].State.Replica)
	}
}

// TestIngestRefuses: keys outside the span, and out of order, are refused; so is a span without keys.
func TestIngestRefuses(t *testing.T) {
	for _, s := range []State{openState(t, vfs.NewMem()), NewMemState()} {
		_, err := s.NewIngest(1, kv.Span{Start: []byte("b"), End: []byte("b")})
		require.ErrorContains(t, err, "span: not empty")
		in, err := s.NewIngest(1, spanB)
		require.NoError(t, err)
		require.NoError(t, in.Put([]byte("b5"), kv.Record{}))
		for _, key := range []string{"", "a", "b5", "b4", "c", "d"} {
			require.ErrorContains(t, in.Put([]byte(key), kv.Record{}), "in the span [b, c) and above the key before it")
		}
		for _, span := range []kv.Span{{Start: []byte("b"), End: []byte("b8")}, {Start: []byte("b1")}, {Start: []byte("z"), End: []byte("a")}} {
			require.ErrorContains(t, in.Replace(span), "span: of user keys, with all of [b, c)")
		}
		require.NoError(t, in.Replace(kv.Span{Start: []byte("a")}))
		require.ErrorContains(t, in.Replace(spanB), "with all of [a, )", "less than before")
		for _, shard := range []kv.ShardID{1, kv.MetaShard} {
			require.ErrorContains(t, in.Remove(kv.Group{Shard: shard, Replica: 7}), "absorbed: another shard")
		}
		in.Abort()
		in.Abort()
		require.ErrorIs(t, in.Put([]byte("b6"), kv.Record{}), ErrClosed)
		require.ErrorIs(t, in.Replace(kv.Span{}), ErrClosed)
		require.ErrorIs(t, in.Remove(kv.Group{Shard: 2, Replica: 7}), ErrClosed)
		require.ErrorIs(t, in.Commit(&kvdv1.ShardState{}), ErrClosed)
	}
}

// besideStore counts the tables of ingests.
func besideStore(t *testing.T, fs vfs.FS) (n int) {
	names, err := fs.List("state")
	require.NoError(t, err)
	for _, name := range names {
		if strings.HasSuffix(name, ingestSuffix) {
			n++
		}
	}
	return n
}

// TestLeftoversOnFullDisk: what an ingest of an earlier process left goes before the store needs room to open.
func TestLeftoversOnFullDisk(t *testing.T) {
	mem := vfs.NewMem()
	s, err := OpenState(options(t, mem, "state"))
	require.NoError(t, err)
	in, err := s.NewIngest(1, spanB)
	require.NoError(t, err)
	require.NoError(t, in.Put([]byte("b1"), kv.Record{Revision: 1}))
	require.NoError(t, s.Close())
	require.Equal(t, 1, besideStore(t, mem))
	full := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpFileWrite {
			return syscall.ENOSPC
		}
		return nil
	}))
	o, failed := options(t, full, "state"), make(chan error, 2)
	o.Fatal = func(err error) { failed <- err }
	go func() {
		_, err := OpenState(o)
		failed <- err
	}()
	require.ErrorIs(t, <-failed, syscall.ENOSPC)
	require.Zero(t, besideStore(t, mem))
}

// TestAbortLeavesNothing: neither does an ingest that is given up, nor one whose process ended.
func TestAbortLeavesNothing(t *testing.T) {
	fs := &countedFS{FS: vfs.NewMem()}
	begin := func(s State) Ingest {
		in, err := s.NewIngest(1, spanB)
		require.NoError(t, err)
		require.NoError(t, in.Put([]byte("b1"), kv.Record{ExpireAt: 7}))
		return in
	}
	s, err := OpenState(options(t, fs, "state"))
	require.NoError(t, err)
	in := begin(s)
	require.Positive(t, besideStore(t, fs))
	require.Equal(t, 1, fs.open)
	in.Abort()
	require.Zero(t, besideStore(t, fs))
	require.Zero(t, fs.open)
	begin(s)
	require.NoError(t, s.Close())
	require.Positive(t, besideStore(t, fs))
	openState(t, fs)
	require.Zero(t, besideStore(t, fs))
}

// TestIngestSyncsAsItGoes: of what an ingest gathers, the disk has not been told of a part that does not depend on its size: all of it at
// the end would keep the logs' syncs waiting.
func TestIngestSyncsAsItGoes(t *testing.T) {
	fs := &lazyFS{FS: vfs.Default}
	s, err := OpenState(options(t, fs, t.TempDir()))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	in, err := s.NewIngest(1, kv.Span{})
	require.NoError(t, err)
	value := make([]byte, 64<<10)
	rnd := rand.NewChaCha8([32]byte{})
	for i := range 256 {
		_, _ = rnd.Read(value)
		require.NoError(t, in.Put(fmt.Appendf(nil, "%04d", i), kv.Record{Value: value, Revision: 1}))
	}
	require.NoError(t, in.Commit(&kvdv1.ShardState{}))
	require.Greater(t, fs.written.Load(), int64(16<<20))
	require.Less(t, fs.most.Load(), int64(4<<20))
}

// lazyFS counts what was written to the tables of ingests, and the most of one that the disk was not told of.
type lazyFS struct {
	vfs.FS
	written, most atomic.Int64
}

func (fs *lazyFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, category)
	if err != nil || !strings.HasSuffix(name, ingestSuffix) {
		return f, err
	}
	return &lazyFile{File: f, fs: fs}, nil
}

type lazyFile struct {
	vfs.File
	fs            *lazyFS
	written, told int64
}

func (f *lazyFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	f.written += int64(n)
	f.fs.written.Add(int64(n))
	f.fs.most.Store(max(f.fs.most.Load(), f.written-f.told))
	return n, err
}

func (f *lazyFile) SyncTo(length int64) (bool, error) {
	f.told = max(f.told, length)
	return f.File.SyncTo(length)
}
