package plan

import (
	"bytes"
	"maps"
	"slices"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

// A planner's memory of a shard keeps it from acting on figures from before a change, and from taking a change back.

const (
	// loadSettle is how long after a split, a merge or a hand-over the load is estimated: the leader's figures, which are
	// counted anew then, have to become steady.
	loadSettle = 2 * time.Second
	// headFor is how long a hand-over that was ordered is believed to come.
	headFor = 4 * time.Second
	// wantedFor is how long a goal that was set may take to be seen in the map, or else what came of it.
	wantedFor = 10 * time.Second
	// leadPause, movePause, splitPause and reshapePause keep changes of one shard apart: hand-overs, moves, splits, and a
	// split by load after a merge.
	leadPause    = 8 * time.Second
	movePause    = 30 * time.Second
	splitPause   = 2 * time.Second
	reshapePause = 10 * time.Second
	// leadBack and moveBack keep leaders and replicas from the nodes that they have left, and leadBackSoon and moveBackSoon
	// even if the load has become very uneven since.
	leadBack     = 5 * time.Minute
	moveBack     = time.Hour
	leadBackSoon = 15 * time.Second
	moveBackSoon = time.Minute
	// operatorPause keeps the plan from touching what an operator has arranged; a hand-over by hand shows only as one that
	// the plan did not order.
	operatorPause = 10 * time.Minute
	strangerPause = 2 * time.Minute
	// departuresMax bounds the nodes of which a shard remembers that it has left them.
	departuresMax = 8
)

// kind of a change, for its pause.
type kind int

const (
	kindSplit kind = iota
	kindMerge
	kindPlace // Repair, and what rules and settings want.
	kindMove  // For the balance.
	kindLead
	kinds
)

func kindOf(g *kvdv1.Goal) kind {
	switch g.GetGoal().(type) {
	case *kvdv1.Goal_Split:
		return kindSplit
	case *kvdv1.Goal_Merge:
		return kindMerge
	}
	return kindPlace
}

// pause is until when a shard is left alone, and why.
type pause struct {
	until time.Duration
	why   string
}

// departure is a node that a replica or the leadership has left, and until when it does not come back.
type departure struct {
	node      kv.NodeID
	at, until time.Duration
}

// memory is what a planner remembers of a shard.
type memory struct {
	version  uint64        // Of its span,
	span     kv.Span       // which this is,
	since    time.Duration // and which it has since then, as far as this planner knows.
	leader   kv.NodeID     // At the last step.
	former   kv.NodeID     // The leader before, if the plan did not want the change,
	formerAt time.Duration // which was noticed then.
	seen     float64       // The load at the last step.
	load     float64       // Believed instead of reports until loadTill.
	loadTill time.Duration
	head     kv.NodeID // Believed to lead instead of the reported one until headTill.
	headTill time.Duration
	headWhy  string // Why it was asked to take the leadership over; empty if the plan did not ask for it.
	pauses   [kinds]pause
	refusals [kinds]int // In a row.
	moved    []departure
	led      []departure
}

func (m *memory) rest(k kind, until time.Duration, why string) {
	if until > m.pauses[k].until {
		m.pauses[k] = pause{until, why}
	}
}

func (m *memory) resting(k kind, now time.Duration) bool { return now < m.pauses[k].until }

// refuse leaves the shard alone after a refusal, longer after each.
func (m *memory) refuse(k kind, now, first, last time.Duration, reason string) {
	wait := first
	for range m.refusals[k] {
		wait = min(2*wait, last)
	}
	m.refusals[k]++
	m.rest(k, now+wait, "refused: "+reason)
}

func (m *memory) believe(load float64, until time.Duration) { m.load, m.loadTill = load, until }

func depart(list []departure, node kv.NodeID, now, until time.Duration) []departure {
	var kept []departure
	for _, d := range list {
		if d.node != node && d.until > now {
			kept = append(kept, d)
		}
	}
	kept = append(kept, departure{node, now, until})
	return kept[max(0, len(kept)-departuresMax):]
}

// departed tells that a node was left of late; with a good reason to come back only what was left just now counts.
func departed(list []departure, node kv.NodeID, now, soon time.Duration, reason bool) bool {
	return slices.ContainsFunc(list, func(d departure) bool {
		return d.node == node && now < d.until && (!reason || now-d.at < soon)
	})
}

// learn compares the map with that of the last step: what was split, merged, moved or handed over since. A split or a merge
// may take less than the time between two steps, so that its goal is in no map that is seen here: the spans tell.
func (p *Planner) learn(v *View, lim limits) {
	all := append([]*kv.Descriptor{v.Map.Meta()}, v.Map.Descriptors()...)
	var reshaped []*kv.Descriptor
	for _, d := range all {
		m := p.memories[d.Shard]
		switch {
		case m == nil:
			m = &memory{version: d.Epoch.Version, span: d.Span, since: v.Now, leader: v.Reports.Leader(d.Shard)}
			p.memories[d.Shard] = m
		case m.version != d.Epoch.Version:
			m.version, m.since = d.Epoch.Version, v.Now
			reshaped = append(reshaped, d)
		}
	}
	for _, d := range reshaped {
		p.reshaped(v, d)
	}
	for _, d := range all {
		p.noticeLeader(v, d, p.memories[d.Shard])
	}
	for _, g := range p.open {
		still := slices.ContainsFunc(v.Map.Goals(), func(now *kvdv1.Goal) bool { return now.GetId() == g.GetId() })
		if !still {
			p.ended(v, g)
			delete(p.progress, g.GetId())
			delete(p.refused, g.GetId())
			delete(p.dropped, g.GetId())
		}
	}
	p.open = v.Map.Goals()
	maps.DeleteFunc(p.wanted, func(_ kv.ShardID, at time.Duration) bool { return v.Now-at > wantedFor })
	if len(p.memories) == len(all) {
		return
	}
	for id := range p.memories {
		if _, ok := v.Map.Shard(id); !ok {
			delete(p.memories, id)
		}
	}
}

// reshaped notes that a shard was split, or has absorbed its neighbour.
func (p *Planner) reshaped(v *View, d *kv.Descriptor) {
	m := p.memories[d.Shard]
	before, byOperator := m.span, p.operators(d.Shard)
	m.span = d.Span
	if before.Equal(d.Span) {
		return
	}
	if len(d.Span.End) > 0 && before.Contains(d.Span.End) { // Split: the rest is a new shard's.
		if child := p.memories[v.Map.Lookup(d.Span.End).Shard]; child.since == v.Now {
			wasSplit(v, m, child, byOperator)
		}
		return
	}
	if len(before.End) == 0 || !d.Span.Contains(before.End) {
		return
	}
	for id, right := range p.memories {
		if _, still := v.Map.Shard(id); !still && bytes.Equal(right.span.Start, before.End) {
			wasMerged(v, m, right, byOperator)
		}
	}
}

// operators tells that an operator wants, or has wanted, what was done to a shard: the plan did not.
func (p *Planner) operators(shard kv.ShardID) bool {
	for _, g := range p.open {
		if g.GetShard() == uint64(shard) {
			return g.GetByOperator()
		}
	}
	_, own := p.wanted[shard]
	return !own
}

// noticeLeader leaves a shard where it is led for a while if an operator seems to have wanted it: the plan did not, and
// the node that led before goes on to be heard.
func (p *Planner) noticeLeader(v *View, d *kv.Descriptor, m *memory) {
	if m.former != 0 && v.Reports.Node(m.former).Heard > m.formerAt {
		m.rest(kindLead, v.Now+strangerPause, "the leadership was handed over, and not by the plan")
		m.former = 0
	} else if m.former != 0 && v.suspect(m.former) {
		m.former = 0
	}
	leader := v.Reports.Leader(d.Shard)
	if leader == 0 || leader == m.leader {
		return
	}
	_, busy := v.Map.Goal(d.Shard)
	if m.former = 0; m.leader != 0 && leader != m.head && !busy && !p.wasBusy(d.Shard) {
		m.former, m.formerAt = m.leader, v.Now
	}
	if m.headWhy != "" && leader == m.head {
		p.handing(d.Shard, m.leader, leader, raftmeta.Happened, m.headWhy)
	}
	if m.leader != 0 {
		m.believe(m.seen, v.Now+loadSettle)
		m.rest(kindLead, v.Now+leadPause, "its leader has changed just now")
	}
	m.leader, m.head, m.headWhy = leader, 0, ""
}

// wasBusy tells that a shard took part in a goal at the last step.
func (p *Planner) wasBusy(shard kv.ShardID) bool {
	return slices.ContainsFunc(p.open, func(g *kvdv1.Goal) bool {
		return g.GetShard() == uint64(shard) || g.GetMerge() != nil && g.GetMerge().GetRight() == uint64(shard)
	})
}

// ended notes what has become of a goal that was open. What became of a shard's span the map tells.
func (p *Planner) ended(v *View, g *kvdv1.Goal) {
	shard := kv.ShardID(g.GetShard())
	m := p.memories[shard]
	if d, ok := v.Map.Shard(shard); ok && m != nil && g.GetReplicas() != nil {
		wasMoved(v, m, d, g)
	}
}

// wasSplit believes that each half has half of the load, and the same leader, until they report.
func wasSplit(v *View, parent, child *memory, byOperator bool) {
	load := parent.seen / 2
	parent.refusals[kindSplit] = 0
	for _, half := range []*memory{parent, child} {
		half.believe(load, v.Now+loadSettle)
		half.rest(kindSplit, v.Now+splitPause, "it was split just now")
		if byOperator {
			half.rest(kindMerge, v.Now+operatorPause, "an operator has split it")
		}
	}
	child.head, child.headTill, child.leader = parent.leader, v.Now+headFor, parent.leader
}

// wasMerged believes that the load is that of both.
func wasMerged(v *View, left, right *memory, byOperator bool) {
	left.believe(left.seen+right.seen, v.Now+loadSettle)
	wait, why := reshapePause, "it was merged just now"
	if byOperator {
		wait, why = operatorPause, "an operator has merged it"
	}
	left.rest(kindSplit, v.Now+wait, why)
}

func wasMoved(v *View, m *memory, d *kv.Descriptor, g *kvdv1.Goal) {
	wait, why := movePause, "its replicas were moved just now"
	if g.GetByOperator() {
		wait, why = operatorPause, "an operator has moved its replicas"
		m.rest(kindMerge, v.Now+wait, why)
	}
	m.rest(kindMove, v.Now+wait, why)
	for _, node := range g.GetReplicas().GetRemove() {
		if _, still := d.OnNode(kv.NodeID(node)); !still {
			m.moved = depart(m.moved, kv.NodeID(node), v.Now, v.Now+moveBack)
		}
	}
}

// figures gives the load of a shard in operations a second, and who leads it: as reported, or as it must be after a change.
func (m *memory) figures(f ShardFigures, now time.Duration) (load float64, leader kv.NodeID) {
	load, leader = f.Report.GetLoad().GetReads()+f.Report.GetLoad().GetWrites(), f.From
	if now < m.loadTill {
		load = m.load
	}
	if m.head != 0 && now < m.headTill {
		leader = m.head
	}
	m.seen = load
	return load, leader
}
