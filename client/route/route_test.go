package route

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/kvdstore/kvd/kv"
)

func never(string) bool { return false }

func shard(id kv.ShardID, version uint64, start, end string) *kv.Descriptor {
	return &kv.Descriptor{
		Shard: id, Span: kv.Span{Start: []byte(start), End: []byte(end)}, Epoch: kv.Epoch{Version: version, Config: 1},
		Replicas: []kv.Replica{{Node: 1, Replica: 1}, {Node: 2, Replica: 2}},
	}
}

func TestLeaderFirstThenReplicas(t *testing.T) {
	m := New()
	require.Empty(t, m.Lookup([]byte("a"), 0, never).Address)
	m.Replace(1, []*kv.Descriptor{shard(1, 1, "", "m"), shard(2, 1, "m", "")}, nil, []Node{{1, "one"}, {2, "two"}})
	require.Equal(t, "one", m.Lookup([]byte("a"), 0, never).Address)
	require.Equal(t, "two", m.Lookup([]byte("a"), 1, never).Address)
	m.Lead(1, 2, "")
	require.Equal(t, Target{"two", kv.Route{Shard: 1, Version: 1}}, m.Lookup([]byte("a"), 0, never))
	require.Equal(t, "one", m.Lookup([]byte("a"), 0, func(a string) bool { return a == "two" }).Address)
	m.Lead(1, 3, "three")
	require.Equal(t, "three", m.Lookup([]byte("a"), 0, never).Address)
	m.Forget("three")
	require.Equal(t, "one", m.Lookup([]byte("a"), 0, never).Address)
}

func TestSplitIsLearned(t *testing.T) {
	m := New()
	m.Replace(1, []*kv.Descriptor{shard(1, 1, "", "")}, nil, []Node{{1, "one"}, {2, "two"}})
	m.Learn(shard(1, 2, "", "g"))
	m.Learn(shard(2, 2, "g", ""))
	require.EqualValues(t, 2, m.Lookup([]byte("h"), 0, never).Route.Shard)
	m.Learn(shard(1, 1, "", ""))
	require.EqualValues(t, 2, m.Lookup([]byte("h"), 0, never).Route.Shard, "an old descriptor was taken")
}

// TestNeverBackwards: whatever comes in whatever order, descriptors do not overlap and a shard's version never falls.
func TestNeverBackwards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, highest := New(), map[kv.ShardID]uint64{}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			text := rapid.StringMatching(`[a-d]`)
			d := shard(kv.ShardID(rapid.IntRange(1, 4).Draw(t, "shard")), uint64(rapid.IntRange(1, 5).Draw(t, "version")), text.Draw(t, "start"), text.Draw(t, "end"))
			if d.Span.Empty() {
				continue
			}
			m.Learn(d)
			for i, x := range m.descriptors {
				if i > 0 && m.descriptors[i-1].Span.Overlaps(x.Span) {
					t.Fatalf("%v and %v overlap", m.descriptors[i-1].Span, x.Span)
				}
				if x.Epoch.Version < highest[x.Shard] {
					t.Fatalf("shard %d went back to version %d", x.Shard, x.Epoch.Version)
				}
				highest[x.Shard] = x.Epoch.Version
			}
		}
	})
}
