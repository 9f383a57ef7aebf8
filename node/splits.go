package node

import (
	"fmt"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/shard"
)

// A split, as the shard's leader prepares it for a goal of the meta group.
//
//	choose a key ──> Measure, in the log ──> count what lies above it ──> Split
//
// The key halves the load or the size, and is the shortest that separates its neighbours (S6). The size of the halves must be
// exact and the same on every replica, and a walk through half of the data is too long for the loop: so from the Measure's
// index on every replica counts what changes above the key, and the leader walks beside the loop through what was there
// at that index. The Split carries the sum. What is under way is lost with the leadership, and begun again.

// splitMax bounds the time that a split may take from its order to its proposal, but for a walk that is under way.
const splitMax = 20 * time.Second

// splitting is a split that is being prepared.
type splitting struct {
	order *kvdv1.Order
	goal  *kvdv1.SplitGoal
	key   []byte
	since time.Duration
	// measuring: the Measure is in the log, and not applied yet; index is where it was applied.
	measuring bool
	index     kv.Index
	// walking: a survey is under way.
	walking bool
}

// beginSplit follows the order to split a shard.
func (c *Core) beginSplit(g *group, o *kvdv1.Order, goal *kvdv1.SplitGoal) {
	if s := g.splitting; s != nil && s.order.GetGoal() == o.GetGoal() && (s.walking || c.now.Boot-s.since < splitMax) {
		return
	}
	g.splitting = &splitting{order: o, goal: goal, since: c.now.Boot}
	span := g.machine.Descriptor().Span
	switch {
	case c.groups[kv.ShardID(goal.GetChild())] != nil:
		// In the log it would stop every replica, at each start again.
		c.giveUpSplit(g, true, fmt.Sprintf("the id %d of the new shard is in use", goal.GetChild()))
	case len(goal.GetKey()) > 0 && (!span.Contains(goal.GetKey()) || string(goal.GetKey()) == string(span.Start)):
		c.giveUpSplit(g, true, fmt.Sprintf("the key %s is not within the shard", kv.FormatKey(goal.GetKey())))
	case len(goal.GetKey()) > 0:
		c.measure(g, goal.GetKey())
	case goal.GetByLoad():
		key, reason := g.view.cut(span)
		if key == nil {
			c.giveUpSplit(g, true, reason)
			return
		}
		c.survey(g, FindCut, o.GetGoal(), key)
	default:
		c.survey(g, FindMiddle, o.GetGoal(), nil)
	}
}

func (c *Core) giveUpSplit(g *group, final bool, reason string) {
	c.refuse(g.splitting.order, final, reason)
	g.splitting = nil
}

// takeSurvey takes what a walk has found.
func (c *Core) takeSurvey(s Survey) {
	c.surveys--
	g := c.groups[s.Shard]
	if s.Err != nil {
		c.fail(fmt.Errorf("read shard %d for a split: %w", s.Shard, s.Err))
		return
	}
	if g == nil || g.splitting == nil || g.splitting.order.GetGoal() != s.Goal {
		return
	}
	g.splitting.walking = false
	switch {
	case !g.leads():
		g.splitting = nil
	case s.Kind == CountFrom && s.Index != g.splitting.index:
		// It counted for a Measure that another has replaced: what changed in between would be counted nowhere.
	case s.Kind == CountFrom:
		c.split(g, s)
	case s.Right == nil:
		c.giveUpSplit(g, true, "no key has data on both sides of it")
	default:
		c.measure(g, shard.Separator(s.Left, s.Right))
	}
}

// measure makes every replica count what changes at and above a key.
func (c *Core) measure(g *group, key []byte) {
	g.splitting.key, g.splitting.measuring = key, true
	s := &kvdv1.Shape{Shape: &kvdv1.Shape_Measure{Measure: &kvdv1.Measure{Id: g.splitting.order.GetGoal(), Key: key}}}
	c.proposeShape(g, g.splitting.order.GetEpoch(), s, c.unless(g))
}

// unless gives a split up that a command for it was refused.
func (c *Core) unless(g *group) func(kv.Result, error) {
	s := g.splitting
	return func(r kv.Result, err error) {
		if g.splitting == s && (err != nil || r.Status != kv.Done) {
			g.splitting = nil
		}
	}
}

// surveyed counts, at the leader, what a Measure of the step that is visible now is about.
func (c *Core) surveyed(g *group) {
	s := g.splitting
	if s == nil || !s.measuring || !g.machine.Ends() {
		return
	}
	if m := g.machine.State().GetMeasure(); m.GetId() == s.order.GetGoal() && string(m.GetKey()) == string(s.key) {
		s.measuring, s.index = false, kv.Index(m.GetIndex())
		c.survey(g, CountFrom, s.order.GetGoal(), s.key)
	}
}

// split proposes the split with what was counted.
func (c *Core) split(g *group, counted Survey) {
	s := g.splitting
	c.proposeShape(g, s.order.GetEpoch(), &kvdv1.Shape{Shape: &kvdv1.Shape_Split{Split: &kvdv1.Split{
		Key: s.key, Child: s.goal.GetChild(), Replicas: s.goal.GetReplicas(), Heir: uint64(c.Node), Measure: counted.Goal, Index: uint64(counted.Index),
		Keys: counted.Keys, Bytes: counted.Bytes, Expiring: counted.Expiring,
	}}}, func(kv.Result, error) {
		if g.splitting == s {
			g.splitting = nil
		}
	})
}
