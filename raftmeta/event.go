package raftmeta

import (
	"fmt"
	"strings"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// The states of an event.
const (
	// Wanted: a goal was set.
	Wanted = "wanted"
	// Happened: a goal was reached, a shard changed without one, or a command was carried out.
	Happened = "done"
	// GivenUp: a goal was dropped and is not reached.
	GivenUp = "given up"
)

// EventTextMax bounds the text of an event, in bytes: a node remembers EventsMax of them.
const EventTextMax = 1 << 10

// Events are those of this step, oldest first: what its commands and reports did. They are the same on every replica,
// and gone after Committed.
func (m *Machine) Events() []*kvdv1.Event { return m.events }

// note keeps events of the present metadata. Past EventsMax the oldest of the step are forgotten.
func (m *Machine) note(events []*kvdv1.Event) {
	for _, e := range events {
		e.TimeMs, e.Version, e.Text = m.state.TimeMs, m.state.Meta.Version, shorten(e.Text, EventTextMax)
	}
	m.events = append(m.events, events...)
	m.events = m.events[max(0, len(m.events)-kv.EventsMax):]
}

// shorten cuts a text that is longer than n bytes.
func shorten(text string, n int) string {
	const dots = "…"
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n-len(dots)], "") + dots
}

// goalEvent tells of a goal, with its reason; why is why it is given up.
func goalEvent(g *kvdv1.Goal, state, why string) *kvdv1.Event {
	e := &kvdv1.Event{State: state, Shard: g.GetShard(), Goal: g.GetId()}
	var what string
	switch want := g.GetGoal().(type) {
	case *kvdv1.Goal_Split:
		e.Kind, e.Other, what = "split", want.Split.GetChild(), "split "+shardName(e.Shard)
		if len(want.Split.GetKey()) > 0 {
			what += " at " + shorten(kv.FormatKey(want.Split.Key), 64)
		}
		what += fmt.Sprintf(", the right part is shard %d", e.Other)
	case *kvdv1.Goal_Merge:
		e.Kind, e.Other = "merge", want.Merge.GetRight()
		what = fmt.Sprintf("merge shard %d into %s", e.Other, shardName(e.Shard))
	case *kvdv1.Goal_Replicas:
		e.Kind, e.Node, what = "replicas", addedNode(want.Replicas), replicasText(e.Shard, want.Replicas)
		if len(want.Replicas.GetAdd()) > 0 && len(want.Replicas.GetRemove()) > 0 {
			e.Kind = "move"
		}
	}
	e.Text = what
	if g.GetReason() != "" {
		e.Text += ": " + g.Reason
	}
	if why != "" {
		e.Text = why + " (" + e.Text + ")"
	}
	return e
}

func addedNode(want *kvdv1.ReplicasGoal) uint64 {
	if len(want.GetAdd()) == 0 {
		return 0
	}
	return want.Add[0].GetNode()
}

// replicasText says where replicas come and go.
func replicasText(shard uint64, want *kvdv1.ReplicasGoal) string {
	text, sep := shardName(shard), ": "
	for _, r := range want.GetAdd() {
		text += fmt.Sprintf("%s+ node %d", sep, r.GetNode())
		sep = ", "
	}
	for _, node := range want.GetRemove() {
		text += fmt.Sprintf("%s- node %d", sep, node)
		sep = ", "
	}
	return text
}
