package plan

import (
	"fmt"
	"slices"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

const (
	// GoalsMax bounds the goals of the plan at a time, so that operators find room for theirs.
	GoalsMax = kv.GoalsMax * 3 / 4
	// decideEvery is the least time between two rounds of decisions.
	decideEvery = 900 * time.Millisecond
	// dropEvery is after how long a goal is dropped again that is still open.
	dropEvery = 3 * time.Second
	// WarmUp is how long a new planner waits before it balances, merges or splits by load: the first loads come in.
	WarmUp = 5 * time.Second
	// PatienceFor is how long a node that is to get a replica may be silent before a goal of the plan is given up.
	PatienceFor = 30 * time.Second
)

// Actions are what a round of the plan wants done.
type Actions struct {
	// Commands are to be proposed in the meta group: goals to be set or dropped.
	Commands []*kvdv1.MetaCommand
	// Orders are for the leaders of their shards, at most kv.OrdersMax. A goal's orders come first.
	Orders []*kvdv1.Order
	// Events tell of hand-overs: they have no goal, so the meta group does not tell of them.
	Events []*kvdv1.Event
}

// Planner decides for the leader of the meta group. It begins anew with each leadership: what it remembers are changes of
// late, so that it does not take them back, and what it thinks the load is until the next reports.
type Planner struct {
	began        time.Duration
	memories     map[kv.ShardID]*memory
	open         []*kvdv1.Goal                // Goals at the last step,
	wanted       map[kv.ShardID]time.Duration // and the shards for which it has set one of late, and when.
	progress     map[uint64]string            // Of those.
	refused      map[uint64]string            // Those that are to be dropped, because no later order would do better.
	dropped      map[uint64]time.Duration     // Those that were dropped, and when.
	moves        budget
	merges       budget
	totals       [steadyRounds + 1]float64 // The load of the last rounds, the newest first.
	uneven       int                       // Rounds in a row in which a node led too much,
	unevenSteady int                       // and the load was steady.
	unevenAt     time.Duration             // When that was last, and might still be mended.
	idleSince    time.Duration             // Since when there is hardly any load, if there is.
	last         *round
	events       []*kvdv1.Event // Of this step.
	wallMs       int64
}

// New makes a planner for the leadership that begins at now.
func New(now time.Duration) *Planner {
	return &Planner{
		began: now, memories: map[kv.ShardID]*memory{}, wanted: map[kv.ShardID]time.Duration{}, progress: map[uint64]string{}, refused: map[uint64]string{}, dropped: map[uint64]time.Duration{}, idleSince: now, unevenAt: now,
	}
}

// Step is one round. Decisions are made once a second, however often it is called; orders for goals are given each time.
// The map, the settings and what is in the reports are shared and read-only. wallMs is the time of day in Unix milliseconds,
// for people.
func (p *Planner) Step(now time.Duration, wallMs int64, m *raftmeta.Map, settings *raftmeta.Settings, reports *Reports) Actions {
	reports.Keep(m)
	p.wallMs, p.events = wallMs, nil
	lim := limitsOf(settings)
	v := &View{Map: m, Reports: reports, Now: now, DeadAfter: lim.deadAfter}
	if p.last != nil && now-p.last.Now < decideEvery {
		r := &round{View: v, p: p, lim: lim, byID: p.last.byID}
		r.follow()
		r.clear()
		return r.actions
	}
	p.learn(v, lim)
	r := newRound(p, v, lim)
	p.last = r
	r.follow()
	r.clear()
	r.holdRules()
	r.placeAll()
	r.handOver()
	r.watch()
	r.splitAll()
	r.mergeAll()
	r.spreadLeaders()
	r.spreadReplicas()
	r.actions.Events = p.events
	return r.actions
}

// Refused takes what nodes answered to orders. A refusal that is final ends its goal.
func (p *Planner) Refused(refusals []*kvdv1.Refusal) {
	for _, f := range refusals {
		if !slices.ContainsFunc(p.open, func(g *kvdv1.Goal) bool { return g.GetId() == f.GetGoal() }) {
			continue
		}
		p.progress[f.Goal] = "refused: " + f.GetReason()
		if f.GetFinal() {
			p.refused[f.Goal] = f.GetReason()
		}
	}
}

// Progress tells what is being done for an open goal, or what it waits for, and for how long it is open.
func (p *Planner) Progress(goal *kvdv1.Goal) string {
	text, ok := p.progress[goal.GetId()]
	if !ok {
		return "the plan has not come to it yet"
	}
	if age := time.Duration(p.wallMs-goal.GetSinceMs()) * time.Millisecond; age >= time.Second {
		text += fmt.Sprintf(" (open for %s)", seconds(age))
	}
	return text
}

// follow gives the orders of all open goals, and drops those that cannot be reached.
func (r *round) follow() {
	p := r.p
	for _, g := range r.Map.Goals() {
		d, ok := r.Map.Shard(kv.ShardID(g.GetShard()))
		if !ok {
			continue // The meta group drops it.
		}
		refusal, final := p.refused[g.Id]
		step := Next(r.View, d, g)
		if !step.Reached && !step.GiveUp && !g.GetByOperator() {
			if why := r.pointless(d, g); why != "" {
				step = Step{GiveUp: true, Why: why}
			}
		}
		switch {
		case step.Reached:
		case final:
			r.drop(g, refusal, true)
			step.Why = "refused: " + refusal
		case step.GiveUp:
			r.drop(g, step.Why, false)
		case step.Order != nil:
			r.order(step.Order)
		}
		p.progress[g.Id] = step.Why
	}
}

// drop gives a goal up, and leaves its shard alone for a while if a leader refused it.
func (r *round) drop(g *kvdv1.Goal, reason string, refused bool) {
	at, again := r.p.dropped[g.GetId()]
	if again && r.Now-at < dropEvery {
		return // The command is on its way.
	}
	r.p.dropped[g.GetId()] = r.Now
	r.command(&kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_DropGoal{DropGoal: &kvdv1.DropGoal{Goal: g.GetId(), Reason: clip(reason)}}})
	if g.GetByOperator() || !refused || again {
		return
	}
	mem := r.p.memories[kv.ShardID(g.GetShard())]
	if mem == nil {
		return
	}
	first, last := backoffLoad, backoffLoadMax
	if g.GetSplit() != nil && !g.GetSplit().GetByLoad() {
		first, last = backoffSize, backoffSizeMax // Data changes more slowly than load.
	}
	mem.refuse(kindOf(g), r.Now, first, last, clip(reason))
	mem.rest(kindMove, mem.pauses[kindPlace].until, mem.pauses[kindPlace].why)
}

// pointless tells why a goal of the plan's own is not worth reaching any more.
func (r *round) pointless(d *kv.Descriptor, g *kvdv1.Goal) string {
	if d.Joint() {
		return ""
	}
	for _, add := range g.GetReplicas().GetAdd() {
		node := kv.NodeID(add.GetNode())
		if at, ok := d.OnNode(node); ok && !at.Learner {
			continue
		}
		if silent := r.Reports.Silent(node, r.Now); silent > PatienceFor {
			return fmt.Sprintf("node %d, which was to get a replica, is silent for %s", node, seconds(silent))
		}
		if r.draining(node) || r.Reports.Node(node).DiskFull {
			return r.barred(node)
		}
	}
	left, right := r.byID[d.Shard], r.byID[kv.ShardID(g.GetMerge().GetRight())]
	if g.GetMerge() == nil || left == nil || right == nil || left.figures.Report.GetIntent() != 0 {
		return ""
	}
	return r.tooMuch(left, right, 2)
}

// clear takes away what goals that were given up have left: joint configurations and learners.
func (r *round) clear() {
	r.clearOne(r.Map.Meta())
	for _, d := range r.Map.Descriptors() {
		r.clearOne(d)
	}
}

func (r *round) clearOne(d *kv.Descriptor) {
	if !slices.ContainsFunc(d.Replicas, func(x kv.Replica) bool { return x.Learner || x.Incoming || x.Outgoing }) {
		return
	}
	if _, wanted := r.Map.Goal(d.Shard); wanted {
		return
	}
	if s := r.byID[d.Shard]; s != nil {
		s.taken = true
	}
	if step := Next(r.View, d, nil); step.Order != nil {
		r.order(step.Order)
	}
}

// handing tells of a hand-over.
func (p *Planner) handing(shard kv.ShardID, from, to kv.NodeID, state, why string) {
	name := fmt.Sprintf("shard %d", shard)
	if shard == kv.MetaShard {
		name = "the meta group"
	}
	p.events = append(p.events, &kvdv1.Event{
		Kind: "transfer", State: state, Shard: uint64(shard), Node: uint64(to), TimeMs: p.wallMs,
		Text: fmt.Sprintf("hand %s over from node %d to node %d: %s", name, from, to, why),
	})
}

// order gives an order, up to the bound; the rest is computed again in the next round.
func (r *round) order(o *kvdv1.Order) bool {
	if len(r.actions.Orders) >= kv.OrdersMax {
		return false
	}
	r.actions.Orders = append(r.actions.Orders, o)
	return true
}

func (r *round) command(c *kvdv1.MetaCommand) { r.actions.Commands = append(r.actions.Commands, c) }

// want sets a goal for a shard that is free, if there is room for one.
func (r *round) want(s *shardState, goal *kvdv1.Goal, format string, args ...any) bool {
	if !r.room() {
		s.say("as many goals are open as the plan may have: %d", GoalsMax)
		return false
	}
	r.open++
	s.taken = true
	r.p.wanted[s.d.Shard] = r.Now
	goal.Shard, goal.Epoch = uint64(s.d.Shard), epochOf(s.d)
	goal.Reason = clip(fmt.Sprintf(format, args...))
	s.say("%s", goal.Reason)
	r.command(&kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_SetGoal{SetGoal: goal}})
	return true
}

func (r *round) room() bool { return r.open < GoalsMax }
