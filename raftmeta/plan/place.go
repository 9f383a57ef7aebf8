package plan

import (
	"cmp"
	"fmt"
	"slices"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

// Placing a shard: its voters are to be as many as the setting wants and the nodes allow, on nodes that are neither down
// nor draining, in the regions of its rule.

const (
	// comingMax and comingBytesMax bound the replicas that repair brings to one node at a time. One larger than the bound
	// comes alone.
	comingMax      = 32
	comingBytesMax = 4 * kv.SplitBytes
	// redundant is a number of voters that draining does not go below: with two nodes left, a shard keeps three replicas,
	// and the node that drains its own, until an operator adds a node or wants fewer replicas.
	redundant = 3
)

// placement is what is wrong with a shard's replicas, and what to do.
type placement struct {
	urgency     int // The lower the sooner.
	add, remove []*nodeState
	why         string // What is wrong; with nothing to add or to remove, what is lacking for a cure.
}

const (
	byRule = iota
	byLoss
	byCount
	byDrain
)

// placeAll sets goals for shards whose replicas are too few, too many, or in the wrong places.
func (r *round) placeAll() {
	type job struct {
		s *shardState
		p placement
	}
	var jobs []job
	for _, s := range r.all {
		if s.goal != nil || s.taken || !r.misplaced(s) {
			continue
		}
		p := r.place(s)
		if p.why != "" {
			jobs = append(jobs, job{s, p})
		}
	}
	slices.SortStableFunc(jobs, func(a, b job) int {
		return cmp.Or(cmp.Compare(a.p.urgency, b.p.urgency), -cmp.Compare(boolOf(a.s.d.Shard == kv.MetaShard), boolOf(b.s.d.Shard == kv.MetaShard)))
	})
	for _, j := range jobs {
		p := r.place(j.s) // Anew: nodes have been given other replicas since.
		switch {
		case len(p.add)+len(p.remove) == 0:
			j.s.say("%s", p.why)
		case j.s.wait != "":
			j.s.say("%s; but %s", p.why, j.s.wait)
		case j.s.mem.resting(kindPlace, r.Now):
			j.s.say("%s; but %s", p.why, j.s.mem.pauses[kindPlace].why)
		case !r.accept(j.s, p.add):
			j.s.say("%s; but nodes %s are getting as many replicas as they may at a time", p.why, list(idsOfNodes(p.add)))
		default:
			r.move(j.s, p.add, p.remove, "%s", p.why)
		}
	}
}

// accept tells that all nodes may get one more replica of that size now.
func (r *round) accept(s *shardState, nodes []*nodeState) bool {
	return !slices.ContainsFunc(nodes, func(n *nodeState) bool {
		return n.coming > 0 && (n.coming >= comingMax || n.incoming+s.bytes > comingBytesMax)
	})
}

// move sets a goal for the replicas of a shard.
func (r *round) move(s *shardState, add, remove []*nodeState, format string, args ...any) bool {
	goal := &kvdv1.ReplicasGoal{}
	for _, n := range add {
		goal.Add = append(goal.Add, &kvdv1.Replica{Node: uint64(n.id)})
	}
	for _, n := range remove {
		goal.Remove = append(goal.Remove, uint64(n.id))
	}
	if !r.want(s, &kvdv1.Goal{Goal: &kvdv1.Goal_Replicas{Replicas: goal}}, format, args...) {
		return false
	}
	for _, n := range add {
		n.weight += s.weight()
		n.replicas++
		r.expect(n, s)
	}
	for _, n := range remove {
		n.weight -= s.weight()
		n.replicas--
	}
	return true
}

// misplaced tells quickly that a shard needs a closer look.
func (r *round) misplaced(s *shardState) bool {
	rule, voters, led := r.rule(s.d), 0, false
	for _, x := range s.d.Replicas {
		n := r.byNode[x.Node]
		if n == nil || n.down || n.draining || !within(rule, n.region) {
			return true
		}
		voters++
		led = led || mayLead(rule, n.region)
	}
	return voters != r.wish(s, rule) || !led
}

// wish is how many voters a shard should have.
func (r *round) wish(s *shardState, rule *kvdv1.Rule) int {
	setting := r.lim.replicas
	if s.d.Shard == kv.MetaShard {
		setting = r.lim.metaVoters
	}
	all, staying := 0, 0
	for _, n := range r.nodes {
		if within(rule, n.region) {
			all++
			staying += boolOf(!n.draining)
		}
	}
	want := odd(min(setting, staying))
	if all == 0 {
		return s.d.Voters() // The rule cannot be held at all.
	}
	if most := odd(min(setting, all)); want < most && want < redundant {
		return most
	}
	return want
}

// place finds the voters that a shard should have.
func (r *round) place(s *shardState) placement {
	rule := r.rule(s.d)
	var good, bad []*nodeState
	var wrong []string
	urgency := byCount
	blame := func(of int, text string) {
		wrong = append(wrong, text)
		urgency = min(urgency, of)
	}
	for _, x := range s.d.Replicas {
		n := r.byNode[x.Node]
		if n == nil { // It was removed; what is left is taken away.
			n = &nodeState{id: x.Node, down: true, silent: true}
		}
		switch {
		case !within(rule, n.region):
			blame(byRule, fmt.Sprintf("%s wants its replicas in %s, node %d is in %q", ruleName(rule), regions(rule), n.id, n.region))
			bad = append(bad, n)
		case n.down:
			blame(byLoss, fmt.Sprintf("node %d is down, silent for %s", n.id, seconds(r.Reports.Silent(n.id, r.Now))))
			bad = append(bad, n)
		case n.draining:
			wrong = append(wrong, fmt.Sprintf("node %d is draining", n.id))
			bad = append(bad, n)
		default:
			good = append(good, n)
		}
	}
	if urgency == byCount && len(bad) > 0 {
		urgency = byDrain
	}
	wish := r.wish(s, rule)
	if n := len(good) + len(bad); n != wish {
		wrong = append(wrong, fmt.Sprintf("it has %d replicas, and %d are wanted", n, wish))
	}
	candidates := r.candidates(s, rule)
	want := r.choose(s, rule, wish, good, bad, candidates)
	if lead := func(n *nodeState) bool { return mayLead(rule, n.region) && !n.down }; rule != nil && !slices.ContainsFunc(good, lead) {
		blame(byRule, fmt.Sprintf("%s wants its leader in %q", ruleName(rule), rule.GetLeader()))
	}
	p := placement{urgency: urgency}
	had := slices.Concat(good, bad)
	for _, n := range want {
		if !slices.Contains(had, n) {
			p.add = append(p.add, n)
		}
	}
	for _, n := range had {
		if !slices.Contains(want, n) {
			p.remove = append(p.remove, n)
		}
	}
	for i, text := range wrong {
		if i > 0 {
			p.why += "; "
		}
		p.why += text
	}
	if p.why != "" && len(p.add)+len(p.remove) == 0 {
		p.why += ": " + r.lacking(s, rule)
	}
	return p
}

// choose gives the nodes that are to vote: good ones, then new ones, then bad ones so that there are no fewer than now.
func (r *round) choose(s *shardState, rule *kvdv1.Rule, wish int, good, bad, candidates []*nodeState) []*nodeState {
	first := func(n *nodeState) int {
		return -boolOf(n.id == s.figures.From) - 2*boolOf(rule.GetLeader() != "" && mayLead(rule, n.region))
	}
	slices.SortStableFunc(good, func(a, b *nodeState) int {
		return cmp.Or(cmp.Compare(first(a), first(b)), cmp.Compare(a.weight, b.weight))
	})
	want := slices.Clone(good[:min(wish, len(good))])
	want = append(want, candidates[:min(wish-len(want), len(candidates))]...)
	if len(want) < wish {
		slices.SortStableFunc(bad, func(a, b *nodeState) int { return cmp.Compare(boolOf(a.down), boolOf(b.down)) })
		fill := bad[:min(wish-len(want), len(bad))]
		if size := odd(len(want) + len(fill)); size < len(want) {
			want, fill = want[:size], nil
		} else {
			fill = fill[:size-len(want)]
		}
		want = append(want, fill...)
	}
	lead := func(n *nodeState) bool { return mayLead(rule, n.region) && !n.down }
	if rule.GetLeader() == "" || len(want) == 0 || slices.ContainsFunc(want, lead) {
		return want
	}
	if i := slices.IndexFunc(candidates, lead); i >= 0 {
		want[len(want)-1] = candidates[i]
	}
	return want
}

// candidates are the nodes that may get a replica of a shard, the best first: where the rule wants the leader, in a region
// that the shard is not in yet, with the least to carry.
func (r *round) candidates(s *shardState, rule *kvdv1.Rule) []*nodeState {
	used := map[string]int{}
	for _, x := range s.d.Replicas {
		used[r.region(x.Node)]++
	}
	list := slices.DeleteFunc(slices.Clone(r.usable), func(n *nodeState) bool {
		_, there := s.d.OnNode(n.id)
		free := r.Reports.Node(n.id).DiskFree
		return there || !within(rule, n.region) || free > 0 && float64(free) < 2*s.bytes
	})
	lead := func(n *nodeState) int { return boolOf(rule.GetLeader() != "" && !mayLead(rule, n.region)) }
	slices.SortStableFunc(list, func(a, b *nodeState) int {
		return cmp.Or(cmp.Compare(lead(a), lead(b)), cmp.Compare(used[a.region], used[b.region]),
			cmp.Compare(a.weight, b.weight), cmp.Compare(a.id, b.id))
	})
	return list
}

// lacking tells why nothing can be done.
func (r *round) lacking(s *shardState, rule *kvdv1.Rule) string {
	var bars []string
	for _, n := range r.nodes {
		if _, there := s.d.OnNode(n.id); !there && within(rule, n.region) && n.bar != "" {
			bars = append(bars, n.bar)
		}
	}
	text := "there is no other node for a replica"
	if rule != nil {
		text += " in " + regions(rule)
	}
	if len(bars) > 0 {
		text += " (" + bars[0] + ")"
	}
	return text
}

// handOver orders the leaderships away from where they must not be: against a rule, or on a node that drains or is full.
func (r *round) handOver() {
	for _, s := range r.all {
		if !s.free() || len(s.d.Replicas) < 2 {
			continue
		}
		n, rule := r.byNode[s.figures.From], r.rule(s.d)
		if n == nil || n.bar == "" && mayLead(rule, n.region) {
			continue
		}
		why := n.bar
		if why == "" {
			why = fmt.Sprintf("%s wants the leader in %q", ruleName(rule), rule.GetLeader())
		}
		to := r.successor(s, n)
		switch {
		case to == nil:
			s.say("%s; but nobody else can lead", why)
		case s.mem.head != 0 && r.Now < s.mem.headTill:
			s.say("%s: the leadership is being handed over", why)
		default:
			r.transfer(s, to, "%s", why)
		}
	}
}

// successor is the voter that should lead instead of n, the one that leads least; nil if none may.
func (r *round) successor(s *shardState, n *nodeState) (to *nodeState) {
	rule := r.rule(s.d)
	for _, lawful := range []bool{true, false} {
		for _, x := range s.d.Replicas {
			o := r.byNode[x.Node]
			if x.Learner || o == nil || o == n || o.bar != "" || lawful != mayLead(rule, o.region) {
				continue
			}
			if to == nil || o.lead < to.lead {
				to = o
			}
		}
		if to != nil || n.bar == "" { // Where one must not lead by a rule is no better than where one does.
			return to
		}
	}
	return nil
}

// transfer orders a hand-over and takes it as done.
func (r *round) transfer(s *shardState, to *nodeState, format string, args ...any) {
	why := fmt.Sprintf(format, args...)
	if !r.order(transfer(s.d, nil, to.id, "").Order) {
		return
	}
	s.say("%s: node %d is asked to hand over to node %d", why, s.figures.From, to.id)
	large := r.tooLarge(s)
	from := r.byNode[s.leader]
	if s.d.Shard != kv.MetaShard {
		if from != nil {
			from.lead -= r.leadWeight(s)
			from.leaders--
		}
		to.lead += r.leadWeight(s)
		to.leaders++
	}
	s.taken = true
	s.mem.headWhy = clip(why)
	r.p.handing(s.d.Shard, s.leader, to.id, raftmeta.Wanted, s.mem.headWhy)
	if !large {
		s.mem.led = depart(s.mem.led, s.leader, r.Now, r.Now+leadBack)
	}
	s.leader, s.mem.head, s.mem.headTill = to.id, to.id, r.Now+headFor
	s.mem.believe(s.load, r.Now+loadSettle)
	s.mem.rest(kindLead, r.Now+leadPause, "a hand-over was ordered just now")
}

// odd is the largest odd number not above n, and 0 for none.
func odd(n int) int {
	if n <= 0 {
		return 0
	}
	return n - 1 + n%2
}

func boolOf(b bool) int {
	if b {
		return 1
	}
	return 0
}

func regions(rule *kvdv1.Rule) string { return fmt.Sprintf("%q", rule.GetRegions()) }

func idsOfNodes(nodes []*nodeState) []kv.NodeID {
	ids := make([]kv.NodeID, len(nodes))
	for i, n := range nodes {
		ids[i] = n.id
	}
	return ids
}
