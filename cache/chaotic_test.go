package cache

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
)

// play makes calls that depend on nothing but their own seed, and writes down what the store answered.
func play(store *Chaotic, calls uint64) string {
	rnd := rand.New(rand.NewPCG(calls, 0))
	var out strings.Builder
	for i := range 5000 {
		hash := rnd.Uint64N(20)
		if rnd.IntN(2) == 0 {
			store.Set(hash, NewEntry(0, []byte{1}, kv.Record{Revision: kv.Revision(i)}, 0), 1)
			continue
		}
		if e, ok := store.Get(hash); ok {
			fmt.Fprintf(&out, "%d=%d ", hash, e.Record().Revision)
		} else {
			fmt.Fprintf(&out, "%d- ", hash)
		}
	}
	return out.String()
}

func TestChaoticRepeats(t *testing.T) {
	require.Equal(t, play(NewChaotic(7), 1), play(NewChaotic(7), 1))
	require.NotEqual(t, play(NewChaotic(7), 1), play(NewChaotic(8), 1))
}

// TestChaoticMisbehaves: each thing that it is there for does happen, and it stays bounded.
func TestChaoticMisbehaves(t *testing.T) {
	store := NewChaotic(3)
	last := map[uint64]kv.Revision{}
	var older, absent, current int
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range 50_000 {
		hash := rnd.Uint64N(2000)
		if i%2 == 0 {
			last[hash] = kv.Revision(i)
			store.Set(hash, NewEntry(0, []byte{1}, kv.Record{Revision: kv.Revision(i)}, 0), 1)
		} else if e, ok := store.Get(hash); !ok {
			absent++
		} else if e.Record().Revision < last[hash] {
			older++
		} else {
			current++
		}
		require.LessOrEqual(t, len(store.entries), chaoticEntriesMax)
		require.Len(t, store.order, len(store.entries))
		require.LessOrEqual(t, len(store.pending), chaoticPendingMax)
	}
	require.NotZero(t, older)
	require.NotZero(t, absent)
	require.NotZero(t, current)
	require.NotZero(t, store.Metrics().Dropped)
	require.EqualValues(t, len(store.entries)*(1+EntryOverheadBytes), store.Metrics().Bytes)
	store.Close()
	store.Set(1, emptyEntry, 1)
	_, ok := store.Get(1)
	require.False(t, ok)
}
