package node

import (
	"maps"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
	"github.com/kvdstore/kvd/raftmeta/plan"
)

// The conduct of the cluster, on the node that leads the meta group.
//
//	presides ──> every node ── report ──> plan ──┬── commands ──> the meta group's log
//	                                             └── orders ────> the leaders of shards
//
// Nothing of it is kept but what the metadata holds: whoever leads next asks every node again, and computes the next step
// of each goal anew. What a report tells of a shard's shape goes into the map if it is newer (M1); orders carry the epoch that
// they were computed from (M2). Lost messages are repeated: a report a second, an order as long as its goal stands.

const (
	// reportsEvery is the time between two rounds of reports, planEvery that between two rounds of the plan, and pursueEvery
	// that between two looks at the goals.
	reportsEvery = time.Second
	planEvery    = time.Second
	pursueEvery  = 200 * time.Millisecond
	// repeatAfter is after how long the same report is proposed to the meta group again.
	repeatAfter = time.Second
)

// conduct is what the leader of the meta group keeps in memory, of one leadership.
type conduct struct {
	term     kv.Term
	planner  *plan.Planner
	reports  *plan.Reports
	proposed map[kv.ShardID]proposal // Of late.
}

// proposal is a report that was proposed to the meta group.
type proposal struct {
	epoch kv.Epoch
	at    time.Duration
}

// presides reports whether a meta replica leads, and has applied an entry of its own term.
func (g *group) presides() bool {
	term, leader := g.replica.Leading()
	_, applied := g.machine.Applied()
	return leader && applied == term
}

// preside does the leader's part, at each tick.
func (c *Core) preside() {
	g := c.groups[kv.MetaShard]
	if g == nil || !g.presides() {
		c.conduct = nil
		return
	}
	term, _ := g.replica.Leading()
	if c.conduct == nil || c.conduct.term != term {
		c.conduct = &conduct{term: term, planner: plan.New(c.now.Boot), reports: plan.NewReports(c.now.Boot), proposed: map[kv.ShardID]proposal{}}
	}
	if c.every(reportsEvery, 0) {
		for _, n := range c.Meta.GetNodes() {
			c.tell(kv.NodeID(n.GetNode().GetNode()), &kvdv1.RaftMessage{Presides: uint64(term)})
		}
	}
	switch {
	case c.every(planEvery, 2):
		c.plan()
	case c.every(pursueEvery, 0):
		c.pursue()
	}
}

// every reports that a time has passed since it was so last; offset spreads what is done as often.
func (c *Core) every(d time.Duration, offset uint64) bool {
	return (c.ticks+offset)%uint64(max(d/c.Tick, 1)) == 0
}

// plan carries out what the plan decides.
func (c *Core) plan() {
	maps.DeleteFunc(c.conduct.proposed, func(_ kv.ShardID, p proposal) bool { return c.now.Boot-p.at >= repeatAfter })
	actions := c.conduct.planner.Step(c.now.Boot, c.now.Wall, c.shards(), c.settings, c.conduct.reports)
	if len(actions.Events) > 0 {
		c.Host.Happened(actions.Events)
	}
	for _, command := range actions.Commands {
		c.ownMeta(command)
	}
	for _, o := range actions.Orders {
		c.give(o)
	}
}

// pursue gives the orders for the next steps of all goals, more often than the plan looks at everything.
func (c *Core) pursue() {
	v := &plan.View{
		Map: c.shards(), Reports: c.conduct.reports, Now: c.now.Boot, DeadAfter: c.settings.Duration(raftmeta.DeadAfter),
	}
	for _, goal := range v.Map.Goals() {
		if d, ok := v.Map.Shard(kv.ShardID(goal.GetShard())); ok {
			c.give(plan.Next(v, d, goal).Order)
		}
	}
}

// give sends an order to the node that leads its shard.
func (c *Core) give(o *kvdv1.Order) {
	if to := c.conduct.reports.Leader(kv.ShardID(o.GetShard())); o != nil && to != 0 {
		c.tell(to, &kvdv1.RaftMessage{Order: o})
	}
}

// why tells what is being done to reach the goal of a shard, and what the plan thinks of the shard.
func (c *Core) why(shard kv.ShardID) (progress string, verdicts []string) {
	if c.conduct == nil {
		return "", nil
	}
	if goal, ok := c.shards().Goal(shard); ok {
		progress = c.conduct.planner.Progress(goal)
	}
	return progress, c.conduct.planner.Why(shard)
}

// ownMeta proposes a command of the meta group, which is led here. Nobody waits for it: what it did shows in the metadata.
func (c *Core) ownMeta(command *kvdv1.MetaCommand) {
	value, err := command.MarshalVT()
	if err != nil || len(value) > kv.ValueBytesMax {
		return // It is computed anew.
	}
	c.own(c.groups[kv.MetaShard], &kv.Command{Op: kv.OpMeta, Value: value}, nil)
}

// shards is an index of the metadata that the core has.
func (c *Core) shards() *raftmeta.Map {
	if c.mapped == nil || c.mapped.Version() != c.Meta.GetVersion() {
		index := raftmeta.NewMap
		if c.mapped != nil {
			index = c.mapped.Next
		}
		m, err := index(c.Meta)
		if err != nil {
			c.fail(err)
			return c.mapped
		}
		c.mapped = m
	}
	return c.mapped
}

// hear takes a node's report.
func (c *Core) hear(from kv.NodeID, r *kvdv1.NodeReport) {
	if c.conduct == nil || kv.Term(r.GetTerm()) != c.conduct.term {
		return
	}
	c.conduct.reports.Take(from, r, c.now.Boot)
	c.conduct.planner.Refused(r.GetRefusals())
	for _, s := range r.GetShards() {
		c.follow(s)
	}
}

// follow has the map follow a shard's own log (M1): first the split that the shard came out of, if the map lacks it.
func (c *Core) follow(s *kvdv1.ShardReport) {
	d := wire.ToDescriptor(s.GetDescriptor_())
	if d == nil || d.Shard == kv.MetaShard {
		return
	}
	if pair := s.GetBirth(); pair != nil {
		left, right := wire.ToDescriptor(pair.GetLeft()), wire.ToDescriptor(pair.GetRight())
		if left == nil || right == nil {
			return
		}
		if known, ok := c.shards().Shard(left.Shard); ok && left.Epoch.Version > known.Epoch.Version {
			c.proposeReport(left, left, right)
			return
		}
	}
	if known, ok := c.shards().Shard(d.Shard); ok && d.Epoch.Newer(known.Epoch) {
		c.proposeReport(d, d)
	}
}

// proposeReport proposes a report, once in a while.
func (c *Core) proposeReport(of *kv.Descriptor, list ...*kv.Descriptor) {
	last := c.conduct.proposed[of.Shard]
	if last.epoch == of.Epoch && c.now.Boot-last.at < repeatAfter {
		return
	}
	c.conduct.proposed[of.Shard] = proposal{of.Epoch, c.now.Boot}
	r := &kvdv1.ReportShards{}
	for _, d := range list {
		r.Descriptors = append(r.Descriptors, wire.FromDescriptor(d, 0))
	}
	c.ownMeta(&kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_Report{Report: r}})
}
