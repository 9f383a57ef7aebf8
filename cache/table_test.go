package cache

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
)

// crowded gives hashes whose searches begin in few places, the last of the table among them.
func crowded(n uint64) uint64 { return (n/2%5-2)<<24 | n }

func hashedEntry(hash uint64) *Entry {
	return NewEntry(0, binary.BigEndian.AppendUint64(nil, hash), kv.Record{}, 0)
}

// TestTableModel plays calls by chance against a map.
func TestTableModel(t *testing.T) {
	type item struct {
		e    *Entry
		read bool
	}
	var table table
	table.init()
	model := map[uint64]item{}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		hash := crowded(rnd.Uint64N(60) + 1)
		want, held := model[hash]
		if held {
			e, read := table.remove(hash)
			require.Same(t, want.e, e)
			require.Equal(t, want.read, read)
			delete(model, hash)
		} else {
			in := item{hashedEntry(hash), rnd.IntN(2) == 0}
			table.add(hash, in.e, in.read)
			model[hash] = in
		}
		require.Equal(t, len(model), table.count)
		for n := range uint64(60) {
			c, e := table.find(crowded(n + 1))
			want := model[crowded(n+1)]
			require.Same(t, want.e, e)
			require.True(t, e == nil || c.read.Load() == want.read)
		}
	}
	require.LessOrEqual(t, len(*table.cells.Load()), 128)
	_, e := table.find(0)
	require.Nil(t, e)
	e, _ = table.remove(12345 << 24)
	require.Nil(t, e)
}

// TestTableBesideChanges: whoever looks entries up while others come, go and move seldom finds one of another hash
// (the guard compares the keys, C2).
func TestTableBesideChanges(t *testing.T) {
	for _, hashes := range []uint64{2, 40} {
		changeBesideReaders(t, hashes)
	}
}

func changeBesideReaders(t *testing.T, hashes uint64) {
	var table table
	table.init()
	var done atomic.Bool
	var group sync.WaitGroup
	var found, wrong atomic.Int64
	for range 3 {
		group.Go(func() {
			for n := uint64(0); !done.Load() || found.Load() == 0; n++ {
				hash := crowded(n%hashes + 2)
				if _, e := table.find(hash); e != nil {
					found.Add(1)
					if got := binary.BigEndian.Uint64(e.Key()); got != hash {
						wrong.Add(1)
					}
				}
			}
		})
	}
	held := map[uint64]bool{}
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 200_000 {
		hash := crowded(rnd.Uint64N(hashes) + 2)
		if held[hash] {
			table.remove(hash)
		} else {
			table.add(hash, hashedEntry(hash), false)
		}
		held[hash] = !held[hash]
	}
	for hash, is := range held {
		if !is {
			table.add(hash, hashedEntry(hash), false)
		}
	}
	done.Store(true)
	group.Wait()
	require.Less(t, wrong.Load(), 10+found.Load()/1000)
}
