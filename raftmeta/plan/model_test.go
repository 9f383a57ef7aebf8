package plan

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
	shardreplica "github.com/kvdstore/kvd/replica"
)

// cluster is a model: the state machine of the metadata and the admission of configuration changes are the real ones, raft
// and the data are not. A second at a time, shards take orders, learners catch up, leaders are elected and report.
type cluster struct {
	t          *testing.T
	rng        *rand.Rand
	now        time.Duration
	meta       *raftmeta.Machine
	index      kv.Index
	nodes      map[kv.NodeID]*modelNode
	shards     map[kv.ShardID]*modelShard
	known      *raftmeta.Map
	metaLeader kv.NodeID
	planner    *Planner
	reports    *Reports
	orders     []*kvdv1.Order // On their way.
	commands   []*kvdv1.MetaCommand
	refusals   []*kvdv1.Refusal
	traffic    []weighted // What is asked for, operations a second,
	sums       []float64  // with sums up to each.
	requests   float64    // Bytes of each operation.
	data       []weighted // Bytes a key.
	dataSums   []float64
	lost       float64 // The part of orders and reports that is lost.
	noisy      bool    // Loads are counts of what comes by chance.
	swift      bool    // Splits take no time: their goals are set and reached between two steps of the plan.
	log        []happening
	events     []*kvdv1.Event // Of hand-overs.
}

// happening is a change of a shard.
type happening struct {
	at    time.Duration
	what  string
	shard kv.ShardID
	key   string    // Of a split, or the start of the right one of a merge.
	node  kv.NodeID // That a replica, or the leadership, came to.
	from  kv.NodeID // The same, that it left.
}

type modelNode struct {
	alive, full bool
	died        time.Duration
}

type modelShard struct {
	d        *kv.Descriptor
	birth    *kvdv1.SplitPair
	leader   kv.NodeID
	term     uint64
	rates    []float64               // Of the last seconds, since the span or the leader changed,
	counted  bool                    // and whether a second is over since.
	behind   map[kv.ReplicaID]uint64 // Of learners.
	work     *kvdv1.Order            // A split or a merge that is under way,
	workLeft int                     // and its seconds.
}

type weighted struct {
	key    []byte
	weight float64
}

func newCluster(t *testing.T, nodes int, seed uint64, settings ...string) *cluster {
	c := &cluster{
		t: t, rng: rand.New(rand.NewPCG(seed, 7)), nodes: map[kv.NodeID]*modelNode{}, shards: map[kv.ShardID]*modelShard{}, metaLeader: 1, now: time.Hour, sums: []float64{0}, dataSums: []float64{0},
	}
	spec := raftmeta.FoundingSpec{Cluster: 1, Replicas: 3, TickMs: 100, ElectionTicks: 10}
	for n := range nodes {
		spec.Nodes = append(spec.Nodes, raftmeta.FoundingNode{Name: fmt.Sprint("n", n+1), Address: "h:1", Store: kv.StoreID(n + 1)})
		c.nodes[kv.NodeID(n+1)] = &modelNode{alive: true}
	}
	state, err := raftmeta.Founding(spec)
	require.NoError(t, err)
	birth := raftmeta.Birth(state, 1)[0]
	c.meta, err = raftmeta.New(birth)
	require.NoError(t, err)
	c.index = kv.Index(birth.AppliedIndex)
	for _, d := range state.Descriptors {
		c.shards[kv.ShardID(d.Shard)] = &modelShard{d: wire.ToDescriptor(d), leader: 1, term: 6, behind: map[kv.ReplicaID]uint64{}}
	}
	c.shards[kv.MetaShard] = &modelShard{d: wire.ToDescriptor(state.Meta), leader: 1, term: 6, behind: map[kv.ReplicaID]uint64{}}
	for i := 0; i+1 < len(settings); i += 2 {
		c.command(&kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_SetSetting{SetSetting: &kvdv1.SettingValue{Name: settings[i], Value: settings[i+1]}}})
	}
	c.lead(1)
	return c
}

// lead begins a leadership of the meta group.
func (c *cluster) lead(node kv.NodeID) {
	c.metaLeader, c.planner, c.reports = node, New(c.now), NewReports(c.now)
	c.shards[kv.MetaShard].leader = node
	c.shards[kv.MetaShard].term++
}

type nothing struct{}

func (nothing) Put([]byte, kv.Record)                  {}
func (nothing) Delete([]byte)                          {}
func (nothing) PutDue(kv.Due)                          {}
func (nothing) DeleteDue(kv.Due)                       {}
func (nothing) PutShard(kv.ShardID, *kvdv1.ShardState) {}

// command carries a command of the meta group out.
func (c *cluster) command(cmd *kvdv1.MetaCommand) kv.Result {
	value, err := cmd.MarshalVT()
	require.NoError(c.t, err)
	c.index++
	c.meta.Begin(nothing{})
	results, err := c.meta.Apply(c.index, 6, &kvdv1.Batch{StampMs: c.now.Milliseconds(), Commands: []*kvdv1.Command{{Op: uint32(kv.OpMeta), Value: value}}})
	require.NoError(c.t, err)
	c.meta.Finish()
	c.meta.Committed()
	return results[0]
}

func (c *cluster) state() *kvdv1.MetaState { return c.meta.State().Meta }

func (c *cluster) join(region string) kv.NodeID {
	id := kv.NodeID(c.state().NextNode)
	res := c.command(&kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_Join{Join: &kvdv1.MetaNode{
		StoreId: uint64(id), Node: &kvdv1.Node{Name: fmt.Sprint("n", id), Address: "h:1", Region: region},
	}}})
	require.Equal(c.t, kv.Done, res.Status, res.Reason)
	c.nodes[id] = &modelNode{alive: true}
	return id
}

func (c *cluster) drain(node kv.NodeID) {
	res := c.command(&kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_SetDraining{SetDraining: &kvdv1.SetDraining{Node: uint64(node), Draining: true}}})
	require.Equal(c.t, kv.Done, res.Status, res.Reason)
}

func (c *cluster) rule(prefix, region string) {
	res := c.command(&kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_SetRule{SetRule: &kvdv1.Rule{Prefix: []byte(prefix), Regions: []string{region}, Leader: region}}})
	require.Equal(c.t, kv.Done, res.Status, res.Reason)
}

func (c *cluster) goal(g *kvdv1.Goal) uint64 {
	d, _ := c.shardMap().Shard(kv.ShardID(g.Shard))
	g.Epoch, g.ByOperator = wire.FromEpoch(d.Epoch), true
	res := c.command(&kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_SetGoal{SetGoal: g}})
	require.Equal(c.t, kv.Done, res.Status, res.Reason)
	return uint64(res.Counter)
}

func (c *cluster) shardMap() *raftmeta.Map {
	if c.known == nil || c.known.Version() != c.state().Version {
		m, err := raftmeta.NewMap(c.state())
		require.NoError(c.t, err)
		c.known = m
	}
	return c.known
}

// ask sets the traffic, keep the data.
func (c *cluster) ask(list []weighted)   { c.traffic, c.sums = cumulate(list) }
func (c *cluster) store(list []weighted) { c.data, c.dataSums = cumulate(list) }

func cumulate(list []weighted) ([]weighted, []float64) {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b weighted) int { return bytes.Compare(a.key, b.key) })
	sums := make([]float64, len(list)+1)
	for i, w := range list {
		sums[i+1] = sums[i] + w.weight
	}
	return list, sums
}

func span(list []weighted, s kv.Span) (from, to int) {
	from = sort.Search(len(list), func(i int) bool { return bytes.Compare(list[i].key, s.Start) >= 0 })
	to = len(list)
	if len(s.End) > 0 {
		to = sort.Search(len(list), func(i int) bool { return bytes.Compare(list[i].key, s.End) >= 0 })
	}
	return from, to
}

func (c *cluster) loadOf(s *modelShard) float64 {
	if s.d.Shard == kv.MetaShard {
		return 0
	}
	from, to := span(c.traffic, s.d.Span)
	return c.sums[to] - c.sums[from]
}

// zipf spreads a load over keys of a prefix, the hottest ones anywhere.
func (c *cluster) zipf(prefix string, keys int, s, total float64) []weighted {
	list := make([]weighted, keys)
	sum := 0.0
	for i, at := range c.rng.Perm(keys) {
		w := 1 / math.Pow(float64(i+1), s)
		sum += w
		list[i] = weighted{fmt.Appendf(nil, "%s%06d", prefix, at), w}
	}
	for i := range list {
		list[i].weight *= total / sum
	}
	return list
}

// ids gives the shards in key order, the meta group first: nothing may depend on the order of a map.
func (c *cluster) ids() []kv.ShardID {
	var ids []kv.ShardID
	for id := range c.shards {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b kv.ShardID) int {
		return cmp.Or(bytes.Compare(c.shards[a].d.Span.Start, c.shards[b].d.Span.Start), cmp.Compare(a, b))
	})
	return ids
}

func (c *cluster) happened(what string, shard kv.ShardID, key []byte, node, from kv.NodeID) {
	c.log = append(c.log, happening{c.now, what, shard, string(key), node, from})
}

func (c *cluster) alive(n kv.NodeID) bool { return c.nodes[n] != nil && c.nodes[n].alive }

func (c *cluster) quorate(d *kv.Descriptor) bool {
	for _, skip := range []func(kv.Replica) bool{
		func(r kv.Replica) bool { return r.Learner || r.Outgoing }, func(r kv.Replica) bool { return r.Learner || r.Incoming },
	} {
		all, up := 0, 0
		for _, r := range d.Replicas {
			if !skip(r) {
				all++
				up += boolOf(c.alive(r.Node))
			}
		}
		if up*2 <= all {
			return false
		}
	}
	return true
}

// tick is one second.
func (c *cluster) tick() {
	c.now += time.Second
	for _, cmd := range c.commands {
		c.command(cmd)
	}
	c.commands = nil
	if c.swift {
		c.hurry()
	}
	ids := c.ids()
	for _, id := range ids {
		c.elect(id, c.shards[id])
	}
	orders := c.orders
	c.orders = nil
	for _, o := range orders {
		c.obey(o)
	}
	for _, id := range ids {
		if s := c.shards[id]; s != nil {
			c.work(s)
		}
	}
	for _, id := range c.ids() {
		s := c.shards[id]
		if s.counted {
			s.rates = append(s.rates, c.sample(c.loadOf(s)))
			s.rates = s.rates[max(0, len(s.rates)-10):]
		}
		s.counted = true
		for _, r := range s.d.Replicas {
			if r.Learner && c.alive(r.Node) && c.alive(s.leader) {
				s.behind[r.Replica] -= min(s.behind[r.Replica], 1+uint64(64<<20/1000)) // 64 MiB a second, an entry a KiB.
			}
		}
	}
	if !c.alive(c.metaLeader) {
		c.lead(c.shards[kv.MetaShard].leader)
	} else if l := c.shards[kv.MetaShard].leader; l != c.metaLeader {
		c.lead(l)
	}
	c.report()
	if c.alive(c.metaLeader) {
		c.planner.Refused(c.refusals)
		c.refusals = nil
		m := c.shardMap()
		actions := c.planner.Step(c.now, c.now.Milliseconds(), m, raftmeta.SettingsOf(c.state()), c.reports)
		c.commands = append(c.commands, actions.Commands...)
		c.events = append(c.events, actions.Events...)
		again := c.planner.Step(c.now+200*time.Millisecond, c.now.Milliseconds(), m, raftmeta.SettingsOf(c.state()), c.reports)
		actions.Orders = append(actions.Orders, again.Orders...)
		for _, cmd := range again.Commands {
			require.NotNil(c.t, cmd.GetDropGoal(), "nothing new is decided between two rounds")
		}
		c.commands = append(c.commands, again.Commands...)
		require.LessOrEqual(c.t, len(actions.Orders), 2*kv.OrdersMax)
		for _, o := range actions.Orders {
			if d, ok := m.Shard(kv.ShardID(o.Shard)); ok && o.GetConf() != nil {
				require.False(c.t, demotes(d, o.GetConf(), c.reports.Leader(d.Shard)), "M3: a leader would demote or remove itself")
			}
			if c.rng.Float64() >= c.lost {
				c.orders = append(c.orders, o)
			}
		}
		if c.lost > 0 && c.rng.IntN(20) == 0 && len(actions.Orders) > 0 { // One that comes late.
			c.orders = append(c.orders, actions.Orders[0])
		}
	}
}

// hurry has the splits that are wanted done at once, as a look at the goals between two steps does it.
func (c *cluster) hurry() {
	m := c.shardMap()
	v := &View{Map: m, Reports: c.reports, Now: c.now, DeadAfter: time.Minute}
	for _, g := range m.Goals() {
		d, _ := m.Shard(kv.ShardID(g.Shard))
		o := Next(v, d, g).Order
		s := c.shards[d.Shard]
		if o.GetSplit() == nil || s.work != nil || !c.quorate(s.d) || wire.ToEpoch(o.Epoch) != s.d.Epoch {
			continue
		}
		c.split(s, o, o.GetSplit())
		c.tellMap(c.shardReport(s))
	}
}

// sample is what a second's count shows of a rate.
func (c *cluster) sample(rate float64) float64 {
	if c.noisy && rate > 0 {
		return max(0, rate+c.rng.NormFloat64()*math.Sqrt(rate))
	}
	return rate
}

func (c *cluster) elect(id kv.ShardID, s *modelShard) {
	if c.alive(s.leader) || !c.quorate(s.d) {
		return
	}
	var list []kv.NodeID
	for _, r := range s.d.Replicas {
		if !r.Learner && c.alive(r.Node) {
			list = append(list, r.Node)
		}
	}
	s.leader = list[c.rng.IntN(len(list))]
	s.term++
	s.rates, s.counted, s.work = nil, false, nil
}

// obey has the leader of a shard follow an order.
func (c *cluster) obey(o *kvdv1.Order) {
	s := c.shards[kv.ShardID(o.Shard)]
	if s == nil || !c.alive(s.leader) || s.work != nil || wire.ToEpoch(o.Epoch) != s.d.Epoch {
		return
	}
	switch step := o.Step.(type) {
	case *kvdv1.Order_Conf:
		c.reconfigure(s, step.Conf)
	case *kvdv1.Order_Transfer:
		to := kv.NodeID(step.Transfer)
		if r, ok := s.d.OnNode(to); ok && !r.Learner && !r.Outgoing && c.alive(to) && to != s.leader && c.quorate(s.d) {
			require.False(c.t, c.nodes[to].full, "a leadership goes to a node whose disk is full")
			c.happened("lead", s.d.Shard, nil, to, s.leader)
			s.leader, s.rates, s.counted = to, nil, false
			s.term++
		}
	case *kvdv1.Order_Split:
		s.work, s.workLeft = o, 1
	case *kvdv1.Order_Merge:
		s.work, s.workLeft = o, 2
	}
}

// demotes tells that a change would demote or remove a node that leads.
func demotes(d *kv.Descriptor, change *kvdv1.ConfChange, leader kv.NodeID) bool {
	self, _ := d.OnNode(leader)
	return change.GetLeave() && self.Outgoing || slices.Contains(change.GetRemove(), uint64(self.Replica)) ||
		len(change.GetPromote()) == 0 && slices.Contains(change.GetDemote(), uint64(self.Replica))
}

func (c *cluster) reconfigure(s *modelShard, change *kvdv1.ConfChange) {
	if !c.quorate(s.d) || shardreplica.AdmitConf(s.d, change) != nil {
		return
	}
	if demotes(s.d, change, s.leader) {
		return // The leadership has changed since.
	}
	for _, id := range change.Promote {
		require.LessOrEqual(c.t, s.behind[kv.ReplicaID(id)], uint64(CaughtUpEntries), "M3: a learner votes before it has caught up")
		require.True(c.t, c.alive(s.d.NodeOf(kv.ReplicaID(id))) || c.now-c.nodes[s.d.NodeOf(kv.ReplicaID(id))].died < 8*time.Second, "M3: a dead learner votes")
	}
	conf := &raftpb.ConfState{}
	for _, r := range s.d.Replicas {
		id := uint64(r.Replica)
		switch {
		case slices.Contains(change.Remove, id):
		case change.Leave:
			if r.Outgoing || r.Learner {
				conf.Learners = append(conf.Learners, id)
			} else {
				conf.Voters = append(conf.Voters, id)
			}
		case r.Learner && slices.Contains(change.Promote, id):
			conf.Voters = append(conf.Voters, id)
		case r.Learner:
			conf.Learners = append(conf.Learners, id)
		default:
			if !slices.Contains(change.Demote, id) {
				conf.Voters = append(conf.Voters, id)
			}
			if len(change.Promote)+len(change.Demote) > 0 {
				conf.VotersOutgoing = append(conf.VotersOutgoing, id)
			}
		}
	}
	for _, r := range change.Add {
		conf.Learners = append(conf.Learners, r.Replica)
		s.behind[kv.ReplicaID(r.Replica)] = 2000 + uint64(c.bytesOf(s)/1000)
		c.happened("move", s.d.Shard, nil, kv.NodeID(r.Node), 0)
	}
	for _, id := range change.Remove {
		c.happened("leave", s.d.Shard, nil, 0, s.d.NodeOf(kv.ReplicaID(id)))
	}
	if s.d.Shard == kv.MetaShard {
		c.index++
		c.meta.Begin(nothing{})
		_, err := c.meta.ApplyConf(c.index, 6, change, func() *raftpb.ConfState { return conf })
		require.NoError(c.t, err)
		c.meta.Finish()
		c.meta.Committed()
		s.d = wire.ToDescriptor(c.state().Meta)
		return
	}
	s.d = shardreplica.Reconfigure(s.d, change, conf)
}

func (c *cluster) bytesOf(s *modelShard) float64 {
	from, to := span(c.data, s.d.Span)
	if len(c.data) == 0 || s.d.Shard == kv.MetaShard {
		return 0
	}
	return c.dataSums[to] - c.dataSums[from]
}

// work goes on with a split or a merge.
func (c *cluster) work(s *modelShard) {
	if s.work == nil || !c.quorate(s.d) {
		return
	}
	if s.workLeft--; s.workLeft > 0 {
		return
	}
	o := s.work
	s.work = nil
	if g := o.GetSplit(); g != nil {
		c.split(s, o, g)
		return
	}
	right := c.shards[kv.ShardID(o.GetMerge().GetShard())]
	if right == nil || right.d.Epoch != wire.ToEpoch(o.GetMerge().Epoch) || !sameNodes(s.d, right.d) || right.d.Joint() || right.leader != s.leader {
		return
	}
	for _, r := range s.d.Replicas {
		if !c.alive(r.Node) {
			return
		}
	}
	d := *s.d
	d.Span.End, d.Epoch.Version = right.d.Span.End, max(d.Epoch.Version, right.d.Epoch.Version)+1
	c.happened("merge", d.Shard, right.d.Span.Start, 0, 0)
	s.d, s.birth, s.rates, s.counted = &d, nil, nil, false
	delete(c.shards, right.d.Shard)
}

func (c *cluster) split(s *modelShard, o *kvdv1.Order, g *kvdv1.SplitGoal) {
	key, reason := g.Key, ""
	if len(key) == 0 {
		list, sums := c.data, c.dataSums
		if g.ByLoad {
			list, sums = c.traffic, c.sums
		}
		key, reason = halve(list, sums, s.d.Span, g.ByLoad)
	}
	if len(key) == 0 || !s.d.Span.Contains(key) || bytes.Equal(key, s.d.Span.Start) {
		c.refusals = append(c.refusals, &kvdv1.Refusal{Goal: o.Goal, Shard: o.Shard, Reason: "no key: " + reason, Final: true})
		return
	}
	left, right := *s.d, *s.d
	left.Span.End, left.Epoch.Version = key, s.d.Epoch.Version+1
	right.Span.Start, right.Shard, right.Epoch = key, kv.ShardID(g.Child), kv.Epoch{Version: left.Epoch.Version, Config: 1}
	right.Replicas = nil
	for _, r := range g.Replicas {
		right.Replicas = append(right.Replicas, kv.Replica{Node: kv.NodeID(r.Node), Replica: kv.ReplicaID(r.Replica), Learner: r.Learner})
	}
	pair := &kvdv1.SplitPair{Left: wire.FromDescriptor(&left, 0), Right: wire.FromDescriptor(&right, 0)}
	s.d, s.birth, s.rates, s.counted = &left, pair, nil, false
	c.shards[right.Shard] = &modelShard{d: &right, birth: pair, leader: s.leader, term: 6, behind: map[kv.ReplicaID]uint64{}}
	c.happened("split", left.Shard, key, 0, 0)
}

// halve gives the key that halves the weights of a span; by load each side must have a quarter.
func halve(list []weighted, sums []float64, s kv.Span, byLoad bool) ([]byte, string) {
	from, to := span(list, s)
	total := sums[to] - sums[from]
	best, key := 0.0, []byte(nil)
	for i := from + 1; i < to; i++ {
		if side := min(sums[i]-sums[from], sums[to]-sums[i]); side > best {
			best, key = side, list[i].key
		}
	}
	if byLoad && best*4 < total {
		return nil, "one key takes too much"
	}
	return key, "there is but one key"
}

// report has all nodes report, and what is new proposed.
func (c *cluster) report() {
	for n := kv.NodeID(1); n < kv.NodeID(c.state().NextNode); n++ {
		node := c.nodes[n]
		if node == nil || !node.alive || c.rng.Float64() < c.lost/2 {
			continue
		}
		report := &kvdv1.NodeReport{DiskFull: node.full}
		for _, id := range c.ids() {
			if s := c.shards[id]; s.leader == n && c.quorate(s.d) {
				report.Shards = append(report.Shards, c.shardReport(s))
			}
		}
		if c.alive(c.metaLeader) {
			c.reports.Take(n, report, c.now)
			for _, s := range report.Shards {
				c.tellMap(s)
			}
		}
	}
}

func (c *cluster) shardReport(s *modelShard) *kvdv1.ShardReport {
	report := &kvdv1.ShardReport{Descriptor_: wire.FromDescriptor(s.d, s.leader), Term: s.term, Birth: s.birth, Load: &kvdv1.ShardLoad{}}
	from, to := span(c.data, s.d.Span)
	if s.d.Shard == kv.MetaShard {
		from = to
	}
	report.Keys, report.Bytes = uint64(to-from), uint64(c.bytesOf(s))
	for _, r := range s.rates {
		report.Load.Reads += r / float64(len(s.rates))
	}
	report.Load.Bytes = c.requests * report.Load.Reads
	from, to = span(c.traffic, s.d.Span)
	for i := from; i < to; i++ {
		if share := c.traffic[i].weight / max(1e-9, c.loadOf(s)); share > report.Load.HottestShare {
			report.Load.HottestShare, report.Load.HottestKey = share, c.traffic[i].key
		}
	}
	for _, r := range s.d.Replicas {
		if !r.Learner && c.alive(r.Node) {
			report.Active = append(report.Active, uint64(r.Replica))
		}
		report.Followers = append(report.Followers, &kvdv1.FollowerReport{Replica: uint64(r.Replica), Behind: s.behind[r.Replica], Active: c.alive(r.Node)})
	}
	return report
}

// tellMap proposes what a shard has become (M1).
func (c *cluster) tellMap(s *kvdv1.ShardReport) {
	known, ok := c.shardMap().Shard(kv.ShardID(s.Descriptor_.Shard))
	if !ok || known.Shard == kv.MetaShard || !wire.ToEpoch(s.Descriptor_.Epoch).Newer(known.Epoch) {
		return
	}
	d := wire.FromDescriptor(wire.ToDescriptor(s.Descriptor_), 0)
	list := []*kvdv1.Descriptor{d}
	if s.Birth != nil && s.Birth.Left.Shard == d.Shard && s.Birth.Left.Epoch.Version == known.Epoch.Version+1 {
		list = []*kvdv1.Descriptor{s.Birth.Left, s.Birth.Right}
	}
	res := c.command(&kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_Report{Report: &kvdv1.ReportShards{Descriptors: list}}})
	require.Equal(c.t, kv.Done, res.Status, "%s: %v", res.Reason, list)
}

// run lets time pass, with what must always hold.
func (c *cluster) run(d time.Duration) {
	for end := c.now + d; c.now < end; {
		c.tick()
	}
}

func (c *cluster) kill(n kv.NodeID) { c.nodes[n].alive, c.nodes[n].died = false, c.now }

// loads are what the live nodes lead, in operations a second.
func (c *cluster) loads() map[kv.NodeID]float64 {
	sums := map[kv.NodeID]float64{}
	for n, x := range c.nodes {
		if x.alive {
			sums[n] = 0
		}
	}
	for _, id := range c.ids() {
		if s := c.shards[id]; id != kv.MetaShard {
			sums[s.leader] += c.loadOf(s)
		}
	}
	return sums
}

// busiest is what the busiest node carries, as a multiple of the mean.
func (c *cluster) busiest() float64 {
	most, sum, loads := 0.0, 0.0, c.loads()
	for _, l := range loads {
		most, sum = max(most, l), sum+l
	}
	return most / (sum / float64(len(loads)))
}

// since gives what happened after a time.
func (c *cluster) since(at time.Duration, what ...string) (list []happening) {
	for _, h := range c.log {
		if h.at > at && (len(what) == 0 || slices.Contains(what, h.what)) {
			list = append(list, h)
		}
	}
	return list
}

// pairs are changes that took back an earlier one: a merge at a key that was split, a split at one that was merged, a
// replica or a leader that came back to where it left, and not of a part of what had left.
func (c *cluster) pairs(since time.Duration) (list []string) {
	for i, a := range c.log {
		if a.at <= since {
			continue
		}
		whole := true
		for _, b := range c.log[i+1:] {
			whole = whole && (b.what != "split" || b.shard != a.shard)
			switch {
			case a.what == "split" && b.what == "merge" && a.key == b.key, a.what == "merge" && b.what == "split" && a.key == b.key,
				a.what == "leave" && b.what == "move" && a.shard == b.shard && a.from == b.node,
				a.what == "lead" && b.what == "lead" && a.shard == b.shard && a.from == b.node && whole:
				list = append(list, fmt.Sprintf("%v %v", a, b))
			}
		}
	}
	return list
}

func (c *cluster) dump() string {
	text := fmt.Sprintf("at %v, loads %v\n", c.now-time.Hour, c.loads())
	for _, id := range c.ids() {
		s := c.shards[id]
		if len(c.traffic) > 0 && c.loadOf(s) == 0 {
			continue
		}
		text += fmt.Sprintf("shard %d %v leader %d load %.0f bytes %.0f nodes %v epoch %v\n", id, s.d.Span, s.leader, c.loadOf(s), c.bytesOf(s), nodesOf(s.d.Replicas), s.d.Epoch)
		for _, w := range c.planner.Why(id) {
			text += "    " + w + "\n"
		}
	}
	return text
}
