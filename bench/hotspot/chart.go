package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/geo"
	"github.com/kvdstore/kvd/kv"
)

// chart is what was seen of the shards.
type chart struct {
	shards []*kvdv1.ShardInfo
	leads  map[uint64][]lead // Of each shard, oldest first.
	held   map[replica]stay
	// changed is when the set of shards or a leader was last seen to differ.
	changed time.Duration
	looked  time.Duration // When the shards were last looked at.
	moves   int           // Changes of leaders.
}

// lead is a node that leads a shard, since a time.
type lead struct {
	node  uint64
	since time.Duration
}

// replica is a place of a replica; stay is when it came back there, 0 if it did not, and when it was last seen there.
type (
	replica struct{ shard, node uint64 }
	stay    struct{ back, seen time.Duration }
)

// take takes the shards as they are at a time.
func (c *chart) take(now time.Duration, shards []*kvdv1.ShardInfo) {
	if c.leads == nil {
		c.leads, c.held = map[uint64][]lead{}, map[replica]stay{}
	}
	c.takeReplicas(now, shards)
	if len(c.shards) > 0 && len(c.shards) != len(shards) {
		c.changed = now
	}
	c.shards = shards
	for _, s := range shards {
		id, node := s.GetDescriptor_().GetShard(), s.GetDescriptor_().GetLeader()
		list := c.leads[id]
		if node == 0 || len(list) > 0 && list[len(list)-1].node == node {
			continue
		}
		if len(list) > 0 {
			c.changed = now
			c.moves++
		}
		c.leads[id] = append(list, lead{node, now})
	}
}

// takeReplicas notes where replicas are.
func (c *chart) takeReplicas(now time.Duration, shards []*kvdv1.ShardInfo) {
	before := c.looked
	c.looked = now
	for _, s := range shards {
		for _, x := range s.GetDescriptor_().GetReplicas() {
			at := replica{s.GetDescriptor_().GetShard(), x.GetNode()}
			was, known := c.held[at]
			if known && was.seen < before {
				was.back = now
			}
			was.seen = now
			c.held[at] = was
		}
	}
}

// returns tells of each leadership and each replica that came back to a node, from a time on.
func (c *chart) returns(from time.Duration) (list []string) {
	for at, s := range c.held {
		if s.back > 0 && s.back >= from {
			list = append(list, fmt.Sprintf("a replica of shard %d came back to node %d at %v", at.shard, at.node, s.back.Round(time.Second)))
		}
	}
	for id, leads := range c.leads {
		for i := 2; i < len(leads); i++ {
			if leads[i].node == leads[i-2].node && leads[i].since >= from {
				list = append(list, fmt.Sprintf("the leadership of shard %d went from node %d to %d at %v and back at %v",
					id, leads[i].node, leads[i-1].node, leads[i-1].since.Round(time.Second), leads[i].since.Round(time.Second)))
			}
		}
	}
	slices.Sort(list)
	return list
}

// within counts the shards that lie in a cell, wholly or in part.
func (c *chart) within(hash string) int {
	span, n := kv.PrefixSpan([]byte(geo.Prefix+hash)), 0
	for _, s := range c.shards {
		d := s.GetDescriptor_()
		if (len(d.GetEnd()) == 0 || bytes.Compare(span.Start, d.GetEnd()) < 0) && bytes.Compare(d.GetStart(), span.End) < 0 {
			n++
		}
	}
	return n
}

// deepest gives the longest key that a shard in a cell begins at.
func (c *chart) deepest(hash string) string {
	deepest := ""
	span := kv.PrefixSpan([]byte(geo.Prefix + hash))
	for _, s := range c.shards {
		if start := s.GetDescriptor_().GetStart(); span.Contains(start) && len(start) > len(deepest) {
			deepest = string(start)
		}
	}
	return deepest
}

// eventsSince gives the events from a moment on, oldest first.
func eventsSince(ctx context.Context, c *client.Client, since time.Time) ([]*kvdv1.Event, error) {
	resp, err := c.Events(ctx, &kvdv1.EventsRequest{Limit: kv.EventsMax})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(resp.GetEvents(), func(e *kvdv1.Event) bool { return e.GetTimeMs() < since.UnixMilli() }), nil
}

// done picks the events of a kind that tell that something was done.
func done(list []*kvdv1.Event, kinds ...string) []*kvdv1.Event {
	return slices.DeleteFunc(slices.Clone(list), func(e *kvdv1.Event) bool {
		return e.GetState() != "done" || !slices.Contains(kinds, e.GetKind())
	})
}

// undone tells of each split that a merge followed, and the other way round.
func undone(list []*kvdv1.Event) (found []string) {
	last := map[uint64]*kvdv1.Event{}
	for _, e := range done(list, "split", "merge") {
		for _, shard := range []uint64{e.GetShard(), e.GetOther()} {
			before := last[shard]
			if before != nil && before.GetKind() != e.GetKind() {
				found = append(found, fmt.Sprintf("shard %d: a %s followed %v after a %s", shard, e.GetKind(),
					time.Duration(e.GetTimeMs()-before.GetTimeMs())*time.Millisecond, before.GetKind()))
			}
			if shard != 0 {
				last[shard] = e
			}
		}
	}
	return found
}

// hottest gives the ids of the shards that splits were made of and that are still there, those with most load first.
func (c *chart) hottest(splits []*kvdv1.Event) (ids []uint64) {
	list := slices.Clone(c.shards)
	slices.SortStableFunc(list, func(a, b *kvdv1.ShardInfo) int { return cmp.Compare(b.GetLoad(), a.GetLoad()) })
	for _, s := range list {
		id := s.GetDescriptor_().GetShard()
		if slices.ContainsFunc(splits, func(e *kvdv1.Event) bool { return e.GetShard() == id || e.GetOther() == id }) {
			ids = append(ids, id)
		}
	}
	return ids
}
