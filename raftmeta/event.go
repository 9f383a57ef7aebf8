package raftmeta

import (
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
