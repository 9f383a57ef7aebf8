package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/internal/wait"
	"github.com/kvdstore/kvd/kv"
)

// The kinds of changes.
const (
	split    = "split"
	merge    = "merge"
	move     = "move"
	transfer = "transfer"
)

// kinds are all, in an order in which each leaves enough for the next.
var kinds = []string{split, merge, move, transfer}

const (
	// changeMax bounds a change, and lookEvery is the time between two looks at a goal.
	changeMax = time.Minute
	lookEvery = 50 * time.Millisecond
	// triesMax bounds the attempts to find a shard for a change, or to have it begun: a node's map may be a little old.
	triesMax, triesPause = 100, 100 * time.Millisecond
	// after is how long after the end of a change clients still learn of it.
	after = 500 * time.Millisecond
)

// change is one that was made.
type change struct {
	window
	span kv.Span // Of all the shards that it concerns.
	err  error
}

// series are some changes of one kind.
type series struct {
	kind    string
	changes []*change
	length  time.Duration

	t  *trial
	mu sync.Mutex
	// busy shards take part in a change.
	busy map[uint64]bool
}

// wish is a change that is to be made.
type wish struct {
	shards []*kvdv1.Descriptor
	begin  func(ctx context.Context, c *client.Client) (*kvdv1.GoalResponse, error)
}

func (t *trial) newSeries(kind string) *series {
	return &series{kind: kind, t: t, busy: map[uint64]bool{}}
}

// serial makes n changes of a kind, one after the other begun, some under way at a time.
func (t *trial) serial(ctx context.Context, kind string, n int, every time.Duration) (*series, error) {
	if kind == merge {
		if err := t.cut(ctx, n+t.atOnce+2); err != nil {
			return nil, err
		}
	}
	s := t.newSeries(kind)
	began := time.Now()
	places := make(chan struct{}, t.atOnce)
	var all sync.WaitGroup
	for i := range n {
		if err := wait.For(ctx, time.Until(began.Add(time.Duration(i)*every))); err != nil {
			break
		}
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			c := s.one(ctx)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.changes = append(s.changes, c)
		})
	}
	all.Wait()
	s.length = time.Since(began)
	return s, ctx.Err()
}

// cut splits until there are at least so many shards.
func (t *trial) cut(ctx context.Context, shards int) error {
	s := t.newSeries(split)
	for {
		_, list, err := s.shards(ctx)
		if err != nil {
			return err
		}
		if len(list) >= shards {
			return nil
		}
		if c := s.one(ctx); c.err != nil {
			return fmt.Errorf("a split to begin with: %w", c.err)
		}
	}
}

// one makes a change of some shard.
func (s *series) one(ctx context.Context) *change {
	ctx, cancel := context.WithTimeout(ctx, changeMax)
	defer cancel()
	c := &change{}
	c.err = errors.New("there was no shard for it")
	for range triesMax {
		w, err := s.wish(ctx)
		if err == nil && w != nil {
			c.from, c.span = s.t.now(), spanOf(w.shards)
			c.err = s.make(ctx, w)
			c.to = s.t.now() + int64(after)
			s.release(w)
			if c.err == nil || !errors.As(c.err, new(*kv.InvalidError)) {
				break // Else it was not begun: somebody's map was old.
			}
		}
		if err := wait.For(ctx, triesPause); err != nil {
			c.err = errors.Join(c.err, err)
			break
		}
	}
	return c
}

func (s *series) release(w *wish) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range w.shards {
		delete(s.busy, d.GetShard())
	}
}

// make has the change made, and waits for its end.
func (s *series) make(ctx context.Context, w *wish) error {
	resp, err := w.begin(ctx, s.t.operator())
	if err != nil || resp == nil {
		return err
	}
	for {
		if err := wait.For(ctx, lookEvery); err != nil {
			return fmt.Errorf("goal %d is not reached: %w", resp.GetGoal().GetId(), err)
		}
		st, err := s.t.operator().GoalStatus(ctx, &kvdv1.GoalStatusRequest{Goal: resp.GetGoal().GetId()})
		if err != nil {
			return err
		}
		switch st.GetState() {
		case kvdv1.GoalStatusResponse_DONE:
			return nil
		case kvdv1.GoalStatusResponse_GIVEN_UP:
			return fmt.Errorf("goal %d was given up: %s", resp.GetGoal().GetId(), st.GetProgress())
		case kvdv1.GoalStatusResponse_UNKNOWN_GOAL:
			return fmt.Errorf("nobody knows what became of goal %d", resp.GetGoal().GetId())
		}
	}
}

// shards gives the map, and of it the shards that hold keys of the trial.
func (s *series) shards(ctx context.Context) (*kvdv1.MapResponse, []*kvdv1.Descriptor, error) {
	m, err := s.t.operator().Map(ctx)
	if err != nil {
		return nil, nil, err
	}
	var list []*kvdv1.Descriptor
	for _, d := range m.GetDescriptors() {
		if spanOf([]*kvdv1.Descriptor{d}).Overlaps(s.t.keys.span) {
			list = append(list, d)
		}
	}
	return m, list, nil
}

// spanOf is what neighbours cover.
func spanOf(list []*kvdv1.Descriptor) kv.Span {
	return kv.Span{Start: list[0].GetStart(), End: list[len(list)-1].GetEnd()}
}

// wish finds a change for shards that no other one concerns; nil if there is none now.
func (s *series) wish(ctx context.Context) (*wish, error) {
	m, list, err := s.shards(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 20 {
		w := s.draw(m, list)
		if w == nil {
			continue
		}
		free := true
		for _, d := range w.shards {
			free = free && !s.busy[d.GetShard()]
		}
		if !free {
			continue
		}
		for _, d := range w.shards {
			s.busy[d.GetShard()] = true
		}
		return w, nil
	}
	return nil, nil
}

// draw draws a change by lot; nil if that shard cannot be changed so.
func (s *series) draw(m *kvdv1.MapResponse, list []*kvdv1.Descriptor) *wish {
	rng := s.t.rng
	i := rng.IntN(len(list))
	d := list[i]
	switch s.kind {
	case split:
		return s.drawSplit(list)
	case merge:
		if i+1 == len(list) {
			return nil
		}
		return &wish{list[i : i+2], func(ctx context.Context, c *client.Client) (*kvdv1.GoalResponse, error) {
			return c.MergeShard(ctx, &kvdv1.MergeShardRequest{Shard: d.GetShard()})
		}}
	case move:
		var others []uint64
		for _, n := range m.GetNodes() {
			if !holds(d, n.GetNode()) {
				others = append(others, n.GetNode())
			}
		}
		if len(others) == 0 || len(d.GetReplicas()) == 0 {
			return nil
		}
		r := &kvdv1.MoveReplicaRequest{
			Shard: d.GetShard(), FromNode: d.GetReplicas()[rng.IntN(len(d.GetReplicas()))].GetNode(), ToNode: others[rng.IntN(len(others))],
		}
		return &wish{list[i : i+1], func(ctx context.Context, c *client.Client) (*kvdv1.GoalResponse, error) { return c.MoveReplica(ctx, r) }}
	}
	to := d.GetReplicas()[rng.IntN(len(d.GetReplicas()))].GetNode()
	if to == d.GetLeader() {
		return nil
	}
	return &wish{list[i : i+1], func(ctx context.Context, c *client.Client) (*kvdv1.GoalResponse, error) {
		_, err := c.TransferLeader(ctx, &kvdv1.TransferLeaderRequest{Shard: d.GetShard(), ToNode: to})
		return nil, err
	}}
}

// drawSplit splits at a key, or a shard that has some where kvd chooses. Shards with many keys are split more often.
func (s *series) drawSplit(list []*kvdv1.Descriptor) *wish {
	key := pick(s.t.rng, s.t.keys.all)
	for i, d := range list {
		if !spanOf(list[i:i+1]).Contains(key) || bytes.Equal(d.GetStart(), key) {
			continue
		}
		r := &kvdv1.SplitShardRequest{Shard: d.GetShard(), Key: key}
		if s.t.rng.IntN(2) == 0 && s.t.keysIn(spanOf(list[i:i+1])) > 10 {
			r.Key = nil
		}
		return &wish{list[i : i+1], func(ctx context.Context, c *client.Client) (*kvdv1.GoalResponse, error) { return c.SplitShard(ctx, r) }}
	}
	return nil
}

func (t *trial) keysIn(s kv.Span) (n int) {
	for _, key := range t.keys.all {
		if s.Contains(key) {
			n++
		}
	}
	return n
}

func holds(d *kvdv1.Descriptor, node uint64) bool {
	for _, r := range d.GetReplicas() {
		if r.GetNode() == node {
			return true
		}
	}
	return false
}
