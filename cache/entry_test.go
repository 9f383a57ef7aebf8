package cache

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
)

// TestEntry: an entry has what it was made of, whatever its size, and nothing of what lies behind it.
func TestEntry(t *testing.T) {
	for keyBytes := range 40 {
		for _, valueBytes := range []int{0, 1, 7, 8, 9, 24, 128, 1000, 40_000} {
			key, value := bytes.Repeat([]byte{1}, keyBytes), bytes.Repeat([]byte{2}, valueBytes)
			e := NewEntry(3, key, kv.Record{Value: value, Revision: 4, ExpireAt: 5}, 6)
			runtime.GC()
			rec := e.Record()
			require.True(t, bytes.Equal(key, e.Key()))
			require.True(t, bytes.Equal(value, rec.Value))
			require.Equal(t, []int{keyBytes, valueBytes}, []int{cap(e.Key()), cap(rec.Value)})
			require.Equal(t, kv.Record{Value: rec.Value, Revision: 4, ExpireAt: 5}, rec)
			require.Equal(t, []bool{keyBytes == 0, valueBytes == 0}, []bool{e.Key() == nil, rec.Value == nil})
			require.EqualValues(t, 3, e.incarnation)
			require.EqualValues(t, 6, e.word)
			require.EqualValues(t, keyBytes+valueBytes+EntryOverheadBytes, e.cost())
		}
	}
}

// TestValueOutlivesItsEntry: who has a value keeps it, though the entry is forgotten.
func TestValueOutlivesItsEntry(t *testing.T) {
	var values [][]byte
	for i := range byte(100) {
		values = append(values, NewEntry(1, []byte("key"), kv.Record{Value: bytes.Repeat([]byte{i}, 300)}, 0).Record().Value)
	}
	runtime.GC()
	for range 1000 {
		NewEntry(1, []byte("other"), kv.Record{Value: make([]byte, 298)}, 0)
	}
	for i, value := range values {
		require.Equal(t, bytes.Repeat([]byte{byte(i)}, 300), value)
	}
}
