package plan

import (
	"cmp"
	"fmt"
	"slices"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

const (
	// idleLoad is the load of the whole cluster, in operations a second, below which loads are but noise.
	idleLoad = 300
	// shardWeight is what a shard weighs for its replicas' nodes besides its bytes, so that many small ones count.
	shardWeight = 1 << 20
	// leadShare is what all shards together weigh for their leaders' nodes besides their load: a part of that.
	leadShare = 0.03
)

// nodeState is a node in a round. Its sums are as they will be when what was decided has happened.
type nodeState struct {
	id       kv.NodeID
	region   string
	bar      string // Why it gets no replica and no leadership; empty if it may.
	down     bool
	silent   bool // Suspect or down.
	draining bool
	lead     float64 // What the shards led here weigh,
	leaders  int     // and how many they are.
	weight   float64 // What the replicas here weigh,
	replicas int     // and how many they are.
	coming   int     // Replicas that goals bring here,
	incoming float64 // and their bytes.
}

// shardState is a shard in a round.
type shardState struct {
	d         *kv.Descriptor
	mem       *memory
	figures   ShardFigures
	wait      string // Why no order can go to its leader; empty if one can.
	leader    kv.NodeID
	load      float64 // Operations a second,
	bytesLoad float64 // and the bytes of what was read and written.
	bytes     float64
	keys      float64
	goal      *kvdv1.Goal
	taken     bool     // A goal or an order is on its way.
	said      []string // What this round found.
}

func (s *shardState) say(format string, args ...any) {
	s.said = append(s.said, fmt.Sprintf(format, args...))
}

// free tells that the plan may begin something with the shard.
func (s *shardState) free() bool { return !s.taken && s.goal == nil && s.wait == "" }

// round is one step of the plan.
type round struct {
	*View
	p       *Planner
	lim     limits
	nodes   []*nodeState // By id.
	usable  []*nodeState // Those that may get replicas and leaderships.
	led     float64      // What such a node leads in the mean.
	byNode  map[kv.NodeID]*nodeState
	all     []*shardState // The meta group, then the shards in key order.
	shards  []*shardState // Those.
	byID    map[kv.ShardID]*shardState
	total   float64 // The load of all shards.
	load    float64 // The same; below idleLoad it counts as none.
	keys    float64
	base    float64 // What a shard weighs for its leader's node besides its load.
	open    int     // Goals of the plan.
	splits  int     // Of all goals, those of each kind.
	merging int
	actions Actions
}

func newRound(p *Planner, v *View, lim limits) *round {
	n := 1 + len(v.Map.Descriptors())
	r := &round{
		View: v, p: p, lim: lim,
		byNode: map[kv.NodeID]*nodeState{}, byID: make(map[kv.ShardID]*shardState, n), all: make([]*shardState, 0, n),
	}
	for _, x := range v.Map.Nodes() {
		node := &nodeState{
			id: x.ID, region: x.Region, bar: v.barred(x.ID), down: v.down(x.ID), silent: v.suspect(x.ID), draining: x.Draining,
		}
		r.nodes, r.byNode[x.ID] = append(r.nodes, node), node
	}
	slices.SortFunc(r.nodes, func(a, b *nodeState) int { return cmp.Compare(a.id, b.id) })
	r.usable = slices.DeleteFunc(slices.Clone(r.nodes), func(n *nodeState) bool { return n.bar != "" })
	states := make([]shardState, n)
	for i := range states {
		d := v.Map.Meta()
		if i > 0 {
			d = v.Map.Descriptors()[i-1]
		}
		r.add(&states[i], d)
	}
	r.shards = r.all[1:]
	for _, g := range v.Map.Goals() {
		r.count(g)
	}
	r.weigh()
	r.led = meanLead(r.usable)
	p.moves.begin(v.Now)
	p.merges.begin(v.Now)
	return r
}

// add looks at one shard.
func (r *round) add(s *shardState, d *kv.Descriptor) {
	s.d, s.mem = d, r.p.memories[d.Shard]
	s.figures, s.wait = r.leader(d)
	if s.figures.Report.GetIntent() != 0 || s.figures.Report.GetFrozen() != 0 {
		s.wait = "a merge is open"
	}
	s.load, s.leader = s.mem.figures(s.figures, r.Now)
	s.bytesLoad = s.figures.Report.GetLoad().GetBytes()
	s.bytes, s.keys = float64(s.figures.Report.GetBytes()), float64(s.figures.Report.GetKeys())
	r.all, r.byID[d.Shard] = append(r.all, s), s
}

// count takes a goal as if it were reached.
func (r *round) count(g *kvdv1.Goal) {
	if !g.GetByOperator() {
		r.open++
	}
	s := r.byID[kv.ShardID(g.GetShard())]
	if s == nil {
		return
	}
	s.goal = g
	switch goal := g.GetGoal().(type) {
	case *kvdv1.Goal_Split:
		r.splits++
	case *kvdv1.Goal_Merge:
		r.merging++
		if right := r.byID[kv.ShardID(goal.Merge.GetRight())]; right != nil {
			right.goal = g
		}
	}
}

// adds and removes are the nodes that a shard's goal brings replicas to, and takes them from.
func (s *shardState) adds() (nodes []kv.NodeID) {
	for _, a := range s.wanted().GetAdd() {
		nodes = append(nodes, kv.NodeID(a.GetNode()))
	}
	return nodes
}

func (s *shardState) removes(node kv.NodeID) bool {
	return slices.Contains(s.wanted().GetRemove(), uint64(node))
}

// wanted is the goal for the replicas of this shard; of a merge only the right one has one.
func (s *shardState) wanted() *kvdv1.ReplicasGoal {
	if m := s.goal.GetMerge(); m != nil && s.goal.GetShard() != uint64(s.d.Shard) {
		return m.GetAlign()
	}
	return s.goal.GetReplicas()
}

// weigh sums up what the nodes carry, with goals and hand-overs that are on their way counted as done.
func (r *round) weigh() {
	for _, s := range r.shards {
		r.total += s.load
		r.keys += s.keys
	}
	if r.total >= idleLoad {
		r.load, r.p.idleSince = r.total, r.Now
	}
	if r.base = 1; r.load > 0 {
		r.base = leadShare * r.load / float64(len(r.shards))
	}
	for _, s := range r.all {
		adds := s.adds()
		if len(adds) > 0 && s.removes(s.leader) {
			s.leader = adds[0] // The leader that goes hands over to one that comes.
		}
		if n := r.byNode[s.leader]; n != nil && s.d.Shard != kv.MetaShard {
			n.lead += r.leadWeight(s)
			n.leaders++
		}
		for _, x := range s.d.Replicas {
			if n := r.byNode[x.Node]; n != nil && !s.removes(x.Node) {
				n.weight += s.weight()
				n.replicas++
			}
		}
		for _, node := range adds {
			n := r.byNode[node]
			if n == nil {
				continue
			}
			if at, there := s.d.OnNode(node); !there {
				n.weight += s.weight()
				n.replicas++
				r.expect(n, s)
			} else if at.Learner {
				r.expect(n, s)
			}
		}
	}
}

// expect counts a replica that is on its way to a node.
func (r *round) expect(n *nodeState, s *shardState) {
	n.coming++
	n.incoming += s.bytes
}

// weight is what a replica of the shard weighs for its node.
func (s *shardState) weight() float64 { return s.bytes + shardWeight }

// leadWeight is what the leadership weighs. Without load worth the name all weigh the same.
func (r *round) leadWeight(s *shardState) float64 {
	if r.load == 0 {
		return r.base
	}
	return s.load + r.base
}

// warm tells that loads are known: the planner has heard reports for a while.
func (r *round) warm() bool { return r.Now-r.p.began >= WarmUp }

// mean is the load of a node if all that may lead had the same.
func (r *round) mean() float64 { return r.load / float64(max(1, len(r.usable))) }
