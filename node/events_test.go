package node

import (
	"testing"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

func event(version, shard uint64, state string) *kvdv1.Event {
	return &kvdv1.Event{Version: version, TimeMs: int64(version), Shard: shard, Kind: "split", State: state, Goal: shard + 100}
}

func versions(list []*kvdv1.Event) (all []uint64) {
	for _, e := range list {
		all = append(all, e.GetVersion())
	}
	return all
}

// TestEventsAreBounded: the newest are kept, in their order, and what is heard twice is kept once.
func TestEventsAreBounded(t *testing.T) {
	r := &events{}
	const more = kv.EventsMax + kv.EventsMax/2
	for v := range uint64(more) {
		r.Add([]*kvdv1.Event{event(v+1, 1, "done"), event(v+1, 1, "done")})
	}
	all := r.Of(0, 0, kv.EventsMax)
	require.Len(t, all, kv.EventsMax)
	require.Len(t, r.seen, kv.EventsMax)
	for i, v := range versions(all) {
		require.EqualValues(t, more-kv.EventsMax+i+1, v)
	}
	require.Equal(t, []uint64{more - 1, more}, versions(r.Of(0, 0, 2)))
	// What was forgotten may come again.
	r.Add([]*kvdv1.Event{event(1, 1, "done")})
	require.Equal(t, []uint64{more, 1}, versions(r.Of(0, 0, 2)))
}

// TestEventsOf: of a shard, as either one of two, and of a goal.
func TestEventsOf(t *testing.T) {
	r := &events{}
	require.Empty(t, r.Of(0, 0, 10))
	merge := event(3, 2, "done")
	merge.Other = 1
	r.Add([]*kvdv1.Event{event(1, 1, "wanted"), event(2, 2, "wanted"), merge, event(4, 3, "done")})
	require.Equal(t, []uint64{1, 3}, versions(r.Of(1, 0, 10)))
	require.Equal(t, []uint64{2, 3}, versions(r.Of(0, 102, 10)))
	require.Equal(t, []uint64{3}, versions(r.Of(1, 102, 10)))
}

// TestMergedEvents: what several nodes tell is one list by time, and what the meta group has not decided is told apart by
// its time.
func TestMergedEvents(t *testing.T) {
	a, b, c := event(1, 1, "wanted"), event(2, 1, "done"), event(3, 2, "done")
	early := &kvdv1.Event{TimeMs: 1, Shard: 1, Kind: "move", State: "refused"}
	late := &kvdv1.Event{TimeMs: 9, Shard: 1, Kind: "move", State: "refused"}
	got := mergeEvents([][]*kvdv1.Event{{b, c, late}, {a, b}, nil, {early, early}}, 10)
	require.Equal(t, []*kvdv1.Event{early, a, b, c, late}, got)
	require.Equal(t, []*kvdv1.Event{c, late}, mergeEvents([][]*kvdv1.Event{{b, c, late}, {a, b}}, 2))
	require.Empty(t, mergeEvents(nil, 2))
}
