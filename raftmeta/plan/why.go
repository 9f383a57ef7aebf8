package plan

import (
	"fmt"

	"github.com/kvdstore/kvd/kv"
)

// Why tells what the last round found of a shard, a line for each thing that was considered: what is wanted, and what is not
// and for what reason.
func (p *Planner) Why(shard kv.ShardID) []string {
	r := p.last
	if r == nil {
		return []string{"the plan has not looked at the map yet"}
	}
	s := r.byID[shard]
	if s == nil {
		return []string{fmt.Sprintf("shard %d is not in the map", shard)}
	}
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if s.wait != "" {
		add("%s", s.wait)
	}
	if s.goal != nil {
		add("goal %d (%s): %s", s.goal.GetId(), s.goal.GetReason(), p.Progress(s.goal))
	}
	if rule := r.rule(s.d); rule != nil {
		text := ruleName(rule) + ": replicas in " + regions(rule)
		if rule.GetLeader() != "" {
			text += fmt.Sprintf(", the leader in %q", rule.GetLeader())
		}
		add("%s", text)
	}
	add("%d replicas of %d wanted, on nodes %s", s.d.Voters(), r.wish(s, r.rule(s.d)), list(nodesOf(s.d.Replicas)))
	lines = append(lines, s.said...)
	if shard == kv.MetaShard {
		return lines
	}
	if _, why, no := r.judgeSplit(s); no != "" {
		add("%s", no)
	} else if s.goal.GetSplit() == nil {
		add("to be split: %s", why)
	}
	for i, x := range r.shards {
		if x == s && i+1 < len(r.shards) {
			lines = append(lines, r.mergeLine(s, r.shards[i+1]))
		}
	}
	return append(lines, r.balanceLines(s)...)
}

func (r *round) mergeLine(left, right *shardState) string {
	why, no := r.judgeMerge(left, right)
	if no != "" {
		return no
	}
	return "to be merged: " + why
}

// balanceLines tell why the leader and the replicas stay where they are.
func (r *round) balanceLines(s *shardState) (lines []string) {
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	nodes := r.usable
	mean := meanLead(nodes)
	if n := r.byNode[s.leader]; n != nil && mean > 0 {
		text := fmt.Sprintf("node %d, which leads it, leads %s, %.2f of the mean", n.id, r.unit(n.lead), n.lead/mean)
		switch pause := s.mem.pauses[kindLead]; {
		case !r.lim.leaders:
			text += ": the setting leader-balance is false"
		case n.lead <= r.evenUpTo()*mean:
			text += fmt.Sprintf(", at most %.2f: no hand-over", r.evenUpTo())
		case r.Now < pause.until:
			text += fmt.Sprintf(": no hand-over for %s more: %s", seconds(pause.until-r.Now), pause.why)
		default:
			text += ": no hand-over of this shard would make it better"
		}
		add("%s", text)
	}
	if why := r.movePause(s, true); why != "" {
		add("its replicas are not moved for the balance: %s", why)
	}
	return lines
}
