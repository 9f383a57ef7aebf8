package storage

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// TestHeadsRefuseWhatIsOld: what was read before a commit is not remembered after it.
func TestHeadsRefuseWhatIsOld(t *testing.T) {
	s, err := OpenState(options(t, nil, t.TempDir()))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	key := []byte("k")
	_, _, known, changes := s.heads.get(key)
	require.False(t, known)
	b := s.NewBatch()
	b.Put([]byte("other"), kv.Record{Value: []byte("v"), Revision: 1})
	_, err = s.Commit(b)
	require.NoError(t, err)
	s.heads.put(changes, key, kv.Head{Revision: 7}, true)
	_, _, known, changes = s.heads.get(key)
	require.False(t, known, "it may be what the commit has changed")
	s.heads.put(changes, key, kv.Head{Revision: 7}, true)
	h, there, known, _ := s.heads.get(key)
	require.True(t, known && there)
	require.EqualValues(t, 7, h.Revision)
}

// TestHeadsNeedNoPebble: what was written or asked for is answered from memory, and so is that a key is absent; a write that is
// never committed is not.
func TestHeadsNeedNoPebble(t *testing.T) {
	o := options(t, nil, t.TempDir())
	o.HeadBytes = 1 << 20
	s, err := OpenState(o)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	remembered := func(key string) bool {
		_, _, known, _ := s.heads.get([]byte(key))
		return known
	}
	b := s.NewBatch()
	b.Put([]byte("put"), kv.Record{Value: []byte("value"), Revision: 3, ExpireAt: 9})
	b.Delete([]byte("deleted"))
	_, err = s.Commit(b)
	require.NoError(t, err)
	_, ok, err := s.Head([]byte("absent"))
	require.NoError(t, err)
	require.False(t, ok)
	require.True(t, remembered("put") && remembered("deleted") && remembered("absent"))
	h, ok, err := s.Head([]byte("put"))
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, kv.Head{Revision: 3, ExpireAt: 9, Bytes: 5}, h)

	b = s.NewBatch()
	b.Put([]byte("never"), kv.Record{Revision: 4})
	require.False(t, remembered("never"))
	b = s.NewBatch()
	b.DeleteSpan(kv.Span{Start: []byte("p")})
	_, err = s.Commit(b)
	require.NoError(t, err)
	require.False(t, remembered("put"))
	_, ok, err = s.Head([]byte("put"))
	require.NoError(t, err)
	require.False(t, ok)
}

// BenchmarkHead is what a write asks for of a key that was written before.
func BenchmarkHead(b *testing.B) {
	for name, bytes := range map[string]int{"remembered": 16 << 20, "forgotten": 0} {
		b.Run(name, func(b *testing.B) {
			o := options(b, nil, b.TempDir())
			o.HeadBytes = bytes
			s, err := OpenState(o)
			require.NoError(b, err)
			defer func() { require.NoError(b, s.Close()) }()
			const keys = 10_000
			batch := s.NewBatch()
			name := func(i int) []byte { return []byte{byte(i >> 16), byte(i >> 8), byte(i), 'k', 'e', 'y'} }
			for i := range keys {
				batch.Put(name(i), kv.Record{Value: make([]byte, 128), Revision: 1})
			}
			_, err = s.Commit(batch)
			require.NoError(b, err)
			for i := 0; b.Loop(); i++ {
				_, ok, err := s.Head(name(i * 7919 % keys))
				if err != nil || !ok {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

// TestHeadsOfManyKeys: there are places for as many as the memory has room for, whatever their length; those that are asked for
// keep theirs when others come and go, and no key is taken for another.
func TestHeadsOfManyKeys(t *testing.T) {
	o := options(t, nil, t.TempDir())
	o.HeadBytes = 1000 * (bucketBytes + 1)
	s, err := OpenState(o)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	require.Equal(t, 128, bucketBytes)
	require.Len(t, s.heads.buckets, 1000)
	key := func(i int) []byte { return fmt.Appendf(nil, "%0*d", 100+i%2*(kv.KeyBytesMax-100), i) }
	const asked, all = 500, 20_000
	put := func(i int) { s.heads.put(0, key(i), kv.Head{Revision: kv.Revision(i + 1)}, i%3 != 0) }
	lost := 0
	for i := range all {
		put(i)
		if i%asked != asked-1 {
			continue
		}
		for j := range asked {
			if _, _, known, _ := s.heads.get(key(j)); !known {
				lost++
				put(j)
			}
		}
	}
	require.Less(t, lost, all/20, "of as many looks")
	known := map[bool]int{}
	for i := range all {
		h, there, ok, _ := s.heads.get(key(i))
		if !ok {
			continue
		}
		known[i < asked]++
		require.Equal(t, i%3 != 0, there)
		if there {
			require.EqualValues(t, i+1, h.Revision)
		}
	}
	require.Greater(t, known[true], asked*9/10)
	require.LessOrEqual(t, known[true]+known[false], 4000)
	require.Greater(t, known[true]+known[false], 3900)
}

// TestForesee: what was foreseen is known, also that there is nothing; what a commit changes meanwhile is not told as it was.
func TestForesee(t *testing.T) {
	s, err := OpenState(options(t, nil, t.TempDir()))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	put := func(revision kv.Revision) {
		b := s.NewBatch()
		b.Put([]byte("k"), kv.Record{Value: []byte("v"), Revision: revision})
		_, err := s.Commit(b)
		require.NoError(t, err)
	}
	put(1)
	s.heads.forget()
	know := func(key string) (revision kv.Revision, known bool) {
		h, there, known, _ := s.heads.get([]byte(key))
		require.Equal(t, known && key == "k", there)
		return h.Revision, known
	}
	for _, key := range []string{"k", "absent"} {
		_, known := know(key)
		require.False(t, known)
		lacks, asked := s.Lacks([]byte(key))
		require.True(t, lacks)
		s.Foresee([]byte(key), asked)
		_, known = know(key)
		require.True(t, known)
		lacks, _ = s.Lacks([]byte(key))
		require.False(t, lacks)
	}

	for name, foresee := range map[string]func(asked uint64, read kv.Head){
		"looked up":  func(asked uint64, read kv.Head) { s.heads.put(asked, []byte("k"), read, true) },
		"remembered": func(asked uint64, read kv.Head) { s.Foreseen([]byte("k"), asked, read) },
	} {
		s.heads.forget()
		_, asked := s.Lacks([]byte("k"))
		read, _, err := head(s.db, []byte("k"))
		require.NoError(t, err)
		foresee(asked, read)
		revision, known := know("k")
		require.True(t, known, name)
		require.Equal(t, read.Revision, revision, name)

		s.heads.forget()
		_, asked = s.Lacks([]byte("k"))
		put(read.Revision + 1)
		s.heads.put(asked, []byte("other"), kv.Head{}, false)
		foresee(asked, read)
		revision, known = know("k")
		require.True(t, known, name)
		require.Equal(t, read.Revision+1, revision, name)
		_, known = know("other")
		require.False(t, known, "it may be one that the commit has changed")

		s.heads.forget()
		_, asked = s.Lacks([]byte("k"))
		s.heads.forget()
		foresee(asked, read)
		_, known = know("k")
		require.False(t, known, name)
	}

	s.heads.mu.Lock()
	lacks, _ := s.Lacks([]byte("another"))
	s.heads.mu.Unlock()
	require.False(t, lacks, "it waits for nobody")
}

// TestFingerprints: keys that are alike in one of their hashes are two.
func TestFingerprints(t *testing.T) {
	h := newHeads(0)
	first := hashes{place: 1, check: 3}
	h.set(first, kv.Head{Revision: 1}, true)
	for _, other := range []hashes{{place: 2, check: 3}, {place: 1, check: 5}} {
		_, _, known, _ := h.look(other)
		require.False(t, known)
		h.set(other, kv.Head{Revision: 2}, true)
		head, _, known, _ := h.look(first)
		require.True(t, known)
		require.EqualValues(t, 1, head.Revision)
	}
}

// TestHeadsBesideCommits: the one that commits hears of each key what it has committed last, whatever others foresee beside it, of more
// keys than there are places for.
func TestHeadsBesideCommits(t *testing.T) {
	o := options(t, nil, t.TempDir())
	o.HeadBytes = 6 * (bucketBytes + 1)
	s, err := OpenState(o)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	const keys, steps = 40, 800
	key := func(i int) []byte { return []byte{'k', byte(i)} }
	done := make(chan struct{})
	var foreseeing sync.WaitGroup
	for g := range 4 {
		rnd := rand.New(rand.NewPCG(uint64(g), 1))
		foreseeing.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				k := key(rnd.IntN(keys))
				lacks, asked := s.Lacks(k)
				if !lacks {
					continue
				}
				if rec, ok, err := s.Get(k); err == nil && ok && g%2 == 0 {
					s.Foreseen(k, asked, rec.Head())
				} else {
					s.Foresee(k, asked)
				}
			}
		})
	}
	defer foreseeing.Wait()
	defer close(done)
	rnd := rand.New(rand.NewPCG(9, 9))
	var now [keys]kv.Head
	for step := range kv.Revision(steps) {
		if step%50 == 49 {
			i := rnd.IntN(keys - 3)
			in, err := s.NewIngest(1, kv.Span{Start: key(i), End: key(i + 3)})
			require.NoError(t, err)
			for j := i; j < i+3; j++ {
				rec := kv.Record{Value: make([]byte, 10), Revision: step + 1}
				require.NoError(t, in.Put(key(j), rec))
				now[j] = rec.Head()
			}
			require.NoError(t, in.Commit(&kvdv1.ShardState{}))
		}
		b := s.NewBatch()
		for range 1 + rnd.IntN(4) {
			switch i := rnd.IntN(keys); rnd.IntN(20) {
			case 0:
				b.DeleteSpan(kv.Span{Start: key(i), End: key(i + 3)})
				clear(now[i:min(i+3, keys)])
			case 1, 2, 3:
				b.Delete(key(i))
				now[i] = kv.Head{}
			default:
				rec := kv.Record{Value: make([]byte, rnd.IntN(9)), Revision: step + 1}
				b.Put(key(i), rec)
				now[i] = rec.Head()
			}
		}
		_, err := s.Commit(b)
		require.NoError(t, err)
		for i := range keys {
			h, ok, err := s.Head(key(i))
			require.NoError(t, err)
			require.Equal(t, now[i], h, "%d, step %d", i, step)
			require.Equal(t, h.Revision != 0, ok)
		}
	}
}
