package snapshot

import (
	"fmt"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/snapshot/pairs"
	"github.com/kvdstore/kvd/storage"
)

var span = kv.Span{Start: []byte("a"), End: []byte("z")}

// filled is a store with some keys, and the state that counts them.
func filled(t testing.TB, keys int) (*storage.MemState, *kvdv1.ShardState) {
	s, st := storage.NewMemState(), &kvdv1.ShardState{Keys: uint64(keys), AppliedIndex: 20}
	b := s.NewBatch()
	for i := range keys {
		key, rec := fmt.Appendf(nil, "k%05d", i), kv.Record{Value: make([]byte, i%50), Revision: kv.Revision(i + 1), ExpireAt: int64(i % 3)}
		b.Put(key, rec)
		st.Bytes += uint64(len(key) + len(rec.Value))
	}
	_, err := s.Commit(b)
	require.NoError(t, err)
	return s, st
}

func parts(t testing.TB, s storage.State) []*kvdv1.SnapshotChunk {
	v, err := s.View(1, span)
	require.NoError(t, err)
	w, err := NewWriter(v, span, 300)
	require.NoError(t, err)
	var list []*kvdv1.SnapshotChunk
	for {
		p, ok, err := w.Next()
		require.NoError(t, err)
		if !ok {
			break
		}
		list = append(list, p)
	}
	require.NoError(t, w.Close())
	require.NoError(t, v.Close())
	return list
}

func receive(list []*kvdv1.SnapshotChunk, st *kvdv1.ShardState) (*storage.MemState, error) {
	target := storage.NewMemState()
	in, err := target.NewIngest(1, span)
	if err != nil {
		return nil, err
	}
	r := NewReceiver(in, st)
	for _, p := range list {
		if d := p.GetData(); d != nil {
			err = r.Data(d)
		} else {
			err = r.Finish(p.GetTrailer())
		}
		if err != nil {
			in.Abort()
			return target, err
		}
	}
	return target, in.Commit(st)
}

func TestThereAndBack(t *testing.T) {
	for _, keys := range []int{0, 1, 7, 300} {
		s, st := filled(t, keys)
		target, err := receive(parts(t, s), st)
		require.NoError(t, err)
		a, err := Checksum(t.Context(), s, span)
		require.NoError(t, err)
		b, err := Checksum(t.Context(), target, span)
		require.NoError(t, err)
		require.Equal(t, a, b)
	}
}

// TestBrokenStreams: whatever is missing, repeated, out of order or changed is found, and nothing is left behind.
func TestBrokenStreams(t *testing.T) {
	s, st := filled(t, 100)
	clone := func() []*kvdv1.SnapshotChunk {
		list := parts(t, s)
		require.Greater(t, len(list), 5)
		return list
	}
	for name, change := range map[string]func([]*kvdv1.SnapshotChunk) []*kvdv1.SnapshotChunk{
		"a chunk is missing":        func(l []*kvdv1.SnapshotChunk) []*kvdv1.SnapshotChunk { return append(l[:1], l[2:]...) },
		"the last chunk is missing": func(l []*kvdv1.SnapshotChunk) []*kvdv1.SnapshotChunk { return append(l[:len(l)-2], l[len(l)-1]) },
		"a chunk comes twice":       func(l []*kvdv1.SnapshotChunk) []*kvdv1.SnapshotChunk { return append(l[:2], l[1:]...) },
		"two chunks change places": func(l []*kvdv1.SnapshotChunk) []*kvdv1.SnapshotChunk {
			l[1], l[2] = l[2], l[1]
			return l
		},
		"a bit is flipped": func(l []*kvdv1.SnapshotChunk) []*kvdv1.SnapshotChunk {
			l[1].GetData().Pairs[30] ^= 1
			return l
		},
		"the trailer counts other keys": func(l []*kvdv1.SnapshotChunk) []*kvdv1.SnapshotChunk {
			l[len(l)-1].GetTrailer().Keys++
			return l
		},
	} {
		t.Run(name, func(t *testing.T) {
			target, err := receive(change(clone()), st)
			require.Error(t, err)
			shards, err := target.Shards()
			require.NoError(t, err)
			require.Empty(t, shards)
		})
	}
	_, err := receive(clone(), &kvdv1.ShardState{Keys: st.Keys + 1, Bytes: st.Bytes})
	require.Error(t, err, "the state counts other keys")
}

func TestChecksumSeesEverything(t *testing.T) {
	s, _ := filled(t, 10)
	seen := map[uint64]bool{}
	for _, rec := range []kv.Record{{Value: []byte("x")}, {Value: []byte("y")}, {Value: []byte("x"), Revision: 1}, {Value: []byte("x"), ExpireAt: 1}} {
		b := s.NewBatch()
		b.Put([]byte("k00003"), rec)
		_, err := s.Commit(b)
		require.NoError(t, err)
		sum, err := Checksum(t.Context(), s, span)
		require.NoError(t, err)
		require.False(t, seen[sum])
		seen[sum] = true
	}
}

// FuzzReceiver: of whatever comes as a stream, either an error leaves nothing, or the store holds as many keys and bytes
// as its state counts.
func FuzzReceiver(f *testing.F) {
	s, st := filled(f, 40)
	var data []*kvdv1.SnapshotData
	for _, p := range parts(f, s) {
		if d := p.GetData(); d != nil {
			data = append(data, d)
		}
	}
	const format = pairs.Format
	f.Add(data[0].Pairs, data[1].Pairs, st.Keys, st.Bytes, uint64(0), uint64(0))
	f.Add(data[0].Pairs, []byte{}, uint64(9), uint64(108), uint64(0), uint64(0))
	f.Add([]byte{format}, []byte{format, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, uint64(1), uint64(1), uint64(1), uint64(0))
	f.Add([]byte{format, 1, 'k', 1, 0, 1, 'v'}, []byte{format, 1, 'l', 1, 0, 0}, uint64(2), uint64(3), uint64(0), uint64(0))
	f.Add([]byte{format, 1, 'k', 1, 0, 1, 'v'}, []byte{format, 1, 'k', 1, 0, 0}, uint64(2), uint64(3), uint64(0), uint64(0))
	f.Add([]byte{format, 1, 'k', 1, 0, 1, 'v'}, []byte{format, 1, 'l', 1, 0, 0}, uint64(3), uint64(3), ^uint64(0), uint64(0))
	f.Add([]byte{format, 1, '~', 1, 0, 1, 'v'}, []byte{format}, uint64(1), uint64(2), uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, first, second []byte, keys, bytes, keysOff, bytesOff uint64) {
		sum := xxhash.New()
		var list []*kvdv1.SnapshotChunk
		for _, pairs := range [][]byte{first, second} {
			addSum(sum, xxhash.Sum64(pairs))
			list = append(list, &kvdv1.SnapshotChunk{Part: &kvdv1.SnapshotChunk_Data{
				Data: &kvdv1.SnapshotData{Pairs: pairs, Checksum: xxhash.Sum64(pairs)},
			}})
		}
		list = append(list, &kvdv1.SnapshotChunk{Part: &kvdv1.SnapshotChunk_Trailer{
			Trailer: &kvdv1.SnapshotTrailer{Keys: keys + keysOff, Bytes: bytes + bytesOff, Checksum: sum.Sum64()},
		}})
		target, err := receive(list, &kvdv1.ShardState{Keys: keys, Bytes: bytes, AppliedIndex: 20})
		it, iterErr := target.Iter(kv.Span{})
		require.NoError(t, iterErr)
		var found, size uint64
		for it.Next() {
			rec, err := it.Record()
			require.NoError(t, err)
			require.True(t, span.Contains(it.Key()))
			found, size = found+1, size+uint64(len(it.Key())+len(rec.Value))
		}
		require.NoError(t, it.Close())
		if err != nil {
			require.Zero(t, found)
			return
		}
		require.Equal(t, keys, found)
		require.Equal(t, bytes, size)
	})
}
