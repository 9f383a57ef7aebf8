package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// What a disk may do to a store that it has synced: a flipped bit anywhere is found, or does no harm.

// damagedStore writes synced things into a store, and later looks for them.
type damagedStore struct {
	name string
	// fill writes n things, each synced, and leaves the store open.
	fill func(t *testing.T, fs vfs.FS, n int) (flush, close func() error)
	// read opens the store and reads how many there are, or what is wrong; everything it reads must be right.
	read func(t *testing.T, o Options) (int, error)
}

var damagedGroup = kv.Group{Shard: 1, Replica: 2}

func damagedEntry(i int) *raftpb.Entry {
	return &raftpb.Entry{Type: raftpb.EntryNormal.Enum(), Index: new(uint64(11 + i)), Term: new(uint64(5)), Data: fmt.Appendf(nil, "%0120d", i)}
}

var damagedStores = []damagedStore{
	{
		name: "log",
		fill: func(t *testing.T, fs vfs.FS, n int) (func() error, func() error) {
			l, err := OpenLog(options(t, fs, "store"))
			require.NoError(t, err)
			require.NoError(t, l.Write([]LogWrite{{Group: damagedGroup, Reset: &Point{Index: 10, Term: 5}}}, true))
			for i := range n {
				require.NoError(t, l.Write([]LogWrite{{Group: damagedGroup, Entries: []*raftpb.Entry{damagedEntry(i)}}}, true))
			}
			return l.db.Flush, l.Close
		},
		read: func(t *testing.T, o Options) (int, error) {
			l, err := OpenLog(o)
			if err != nil {
				return 0, err
			}
			defer l.Close()
			st, ok, err := l.Load(damagedGroup)
			require.NoError(t, err)
			if !ok {
				return -1, nil
			}
			require.Equal(t, Point{Index: 10, Term: 5}, st.Truncated)
			n := int(st.Last - 10)
			for i := range n {
				entries, err := l.Entries(damagedGroup, kv.Index(11+i), kv.Index(12+i), 1<<20)
				if err != nil {
					return 0, err
				}
				require.Equal(t, tell(damagedEntry(i)), tell(entries[0]))
			}
			return n, nil
		},
	},
	{
		name: "state",
		fill: func(t *testing.T, fs vfs.FS, n int) (func() error, func() error) {
			s, err := OpenState(options(t, fs, "store"))
			require.NoError(t, err)
			for i := range n {
				b := s.NewBatch()
				b.Put(fmt.Appendf(nil, "%04d", i), kv.Record{Value: fmt.Appendf(nil, "%01100d", i), Revision: kv.Revision(i)})
				b.PutShard(1, &kvdv1.ShardState{Replica: 1, AppliedIndex: uint64(i + 1)})
				_, err := s.Commit(b)
				require.NoError(t, err)
				_, err = s.Sync()
				require.NoError(t, err)
			}
			return s.db.Flush, s.Close
		},
		read: func(t *testing.T, o Options) (int, error) {
			s, err := OpenState(o)
			if err != nil {
				return 0, err
			}
			defer s.Close()
			shards, err := s.Shards()
			if err != nil {
				return 0, err
			}
			if len(shards) == 0 {
				return 0, nil
			}
			n := int(shards[0].State.AppliedIndex)
			for i := range n {
				rec, ok, err := s.Get(fmt.Appendf(nil, "%04d", i))
				if err != nil {
					return 0, err
				}
				require.True(t, ok, "key %d is gone without a word", i)
				require.Equal(t, fmt.Sprintf("%01100d", i), string(rec.Value))
			}
			return n, nil
		},
	},
}

// flipped gives a copy of a disk with a bit of a file flipped.
func flipped(t *testing.T, disk *vfs.MemFS, path string, at int64, bit uint8) vfs.FS {
	fs := disk.CrashClone(vfs.CrashCloneCfg{})
	f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	require.NoError(t, err)
	b[0] ^= 1 << bit
	_, err = f.WriteAt(b, at)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return fs
}

// count reads a store in a goroutine of its own, which ends where the store says Fatal, as the process would.
func (d damagedStore) count(t *testing.T, fs vfs.FS) (int, error) {
	type result struct {
		n   int
		err error
	}
	results := make(chan result, 2) // The store's word may come beside the reader's.
	o := options(t, fs, "store")
	o.Fatal = func(err error) { results <- result{0, err} }
	go func() {
		n, err := d.read(t, o)
		results <- result{n, err}
	}()
	r := <-results
	return r.n, r.err
}

func TestFlippedBits(t *testing.T) {
	const things, flips = 60, 60
	for _, d := range damagedStores {
		for _, state := range []string{"stopped", "killed", "flushed"} {
			t.Run(d.name+" "+state, func(t *testing.T) {
				disk := vfs.NewCrashableMem()
				flush, stop := d.fill(t, disk, things)
				least := things
				switch state {
				case "flushed":
					require.NoError(t, flush())
				case "stopped":
					require.NoError(t, stop())
				case "killed":
					least-- // Nothing stands behind the last write.
				}
				disk = disk.CrashClone(vfs.CrashCloneCfg{})
				if state != "stopped" {
					require.NoError(t, stop())
				}
				names, err := disk.List("store")
				require.NoError(t, err)
				r, found := rand.New(rand.NewPCG(1, 1)), 0
				for _, name := range names {
					path := "store/" + name
					info, err := disk.Stat(path)
					require.NoError(t, err)
					for range min(flips, int(info.Size())) {
						at, bit := r.Int64N(info.Size()), uint8(r.IntN(8))
						n, err := d.count(t, flipped(t, disk, path, at, bit))
						if err != nil {
							found++
							require.Regexp(t, "set (the data directory|it) aside|mend it|mismatch|checksum|corrupt|options", err.Error())
							continue
						}
						require.GreaterOrEqual(t, n, least, "bit %d of byte %d of %s took away what was synced, without a word", bit, at, name)
					}
				}
				require.Greater(t, found, flips/2)
			})
		}
	}
}

// TestOlderFormat: a store that was made in an older format of Pebble's is brought to the newest before anything goes into
// it: the log that it began in the older one says nothing of what was synced.
func TestOlderFormat(t *testing.T) {
	for _, d := range damagedStores {
		t.Run(d.name, func(t *testing.T) {
			disk := vfs.NewCrashableMem()
			require.NoError(t, disk.MkdirAll("store", 0o755))
			db, err := pebble.Open("store", &pebble.Options{FS: disk, FormatMajorVersion: pebble.FormatMinSupported, Logger: &fatalLogger{}})
			require.NoError(t, err)
			require.NoError(t, db.Set([]byte("w"), make([]byte, 40<<10), pebble.Sync))
			require.NoError(t, db.Close())

			_, stop := d.fill(t, disk, 30)
			disk = disk.CrashClone(vfs.CrashCloneCfg{})
			require.NoError(t, stop())
			name, size := newestLog(t, disk)
			_, err = d.count(t, flipped(t, disk, name, size/2, 0))
			require.ErrorIs(t, err, ErrDamaged)
		})
	}
}

func newestLog(t *testing.T, fs vfs.FS) (path string, size int64) {
	names, err := fs.List("store")
	require.NoError(t, err)
	for _, name := range names {
		if strings.HasSuffix(name, ".log") && "store/"+name > path {
			info, err := fs.Stat("store/" + name)
			require.NoError(t, err)
			path, size = "store/"+name, info.Size()
		}
	}
	require.NotEmpty(t, path)
	return path, size
}

// TestTornTail: a log that ends anywhere after what was synced, or that holds rubbish there, is no damage: it is opened,
// and holds a beginning of what was written.
func TestTornTail(t *testing.T) {
	for _, d := range damagedStores {
		t.Run(d.name, func(t *testing.T) {
			const things = 60
			disk := vfs.NewCrashableMem()
			_, stop := d.fill(t, disk, things)
			path, size := newestLog(t, disk)
			whole := disk.CrashClone(vfs.CrashCloneCfg{})
			require.NoError(t, stop())
			r := rand.New(rand.NewPCG(1, 1))
			for range 150 {
				fs := whole.CrashClone(vfs.CrashCloneCfg{})
				cut := r.Int64N(size)
				rewrite(t, fs, path, func(b []byte) []byte {
					b = b[:cut]
					for range r.IntN(3) * r.IntN(200) { // Nothing, zeros, or rubbish.
						b = append(b, byte(r.IntN(256)*r.IntN(2)))
					}
					return b
				})
				n, err := d.count(t, fs)
				require.NoError(t, err, "cut at %d", cut)
				require.LessOrEqual(t, n, things)
			}
		})
	}
}

// rewrite changes the contents of a file.
func rewrite(t *testing.T, fs vfs.FS, path string, f func([]byte) []byte) {
	b, err := readFile(fs, path)
	require.NoError(t, err)
	w, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = w.Write(f(b))
	require.NoError(t, err)
	require.NoError(t, w.Sync())
	require.NoError(t, w.Close())
}

// TestUnsyncedRubbish: a place that does not check behind what was synced is where the log ended, also if whole chunks
// stand behind it: the disk may have written them first.
func TestUnsyncedRubbish(t *testing.T) {
	const synced, unsynced = 30, 600
	disk := vfs.NewCrashableMem()
	l, err := OpenLog(options(t, disk, "store"))
	require.NoError(t, err)
	require.NoError(t, l.Write([]LogWrite{{Group: damagedGroup, Reset: &Point{Index: 10, Term: 5}}}, true))
	for i := range synced {
		require.NoError(t, l.Write([]LogWrite{{Group: damagedGroup, Entries: []*raftpb.Entry{damagedEntry(i)}}}, true))
	}
	_, first := newestLog(t, disk)
	for i := range unsynced {
		require.NoError(t, l.Write([]LogWrite{{Group: damagedGroup, Entries: []*raftpb.Entry{damagedEntry(synced + i)}}}, false))
	}
	require.NoError(t, l.Write(nil, true)) // So that all stands in the file; this write is cut off again.
	path, end := newestLog(t, disk)
	whole := disk.CrashClone(vfs.CrashCloneCfg{})
	require.NoError(t, l.Close())
	end -= 64
	require.Greater(t, end-first, int64(2*walBlockBytes))

	r := rand.New(rand.NewPCG(1, 1))
	for range 60 {
		fs := whole.CrashClone(vfs.CrashCloneCfg{})
		at := first + r.Int64N(end-first)
		rewrite(t, fs, path, func(b []byte) []byte {
			b = b[:end]
			b[at] ^= 1 << r.IntN(8)
			return b
		})
		n, err := damagedStores[0].count(t, fs)
		require.NoError(t, err, "byte %d, synced were %d", at, first)
		require.GreaterOrEqual(t, n, synced)
	}
}

// TestDamagedValues: a file of separated values whose end does not check makes Pebble panic. Whatever reads a value from it
// says what to do, and stops.
func TestDamagedValues(t *testing.T) {
	long, group := make([]byte, 2*separateBytes), kv.Group{Shard: 1, Replica: 2}
	disk := vfs.NewCrashableMem()
	s, err := OpenState(options(t, disk, "state"))
	require.NoError(t, err)
	b := s.NewBatch()
	b.Put([]byte("k"), kv.Record{Value: long})
	b.PutShard(1, &kvdv1.ShardState{Meta: &kvdv1.MetaState{Settings: []*kvdv1.SettingValue{{Value: string(long)}}}})
	_, err = s.Commit(b)
	require.NoError(t, err)
	require.NoError(t, errors.Join(s.db.Flush(), s.Close()))
	l, err := OpenLog(options(t, disk, "log"))
	require.NoError(t, err)
	require.NoError(t, l.Write([]LogWrite{{Group: group, Entries: []*raftpb.Entry{
		{Type: raftpb.EntryNormal.Enum(), Index: new(uint64(1)), Term: new(uint64(1)), Data: long},
	}}}, true))
	require.NoError(t, errors.Join(l.db.Flush(), l.Close()))
	state := func(read func(s *PebbleState) error) func(o Options) error {
		return func(o Options) error {
			o.Dir = "state"
			s, err := OpenState(o)
			require.NoError(t, err)
			return read(s)
		}
	}
	first := func(r Reader) error {
		it, err := r.Iter(kv.Span{})
		require.NoError(t, err)
		require.True(t, it.Next())
		_, err = it.Record()
		return err
	}
	for name, read := range map[string]func(o Options) error{
		"a key":   state(func(s *PebbleState) error { _, _, err := s.Get([]byte("k")); return err }),
		"a walk":  state(func(s *PebbleState) error { return first(s) }),
		"shards":  state(func(s *PebbleState) error { _, err := s.Shards(); return err }),
		"a shard": state(func(s *PebbleState) error { _, err := s.View(1, kv.Span{}); return err }),
		"a view": state(func(s *PebbleState) error {
			return readView(s, func(v View) error { _, _, err := v.Get([]byte("k")); return err })
		}),
		"its walk": state(func(s *PebbleState) error { return readView(s, func(v View) error { return first(v) }) }),
		"entries": func(o Options) error {
			o.Dir = "log"
			l, err := OpenLog(o)
			require.NoError(t, err)
			_, err = l.Entries(group, 1, 2, 1<<20)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			fatal, done := make(chan error, 1), make(chan error, 1)
			o := options(t, withDamagedValues(t, disk), "")
			o.Fatal = func(err error) { fatal <- err }
			go func() { done <- read(o) }()
			select {
			case err := <-fatal:
				require.ErrorIs(t, err, ErrDamaged)
				require.ErrorContains(t, err, "set the data directory aside")
			case err := <-done:
				require.Fail(t, "the read came back", "%v", err)
			}
		})
	}
}

// withDamagedValues gives a copy of a disk on which no file of separated values ends as it should.
func withDamagedValues(t *testing.T, disk *vfs.MemFS) vfs.FS {
	fs := disk.CrashClone(vfs.CrashCloneCfg{})
	for _, dir := range []string{"state", "log"} {
		names, err := fs.List(dir)
		require.NoError(t, err)
		files := 0
		for _, name := range names {
			if strings.HasSuffix(name, ".blob") {
				files++
				rewrite(t, fs, dir+"/"+name, func(b []byte) []byte {
					b[len(b)-1] ^= 1
					return b
				})
			}
		}
		require.Positive(t, files)
	}
	return fs
}

func readView(s *PebbleState, read func(View) error) error {
	v, err := s.View(2, kv.Span{})
	if err != nil {
		return err
	}
	return read(v)
}

// TestMarkAcrossBlocks: a mark that two chunks hold counts: the last batch that was durable has one, what came after it is
// torn, and the disk has written what stands behind that.
func TestMarkAcrossBlocks(t *testing.T) {
	chunk := func(encoding byte, payload []byte) []byte {
		c := make([]byte, walHeaderBytes, walHeaderBytes+len(payload))
		binary.LittleEndian.PutUint16(c[4:], uint16(len(payload)))
		c[6] = encoding
		binary.LittleEndian.PutUint32(c[7:], 7)
		c = append(c, payload...)
		binary.LittleEndian.PutUint32(c, walSum(c[6:]))
		return c
	}
	batch := func(size int, own, durable uint64) []byte {
		b := append(make([]byte, size), markMagic...)
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, own), durable)
	}
	const full, first, middle, last = walSyncFirst, walSyncFirst + 1, walSyncFirst + 2, walSyncLast
	torn := bytes.Repeat([]byte{0xff}, 100)
	for _, split := range []int{0, 1, markBytes / 2, markBytes - 1} { // So much of the mark is in the last chunk.
		for blocks := 1; blocks <= 2; blocks++ {
			log := chunk(full, batch(100, 1, 0))
			here, whole := walBlockBytes-len(log)-walHeaderBytes, walBlockBytes-walHeaderBytes
			rest := batch(here+(blocks-1)*whole+split-markBytes, 2, 1)
			log, rest = append(log, chunk(first, rest[:here])...), rest[here:]
			for range blocks - 1 {
				log, rest = append(log, chunk(middle, rest[:whole])...), rest[whole:]
			}
			require.Len(t, log, blocks*walBlockBytes)
			log = append(log, chunk(last, rest)...)
			log = append(append(log, torn...), chunk(full, batch(100, 4, 2))...)
			require.NoError(t, checkLog(bytes.NewReader(log), 7), "%d bytes, %d blocks", split, blocks)
			log = append(log, chunk(full, batch(100, 5, 4))...)
			require.ErrorIs(t, checkLog(bytes.NewReader(log), 7), ErrDamaged)
		}
	}
}
