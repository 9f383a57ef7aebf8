package storage

import (
	"bytes"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// FuzzStores: whatever keys and values a store holds, reading it ends with an error that says so or with what is there.
func FuzzStores(f *testing.F) {
	st, err := encodeShard(&kvdv1.ShardState{Replica: 1, AppliedIndex: 7})
	require.NoError(f, err)
	group := kv.Group{Shard: 1, Replica: 2}
	entry := appendEntry(nil, &raftpb.Entry{Type: raftpb.EntryNormal.Enum(), Term: new(uint64(3)), Data: []byte("x")})
	f.Add(shardKey(1), st, dataKey([]byte("k")), appendRecord(nil, kv.Record{Value: []byte("v"), Revision: 7, ExpireAt: 9}))
	f.Add(dueKey(kv.Due{ExpireAt: 9, Key: []byte("k")}), []byte{}, tombstoneKey(3, 4), []byte{})
	f.Add(logKey(group, kindState), appendLogState(nil, LogState{Hard: HardState{Term: 3}}), entryKey(group, 1), entry)
	f.Add(logKey(group, kindState), []byte{}, entryKey(group, 9), []byte{})
	f.Add(logKey(group, kindState), appendLogState(nil, LogState{Hard: HardState{Term: 3}}), entryKey(group, 1), []byte{})
	f.Add([]byte{'l'}, []byte{1}, []byte{'s', 1}, []byte{1})
	f.Fuzz(func(t *testing.T, key1, value1, key2, value2 []byte) {
		disk := vfs.NewMem()
		o := options(t, disk, "store")
		db, _, err := openPebble(&o)
		require.NoError(t, err)
		require.NoError(t, db.Set(key1, value1, nil))
		require.NoError(t, db.Set(key2, value2, nil))
		require.NoError(t, db.Close())
		fuzzLogStore(t, options(t, disk, "store"))
		fuzzStateStore(t, options(t, disk, "store"))
	})
}

func fuzzLogStore(t *testing.T, o Options) {
	l, err := OpenLog(o)
	if err != nil {
		return
	}
	groups, err := l.Groups()
	require.NoError(t, err)
	for _, g := range groups {
		st, ok, err := l.Load(g)
		require.NoError(t, err)
		require.True(t, ok)
		require.GreaterOrEqual(t, st.Last, st.Truncated.Index)
		if lo := st.Truncated.Index + 1; lo <= st.Last {
			entries, err := l.Entries(g, lo, st.Last+1, 1<<20)
			if err == nil {
				require.NotEmpty(t, entries)
			}
		}
	}
	require.NoError(t, l.Close())
}

func fuzzStateStore(t *testing.T, o Options) {
	s, err := OpenState(o)
	if err != nil {
		return
	}
	_, _ = s.Shards()
	_, _ = s.Tombstones()
	_, _, _ = s.Due(kv.Due{}, 1<<62, 10, func(kv.Due) bool { return true })
	it, err := s.Iter(kv.Span{})
	require.NoError(t, err)
	for it.Next() {
		key := bytes.Clone(it.Key())
		rec, err := it.Record()
		again, found, errAgain := s.Get(key)
		require.Equal(t, err == nil, errAgain == nil)
		if err == nil {
			require.True(t, found)
			require.Equal(t, rec.Revision, again.Revision)
		}
	}
	require.NoError(t, it.Close())
	require.NoError(t, s.Close())
}
