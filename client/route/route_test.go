package route

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
)

func never(string) bool { return false }

func shard(id kv.ShardID, version uint64, start, end string) *kv.Descriptor {
	return &kv.Descriptor{
		Shard: id, Span: kv.Span{Start: []byte(start), End: []byte(end)}, Epoch: kv.Epoch{Version: version, Config: 1},
		Replicas: []kv.Replica{{Node: 1, Replica: 1}, {Node: 2, Replica: 2}},
	}
}

// check holds what always holds of a map.
func (m *Map) check() error {
	for i, p := range m.pieces {
		if p.span.Empty() {
			return fmt.Errorf("a piece holds nothing")
		}
		if i > 0 && m.pieces[i-1].span.Overlaps(p.span) {
			return fmt.Errorf("%v and %v overlap", m.pieces[i-1].span, p.span)
		}
		if i > 0 && bytes.Compare(m.pieces[i-1].span.Start, p.span.Start) >= 0 {
			return fmt.Errorf("%v comes before %v", m.pieces[i-1].span, p.span)
		}
		if d := p.shard; d != nil && (m.epochs[d.Shard] != d.Epoch || !p.span.Equal(d.Span)) {
			return fmt.Errorf("shard %d is held at %v in %v, and %v was seen", d.Shard, d.Epoch, p.span, m.epochs[d.Shard])
		}
	}
	return nil
}

var both = []Node{{1, "one"}, {2, "two"}}

func TestLeaderFirstThenReplicas(t *testing.T) {
	m := New()
	require.Empty(t, m.Lookup([]byte("a"), 0, never).Address)
	require.True(t, m.Replace(1, []*kv.Descriptor{shard(1, 1, "", "m"), shard(2, 1, "m", "")}, nil, both))
	require.Equal(t, "one", m.Lookup([]byte("a"), 0, never).Address)
	require.Equal(t, "two", m.Lookup([]byte("a"), 1, never).Address)
	m.Lead(1, 2, "")
	require.Equal(t, Target{Address: "two", Route: kv.Route{Shard: 1, Version: 1}, Leader: 2}, m.Lookup([]byte("a"), 0, never))
	require.Equal(t, "one", m.Lookup([]byte("a"), 0, func(a string) bool { return a == "two" }).Address)
	require.Equal(t, Target{Route: kv.Route{Shard: 1, Version: 1}}, m.Lookup([]byte("a"), 0, func(string) bool { return true }))
	m.Lead(1, 3, "three")
	require.Equal(t, "three", m.Lookup([]byte("a"), 0, never).Address)
	require.Equal(t, []string{"one", "two", "three"}, m.Addresses())
	require.Equal(t, "two", m.Replica([]byte("a"), 1, never).Address, "a read of any replica went to the leader")
	m.Forget("three")
	require.Equal(t, "one", m.Lookup([]byte("a"), 0, never).Address)
}

// TestHints: what a node says of a leader is taken from the one that ought to know.
func TestHints(t *testing.T) {
	m := New()
	m.Replace(1, []*kv.Descriptor{shard(1, 1, "", "")}, map[kv.ShardID]kv.NodeID{1: 1}, both)
	require.EqualValues(t, 1, m.Leader(1))
	m.Unled(1, "two")
	require.EqualValues(t, 1, m.Leader(1), "a follower that knows no leader unseated the one that is known")
	m.Lead(1, 0, "")
	require.EqualValues(t, 1, m.Leader(1), "no hint unseated the leader that is known")
	m.Unled(1, "one")
	require.Zero(t, m.Leader(1))
	m.Lead(1, 2, "")
	m.Replace(2, nil, map[kv.ShardID]kv.NodeID{1: 1}, both)
	require.EqualValues(t, 2, m.Leader(1), "a map unseated what an answer told")
	require.False(t, m.Replace(1, nil, nil, nil), "an older map was taken")
	require.Len(t, m.Addresses(), 2)
}

// TestNodeThatLeft: its address is not asked any more, and it leads nothing.
func TestNodeThatLeft(t *testing.T) {
	m := New()
	m.Replace(1, []*kv.Descriptor{shard(1, 1, "", "")}, map[kv.ShardID]kv.NodeID{1: 2}, both)
	given := m.Addresses()
	m.Replace(2, nil, nil, both[:1])
	require.Equal(t, []string{"one"}, m.Addresses())
	require.Equal(t, []string{"one", "two"}, given, "a slice that was given out has changed")
	require.Zero(t, m.Leader(1))
	require.Equal(t, "one", m.Lookup([]byte("a"), 1, never).Address)
}

// TestGapRemembers: the keys that a narrowed parent gave away do not fall back to a shard from before the parent had them.
func TestGapRemembers(t *testing.T) {
	m := New()
	m.Learn(shard(1, 3, "", ""))
	m.Learn(shard(1, 4, "", "b"))
	require.False(t, m.Learn(shard(2, 2, "b", "")), "a shard that was absorbed before came back")
	require.Nil(t, m.Find([]byte("b")))
	require.True(t, m.Learn(shard(3, 4, "b", "")))
	require.EqualValues(t, 3, m.Find([]byte("b")).Shard)
	require.NoError(t, m.check())
}

func TestSplitAndMergeAreLearned(t *testing.T) {
	m := New()
	m.Replace(1, []*kv.Descriptor{shard(1, 1, "", "")}, map[kv.ShardID]kv.NodeID{1: 1}, both)
	require.True(t, m.Learn(shard(1, 2, "", "g")))
	require.Nil(t, m.Find([]byte("h")), "the parent still holds its child's keys")
	require.EqualValues(t, 1, m.Leader(1), "the narrowed parent lost its leader")
	require.True(t, m.Learn(shard(2, 2, "g", "")))
	require.EqualValues(t, 2, m.Find([]byte("h")).Shard)
	require.False(t, m.Learn(shard(1, 1, "", "")), "an old descriptor was taken")
	require.EqualValues(t, 2, m.Find([]byte("h")).Shard)
	m.Lead(2, 2, "")
	require.True(t, m.Learn(shard(1, 3, "", "")))
	require.EqualValues(t, 1, m.Find([]byte("h")).Shard)
	require.Zero(t, m.Leader(2), "an absorbed shard has a leader")
	require.False(t, m.Learn(shard(2, 2, "g", "")), "an absorbed shard came back")
	m.Replace(2, []*kv.Descriptor{shard(1, 3, "", "")}, nil, both)
	require.Len(t, m.epochs, 1, "shards that were are remembered for ever")
	require.NoError(t, m.check())
}

func BenchmarkReplace10000(b *testing.B) {
	var list []*kv.Descriptor
	for i := range 10_000 {
		end := fmt.Sprintf("%05d", i+1)
		if i == 9_999 {
			end = ""
		}
		start := fmt.Sprintf("%05d", i)
		if i == 0 {
			start = ""
		}
		list = append(list, shard(kv.ShardID(i+1), 1, start, end))
	}
	m := New()
	for b.Loop() {
		m.Replace(1, list, nil, both)
	}
}
