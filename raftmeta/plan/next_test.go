package plan

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

// scene is a small cluster: shard 7 holds all keys below m, shard 8 the others.
type scene struct {
	left, right []*kvdv1.Replica
	goals       []*kvdv1.Goal
	rules       []*kvdv1.Rule
	absorbed    []*kvdv1.AbsorbedShard
	leader      kv.NodeID // Of shard 7, and of shard 8 if that is not given.
	leaderRight kv.NodeID
	behind      map[uint64]uint64        // By replica: what it lacks; none is reported of the others.
	inactive    map[uint64]bool          // By replica.
	silent      map[uint64]time.Duration // By node.
	draining    map[uint64]bool
	full        map[uint64]bool
	regions     map[uint64]string
	age         time.Duration // Of the report of shard 7.
	unseen      bool          // No leader has reported.
	ahead       bool          // The shard has changed since the map was told.
	lagging     bool          // The map is newer than the report.
	report      func(*kvdv1.ShardReport)
}

func replica(node, id uint64) *kvdv1.Replica { return &kvdv1.Replica{Node: node, Replica: id} }
func learner(node, id uint64) *kvdv1.Replica {
	return &kvdv1.Replica{Node: node, Replica: id, Learner: true}
}
func incoming(node, id uint64) *kvdv1.Replica {
	return &kvdv1.Replica{Node: node, Replica: id, Incoming: true}
}
func outgoing(node, id uint64) *kvdv1.Replica {
	return &kvdv1.Replica{Node: node, Replica: id, Outgoing: true}
}

const sceneNow = 100 * time.Second

func metaOf(nodes int) *kvdv1.MetaState {
	m := &kvdv1.MetaState{
		ClusterId: 1, Version: 5, NextNode: uint64(nodes) + 1, NextShard: 100, NextReplica: 1000, ClusterVersion: 1,
		TickMs: 100, ElectionTicks: 10, NextGoal: 50,
		Meta: &kvdv1.Descriptor{Epoch: &kvdv1.Epoch{Version: 1, Config: 1}, Replicas: []*kvdv1.Replica{replica(1, 900)}},
	}
	for n := uint64(1); n <= uint64(nodes); n++ {
		m.Nodes = append(m.Nodes, &kvdv1.MetaNode{StoreId: n, Node: &kvdv1.Node{Node: n, Name: fmt.Sprint("n", n), Address: "h:1"}})
	}
	return m
}

// state gives the metadata, and view what Next is asked with.
func (s scene) state() *kvdv1.MetaState {
	m := metaOf(6)
	for _, n := range m.Nodes {
		n.Draining, n.Node.Region = s.draining[n.Node.Node], s.regions[n.Node.Node]
	}
	m.Rules, m.Goals, m.Absorbed = s.rules, s.goals, s.absorbed
	m.Descriptors = []*kvdv1.Descriptor{
		{Shard: 7, End: []byte("m"), Epoch: &kvdv1.Epoch{Version: 3, Config: 4}, Replicas: s.left},
		{Shard: 8, Start: []byte("m"), Epoch: &kvdv1.Epoch{Version: 2, Config: 2}, Replicas: s.right},
	}
	if s.right == nil {
		m.Descriptors[0].End, m.Descriptors = nil, m.Descriptors[:1]
	}
	return m
}

// view also gives the descriptor of shard 7.
func (s scene) view(t *testing.T) (*View, *kv.Descriptor) {
	state := s.state()
	d := wire.ToDescriptor(state.Descriptors[0])
	plain := s
	plain.left = s.left[:1] // Roles are in the descriptor that Next is asked with.
	if plain.left[0].Learner || plain.left[0].Outgoing {
		plain.left = s.left[1:2]
	}
	if d.Voters() == len(d.Replicas) {
		plain.left = s.left
	}
	m, err := raftmeta.NewMap(plain.state())
	require.NoError(t, err)
	r := NewReports(0)
	reports := map[kv.NodeID][]*kvdv1.ShardReport{}
	for i, d := range state.Descriptors {
		leader := s.leader
		if i == 1 && s.leaderRight != 0 {
			leader = s.leaderRight
		}
		report := &kvdv1.ShardReport{Term: 6, Descriptor_: &kvdv1.Descriptor{
			Shard: d.Shard, Start: d.Start, End: d.End, Epoch: &kvdv1.Epoch{Version: d.Epoch.Version, Config: d.Epoch.Config}, Replicas: d.Replicas,
		}}
		for _, x := range d.Replicas {
			if !x.Learner && !s.inactive[x.Replica] {
				report.Active = append(report.Active, x.Replica)
			}
			if behind, ok := s.behind[x.Replica]; ok {
				report.Followers = append(report.Followers, &kvdv1.FollowerReport{Replica: x.Replica, Behind: behind, Active: !s.inactive[x.Replica]})
			}
		}
		if i == 0 && s.ahead {
			report.Descriptor_.Epoch.Config++
		}
		if i == 0 && s.lagging {
			report.Descriptor_.Epoch.Config--
		}
		if i == 0 && s.report != nil {
			s.report(report)
		}
		if i == 0 && s.unseen {
			continue
		}
		reports[leader] = append(reports[leader], report)
	}
	for n := kv.NodeID(1); n <= 6; n++ {
		r.Take(n, &kvdv1.NodeReport{DiskFull: s.full[uint64(n)], Shards: reports[n]}, sceneNow-s.age)
		r.Take(n, &kvdv1.NodeReport{DiskFull: s.full[uint64(n)]}, sceneNow-s.silent[uint64(n)])
	}
	return &View{Map: m, Reports: r, Now: sceneNow, DeadAfter: 50 * time.Second}, d
}

func replicasGoal(add []*kvdv1.Replica, remove ...uint64) *kvdv1.Goal {
	return &kvdv1.Goal{Id: 3, Shard: 7, Goal: &kvdv1.Goal_Replicas{Replicas: &kvdv1.ReplicasGoal{Add: add, Remove: remove}}}
}

// describe writes a step as the tables below expect it.
func describe(s Step) string {
	switch {
	case s.Reached:
		return "reached: " + s.Why
	case s.GiveUp:
		return "give up: " + s.Why
	case s.Order == nil:
		return "wait: " + s.Why
	}
	of := ""
	if s.Order.Shard != 7 {
		of = fmt.Sprintf("shard %d: ", s.Order.Shard)
	}
	return of + describeOrder(s.Order)
}

func describeOrder(order *kvdv1.Order) string {
	switch o := order.Step.(type) {
	case *kvdv1.Order_Transfer:
		return fmt.Sprintf("transfer to %d", o.Transfer)
	case *kvdv1.Order_Split:
		return fmt.Sprintf("split %q", o.Split.GetKey())
	case *kvdv1.Order_Merge:
		return fmt.Sprintf("merge %d", o.Merge.GetShard())
	case *kvdv1.Order_Conf:
		c := o.Conf
		switch {
		case len(c.Add) > 0:
			return fmt.Sprintf("add %d on %d", c.Add[0].Replica, c.Add[0].Node)
		case c.Leave:
			return "leave"
		case len(c.Remove) > 0:
			return fmt.Sprint("remove ", c.Remove)
		}
		return fmt.Sprint("join ", c.Promote, c.Demote)
	}
	return "?"
}

func TestNextReplicas(t *testing.T) {
	three := []*kvdv1.Replica{replica(1, 11), replica(2, 12), replica(3, 13)}
	with := func(list []*kvdv1.Replica, more ...*kvdv1.Replica) []*kvdv1.Replica {
		return append(append([]*kvdv1.Replica{}, list...), more...)
	}
	move := replicasGoal([]*kvdv1.Replica{replica(4, 14)}, 1)
	grow := replicasGoal([]*kvdv1.Replica{replica(2, 12), replica(3, 13)})
	joint := []*kvdv1.Replica{outgoing(1, 11), replica(2, 12), replica(3, 13), incoming(4, 14)}
	for _, c := range []struct {
		name string
		s    scene
		goal *kvdv1.Goal
		want string
	}{
		{"a learner comes first", scene{left: three, leader: 1}, move, "add 14 on 4"},
		{"its snapshot has not come", scene{left: with(three, learner(4, 14)), leader: 1}, move,
			"wait: the leader has not told yet how far the learner on node 4 is"},
		{"it is far behind", scene{left: with(three, learner(4, 14)), leader: 1, behind: map[uint64]uint64{14: 257}}, move,
			"wait: the learner on node 4 lacks 257 entries; at most 256 may be missing"},
		{"it was level, and is gone", scene{left: with(three, learner(4, 14)), leader: 1, behind: map[uint64]uint64{14: 0}, inactive: map[uint64]bool{14: true}}, move,
			"wait: the learner on node 4 is not active"},
		{"its node is silent", scene{left: with(three, learner(4, 14)), leader: 1, behind: map[uint64]uint64{14: 0}, silent: map[uint64]time.Duration{4: 4 * time.Second}}, move,
			"wait: the learner on node 4 is not active"},
		{"an old report proves nothing", scene{left: with(three, learner(4, 14)), leader: 1, behind: map[uint64]uint64{14: 0}, age: 6 * time.Second}, move,
			"wait: the leader's last report of the shard is 6s old"},
		{"it has caught up", scene{left: with(three, learner(4, 14)), leader: 2, behind: map[uint64]uint64{14: 256}}, move, "join [14] [11]"},
		{"the leader is to go, and joins first", scene{left: with(three, learner(4, 14)), leader: 1, behind: map[uint64]uint64{14: 0}}, move, "join [14] [11]"},
		{"nobody could take over", scene{left: []*kvdv1.Replica{replica(1, 11), learner(4, 14)}, leader: 1, behind: map[uint64]uint64{14: 0}, full: map[uint64]bool{4: true}}, move,
			"wait: nobody can take over from the leader on node 1: the disk of node 4 is full"},
		{"no majority of the old voters", scene{left: with(three, learner(4, 14)), leader: 3, behind: map[uint64]uint64{14: 0}, inactive: map[uint64]bool{11: true, 12: true}}, move,
			"wait: the shard has no majority: 2 of 3 are not active (nodes 1 and 2)"},
		{"the second learner", scene{left: with(three, learner(4, 14)), leader: 1}, replicasGoal([]*kvdv1.Replica{replica(4, 14), replica(5, 15)}, 1, 2), "add 15 on 5"},
		{"one of the new voters is away, and two are not", scene{left: with(three, learner(4, 14)), leader: 2, behind: map[uint64]uint64{14: 0},
			inactive: map[uint64]bool{13: true}}, move, "join [14] [11]"},
		{"a majority of the old is not one of the new", scene{left: three, leader: 1, inactive: map[uint64]bool{12: true}},
			replicasGoal(nil, 1, 3), "wait: the new voters would have no majority: 1 of 1 are not active (nodes 2)"},
		{"joint, the leader goes", scene{left: joint, leader: 1}, move, "transfer to 4"},
		{"joint, the incoming one is suspect", scene{left: joint, leader: 1, silent: map[uint64]time.Duration{4: 4 * time.Second}}, move, "transfer to 2"},
		{"joint, the incoming one has no disk", scene{left: joint, leader: 1, full: map[uint64]bool{4: true}}, move, "transfer to 2"},
		{"joint, the incoming one is not heard", scene{left: joint, leader: 1, inactive: map[uint64]bool{14: true}}, move, "transfer to 2"},
		{"joint, a rule wants the leader elsewhere", scene{left: joint, leader: 1, regions: map[uint64]string{3: "west"},
			rules: []*kvdv1.Rule{{Regions: []string{"west"}, Leader: "west"}}}, move, "transfer to 3"},
		{"joint, nobody may lead", scene{left: joint, leader: 1, draining: map[uint64]bool{2: true, 3: true, 4: true}}, move,
			"wait: nobody can take over from the leader on node 1: node 3 is draining"},
		{"joint, another leads", scene{left: joint, leader: 2}, move, "leave"},
		{"joint, the goal is gone", scene{left: joint, leader: 2}, nil, "leave"},
		{"joint, of a split's shard", scene{left: joint, leader: 4}, &kvdv1.Goal{Goal: &kvdv1.Goal_Split{Split: &kvdv1.SplitGoal{}}}, "leave"},
		{"the old one is a learner now", scene{left: []*kvdv1.Replica{learner(1, 11), replica(2, 12), replica(3, 13), replica(4, 14)}, leader: 4}, move, "remove [11]"},
		{"done", scene{left: []*kvdv1.Replica{replica(2, 12), replica(3, 13), replica(4, 14)}, leader: 4}, move, "reached: its replicas are on nodes 2, 3 and 4"},
		{"one to three: the first learner", scene{left: three[:1], leader: 1}, grow, "add 12 on 2"},
		{"the second, before the first has caught up", scene{left: with(three[:1], learner(2, 12)), leader: 1}, grow, "add 13 on 3"},
		{"only one has caught up", scene{left: with(three[:1], learner(2, 12), learner(3, 13)), leader: 1, behind: map[uint64]uint64{12: 0}}, grow,
			"wait: the leader has not told yet how far the learner on node 3 is"},
		{"both in one change", scene{left: with(three[:1], learner(2, 12), learner(3, 13)), leader: 1, behind: map[uint64]uint64{12: 0, 13: 9}}, grow, "join [12 13] []"},
		{"an even number", scene{left: with(three[:1], learner(2, 12)), leader: 1, behind: map[uint64]uint64{12: 0}}, replicasGoal([]*kvdv1.Replica{replica(2, 12)}),
			"give up: 2 voters would be left; the number must be odd"},
		{"three to one, the leader goes first", scene{left: three, leader: 2}, replicasGoal(nil, 2, 3), "transfer to 1"},
		{"three to one", scene{left: three, leader: 1}, replicasGoal(nil, 2, 3), "join [] [12 13]"},
		{"a learner that nobody wants", scene{left: with(three, learner(5, 15)), leader: 1}, nil, "remove [15]"},
		{"nothing to clear away", scene{left: three, leader: 1}, nil, "reached: its replicas are on nodes 1, 2 and 3"},
		{"the target is suspect", scene{left: three, leader: 1, silent: map[uint64]time.Duration{4: 4 * time.Second}}, move,
			"wait: a replica is to go to node 4: node 4 is suspect, silent for 4s"},
		{"the target is down", scene{left: three, leader: 1, silent: map[uint64]time.Duration{4: 51 * time.Second}}, move,
			"give up: a replica was to go to node 4: node 4 is down, silent for 51s"},
		{"the target drains", scene{left: three, leader: 1, draining: map[uint64]bool{4: true}}, move, "give up: a replica was to go to node 4: node 4 is draining"},
		{"the target has left", scene{left: three, leader: 1}, replicasGoal([]*kvdv1.Replica{replica(9, 14)}, 1), "give up: a replica was to go to node 9: node 9 is not a member"},
		{"no report yet", scene{left: three, leader: 1, unseen: true}, move, "wait: no leader of the shard has reported yet"},
		{"no report, and no majority", scene{left: three, leader: 1, unseen: true, silent: map[uint64]time.Duration{2: time.Minute, 3: time.Minute}}, move,
			"wait: no leader of the shard has reported yet; 2 of its 3 voters are silent (nodes 2 and 3)"},
		{"the leader is silent", scene{left: three, leader: 1, silent: map[uint64]time.Duration{1: 4 * time.Second}, age: 4 * time.Second}, move,
			"wait: no leader: node 1, which led the shard, is silent for 4s"},
		{"the shard is ahead of the map", scene{left: three, leader: 1, ahead: true}, move, "wait: the map does not have the shard's last change yet"},
		{"the report is behind the map", scene{left: three, leader: 1, lagging: true}, move, "wait: the leader has not reported since the shard's last change"},
		{"under a merge", scene{left: three, leader: 1, report: func(r *kvdv1.ShardReport) { r.Intent = 5 }}, move, "wait: a merge of the shard is open"},
		{"frozen", scene{left: three, leader: 1, report: func(r *kvdv1.ShardReport) { r.Frozen = 5 }}, move, "wait: the shard is frozen for merge 5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, d := c.s.view(t)
			step := Next(v, d, c.goal)
			require.Contains(t, describe(step), c.want)
			if step.Order != nil {
				require.Equal(t, c.goal.GetId(), step.Order.Goal)
				require.Equal(t, kv.Epoch{Version: 3, Config: 4}, wire.ToEpoch(step.Order.Epoch))
				if conf := step.Order.GetConf(); conf != nil {
					require.Equal(t, kv.Epoch{Version: 3, Config: 4}, wire.ToEpoch(conf.Epoch), "T5: checked again at apply")
				}
			}
		})
	}
}

func TestNextSplit(t *testing.T) {
	three := []*kvdv1.Replica{replica(1, 11), replica(2, 12), replica(3, 13)}
	child := []*kvdv1.Replica{replica(3, 23), replica(1, 21), replica(2, 22)}
	goal := func(key string, child uint64, replicas []*kvdv1.Replica) *kvdv1.Goal {
		return &kvdv1.Goal{Id: 3, Shard: 7, Goal: &kvdv1.Goal_Split{Split: &kvdv1.SplitGoal{Key: []byte(key), Child: child, Replicas: replicas}}}
	}
	eight := []*kvdv1.Replica{replica(1, 31)}
	for _, c := range []struct {
		name string
		s    scene
		goal *kvdv1.Goal
		want string
	}{
		{"where it chooses", scene{left: three, right: eight, leader: 1}, goal("", 20, child), `split ""`},
		{"at a key", scene{left: three, right: eight, leader: 1}, goal("c", 20, child), `split "c"`},
		{"the key is the end", scene{left: three, right: eight, leader: 1}, goal("m", 20, child), "give up: the key m is not inside the shard any more"},
		{"the child is there", scene{left: three, right: eight, leader: 1}, goal("c", 8, child), "reached: shard 8 was split off"},
		{"the child is there, and nobody leads", scene{left: three, right: eight, leader: 1, unseen: true}, goal("m", 8, child), "reached: shard 8 was split off"},
		{"with a learner", scene{left: append(three[:3:3], learner(4, 14)), right: eight, leader: 1}, goal("c", 20, append(child[:3:3], learner(4, 24))), `split "c"`},
		{"the replicas have moved", scene{left: append(three[:2:2], replica(4, 14)), right: eight, leader: 1}, goal("c", 20, child), "give up: the shard's replicas have moved"},
		{"an open merge", scene{left: three, right: eight, leader: 1, report: func(r *kvdv1.ShardReport) { r.Intent = 4 }}, goal("c", 20, child), "wait: a merge of the shard is open"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, d := c.s.view(t)
			require.Contains(t, describe(Next(v, d, c.goal)), c.want)
		})
	}
}

func TestNextMerge(t *testing.T) {
	left := []*kvdv1.Replica{replica(1, 11), replica(2, 12), replica(3, 13)}
	right := []*kvdv1.Replica{replica(3, 23), replica(1, 21), replica(2, 22)}
	goal := &kvdv1.Goal{Id: 3, Shard: 7, Goal: &kvdv1.Goal_Merge{Merge: &kvdv1.MergeGoal{Right: 8}}}
	away := []*kvdv1.Replica{replica(3, 23), replica(1, 21), replica(4, 24)}
	align := &kvdv1.Goal{Id: 3, Shard: 7, Goal: &kvdv1.Goal_Merge{Merge: &kvdv1.MergeGoal{
		Right: 8, Align: &kvdv1.ReplicasGoal{Add: []*kvdv1.Replica{replica(2, 25)}, Remove: []uint64{4}},
	}}}
	former := func(shard uint64) *kvdv1.Descriptor {
		return &kvdv1.Descriptor{Shard: shard, Start: []byte("x"), Epoch: &kvdv1.Epoch{Version: 1, Config: 1}, Replicas: []*kvdv1.Replica{replica(1, 91)}}
	}
	gone := &kvdv1.Goal{Id: 3, Shard: 7, Goal: &kvdv1.Goal_Merge{Merge: &kvdv1.MergeGoal{Right: 9}}}
	for _, c := range []struct {
		name string
		s    scene
		goal *kvdv1.Goal
		want string
	}{
		{"all is in place", scene{left: left, right: right, leader: 1}, goal, "merge 8"},
		{"two leaders", scene{left: left, right: right, leader: 1, leaderRight: 2}, goal, "shard 8: transfer to 1"},
		{"two leaders, and the disk of one is full", scene{left: left, right: right, leader: 1, leaderRight: 2, full: map[uint64]bool{1: true}}, goal,
			"wait: shard 8 cannot be led where shard 7 is: the disk of node 1 is full"},
		{"other nodes", scene{left: left, right: away, leader: 1}, align, "shard 8: add 25 on 2"},
		{"a learner there", scene{left: left, right: append(away[:3:3], learner(2, 25)), leader: 1, leaderRight: 4}, align, "wait: the leader has not told yet how far the learner on node 2 is"},
		{"it has caught up", scene{left: left, right: append(away[:3:3], learner(2, 25)), leader: 1, leaderRight: 4, behind: map[uint64]uint64{25: 3}}, align, "shard 8: join [25] [24]"},
		{"the old one is to be removed", scene{left: left, right: append(right[:3:3], learner(4, 24)), leader: 1}, align, "shard 8: remove [24]"},
		{"now they are on the same nodes", scene{left: left, right: []*kvdv1.Replica{replica(3, 23), replica(1, 21), replica(2, 25)}, leader: 1}, align, "merge 8"},
		{"other nodes, and no way there", scene{left: left, right: away, leader: 1}, goal, "give up: the replicas of shard 8 are on nodes 3, 1 and 4, and must be on 1, 2 and 3"},
		{"a learner on the left", scene{left: append(left[:3:3], learner(4, 14)), right: append(right[:3:3], learner(4, 24)), leader: 1}, goal, "remove [14]"},
		{"one replica is away", scene{left: left, right: right, leader: 1, inactive: map[uint64]bool{22: true}}, goal, "wait: the replica of shard 8 on node 2 is not active"},
		{"one node is silent", scene{left: left, right: right, leader: 1, silent: map[uint64]time.Duration{2: 4 * time.Second}}, goal, "wait: the replica of shard 7 on node 2 is not active"},
		{"asleep", scene{left: left, right: right, leader: 1, inactive: map[uint64]bool{12: true}, report: func(r *kvdv1.ShardReport) { r.Asleep = true }}, goal, "merge 8"},
		{"under way", scene{left: left, right: right, leader: 1, report: func(r *kvdv1.ShardReport) { r.Intent = 3 }}, goal, "wait: the merge with shard 8 is under way"},
		{"no leader on the right", scene{left: left, right: right, leader: 1, leaderRight: 3, silent: map[uint64]time.Duration{3: 4 * time.Second}}, goal, "wait: shard 8: no leader"},
		{"done", scene{left: left, leader: 1, absorbed: []*kvdv1.AbsorbedShard{{Descriptor_: former(9), Absorber: 7}}}, gone, "reached: shard 9 was absorbed"},
		{"another took it", scene{left: left, leader: 1, absorbed: []*kvdv1.AbsorbedShard{{Descriptor_: former(9), Absorber: 6}}}, gone, "give up: shard 9 is gone"},
		{"no neighbours", scene{left: left, leader: 1, right: right}, &kvdv1.Goal{Shard: 8, Goal: &kvdv1.Goal_Merge{Merge: &kvdv1.MergeGoal{Right: 7}}}, "give up: shard 7 is not the right neighbour"},
		{"a rule ends between them", scene{left: left, leader: 1, right: right, rules: []*kvdv1.Rule{{Regions: []string{"x"}}}}, goal, "merge 8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, d := c.s.view(t)
			if c.goal.Shard == 8 {
				d, _ = v.Map.Shard(8)
			}
			require.Contains(t, describe(Next(v, d, c.goal)), c.want)
		})
	}
}

func TestReports(t *testing.T) {
	r := NewReports(10 * time.Second)
	require.Equal(t, 5*time.Second, r.Silent(3, 15*time.Second), "a new leader of the meta group has heard of nobody yet")
	of := func(shard, term, config uint64) *kvdv1.NodeReport {
		return &kvdv1.NodeReport{Bytes: 5, Shards: []*kvdv1.ShardReport{{Term: term, Descriptor_: &kvdv1.Descriptor{Shard: shard, Epoch: &kvdv1.Epoch{Version: 1, Config: config}}}}}
	}
	r.Take(3, of(1, 7, 2), 16*time.Second)
	require.Zero(t, r.Silent(3, 16*time.Second))
	require.Equal(t, kv.NodeID(3), r.Leader(1))
	r.Take(2, of(1, 6, 9), 17*time.Second)
	require.Equal(t, kv.NodeID(3), r.Leader(1), "a deposed leader is not believed")
	r.Take(2, of(1, 8, 3), 18*time.Second)
	f, ok := r.Shard(1)
	require.True(t, ok)
	require.Equal(t, kv.Epoch{Version: 1, Config: 3}, f.Epoch)
	require.Equal(t, kv.NodeID(2), f.From)
	r.Heard(3, 20*time.Second)
	require.Equal(t, time.Second, r.Silent(3, 21*time.Second))
	require.EqualValues(t, 5, r.Node(3).Bytes, "to be heard changes no figures")

	r.Take(9, of(99, 1, 1), 20*time.Second)
	state := metaOf(3)
	state.Descriptors = []*kvdv1.Descriptor{{Shard: 1, Epoch: &kvdv1.Epoch{Version: 1, Config: 1}, Replicas: []*kvdv1.Replica{replica(1, 1)}}}
	m, err := raftmeta.NewMap(state)
	require.NoError(t, err)
	r.Keep(m)
	require.Len(t, r.shards, 1)
	require.Len(t, r.nodes, 2)
	require.Zero(t, r.Leader(99))

	many := &kvdv1.NodeReport{}
	for i := range uint64(kv.ShardsMax + 100) {
		many.Shards = append(many.Shards, of(i, 1, 1).Shards...)
	}
	r.Take(1, many, 21*time.Second)
	require.LessOrEqual(t, len(r.shards), kv.ShardsMax+1)
	for i := range kv.NodeID(kv.NodesMax + 100) {
		r.Take(i, &kvdv1.NodeReport{}, 21*time.Second)
		r.Heard(i+5000, 21*time.Second)
	}
	require.LessOrEqual(t, len(r.nodes), kv.NodesMax)
}
