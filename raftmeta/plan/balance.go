package plan

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// The balance: leaders by load, replicas by size. Nothing happens while no node has much more than the mean, and nothing that
// does not make it clearly better; so a map at rest stays at rest.

const (
	// unevenAbove is how much of the mean a node may lead, and fullAbove how much it may store.
	unevenAbove = 1.15
	fullAbove   = 1.15
	// unsteadyAbove is how much of the load of steadyRounds before there may be, or the other way round, for the loads to be known.
	unsteadyAbove = 1.25
	steadyRounds  = 3
	// passingRounds is for how many rounds a little too much may pass by itself.
	passingRounds = 10
	// gain is the part of the mean by which a hand-over must lower the larger of the two nodes' loads.
	gain = 0.05
	// backAbove lets a leader come back to a node that it left of late.
	backAbove = 1.3
	// leadsMax bounds the hand-overs of a round, and movesMax the replicas that the balance brings to a node at a time.
	leadsMax = 16
	movesMax = 4
	// unevenFor is how long after that the load was uneven replicas are not moved for their sizes, unless it has been so for
	// unevenMost rounds: some load cannot be shared out.
	unevenFor  = 30 * time.Second
	unevenMost = 120
	// idleFor is how long there must be hardly any load for leaders to be spread by their number.
	idleFor = 20 * time.Second
)

// evenUpTo is how much of the mean a node may lead. What comes by chance adds to a count of n requests about its square root:
// three times that, of a mean node's in the ten seconds that loads are counted over, is let pass.
func (r *round) evenUpTo() float64 {
	if r.load == 0 {
		return unevenAbove
	}
	return unevenAbove + 3/math.Sqrt(10*r.mean())
}

// watch counts the rounds in which some node leads too much: all of them, and those in which the load was steady.
func (r *round) watch() {
	copy(r.p.totals[1:], r.p.totals[:])
	r.p.totals[0] = r.total
	r.led = meanLead(r.usable)
	if !r.warm() || !slices.ContainsFunc(r.usable, func(n *nodeState) bool { return n.lead > r.evenUpTo()*r.led }) {
		r.p.uneven, r.p.unevenSteady = 0, 0
		return
	}
	r.p.uneven++
	r.p.unevenSteady++
	if before := r.p.totals[steadyRounds]; r.total > unsteadyAbove*before || before > unsteadyAbove*r.total {
		r.p.unevenSteady = 0
	}
	if r.lim.leaders && r.load > 0 && r.p.uneven < unevenMost {
		r.p.unevenAt = r.Now
	}
}

// passing tells that a node may only seem to lead too much. Loads are means of ten seconds, and of fewer for a shard that was handed
// over, so that they do not rise and fall at one pace; a little too much may pass by itself; and a node that is silent may come back.
func (r *round) passing(from *nodeState) bool {
	return r.p.unevenSteady == 0 || from.lead <= backAbove*r.led && r.p.unevenSteady < passingRounds ||
		slices.ContainsFunc(r.nodes, func(n *nodeState) bool { return n.silent && !n.down })
}

// fair is what each of the nodes that may lead a shard would lead if all led the same.
func (r *round) fair(s *shardState) float64 {
	rule := r.rule(s.d)
	if rule == nil {
		return r.led
	}
	return meanLead(slices.DeleteFunc(slices.Clone(r.usable), func(n *nodeState) bool { return !mayLead(rule, n.region) }))
}

func meanLead(nodes []*nodeState) float64 {
	sum := 0.0
	for _, n := range nodes {
		sum += n.lead
	}
	return sum / float64(max(1, len(nodes)))
}

// spreadLeaders hands leaderships over from nodes that lead too much; where no voter can take one, a replica is moved.
func (r *round) spreadLeaders() {
	nodes := r.usable
	if !r.lim.leaders || len(nodes) < 2 || !r.warm() {
		return
	}
	if r.p.uneven < 2 || r.load == 0 && r.Now-r.p.idleSince < idleFor {
		return // It may be a moment's.
	}
	mean := meanLead(nodes)
	for range leadsMax {
		if !r.relieve(nodes, mean) {
			break
		}
	}
	r.lendReplicas(nodes, mean)
}

// relieve hands one leadership over from the first node above the mean that this helps, those that lead most first.
func (r *round) relieve(nodes []*nodeState, mean float64) bool {
	order := slices.Clone(nodes)
	slices.SortStableFunc(order, func(a, b *nodeState) int { return -cmp.Compare(a.lead, b.lead) })
	for _, from := range order {
		if from.lead <= r.evenUpTo()*mean {
			return false
		}
		if s, to := r.bestHandOver(from, mean); s != nil {
			r.transfer(s, to, "node %d leads %.2f times the mean (%s)", from.id, from.lead/mean, r.unit(from.lead))
			return true
		}
	}
	return false
}

// bestHandOver gives the shard and the voter whose taking it leaves the larger of the two nodes smallest. It lowers that by the least
// gain, or brings load from above the mean to where it stays below: where shards are many and small, no single one does the former.
func (r *round) bestHandOver(from *nodeState, mean float64) (best *shardState, to *nodeState) {
	enough := from.lead - gain*mean
	if r.load == 0 {
		enough = from.lead - r.base // Of two neighbours in number none gains.
	}
	least := math.Inf(1)
	for _, s := range r.shards {
		w := r.leadWeight(s)
		if s.leader != from.id || from.lead-w >= least || from.lead-w > enough && from.lead-w < mean || !s.free() || s.mem.resting(kindLead, r.Now) || r.tooLarge(s) && !r.settling(s) {
			continue
		}
		rule := r.rule(s.d)
		for _, x := range s.d.Replicas {
			n := r.taker(s, rule, from, x)
			if n == nil {
				continue
			}
			after := max(from.lead-w, n.lead+w)
			fills := r.load > 0 && n.lead+w <= mean && from.lead-w >= mean
			if after < least && (after <= enough || fills) {
				best, to, least = s, n, after
			}
		}
	}
	return best, to
}

// taker gives the node of a replica if that may lead a shard instead of the node that does, else nil.
func (r *round) taker(s *shardState, rule *kvdv1.Rule, from *nodeState, x kv.Replica) *nodeState {
	n := r.byNode[x.Node]
	if x.Learner || n == nil || n == from || n.bar != "" || !mayLead(rule, n.region) || departed(s.mem.led, n.id, r.Now, leadBackSoon, from.lead > backAbove*r.led) {
		return nil
	}
	return n
}

// fits tells that another node can lead a shard as it is without leading too much then.
func (r *round) fits(s *shardState, from *nodeState) bool {
	rule, most := r.rule(s.d), r.evenUpTo()*r.fair(s)-r.leadWeight(s)
	return slices.ContainsFunc(s.d.Replicas, func(x kv.Replica) bool {
		n := r.taker(s, rule, from, x)
		return n != nil && n.lead <= most
	})
}

// lendReplicas moves replicas of shards with load from nodes that lead too much to nodes that lead little and have none, the
// leadership with them.
func (r *round) lendReplicas(nodes []*nodeState, mean float64) {
	if r.load == 0 {
		return
	}
	for _, from := range nodes {
		for range movesMax {
			if from.lead <= r.evenUpTo()*mean || !r.lend(from, nodes, mean) {
				break
			}
		}
	}
}

// settling tells that the load of a shard is not known well enough to split it.
func (r *round) settling(s *shardState) bool {
	return r.Now < s.mem.loadTill || r.Now-s.mem.since < r.lim.splitAge
}

// tooLarge tells that a shard is rather to be split first: what is handed over whole would have to come back.
func (r *round) tooLarge(s *shardState) bool {
	return r.load > 0 && r.lim.autoSplit && s.load > sharePart*r.mean() &&
		s.figures.Report.GetLoad().GetHottestShare() <= hotKeyShare && s.mem.refusals[kindSplit] == 0 &&
		r.byNode[s.leader] != nil && !r.fits(s, r.byNode[s.leader])
}

// lend moves the replica that relieves a node most for the keys that it moves.
func (r *round) lend(from *nodeState, nodes []*nodeState, mean float64) bool {
	var best *shardState
	var to *nodeState
	most := 0.0
	for _, s := range r.shards {
		w := r.leadWeight(s)
		if s.leader != from.id || w < gain*mean || !s.free() || s.figures.From != from.id || r.movePause(s, false) != "" || r.tooLarge(s) ||
			s.mem.resting(kindLead, r.Now) && w > sharePart*mean && r.fits(s, from) {
			continue
		}
		for _, n := range nodes {
			relief := from.lead - max(from.lead-w, n.lead+w)
			worth := relief / (s.keys + r.keys/100 + 1)
			if relief >= gain*mean && worth > most && r.mayMove(s, from, n, from.lead > backAbove*mean) && mayLead(r.rule(s.d), n.region) {
				best, to, most = s, n, worth
			}
		}
	}
	if best == nil || !r.move(best, []*nodeState{to}, []*nodeState{from}, "node %d leads %.2f times the mean (%s), node %d little",
		from.id, from.lead/mean, r.unit(from.lead), to.id) {
		return false
	}
	r.p.moves.spend(best.keys)
	w := r.leadWeight(best)
	from.lead -= w
	to.lead += w
	best.leader = to.id
	return true
}

// movePause tells why a shard's replicas are not moved for the balance now. alone lets one be moved that is above the budget.
func (r *round) movePause(s *shardState, alone bool) string {
	if pause := s.mem.pauses[kindMove]; r.Now < pause.until {
		return fmt.Sprintf("not for %s more: %s", seconds(pause.until-r.Now), pause.why)
	}
	if !r.p.moves.allows(s.keys, r.lim.moveShare, r.keys, alone) {
		return "the budget: " + r.p.moves.text(r.lim.moveShare, r.keys)
	}
	return ""
}

// mayMove tells that a replica may go from one node to another: its rule allows it, it does not come back (back is a good
// reason to), there is room, and the shard is in no fewer regions afterwards.
func (r *round) mayMove(s *shardState, from, to *nodeState, back bool) bool {
	rule := r.rule(s.d)
	_, there := s.d.OnNode(to.id)
	free := r.Reports.Node(to.id).DiskFree
	if there || to.bar != "" || !within(rule, to.region) || departed(s.mem.moved, to.id, r.Now, moveBackSoon, back) ||
		to.coming >= movesMax || !r.accept(s, []*nodeState{to}) || free > 0 && float64(free) < 2*s.bytes {
		return false
	}
	if rule.GetLeader() != "" && mayLead(rule, from.region) && !mayLead(rule, to.region) {
		return false
	}
	before, after := map[string]bool{}, map[string]bool{to.region: true}
	for _, x := range s.d.Replicas {
		before[r.region(x.Node)] = true
		if x.Node != from.id {
			after[r.region(x.Node)] = true
		}
	}
	return len(after) >= len(before)
}

// spreadReplicas moves replicas from the nodes that store most to those that store least.
func (r *round) spreadReplicas() {
	nodes := r.usable
	if !r.lim.balance || len(nodes) < 2 || !r.warm() || r.Now-r.p.unevenAt < unevenFor {
		return // The budget is for those that carry too much load first.
	}
	if slices.ContainsFunc(r.nodes, func(n *nodeState) bool { return n.silent && !n.down }) {
		return // It comes back, or its replicas are made again elsewhere; both change the sums.
	}
	mean := 0.0
	for _, n := range nodes {
		mean += n.weight / float64(len(nodes))
	}
	order := slices.Clone(nodes)
	slices.SortStableFunc(order, func(a, b *nodeState) int { return -cmp.Compare(a.weight, b.weight) })
	for _, from := range order {
		for range movesMax {
			if from.weight <= fullAbove*mean || !r.unload(from, nodes, false) && !r.unload(from, nodes, true) {
				break
			}
		}
	}
}

// unload moves the largest replica off a node that another can take without getting more than is left here.
func (r *round) unload(from *nodeState, nodes []*nodeState, alone bool) bool {
	var best *shardState
	var to *nodeState
	better := func(s *shardState) bool {
		if best == nil {
			return true
		}
		leads, led := boolOf(s.leader == from.id), boolOf(best.leader == from.id)
		return cmp.Or(cmp.Compare(leads, led), -cmp.Compare(s.weight(), best.weight())) < 0
	}
	for _, s := range r.shards {
		at, there := s.d.OnNode(from.id)
		if !there || at.Learner || !s.free() || !better(s) || r.movePause(s, alone) != "" {
			continue
		}
		var least *nodeState
		for _, n := range nodes {
			if r.mayMove(s, from, n, false) && n.weight+s.weight() <= from.weight-s.weight() && (least == nil || n.weight < least.weight) {
				least = n
			}
		}
		if least != nil {
			best, to = s, least
		}
	}
	if best == nil {
		return false
	}
	if !r.move(best, []*nodeState{to}, []*nodeState{from}, "node %d stores %s in %d replicas, node %d %s in %d",
		from.id, size(from.weight-float64(from.replicas)*shardWeight), from.replicas,
		to.id, size(to.weight-float64(to.replicas)*shardWeight), to.replicas) {
		return false
	}
	r.p.moves.spend(best.keys)
	return true
}

// unit writes what a node leads.
func (r *round) unit(lead float64) string {
	if r.load == 0 {
		return fmt.Sprintf("%.0f shards", lead)
	}
	return fmt.Sprintf("%.0f/s", lead)
}
