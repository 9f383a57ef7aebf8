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
		require.True(t, s.empty())
		rnd := rand.New(rand.NewPCG(1, uint64(n)))
		for _, i := range rnd.Perm(n) {
			require.NoError(t, s.add(sortedKey(uint64(i))))
			require.False(t, s.empty())
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

// TestKeySorterMergesInBetween: with far more keys than memory holds few files are open at a time, each key is written no more often
// than the number of its digits to the base of the files that are merged at once, and all come back in their order.
func TestKeySorterMergesInBetween(t *testing.T) {
	const fits, runsMax = sorterBytesMax/(sortedKeyBytes+sorterKeyBytes) + 1, 3
	for _, spills := range []int{2, 3, 8, 9, 10, 26, 27, 29} {
		fs := &countedFS{FS: vfs.NewMem()}
		s := newKeySorter(fs, "sorted", sstable.WriterOptions{})
		s.runsMax = runsMax
		rnd := rand.New(rand.NewPCG(2, uint64(spills)))
		n := spills*fits + 5
		for _, i := range rnd.Perm(n) {
			require.NoError(t, s.add(sortedKey(uint64(i))))
		}
		want := []int{} // How often what lies there was merged: the digits of how often memory was full.
		for digit, power := 3, 27; digit >= 0; digit, power = digit-1, power/runsMax {
			for range spills / power % runsMax {
				want = append(want, digit)
			}
		}
		got := []int{}
		for _, run := range s.runs {
			got = append(got, run.merge)
		}
		require.Equal(t, want, got)
		names, err := fs.List("")
		require.NoError(t, err)
		require.Len(t, names, len(want))
		next := uint64(0)
		require.NoError(t, s.each(func(key, _ []byte) error {
			if !bytes.Equal(sortedKey(next), key) {
				return fmt.Errorf("%x comes instead of key %d", key, next)
			}
			next++
			return nil
		}))
		require.EqualValues(t, n, next)
		require.LessOrEqual(t, fs.most, max(runsMax, len(want))+1)
		s.close()
		require.Zero(t, fs.open)
		require.Zero(t, fs.syncs)
		names, err = fs.List("")
		require.NoError(t, err)
		require.Empty(t, names)
	}
}

// TestKeySorterFails: a disk that fails, and whoever takes the keys, end it with their error; whatever is open is closed.
func TestKeySorterFails(t *testing.T) {
	broken := errors.New("broken")
	ops := 0
	for failing := 0; ; failing += 1 + failing/8 {
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
		s := newKeySorter(fs, "sorted", sstable.WriterOptions{})
		s.runsMax = 2
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
	require.Greater(t, ops, 20)

	mem := &countedFS{FS: vfs.NewMem()}
	s := newKeySorter(mem, "sorted", sstable.WriterOptions{})
	for i := range uint64(2 * sorterBytesMax / sortedKeyBytes) {
		require.NoError(t, s.add(sortedKey(i)))
	}
	require.ErrorIs(t, s.each(func([]byte, []byte) error { return broken }), broken)
	require.Zero(t, mem.open)
	s.close()
}

// countedFS counts the files that are open, and the syncs.
type countedFS struct {
	vfs.FS
	open, most, syncs int
}

func (fs *countedFS) count(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return f, err
	}
	fs.open++
	fs.most = max(fs.most, fs.open)
	return &countedFile{f, fs}, nil
}

func (fs *countedFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.count(fs.FS.Create(name, category))
}

func (fs *countedFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	return fs.count(fs.FS.Open(name, opts...))
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
	for i := range uint64(3 * sorterBytesMax / sortedKeyBytes) {
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
		if op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, "x0"+ingestSuffix) {
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
