package backup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/snapshot/pairs"
)

type item struct {
	key, value string
	expireAt   int64
}

// part is one of a backup that is to be written.
type part struct {
	start, end string
	items      []item
}

func header() *kvdv1.BackupHeader {
	return &kvdv1.BackupHeader{
		BackupId: 77, ClusterId: 5, BeganMs: 1000, Settings: []*kvdv1.SettingValue{{Name: "log-keep", Value: "100"}},
		Rules: []*kvdv1.Rule{{Prefix: []byte("eu/"), Regions: []string{"eu"}}},
	}
}

// put writes a part, in chunks of two pairs.
func put(w *Writer, p part) error {
	info := &kvdv1.ShardInfo{Revision: 9, Descriptor_: &kvdv1.Descriptor{Shard: 3, Epoch: &kvdv1.Epoch{Version: 2, Config: 1}}}
	if err := w.Begin(kv.Span{Start: []byte(p.start), End: []byte(p.end)}, info); err != nil {
		return err
	}
	sum := newSums()
	for i := 0; i < len(p.items); i += 2 {
		b := pairs.New(0)
		for _, x := range p.items[i:min(i+2, len(p.items))] {
			b = pairs.Append(b, []byte(x.key), kv.Record{Value: []byte(x.value), Revision: 4, ExpireAt: x.expireAt})
		}
		sum.add(xxhash.Sum64(b))
		if err := w.Pairs(b, xxhash.Sum64(b)); err != nil {
			return err
		}
	}
	return w.End(uint64(len(p.items)), sum.Sum64())
}

func write(t require.TestingT, path string, parts []part) {
	w, err := Create(path, header())
	require.NoError(t, err)
	for _, p := range parts {
		require.NoError(t, put(w, p))
	}
	require.NoError(t, w.Close())
}

// read gives everything that a backup holds.
func read(path string) (h *kvdv1.BackupHeader, items []item, totals Totals, err error) {
	totals, err = Read(path, Visitor{
		Header: func(x *kvdv1.BackupHeader) error { h = x; return nil },
		Pair: func(key []byte, rec kv.Record) error {
			items = append(items, item{string(key), string(rec.Value), rec.ExpireAt})
			return nil
		},
	})
	return h, items, totals, err
}

var sample = []part{
	{"", "c", []item{{"a", "1", 0}, {"b", "2", 99}, {"bb", "", 0}}}, {"c", "m", nil}, {"m", "", []item{{"m", "3", 0}, {"z", "4", 0}}},
}

func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-d]{1,3}`), 1, 12, rapid.ID).Draw(t, "keys")
		cuts := map[string]bool{}
		for _, c := range rapid.SliceOfN(rapid.StringMatching(`[a-d]{1,2}`), 0, 4).Draw(t, "cuts") {
			cuts[c] = true
		}
		parts, want := partsOf(keys, cuts)
		for _, path := range []string{filepath.Join(dir, "file"), filepath.Join(dir, "dir") + "/"} {
			write(t, path, parts)
			h, items, totals, err := read(path)
			require.NoError(t, err)
			require.EqualValues(t, 77, h.GetBackupId())
			require.Equal(t, "log-keep", h.GetSettings()[0].GetName())
			require.Equal(t, want, items)
			require.EqualValues(t, len(parts), totals.Parts)
			require.EqualValues(t, len(want), totals.Keys)
			require.NoError(t, os.RemoveAll(path))
		}
	})
}

// partsOf deals keys out to the parts between cuts.
func partsOf(keys []string, cuts map[string]bool) (parts []part, all []item) {
	bounds := append([]string{""}, sorted(cuts)...)
	set := map[string]bool{}
	for _, k := range keys {
		set[k] = true
	}
	for i, start := range bounds {
		p := part{start: start}
		if i+1 < len(bounds) {
			p.end = bounds[i+1]
		}
		for _, k := range sorted(set) {
			if k >= start && (p.end == "" || k < p.end) {
				p.items = append(p.items, item{k, "v" + k, int64(len(k))})
			}
		}
		parts, all = append(parts, p), append(all, p.items...)
	}
	return parts, all
}

func sorted(set map[string]bool) []string {
	var list []string
	for k := range set {
		list = append(list, k)
	}
	for i := range list {
		for j := i; j > 0 && list[j] < list[j-1]; j-- {
			list[j], list[j-1] = list[j-1], list[j]
		}
	}
	return list
}

// TestDamage: whichever byte of whichever file is changed, wherever a file is cut, and whatever is added to it, it is
// told, with the name of the file.
func TestDamage(t *testing.T) {
	for _, path := range []string{filepath.Join(t.TempDir(), "file"), t.TempDir()} {
		write(t, path, sample)
		_, _, _, err := read(path)
		require.NoError(t, err)
		names := []string{path}
		if info, _ := os.Stat(path); info.IsDir() {
			names, _ = filepath.Glob(filepath.Join(path, "*"))
			require.Len(t, names, 4)
		}
		for _, name := range names {
			whole, err := os.ReadFile(name)
			require.NoError(t, err)
			check := func(what string, b []byte) {
				require.NoError(t, os.WriteFile(name, b, 0o600))
				_, _, _, err := read(path)
				invalid := (*kv.InvalidError)(nil)
				require.ErrorAs(t, err, &invalid, "%s: %s", name, what)
				require.Equal(t, name, invalid.Field, what)
			}
			for i := range whole {
				b := bytes.Clone(whole)
				b[i] ^= 1 << (i % 8)
				check("a bit was flipped", b)
				check("it was cut", whole[:i])
			}
			check("something follows", append(bytes.Clone(whole), 0))
			require.NoError(t, os.Remove(name))
			_, _, _, err = read(path)
			require.Error(t, err)
			if name != path {
				require.ErrorContains(t, err, name+": there")
			}
			require.NoError(t, os.WriteFile(name, whole, 0o600))
		}
		_, _, _, err = read(path)
		require.NoError(t, err)
	}
}

// TestForeignFiles: a part's file in another one's place, or of another backup.
func TestForeignFiles(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	write(t, dir, sample)
	w, err := Create(other, &kvdv1.BackupHeader{BackupId: 78})
	require.NoError(t, err)
	for _, p := range sample {
		require.NoError(t, put(w, p))
	}
	require.NoError(t, w.Close())
	first, second := filepath.Join(dir, "part-000001"), filepath.Join(dir, "part-000002")
	whole, err := os.ReadFile(first)
	require.NoError(t, err)
	swapped, err := os.ReadFile(second)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(first, swapped, 0o600))
	_, _, _, err = read(dir)
	require.ErrorContains(t, err, first+": an undamaged file: it holds another part than MANIFEST says")
	foreign, err := os.ReadFile(filepath.Join(other, "part-000001"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(first, foreign, 0o600))
	_, _, _, err = read(dir)
	require.ErrorContains(t, err, first+": an undamaged file: it belongs to another backup")
	require.NoError(t, os.WriteFile(first, whole, 0o600))
	_, _, _, err = read(dir)
	require.NoError(t, err)
}

// TestSplicedHeader: a whole header in another one's place is found, though nothing is wrong with it.
func TestSplicedHeader(t *testing.T) {
	a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	write(t, a, sample)
	w, err := Create(b, &kvdv1.BackupHeader{BackupId: 77})
	require.NoError(t, err)
	for _, p := range sample {
		require.NoError(t, put(w, p))
	}
	require.NoError(t, w.Close())
	read1, err := os.ReadFile(a)
	require.NoError(t, err)
	read2, err := os.ReadFile(b)
	require.NoError(t, err)
	body := func(b []byte) int {
		const head = len(magic) + 1
		return head + recordHead + int(binary.BigEndian.Uint32(b[head+1:])) + recordSum
	}
	require.NoError(t, os.WriteFile(a, append(read2[:body(read2):body(read2)], read1[body(read1):]...), 0o600))
	_, _, _, err = read(a)
	require.ErrorContains(t, err, a+": an undamaged file: a record is missing, or in the wrong place")
}

// TestAbort: a part that is begun anew leaves nothing of its first try.
func TestAbort(t *testing.T) {
	for _, path := range []string{filepath.Join(t.TempDir(), "file"), t.TempDir()} {
		w, err := Create(path, header())
		require.NoError(t, err)
		require.NoError(t, put(w, sample[0]))
		b := pairs.Append(pairs.New(0), []byte("d"), kv.Record{Value: make([]byte, kv.ValueBytesMax)}) // It leaves the buffer.
		require.NoError(t, w.Begin(kv.Span{Start: []byte("c"), End: []byte("m")}, &kvdv1.ShardInfo{}))
		require.NoError(t, w.Pairs(b, xxhash.Sum64(b)))
		require.NoError(t, w.Abort())
		require.NoError(t, put(w, sample[1]))
		require.Error(t, w.Close(), "the last part is missing")
		require.NoError(t, put(w, sample[2]))
		require.Error(t, put(w, sample[2]), "it follows the end of the keys")
		require.NoError(t, w.Close())
		_, items, totals, err := read(path)
		require.NoError(t, err)
		require.Equal(t, append(append([]item(nil), sample[0].items...), sample[2].items...), items)
		require.EqualValues(t, 3, totals.Parts)
	}
}

// TestWhatIsRefused: parts that leave a gap, keys outside of their part or out of order, counts that differ.
func TestWhatIsRefused(t *testing.T) {
	for name, p := range map[string]part{
		"a gap": {"b", "", nil}, "out of order": {"", "", []item{{"b", "", 0}, {"a", "", 0}}}, "twice": {"", "", []item{{"b", "", 0}, {"b", "", 0}}},
		"outside": {"", "a", []item{{"b", "", 0}}}, "no key": {"", "", []item{{"", "", 0}}},
	} {
		w, err := Create(filepath.Join(t.TempDir(), "file"), header())
		require.NoError(t, err)
		require.Error(t, put(w, p), name)
		require.NoError(t, w.Discard())
	}
	w, err := Create(filepath.Join(t.TempDir(), "file"), header())
	require.NoError(t, err)
	require.NoError(t, w.Begin(kv.Span{}, &kvdv1.ShardInfo{}))
	require.Error(t, w.End(1, newSums().Sum64()))
	require.Error(t, w.End(0, 1))
	require.NoError(t, w.Discard())
}

// TestPlaces: nothing is overwritten, and what was begun and is not complete goes away.
func TestPlaces(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	write(t, name, sample)
	_, err := Create(name, header())
	require.ErrorAs(t, err, new(*kv.InvalidError))
	_, err = Create(dir, header())
	require.ErrorAs(t, err, new(*kv.InvalidError))
	for _, path := range []string{filepath.Join(dir, "new") + "/", filepath.Join(dir, "new")} {
		w, err := Create(path, header())
		require.NoError(t, err)
		require.NoError(t, put(w, sample[0]))
		require.NoError(t, w.Begin(kv.Span{Start: []byte("c")}, &kvdv1.ShardInfo{}))
		require.NoError(t, w.Discard())
		_, err = os.Stat(path)
		require.True(t, errors.Is(err, os.ErrNotExist))
	}
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, list, 1)
}

// TestVisitorEnds: an error of the visitor ends the reading, and is what Read gives.
func TestVisitorEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, sample)
	_, err := Read(path, Visitor{Pair: func([]byte, kv.Record) error { return kv.ErrStopping }})
	require.ErrorIs(t, err, kv.ErrStopping)
	_, err = Read(path, Visitor{Part: func(p *kvdv1.BackupPart) error { return kv.ErrNoMap }})
	require.ErrorIs(t, err, kv.ErrNoMap)
}

// FuzzRead: whatever the bytes, they are a backup of which every key was read, in order, or are refused.
func FuzzRead(f *testing.F) {
	path := filepath.Join(f.TempDir(), "file")
	write(f, path, sample)
	whole, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add([]byte(magic + "\x01\x01\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		last, keys := "", uint64(0)
		r := &reader{visitor: Visitor{Pair: func(key []byte, _ kv.Record) error {
			if string(key) <= last {
				t.Fatalf("%q after %q", key, last)
			}
			last = string(key)
			keys++
			return nil
		}}}
		if err := r.read(bytes.NewReader(b), nil, nil); err == nil && (keys != r.totals.Keys || r.totals.Parts == 0) {
			t.Fatalf("%d keys were read of %v", keys, r.totals)
		}
	})
}

// FuzzRecords: the same of records whose checksums are right, in any order and with any payload.
func FuzzRecords(f *testing.F) {
	header, _ := header().MarshalVT()
	part, _ := (&kvdv1.BackupPart{Number: 1}).MarshalVT()
	body := pairs.Append(pairs.New(0), []byte("k"), kv.Record{Value: []byte("v")})
	sum := newSums()
	sum.add(xxhash.Sum64(body))
	end, _ := (&kvdv1.BackupPartEnd{Keys: 1, Bytes: 2, Checksum: sum.Sum64()}).MarshalVT()
	trailer, _ := (&kvdv1.BackupTrailer{Parts: 1, Keys: 1, Bytes: 2}).MarshalVT()
	f.Add([]byte{1, 2, 3, 4, 5}, header, part, body, end, trailer)
	f.Add([]byte{1, 2, 4, 5}, header, part, end, trailer, body)
	f.Add([]byte{1, 5}, header, trailer, body, end, part)
	f.Add([]byte{1, 2, 3, 3, 5}, header, part, body, body, trailer)
	f.Fuzz(func(t *testing.T, kinds, a, b, c, d, e []byte) {
		out := &bytes.Buffer{}
		out.WriteString(magic + "\x01")
		w := records{out: out, all: newSums()}
		for i, payload := range [][]byte{a, b, c, d, e} {
			if i >= len(kinds) {
				break
			}
			if x := (&kvdv1.BackupTrailer{}); kind(kinds[i]) == kindTrailer && x.UnmarshalVT(payload) == nil {
				x.Checksum = w.all.Sum64()
				payload, _ = x.MarshalVT()
			}
			require.NoError(t, w.write(kind(kinds[i]), payload))
		}
		last, keys := "", uint64(0)
		r := &reader{visitor: Visitor{Pair: func(key []byte, _ kv.Record) error {
			if string(key) <= last {
				t.Fatalf("%q after %q", key, last)
			}
			last = string(key)
			keys++
			return nil
		}}}
		if err := r.read(out, nil, nil); err == nil && (keys != r.totals.Keys || r.totals.Parts == 0) {
			t.Fatalf("%d keys were read of %v", keys, r.totals)
		}
	})
}
