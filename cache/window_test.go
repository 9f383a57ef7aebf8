package cache

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
)

// windowOf makes a window of one shard with room for so many entries of testEntry, and collects what leaves it read.
func windowOf(entries int64) (w *window, left *[]uint64) {
	left = &[]uint64{}
	w = newWindow(entries*testEntry(0).cost(), 1<<20, func(hash uint64, _ *Entry) { *left = append(*left, hash) })
	return w, left
}

func testEntry(extra int) *Entry {
	return NewEntry(0, []byte("k"), kv.Record{Value: make([]byte, extra)}, 0)
}

func held(w *window, hash uint64) bool {
	_, e := w.shard(hash).table.find(hash)
	return e != nil
}

// TestWindowFirstInFirstOut: the oldest leaves, read or not, and only what was read goes on.
func TestWindowFirstInFirstOut(t *testing.T) {
	w, left := windowOf(3)
	for hash := range uint64(3) {
		w.put(hash+1, testEntry(0), false)
	}
	_, ok := w.get(1)
	require.True(t, ok)
	w.put(4, testEntry(0), false)
	require.False(t, held(w, 1))
	require.Equal(t, []uint64{1}, *left)
	w.put(5, testEntry(0), false)
	require.False(t, held(w, 2))
	require.Equal(t, []uint64{1}, *left)
	for hash := range uint64(3) {
		require.True(t, held(w, hash+3))
	}
}

// TestWindowGhost: a key that comes back after it left unread counts as read; one that Ristretto evicts does not, and one
// that left after a read has no ghost.
func TestWindowGhost(t *testing.T) {
	for name, c := range map[string]struct {
		read, evicted bool
		want          int
	}{"new": {want: 1}, "evicted": {evicted: true, want: 0}, "read": {read: true, want: 0}} {
		t.Run(name, func(t *testing.T) {
			w, left := windowOf(1)
			w.put(1, testEntry(0), false)
			if c.read {
				w.get(1)
			}
			w.put(2, testEntry(0), false)
			*left = nil
			w.put(1, testEntry(0), c.evicted)
			w.put(3, testEntry(0), false)
			require.Len(t, *left, c.want)
		})
	}
}

// TestWindowReplace: the new entry takes the old one's place, and its bytes are counted.
func TestWindowReplace(t *testing.T) {
	w, left := windowOf(3)
	require.False(t, w.replace(1, testEntry(0)))
	require.False(t, held(w, 1))
	for hash := range uint64(3) {
		w.put(hash+1, testEntry(0), false)
	}
	larger := testEntry(10)
	require.True(t, w.replace(2, larger))
	require.False(t, held(w, 1), "there is no room for three any more")
	e, ok := w.get(2)
	require.True(t, ok)
	require.Same(t, larger, e)
	require.Equal(t, larger.cost()+testEntry(0).cost(), w.heldBytes())
	w.put(2, testEntry(0), true)
	e, _ = w.get(2)
	require.Same(t, larger, e, "what Ristretto evicts is not newer than what is here")
	require.Empty(t, *left)
	require.True(t, w.replace(2, testEntry(10_000)))
	require.False(t, held(w, 2), "it does not fit, and leaves")
	require.Equal(t, []uint64{2}, *left)
}

// TestWindowModel plays calls by chance against a list, with the numbers of slots about to wrap.
func TestWindowModel(t *testing.T) {
	type item struct {
		hash uint64
		e    *Entry
		read bool
	}
	w, left := windowOf(40)
	s := &w.shards[0]
	s.first, s.next = math.MaxUint32-100, math.MaxUint32-100
	var model []item
	var wantLeft []uint64
	ghosts := map[uint64]bool{} // As many as there are hashes, each in a place of its own.
	find := func(hash uint64) *item {
		for i := range model {
			if model[i].hash == hash {
				return &model[i]
			}
		}
		return nil
	}
	shrink := func(most int64) {
		for bytes := int64(0); ; bytes = 0 {
			for _, it := range model {
				bytes += it.e.cost()
			}
			if bytes <= most || len(model) == 0 {
				return
			}
			if model[0].read {
				wantLeft = append(wantLeft, model[0].hash)
			} else {
				ghosts[model[0].hash] = true
			}
			model = model[1:]
		}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		n := rnd.Uint64N(100) + 1
		hash, e := n<<32|n, testEntry(rnd.IntN(300))
		switch it := find(hash); rnd.IntN(3) {
		case 0:
			got, ok := w.get(hash)
			require.Equal(t, it != nil, ok)
			if it != nil {
				require.Same(t, it.e, got)
				it.read = true
			}
		case 1:
			require.Equal(t, it != nil, w.replace(hash, e))
			if it != nil {
				it.e = e
				shrink(s.most)
			}
		case 2:
			evicted := rnd.IntN(4) == 0
			w.put(hash, e, evicted)
			if it == nil {
				read := ghosts[hash] && !evicted
				delete(ghosts, hash)
				shrink(s.most - e.cost())
				model = append(model, item{hash, e, read})
			}
		}
		require.Equal(t, wantLeft, append([]uint64(nil), *left...))
		require.Equal(t, len(model), s.table.count)
		require.LessOrEqual(t, w.heldBytes(), s.most)
	}
	require.Less(t, s.next, uint32(math.MaxUint32/2), "the numbers have not wrapped")
	require.NotEmpty(t, wantLeft)
	require.LessOrEqual(t, len(s.queue), 64)
}

// TestWindowShards: keys go to all of them, and each takes large entries.
func TestWindowShards(t *testing.T) {
	for bytes, want := range map[int64]int{0: 1, 1000: 1, 1 << 20: 4, 100 << 20: 256, 1 << 40: 256} {
		w := newWindow(bytes, 1<<20, nil)
		require.Len(t, w.shards, want)
		require.Equal(t, bytes/int64(want), w.largest())
		used := map[*windowShard]bool{}
		for i := range 10_000 {
			used[w.shard((&Guard{}).Hash(fmt.Appendf(nil, "k%d", i)))] = true
		}
		require.Len(t, used, want)
	}
}
