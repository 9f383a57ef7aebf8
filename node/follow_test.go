package node

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

// TestFollowed: who has a replica of the meta group comes first, of those that are heard, in turns; then others that are
// heard; while nobody is, everybody may be the one that is there. Nobody follows itself.
func TestFollowed(t *testing.T) {
	meta := foundingOf(t, 7) // The meta group is on five of them.
	m, err := raftmeta.NewMap(meta)
	require.NoError(t, err)
	pick := func(self kv.NodeID, heard ...kv.NodeID) (turns []kv.NodeID, replicas []bool) {
		for attempt := range 7 {
			from, replica, ok := followed(m, self, attempt, func(id kv.NodeID) bool {
				for _, x := range heard {
					if x == id {
						return true
					}
				}
				return false
			})
			require.True(t, ok)
			turns, replicas = append(turns, from), append(replicas, replica)
		}
		return turns, replicas
	}
	turns, replicas := pick(6, 2, 4, 7)
	require.Equal(t, []kv.NodeID{2, 4, 2, 4, 2, 4, 2}, turns)
	require.NotContains(t, replicas, false)
	turns, replicas = pick(6, 7)
	require.Equal(t, []kv.NodeID{7, 7, 7, 7, 7, 7, 7}, turns)
	require.NotContains(t, replicas, true)
	turns, replicas = pick(6)
	require.Equal(t, []kv.NodeID{1, 2, 3, 4, 5, 7, 1}, turns)
	require.Equal(t, []bool{true, true, true, true, true, false, true}, replicas)
	turns, _ = pick(1, 1)
	require.Equal(t, []kv.NodeID{2, 3, 4, 5, 6, 7, 2}, turns)

	alone, err := raftmeta.NewMap(foundingOf(t, 1))
	require.NoError(t, err)
	_, _, ok := followed(alone, 1, 0, func(kv.NodeID) bool { return true })
	require.False(t, ok)
}

// TestRemovedByTheMap: a node that reads in newer metadata that it is no member any more ends; one that is not yet, goes on.
func TestRemovedByTheMap(t *testing.T) {
	for self, removed := range map[kv.NodeID]bool{1: false, 2: true, 9: false} {
		meta := proto.CloneOf(foundingOf(t, 1))
		meta.NextNode, meta.Version = 3, 2 // Node 2 was one.
		var ended error
		n := &Node{Config: Config{Fatal: func(err error) { ended = err }}, self: Self{Node: self}, network: nowhere{}}
		n.serving.Store(true)
		n.takeMeta(meta)
		require.Equal(t, removed, ended != nil, "node %d", self)
		require.Equal(t, !removed, n.serving.Load())
		if removed {
			require.ErrorIs(t, ended, ErrRemoved)
		}
	}
}

// TestWhereabouts: what helps to find the others is recorded, what does not is not.
func TestWhereabouts(t *testing.T) {
	was := foundingOf(t, 3)
	for what, c := range map[string]struct {
		change func(*kvdv1.MetaState)
		counts bool
	}{
		"a version":         {func(m *kvdv1.MetaState) { m.Version++ }, false},
		"a region":          {func(m *kvdv1.MetaState) { m.Nodes[0].Node.Region = "north" }, false},
		"an address":        {func(m *kvdv1.MetaState) { m.Nodes[0].Node.Address = "h:99" }, true},
		"a new node":        {func(m *kvdv1.MetaState) { m.Nodes = append(m.Nodes, &kvdv1.MetaNode{Node: &kvdv1.Node{Node: 9}}) }, true},
		"one less":          {func(m *kvdv1.MetaState) { m.Nodes = m.Nodes[1:] }, true},
		"another for one":   {func(m *kvdv1.MetaState) { m.Nodes[0].Node.Node = 9 }, true},
		"the group's place": {func(m *kvdv1.MetaState) { m.Meta.Replicas[0].Node = 9 }, true},
	} {
		now := proto.CloneOf(was)
		c.change(now)
		require.Equal(t, c.counts, whereabouts(was) != whereabouts(now), what)
	}
}
