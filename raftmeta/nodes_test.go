package raftmeta

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

func joining(name, address string, store uint64) *kvdv1.MetaCommand {
	return &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_Join{Join: &kvdv1.MetaNode{
		Node: &kvdv1.Node{Name: name, Address: address, Region: "north"}, StoreId: store,
	}}}
}

func draining(node uint64, on bool) *kvdv1.MetaCommand {
	return &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_SetDraining{SetDraining: &kvdv1.SetDraining{Node: node, Draining: on}}}
}

func removing(node uint64) *kvdv1.MetaCommand {
	return &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_RemoveNode{RemoveNode: &kvdv1.RemoveNode{Node: node}}}
}

// done applies a command that must be carried out.
func done(t testing.TB, m *Machine, c *kvdv1.MetaCommand) uint64 {
	t.Helper()
	r, _ := apply(t, m, c)
	require.Equal(t, kv.Done, r.Status, r.Reason)
	return uint64(r.Counter)
}

// refuses applies a command that must be refused with these words, and change nothing.
func refuses(t testing.TB, m *Machine, c *kvdv1.MetaCommand, words ...string) {
	t.Helper()
	before := m.State().Meta
	r, _ := apply(t, m, c)
	require.Equal(t, kv.Refused, r.Status, "wanted: %v", words)
	for _, w := range words {
		require.Contains(t, r.Reason, w)
	}
	require.Same(t, before, m.State().Meta)
}

// TestJoin (B2): a store is one node for ever.
func TestJoin(t *testing.T) {
	m := machine(t)
	require.EqualValues(t, 4, done(t, m, joining("n4", "h:4", 44)))
	before := m.State().Meta
	require.EqualValues(t, 4, done(t, m, joining("n4", "h:4", 44)), "asked again, as when the answer was lost")
	require.Same(t, before, m.State().Meta, "and nothing changes")
	require.EqualValues(t, 4, done(t, m, joining("n4", "h:5", 44)), "at another address")
	x, err := NewMap(m.State().Meta)
	require.NoError(t, err)
	n, _ := x.Node(4)
	require.Equal(t, Node{ID: 4, Name: "n4", Address: "h:5", Region: "north", Store: 44}, n)
	require.EqualValues(t, 1, done(t, m, joining("n1", "h:1", 1)), "a founder asks, whose flags have --join")

	refuses(t, m, joining("n4", "h:4", 45), "name: n4 is node 4", "replaced as a new node under another name")
	refuses(t, m, joining("n5", "h:4", 44), "name: must stay n4")
	refuses(t, m, joining("n1", "h:4", 44), "name: must stay n4")
	refuses(t, m, joining("n5", "h:5", 0), "store")
	refuses(t, m, joining("n5", "", 55), "address")
	refuses(t, m, joining("n5", strings.Repeat("h", addressBytesMax+1), 55), "address", fmt.Sprint(addressBytesMax))
	refuses(t, m, joining("", "h:5", 55), "name")
	refuses(t, m, joining("\xff", "h:5", 55), "name", "UTF-8")
	refuses(t, m, joining(strings.Repeat("n", NameBytesMax+1), "h:5", 55), "name", fmt.Sprint(NameBytesMax))
	far := joining("n5", "h:5", 55)
	far.GetJoin().Node.Region = strings.Repeat("r", NameBytesMax+1)
	refuses(t, m, far, "region", fmt.Sprint(NameBytesMax))
	require.EqualValues(t, 5, done(t, m, joining("n5", "h:5", 55)))
}

func TestJoinIsBounded(t *testing.T) {
	m := machine(t)
	for i := uint64(4); i <= kv.NodesMax; i++ {
		require.Equal(t, i, m.carried(t, joining(fmt.Sprint("m", i), "h:1", i)))
	}
	refuses(t, m, joining("one more", "h:1", 9999), "nodes", fmt.Sprint(kv.NodesMax))
	require.EqualValues(t, 9, done(t, m, joining("m9", "h:1", 9)), "a member that asks again")
}

// carried carries a command out without the checks after a step.
func (m *Machine) carried(t testing.TB, c *kvdv1.MetaCommand) uint64 {
	r := m.command(c)
	require.Equal(t, kv.Done, r.Status, r.Reason)
	return uint64(r.Counter)
}

func TestDraining(t *testing.T) {
	m := machine(t)
	done(t, m, draining(2, true))
	require.True(t, m.State().Meta.Nodes[1].Draining)
	before := m.State().Meta
	done(t, m, draining(2, true))
	require.Same(t, before, m.State().Meta, "said again")
	done(t, m, update(2, 2, "h:9", ""))
	require.True(t, m.State().Meta.Nodes[1].Draining, "it has only moved")
	done(t, m, draining(1, true))
	refuses(t, m, draining(3, true), "node", "3 is the last")
	done(t, m, draining(2, false))
	require.False(t, m.State().Meta.Nodes[1].Draining)
	done(t, m, draining(3, true))
	refuses(t, m, draining(4, true), "node: must be a member, 4 is none")
}

// TestRemoveNode: only what holds nothing goes, and it never comes back.
func TestRemoveNode(t *testing.T) {
	m := machine(t)
	refuses(t, m, removing(2), "node", "2 has 2 replicas", "drain it first")
	refuses(t, m, removing(9), "node: must be a member, 9 is none")
	done(t, m, joining("n4", "h:4", 44))
	done(t, m, removing(4))
	refuses(t, m, removing(4), "4 is none")
	refuses(t, m, joining("n4", "h:4", 44), "store", "node 4, which was removed", "empty one")
	refuses(t, m, update(4, 44, "h:4", ""), "4 is none")
	require.EqualValues(t, 5, done(t, m, joining("n4", "h:4", 45)), "the name is free again, the id is not")

	alone, err := New(Birth(found(t, spec(1)), 1)[0])
	require.NoError(t, err)
	refuses(t, alone, removing(1), "the last one")
}

func TestRemovedNodesAreBounded(t *testing.T) {
	m := machine(t)
	for i := uint64(4); i < RemovedMax+6; i++ {
		require.Equal(t, i, m.carried(t, joining("n", "h:1", i)))
		m.carried(t, removing(i))
	}
	require.Len(t, m.State().Meta.Removed, RemovedMax)
	require.NoError(t, m.Check())
	refuses(t, m, joining("n", "h:1", RemovedMax+5), "which was removed")
	require.EqualValues(t, RemovedMax+6, done(t, m, joining("n", "h:1", 4)), "forgotten: it gets a new id")
}

// TestEventsOfNodes: what was done is told once, with the group's time and the version that it came with.
func TestEventsOfNodes(t *testing.T) {
	m := machine(t)
	m.Begin(&sink{})
	_, err := m.Apply(11, 6, &kvdv1.Batch{StampMs: 70, Commands: []*kvdv1.Command{
		encoded(t, joining("n4", "h:4", 44)), encoded(t, joining("n4", "h:4", 44)), encoded(t, draining(4, true)),
		encoded(t, removing(4)), encoded(t, removing(4)), encoded(t, set(LogKeep, "100")),
	}})
	require.NoError(t, err)
	var got []string
	for _, e := range m.Events() {
		require.EqualValues(t, 70, e.TimeMs)
		got = append(got, fmt.Sprint(e.Version, " ", e.Kind, " ", e.State, " ", e.Node, ": ", e.Text))
	}
	require.Equal(t, []string{
		"2 join done 4: node 4 n4 at h:4 has joined",
		"3 drain done 4: node 4 n4 is to hold nothing any more",
		"4 remove done 4: node 4 n4 was removed",
		"5 setting done 0: log-keep is 100",
	}, got)
	m.Finish()
	m.Committed()
	require.Empty(t, m.Events())

	many := make([]*kvdv1.Event, kv.EventsMax+7)
	for i := range many {
		many[i] = &kvdv1.Event{Other: uint64(i), Text: strings.Repeat("…", EventTextMax)}
	}
	m.note(many)
	require.Len(t, m.Events(), kv.EventsMax)
	require.EqualValues(t, 7, m.Events()[0].Other, "the oldest are forgotten")
	require.LessOrEqual(t, len(m.Events()[0].Text), EventTextMax)
	require.True(t, strings.HasSuffix(m.Events()[0].Text, "……"), "cut between two characters")
}
