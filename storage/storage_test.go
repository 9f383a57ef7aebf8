package storage

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

func options(t testing.TB, fs vfs.FS, dir string) Options {
	cache := pebble.NewCache(8 << 20)
	t.Cleanup(cache.Unref)
	return Options{
		Dir: dir, FS: fs, Cache: cache, MemtableBytes: 1 << 20, HeadBytes: 4 * bucketBytes, Logger: slog.New(slog.DiscardHandler),
		Fatal: func(err error) { panic(err) },
	}
}

// draw makes the same choices for every engine.
type draw struct{ *rand.Rand }

func (d draw) key() []byte { return fmt.Appendf(nil, "%c%d", 'a'+d.IntN(3), d.IntN(20)) }

func (d draw) record() kv.Record {
	rec := kv.Record{Value: make([]byte, d.IntN(40)), Revision: kv.Revision(d.IntN(1000))}
	for i := range rec.Value {
		rec.Value[i] = byte(d.IntN(256))
	}
	if d.IntN(3) == 0 {
		rec.ExpireAt = d.Int64N(1000)
	}
	return rec
}

func (d draw) fill(b Batch) {
	for range d.IntN(8) {
		key, rec := d.key(), d.record()
		switch d.IntN(4) {
		case 0:
			b.Delete(key)
		case 1:
			b.PutDue(kv.Due{ExpireAt: rec.ExpireAt, Key: key})
		case 2:
			b.DeleteDue(kv.Due{ExpireAt: rec.ExpireAt, Key: key})
		default:
			b.Put(key, rec)
		}
	}
	shard := kv.ShardID(d.IntN(3))
	b.PutShard(shard, &kvdv1.ShardState{Replica: 1, AppliedIndex: d.Uint64N(1000)})
}

// ingest replaces the data of the keys that begin with b, or begins to.
func (d draw) ingest(t *testing.T, s State) (done bool) {
	in, err := s.NewIngest(1, kv.Span{Start: []byte("b"), End: []byte("c")})
	require.NoError(t, err)
	for i := range 10 {
		if d.IntN(2) == 0 {
			rec := d.record()
			require.NoError(t, in.Put(fmt.Appendf(nil, "b%d", i), rec))
		}
	}
	if d.IntN(4) == 0 {
		in.Abort()
		return false
	}
	require.NoError(t, in.Commit(&kvdv1.ShardState{Replica: 2, AppliedIndex: d.Uint64N(1000)}))
	require.ErrorIs(t, in.Commit(nil), ErrClosed)
	return true
}

func hashOf(t testing.TB, s State) uint64 {
	h, err := hashState(s)
	require.NoError(t, err)
	return h
}

// TestStatesAgree does the same to both engines, with crashes: after one, the store is at a cut that is no earlier than
// the last one known to be durable (T2), and an ingest is there whole or not at all.
func TestStatesAgree(t *testing.T) {
	for seed := range uint64(25) {
		fs := vfs.NewCrashableMem()
		open := func() *PebbleState {
			s, err := OpenState(options(t, fs, "state"))
			require.NoError(t, err)
			return s
		}
		disk, mem := open(), NewMemState()
		d := draw{rand.New(rand.NewPCG(seed, 1))}
		cuts := []uint64{hashOf(t, mem)} // Since the last durable one.
		for range 60 {
			switch choice := d.IntN(12); {
			case choice < 7:
				again := d.Uint64()
				a, b := disk.NewBatch(), mem.NewBatch()
				draw{rand.New(rand.NewPCG(again, 2))}.fill(a)
				draw{rand.New(rand.NewPCG(again, 2))}.fill(b)
				x, err := disk.Commit(a)
				require.NoError(t, err)
				y, err := mem.Commit(b)
				require.NoError(t, err)
				require.Equal(t, y, x)
				cuts = append(cuts, hashOf(t, mem))
			case choice < 8:
				_, err := disk.Sync()
				require.NoError(t, err)
				_, err = mem.Sync()
				require.NoError(t, err)
				require.Equal(t, mem.Durable(), disk.Durable())
				cuts = cuts[len(cuts)-1:]
			case choice < 9:
				again := d.Uint64()
				draw{rand.New(rand.NewPCG(again, 2))}.ingest(t, disk)
				if (draw{rand.New(rand.NewPCG(again, 2))}).ingest(t, mem) {
					cuts = []uint64{hashOf(t, mem)}
				}
			case choice < 10:
				crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(seed, 3))})
				require.NoError(t, disk.Close())
				fs = crashed
				disk = open()
				now := hashOf(t, disk)
				kept := -1
				for i, cut := range cuts {
					if cut == now {
						kept = i
					}
				}
				require.GreaterOrEqual(t, kept, 0, "seed %d: the crash left no cut", seed)
				require.NoError(t, mem.Crash(func(int) int { return kept }))
				cuts = []uint64{now}
			default:
				same(t, d, disk, mem)
			}
			require.Equal(t, hashOf(t, mem), hashOf(t, disk), "seed %d", seed)
		}
		require.NoError(t, disk.Close())
	}
}

// same compares what readers see.
func same(t *testing.T, d draw, a, b State) {
	from, n, time := kv.Due{ExpireAt: d.Int64N(1000), Key: d.key()}, d.IntN(10), d.Int64N(1000)
	var lists [2][]kv.Due
	var lasts [2]kv.Due
	var alls [2]bool
	span := kv.Span{Start: d.key(), End: d.key()}
	seek := d.key()
	var walks [2][]string
	for i, s := range []State{a, b} {
		var err error
		lasts[i], alls[i], err = s.Due(from, time, n, func(x kv.Due) bool { lists[i] = append(lists[i], x); return len(lists[i]) < 6 })
		require.NoError(t, err)
		v, err := s.View(1, span)
		require.NoError(t, err)
		it, err := v.Iter(kv.Span{})
		require.NoError(t, err)
		for ok := it.Seek(seek); ok; ok = it.Next() {
			rec, err := it.Record()
			require.NoError(t, err)
			walks[i] = append(walks[i], fmt.Sprintf("%s=%x@%d", it.Key(), rec.Value, rec.Revision))
		}
		require.NoError(t, it.Close())
		require.NoError(t, v.Close())
	}
	require.Equal(t, lists[1], lists[0])
	require.Equal(t, lasts[1].ExpireAt, lasts[0].ExpireAt)
	require.Equal(t, alls[1], alls[0])
	require.Equal(t, walks[1], walks[0])
}

func (d draw) writes(logs map[kv.Group]LogState) []LogWrite {
	var list []LogWrite
	for range 1 + d.IntN(3) {
		id := kv.Group{Shard: kv.ShardID(d.IntN(3)), Replica: 1}
		st := logs[id]
		w := LogWrite{Group: id}
		switch d.IntN(10) {
		case 0:
			w.Remove = true
			st = LogState{}
		case 1:
			w.Reset = &Point{Index: kv.Index(10 + d.IntN(20)), Term: 5}
			st = LogState{Hard: st.Hard, Truncated: *w.Reset, Last: w.Reset.Index}
		case 2:
			if st.Last > st.Truncated.Index {
				w.Truncate = &Point{Index: st.Truncated.Index + 1 + kv.Index(d.IntN(int(st.Last-st.Truncated.Index))), Term: 6}
				st.Truncated = *w.Truncate
			}
		}
		if d.IntN(4) > 0 {
			first := st.Truncated.Index + 1 + kv.Index(d.IntN(int(st.Last-st.Truncated.Index)+1))
			for i := range kv.Index(1 + d.IntN(4)) {
				w.Entries = append(w.Entries, &raftpb.Entry{
					Type: raftpb.EntryNormal.Enum(), Index: new(uint64(first + i)), Term: new(uint64(7)), Data: d.record().Value,
				})
				st.Last = first + i
			}
		}
		if d.IntN(2) == 0 {
			w.Hard = &HardState{Term: kv.Term(d.IntN(9)), Vote: 1, Commit: kv.Index(d.IntN(30))}
			st.Hard = *w.Hard
		}
		logs[id] = st
		list = append(list, w)
	}
	return list
}

// TestLogsAgree does the same to both engines, with crashes: what was synced is there after one.
func TestLogsAgree(t *testing.T) {
	for seed := range uint64(25) {
		fs := vfs.NewCrashableMem()
		open := func() *PebbleLog {
			l, err := OpenLog(options(t, fs, "log"))
			require.NoError(t, err)
			return l
		}
		disk, mem := open(), NewMemLog()
		d := draw{rand.New(rand.NewPCG(seed, 1))}
		hash := func(l Log) uint64 {
			h, err := hashLog(l)
			require.NoError(t, err)
			return h
		}
		cuts := []uint64{hash(mem)}
		for range 80 {
			if d.IntN(10) == 0 {
				crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(seed, 3))})
				require.NoError(t, disk.Close())
				fs = crashed
				disk = open()
				now, kept := hash(disk), -1
				for i, cut := range cuts {
					if cut == now {
						kept = i
					}
				}
				require.GreaterOrEqual(t, kept, 0, "seed %d: the crash left no cut", seed)
				require.NoError(t, mem.Crash(func(int) int { return kept }))
				cuts = []uint64{now}
			} else {
				logs := map[kv.Group]LogState{}
				groups, err := mem.Groups()
				require.NoError(t, err)
				for _, id := range groups {
					logs[id], _, _ = mem.Load(id)
				}
				writes, sync := d.writes(logs), d.IntN(3) == 0
				require.NoError(t, disk.Write(writes, sync))
				require.NoError(t, mem.Write(writes, sync))
				if cuts = append(cuts, hash(mem)); sync {
					cuts = cuts[len(cuts)-1:]
				}
			}
			require.Equal(t, hash(mem), hash(disk), "seed %d", seed)
		}
		require.NoError(t, disk.Close())
	}
}

// TestLogRefusesGaps: neither engine takes entries that leave a gap, or gives out entries that it does not hold.
func TestLogRefusesGaps(t *testing.T) {
	disk, err := OpenLog(options(t, vfs.NewMem(), "log"))
	require.NoError(t, err)
	id := kv.Group{Shard: 1, Replica: 2}
	for _, l := range []Log{disk, NewMemLog()} {
		at := func(indexes ...uint64) []LogWrite {
			w := LogWrite{Group: id}
			for _, i := range indexes {
				w.Entries = append(w.Entries, &raftpb.Entry{Type: raftpb.EntryNormal.Enum(), Index: new(i), Term: new(uint64(1)), Data: []byte("x")})
			}
			return []LogWrite{w}
		}
		require.NoError(t, l.Write([]LogWrite{{Group: id, Reset: &Point{Index: 10, Term: 5}}}, true))
		require.NoError(t, l.Write(at(11, 12, 13), true))
		for _, bad := range [][]LogWrite{at(15), at(10), at(14, 16), {{Group: id, Truncate: &Point{Index: 14, Term: 1}}}} {
			require.Error(t, l.Write(bad, true))
		}
		for _, r := range [][2]kv.Index{{10, 12}, {12, 15}, {14, 15}, {12, 12}} {
			_, err := l.Entries(id, r[0], r[1], 1<<20)
			require.Error(t, err, "%v", r)
		}
		entries, err := l.Entries(id, 11, 14, 1)
		require.NoError(t, err)
		require.Len(t, entries, 1)
		require.NoError(t, l.Close())
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(appendRecord(nil, kv.Record{Value: []byte("v"), Revision: 7, ExpireAt: 9}))
	f.Add(appendLogState(nil, LogState{Hard: HardState{Term: 1, Vote: 2, Commit: 3}, Truncated: Point{4, 5}}))
	f.Add(appendEntry(nil, &raftpb.Entry{Type: raftpb.EntryNormal.Enum(), Term: new(uint64(3)), Data: []byte("x")}))
	store, err := encodeStore(storeFormat, &kvdv1.StoreRecord{StoreId: 7, Life: 3})
	require.NoError(f, err)
	f.Add(store)
	f.Fuzz(func(t *testing.T, b []byte) {
		if rec, err := decodeStore(b); err == nil {
			again, err := encodeStore(b[0], rec)
			require.NoError(t, err)
			rec2, err := decodeStore(again)
			require.NoError(t, err)
			require.True(t, proto.Equal(rec, rec2))
		}
		if rec, err := decodeRecord(b); err == nil {
			again, err := decodeRecord(appendRecord(nil, rec))
			require.NoError(t, err)
			require.Equal(t, rec, again)
		}
		if e, err := decodeEntry(5, b); err == nil {
			again, err := decodeEntry(5, appendEntry(nil, e))
			require.NoError(t, err)
			require.Equal(t, e.GetTerm(), again.GetTerm())
		}
		if st, err := decodeLogState(b); err == nil {
			require.Equal(t, b, appendLogState(nil, st))
		}
		_, _ = decodeShard(b)
	})
}

// FuzzLog: whatever a log of Pebble's holds, the walk through it ends; it is damaged only if something behind the first
// place that does not check says so, and never when everything checks.
func FuzzLog(f *testing.F) {
	mark := func(own, durable byte) []byte {
		b := append([]byte("payload"), markMagic...)
		return append(b, 0, 0, 0, 0, 0, 0, 0, own, 0, 0, 0, 0, 0, 0, 0, durable)
	}
	f.Add(mark(1, 0), mark(2, 1), mark(3, 2), -1, byte(walSyncFirst), 0)
	f.Add(mark(1, 0), mark(2, 1), mark(3, 2), 40, byte(walSyncFirst), 0)
	f.Add(mark(1, 0), mark(2, 1), mark(3, 1), 80, byte(walSyncLast), walBlockBytes)
	f.Add(mark(1, 0), mark(2, 1), mark(3, 2), 8*5+7, byte(walSyncFirst), 0) // A length beyond the end.
	f.Add([]byte{}, mark(2, 9), []byte("x"), 3, byte(walOldFirst), walBlockBytes-20)
	f.Fuzz(func(t *testing.T, a, b, c []byte, flip int, encoding byte, gap int) {
		var log []byte
		for _, payload := range [][]byte{a, b, c} {
			if len(payload) > 1<<12 {
				return
			}
			chunk := make([]byte, walHeaderBytes, walHeaderBytes+len(payload))
			binary.LittleEndian.PutUint16(chunk[4:], uint16(len(payload)))
			chunk[6] = encoding
			binary.LittleEndian.PutUint32(chunk[7:], 7)
			chunk = append(chunk, payload...)
			binary.LittleEndian.PutUint32(chunk, walSum(chunk[6:]))
			log = append(append(log, chunk...), make([]byte, max(0, gap%(2*walBlockBytes)))...)
		}
		whole := gap <= 0 && encoding >= walSyncFirst && encoding <= walSyncLast
		if flip >= 0 && flip < 8*len(log) {
			log[flip/8] ^= 1 << (flip % 8)
			whole = false
		}
		err := checkLog(bytes.NewReader(log), 7)
		if whole {
			require.NoError(t, err)
		}
		if err != nil {
			require.ErrorIs(t, err, ErrDamaged)
		}
	})
}

func BenchmarkStateCommit(b *testing.B) {
	s, err := OpenState(options(b, vfs.NewMem(), "state"))
	require.NoError(b, err)
	defer s.Close()
	value := make([]byte, 128)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		batch := s.NewBatch()
		for range 16 {
			i++
			batch.Put(fmt.Appendf(nil, "key%08d", i%100_000), kv.Record{Value: value, Revision: 1})
		}
		if _, err := s.Commit(batch); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStateGet(b *testing.B) {
	s, err := OpenState(options(b, vfs.NewMem(), "state"))
	require.NoError(b, err)
	defer s.Close()
	batch := s.NewBatch()
	for i := range 10_000 {
		batch.Put(fmt.Appendf(nil, "key%08d", i), kv.Record{Value: make([]byte, 128), Revision: 1})
	}
	_, err = s.Commit(batch)
	require.NoError(b, err)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		if _, ok, err := s.Get(fmt.Appendf(nil, "key%08d", i%10_000)); err != nil || !ok {
			b.Fatal(err)
		}
	}
}

// TestSyncsCounted: the metric counts synced writes, and no others.
func TestSyncsCounted(t *testing.T) {
	l, err := OpenLog(options(t, vfs.NewMem(), "log"))
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	id := kv.Group{Shard: 1, Replica: 2}
	require.NoError(t, l.Write([]LogWrite{{Group: id, Reset: &Point{Index: 10, Term: 5}}}, true))
	const n = 50
	write := func(sync bool) float64 {
		before := l.Metrics().Syncs
		for i := range n {
			require.NoError(t, l.Write([]LogWrite{{Group: id, Reset: &Point{Index: kv.Index(11 + i), Term: 5}}}, sync))
		}
		return float64(l.Metrics().Syncs - before)
	}
	// Pebble counts a sync after it has told of it: the last one may not be counted yet.
	require.InDelta(t, n, write(true), 1)
	require.InDelta(t, 0, write(false), 1)
}
