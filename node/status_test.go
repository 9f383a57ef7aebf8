package node

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

// TestBestIgnoresNonsense: what no replica can have is not taken from an answer.
func TestBestIgnoresNonsense(t *testing.T) {
	got := best([]*kvdv1.StatusResponse{{Local: []*kvdv1.ReplicaInfo{
		{Shard: 1},
		{Shard: 2, Descriptor_: &kvdv1.Descriptor{Shard: 2, Start: []byte("c"), End: []byte("c")}},
		{Shard: 3, Descriptor_: &kvdv1.Descriptor{Shard: 3, Start: []byte("c"), End: []byte("b")}},
		{Shard: 4, Descriptor_: &kvdv1.Descriptor{Shard: 4, Start: []byte("c")}},
	}}})
	require.Len(t, got, 1)
	require.NotNil(t, got[4])
}

// TestWholeList: a list of shards holds each key once, whichever of the map and the replicas knows more of splits and merges.
func TestWholeList(t *testing.T) {
	type shard struct {
		id         uint64
		start, end string
	}
	for name, x := range map[string]struct {
		list, known []shard
		want        string
	}{
		"nothing new":                       {[]shard{{1, "", "g"}, {2, "g", ""}}, []shard{{1, "", "g"}}, "1[,g) 2[g,)"},
		"a split":                           {[]shard{{1, "", "c"}, {2, "g", ""}}, []shard{{1, "", "c"}, {3, "c", "g"}}, "1[,c) 3[c,g) 2[g,)"},
		"two splits, the last":              {[]shard{{1, "", "g"}, {2, "g", "k"}}, []shard{{3, "k", "m"}, {4, "m", ""}}, "1[,g) 2[g,k) 3[k,m) 4[m,)"},
		"a part of which nobody tells":      {[]shard{{1, "", "c"}, {2, "g", ""}}, nil, "1[,c) 2[g,)"},
		"a merge":                           {[]shard{{1, "", ""}, {2, "g", ""}}, []shard{{2, "g", ""}}, "1[,)"},
		"a merge in the middle":             {[]shard{{1, "", "c"}, {2, "c", "k"}, {3, "g", "k"}, {4, "k", ""}}, nil, "1[,c) 2[c,k) 4[k,)"},
		"two that begin there, one is gone": {[]shard{{1, "", "c"}, {2, "g", ""}}, []shard{{3, "c", "d"}, {5, "c", "g"}}, "1[,c) 5[c,g) 2[g,)"},
	} {
		descriptor := func(s shard) *kvdv1.Descriptor {
			return &kvdv1.Descriptor{Shard: s.id, Start: []byte(s.start), End: []byte(s.end)}
		}
		var list []*kvdv1.ShardInfo
		known := map[uint64]*kvdv1.ReplicaInfo{}
		for _, s := range x.list {
			list = append(list, &kvdv1.ShardInfo{Descriptor_: descriptor(s)})
		}
		for _, s := range x.known {
			known[s.id] = &kvdv1.ReplicaInfo{Shard: s.id, Descriptor_: descriptor(s)}
		}
		got := ""
		for _, s := range whole(list, known) {
			got += fmt.Sprintf(" %d[%s,%s)", s.Descriptor_.Shard, s.Descriptor_.Start, s.Descriptor_.End)
		}
		require.Equal(t, " "+x.want, got, name)
	}
}
