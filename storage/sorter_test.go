package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// sortedKeyBytes are those of a key that the tests sort.
const sortedKeyBytes = 500

func sortedKey(n uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, sortedKeyBytes-8), n)
}

// TestKeySorter: as many keys as are held in memory, and several times that, come back in their order, each once; memory holds no
// more than it may, and nothing is left on the disk.
func TestKeySorter(t *testing.T) {
	const fits = sorterBytesMax/(sortedKeyBytes+sorterKeyBytes) + 1 // With the last of them it is full.
	for _, n := range []int{0, 1, fits - 1, fits, fits + 1, 2 * fits, 5*fits + 7} {
		fs := vfs.NewMem()
		s := newKeySorter(fs, "sorted", sstable.WriterOptions{})
		rnd := rand.New(rand.NewPCG(1, uint64(n)))
		for _, i := range rnd.Perm(n) {
			require.NoError(t, s.add(sortedKey(uint64(i))))
			require.Less(t, len(s.keys), fits)
		}
		require.Len(t, s.runs, n/fits)
		next := uint64(0)
		require.NoError(t, s.each(func(key, value []byte) error {
			if !bytes.Equal(sortedKey(next), key) || len(value) > 0 {
				return fmt.Errorf("%x comes instead of key %d", key, next)
			}
			next++
			return nil
		}))
		require.EqualValues(t, n, next)
		s.close()
		names, err := fs.List("")
		require.NoError(t, err)
		require.Empty(t, names)
	}
}

// TestKeySorterMergesBefore: with far more keys than memory holds no more files are open at a time than are merged at once, and the one that is
// written; no key is written more often than that takes; and all come back in their order. Nothing is merged while keys come in.
func TestKeySorterMergesBefore(t *testing.T) {
	for _, runsMax := range []int{2, 3, 7} {
		for _, spills := range []int{1, 2, 3, 4, 7, 8, 9, 27, 28, 60} {
			fs := &countedFS{FS: vfs.NewMem()}
			s := newKeySorter(fs, "sorted", sstable.WriterOptions{})
			s.bytesMax, s.runsMax = 3*(sortedKeyBytes+sorterKeyBytes), runsMax
			n := spills*3 + 1
			for _, i := range rand.New(rand.NewPCG(2, uint64(n))).Perm(n) {
				require.NoError(t, s.add(sortedKey(uint64(i))))
			}
			require.Equal(t, 1, fs.most)
			require.Equal(t, spills, s.made)
			next := uint64(0)
			require.NoError(t, s.each(func(key, _ []byte) error {
				if !bytes.Equal(sortedKey(next), key) {
					return fmt.Errorf("%x comes instead of key %d", key, next)
				}
				next++
				return nil
			}))
			require.EqualValues(t, n, next)
			runs := spills + 1 // With what was in memory in the end.
			merges := (max(runs, runsMax) - runsMax + runsMax - 2) / (runsMax - 1)
			require.Equal(t, runs+merges, s.made, "%d at once, of %d", runsMax, runs)
			require.LessOrEqual(t, fs.most, runsMax+1)
			names, err := fs.List("")
			require.NoError(t, err)
			require.Len(t, names, len(s.runs))
			s.close()
			require.Zero(t, fs.open)
			require.Zero(t, fs.syncs)
			names, err = fs.List("")
			require.NoError(t, err)
			require.Empty(t, names)
		}
	}
}

// TestKeySorterBounds: what an ingest sorts with holds few keys, and opens few files.
func TestKeySorterBounds(t *testing.T) {
	in, err := openState(t, vfs.NewMem()).NewIngest(1, spanB)
	require.NoError(t, err)
	defer in.Abort()
	due := in.(*pebbleIngest).due
	require.LessOrEqual(t, due.bytesMax, 16<<20)
	require.LessOrEqual(t, due.runsMax, 256)
}

// TestKeySorterSharesPrefixes: the longest keys, if they differ at their ends alone, do not have a block each, and the index of a table an entry
// as long for each, all of which would be in memory while it is written.
func TestKeySorterSharesPrefixes(t *testing.T) {
	fs := vfs.NewMem()
	s := newKeySorter(fs, "sorted", sstable.WriterOptions{})
	defer s.close()
	prefix := make([]byte, kv.KeyBytesMax-8)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(prefix)
	for i := uint64(0); s.made == 0; i++ {
		require.NoError(t, s.add(binary.BigEndian.AppendUint64(bytes.Clone(prefix), i)))
	}
	info, err := fs.Stat(s.runs[0])
	require.NoError(t, err)
	require.Less(t, info.Size(), int64(sorterBytesMax/8))
}

// TestKeySorterFails: a disk that fails, and whoever takes the keys, end it with their error; whatever is open is closed.
func TestKeySorterFails(t *testing.T) {
	broken := errors.New("broken")
	small := func(fs vfs.FS) *keySorter {
		s := newKeySorter(fs, "sorted", sstable.WriterOptions{})
		s.bytesMax, s.runsMax = 2*(sortedKeyBytes+sorterKeyBytes), 2
		return s
	}
	ops := 0
	for failing := 0; ; failing++ {
		ops = 0
		mem := &countedFS{FS: vfs.NewMem()}
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpFileClose || op.Kind == errorfs.OpRemove {
				return nil
			}
			if ops++; ops-1 == failing {
				return broken
			}
			return nil
		}))
		s := small(fs)
		err := fillAndTake(s)
		s.close()
		require.Zero(t, mem.open, "operation %d", failing)
		names, listing := mem.List("")
		if ops <= failing {
			require.NoError(t, errors.Join(err, listing))
			break
		}
		require.ErrorIs(t, err, broken, "operation %d", failing)
		require.Empty(t, names)
	}
	require.Greater(t, ops, 60)

	mem := &countedFS{FS: vfs.NewMem()}
	s := small(mem)
	for i := range uint64(9) {
		require.NoError(t, s.add(sortedKey(i)))
	}
	require.ErrorIs(t, s.each(func([]byte, []byte) error { return broken }), broken)
	require.Zero(t, mem.open)
	s.close()
}

// countedFS counts the tables of ingests that are open, and their syncs.
type countedFS struct {
	vfs.FS
	open, most, syncs int
}

func (fs *countedFS) count(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil || !strings.HasSuffix(name, ingestSuffix) {
		return f, err
	}
	fs.open++
	fs.most = max(fs.most, fs.open)
	return &countedFile{f, fs}, nil
}

func (fs *countedFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, category)
	return fs.count(name, f, err)
}

func (fs *countedFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.Open(name, opts...)
	return fs.count(name, f, err)
}

type countedFile struct {
	vfs.File
	fs *countedFS
}

func (f *countedFile) Close() error {
	f.fs.open--
	return f.File.Close()
}

func (f *countedFile) Sync() error {
	f.fs.syncs++
	return f.File.Sync()
}

func (f *countedFile) SyncData() error {
	f.fs.syncs++
	return f.File.SyncData()
}

func fillAndTake(s *keySorter) error {
	for i := range uint64(9) {
		if err := s.add(sortedKey(i)); err != nil {
			return err
		}
	}
	return s.each(func([]byte, []byte) error { return nil })
}

// TestIngestManyExpiries: the index of expiries of more records than memory holds is whole, in its order, and nothing is left beside the
// store, whether the ingest is committed, given up, or its process ends; also where two are gathered at the same time.
func TestIngestManyExpiries(t *testing.T) {
	fs := vfs.NewMem()
	s, err := OpenState(options(t, fs, "state"))
	require.NoError(t, err)
	filler := strings.Repeat("-", 400)
	n := 3 * sorterBytesMax / (len(filler) + 20)
	expiries := rand.New(rand.NewPCG(1, 1)).Perm(n)
	// Those of one shard are the odd ones.
	gather := func(s *PebbleState, shard kv.ShardID, prefix string) Ingest {
		in, err := s.NewIngest(shard, kv.Span{Start: []byte(prefix), End: []byte(prefix + "~")})
		require.NoError(t, err)
		for i, e := range expiries {
			rec := kv.Record{Revision: 1, ExpireAt: 2*int64(e) + int64(shard)}
			require.NoError(t, in.Put(fmt.Appendf(nil, "%s%s%08d", prefix, filler, i), rec))
		}
		return in
	}
	begin := func(s *PebbleState) Ingest { return gather(s, 1, "b") }
	in := begin(s)
	require.Greater(t, besideStore(t, fs), 2)
	in.Abort()
	require.Zero(t, besideStore(t, fs))

	in, other := begin(s), gather(s, 2, "c")
	require.NoError(t, in.Commit(&kvdv1.ShardState{}))
	require.NoError(t, other.Commit(&kvdv1.ShardState{}))
	require.Zero(t, besideStore(t, fs))
	next := int64(1)
	_, all, err := s.Due(kv.Due{}, int64(2*n), 2*n, func(d kv.Due) bool {
		require.Equal(t, next, d.ExpireAt)
		next++
		return true
	})
	require.NoError(t, err)
	require.True(t, all)
	require.EqualValues(t, 2*n+1, next)

	begin(s)
	require.NoError(t, s.Close())
	require.Positive(t, besideStore(t, fs))
	openState(t, fs)
	require.Zero(t, besideStore(t, fs))
}

// TestIngestCannotSpill: a table of expiries that cannot be written fails the record that it was to be written for.
func TestIngestCannotSpill(t *testing.T) {
	broken := errors.New("broken")
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, "k0"+ingestSuffix) {
			return broken
		}
		return nil
	}))
	s := openState(t, fs)
	in, err := s.NewIngest(1, spanB)
	require.NoError(t, err)
	defer in.Abort()
	filler := strings.Repeat("-", 400)
	for i := 0; err == nil && i < sorterBytesMax/len(filler); i++ {
		err = in.Put(fmt.Appendf(nil, "b%s%08d", filler, i), kv.Record{Revision: 1, ExpireAt: 1})
	}
	require.ErrorIs(t, err, broken)
	require.ErrorIs(t, in.Put([]byte("c"), kv.Record{Revision: 1}), broken, "the record before is not whole")
	require.ErrorIs(t, in.Commit(&kvdv1.ShardState{}), broken)
}

// TestIngestTables: no table of an ingest is large, of which Pebble would hold the index in memory until it is finished; nothing is lost
// or twice where one ends.
func TestIngestTables(t *testing.T) {
	fs := vfs.NewMem()
	s := openState(t, fs)
	in, err := s.NewIngest(1, spanB)
	require.NoError(t, err)
	random := rand.New(rand.NewPCG(3, 3))
	value := make([]byte, 256<<10)
	const n = 3*ingestTableBytes/(256<<10) + 1
	for i := range n {
		for j := range value {
			value[j] = byte(random.Uint32())
		}
		require.NoError(t, in.Put(fmt.Appendf(nil, "b%08d", i), kv.Record{Revision: kv.Revision(i), Value: value}))
	}
	require.NoError(t, in.(*pebbleIngest).data.finish())
	tables := in.(*pebbleIngest).files
	require.Len(t, tables, 4)
	for _, path := range tables {
		info, err := fs.Stat(path)
		require.NoError(t, err)
		require.Less(t, info.Size(), int64(ingestTableBytes+512<<10))
	}
	require.NoError(t, in.Commit(&kvdv1.ShardState{}))
	v, err := s.View(1, spanB)
	require.NoError(t, err)
	defer v.Close()
	it, err := v.Iter(spanB)
	require.NoError(t, err)
	next := 0
	for ; it.Next(); next++ {
		rec, err := it.Record()
		require.NoError(t, err)
		require.EqualValues(t, next, rec.Revision)
	}
	require.NoError(t, it.Close())
	require.Equal(t, n, next)
}

// BenchmarkIngest is what a shard of half a million records of 128 B takes to be written and installed, without expiries and with one
// for each.
func BenchmarkIngest(b *testing.B) {
	const n = 500_000
	value := make([]byte, 128)
	for name, expiring := range map[string]int64{"plain": 0, "expiring": 1} {
		b.Run(name, func(b *testing.B) {
			s, err := OpenState(options(b, vfs.Default, b.TempDir()))
			require.NoError(b, err)
			defer func() { require.NoError(b, s.Close()) }()
			rnd := rand.New(rand.NewPCG(1, 1))
			for b.Loop() {
				in, err := s.NewIngest(1, spanB)
				require.NoError(b, err)
				for i := range n {
					rec := kv.Record{Revision: 1, Value: value, ExpireAt: expiring * rnd.Int64()}
					require.NoError(b, in.Put(fmt.Appendf(nil, "b%015d", i), rec))
				}
				require.NoError(b, in.Commit(&kvdv1.ShardState{}))
			}
		})
	}
}
