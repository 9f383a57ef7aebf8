package node

import (
	"fmt"
	"slices"
	"strings"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

// describeGoal says in a few words what a goal is.
func describeGoal(m *raftmeta.Map, g *kvdv1.Goal) string {
	switch x := g.GetGoal().(type) {
	case *kvdv1.Goal_Split:
		if len(x.Split.GetKey()) > 0 {
			return "a split at " + kv.FormatKey(x.Split.GetKey())
		}
		return "a split"
	case *kvdv1.Goal_Merge:
		return fmt.Sprintf("a merge of shard %d with shard %d", g.GetShard(), x.Merge.GetRight())
	case *kvdv1.Goal_Replicas:
		from, to := namesOf(m, x.Replicas)
		switch {
		case len(from) == 0:
			return "new replicas on " + strings.Join(to, ", ")
		case len(to) == 0:
			return "fewer replicas, without " + strings.Join(from, ", ")
		}
		return "a move from " + strings.Join(from, ", ") + " to " + strings.Join(to, ", ")
	}
	return "one that this version does not know"
}

// namesOf lists the nodes that a goal takes replicas from, and those that it gives some.
func namesOf(m *raftmeta.Map, g *kvdv1.ReplicasGoal) (from, to []string) {
	for _, id := range g.GetRemove() {
		from = append(from, nodeName(m, kv.NodeID(id)))
	}
	for _, r := range g.GetAdd() {
		to = append(to, nodeName(m, kv.NodeID(r.GetNode())))
	}
	return from, to
}

// steps says what a goal leads to, for people; leader is the node that leads the shard, as far as this one knows.
func steps(m *raftmeta.Map, d *kv.Descriptor, g *kvdv1.Goal, leader kv.NodeID) []string {
	switch x := g.GetGoal().(type) {
	case *kvdv1.Goal_Split:
		return splitSteps(d, x.Split)
	case *kvdv1.Goal_Merge:
		right, _ := m.Shard(kv.ShardID(x.Merge.GetRight()))
		return mergeSteps(d, right)
	case *kvdv1.Goal_Replicas:
		from, to := namesOf(m, x.Replicas)
		list := []string{
			fmt.Sprintf("add a learner on %s, send it a snapshot of shard %d, and wait until it has caught up", strings.Join(to, ", "), d.Shard),
			fmt.Sprintf("let it vote in place of the replica on %s, in one joint change", strings.Join(from, ", ")),
		}
		leads := fmt.Sprintf("if %s has it by then", strings.Join(from, ", "))
		if slices.Contains(x.Replicas.GetRemove(), uint64(leader)) {
			leads = fmt.Sprintf("which %s has", strings.Join(from, ", "))
		}
		list = append(list, "hand the leadership over, "+leads)
		return append(list, "remove the replica on "+strings.Join(from, ", "))
	}
	return nil
}

func splitSteps(d *kv.Descriptor, g *kvdv1.SplitGoal) (list []string) {
	at := "that key"
	if len(g.GetKey()) == 0 {
		list = append(list, "choose the key that halves the shard")
	} else {
		at = kv.FormatKey(g.GetKey())
	}
	return append(list,
		fmt.Sprintf("count what shard %d, which is %v, holds from %s on", d.Shard, d.Span, at),
		fmt.Sprintf("make the part from %s on a shard of its own, on the same nodes", at),
	)
}

func mergeSteps(left, right *kv.Descriptor) (list []string) {
	alike := len(left.Replicas) == len(right.Replicas)
	for _, r := range left.Replicas {
		_, holds := right.OnNode(r.Node)
		alike = alike && holds
	}
	if !alike {
		list = append(list, fmt.Sprintf("move replicas until shards %d and %d are on the same nodes", left.Shard, right.Shard))
	}
	return append(list,
		fmt.Sprintf("freeze shard %d, which is %v", right.Shard, right.Span),
		fmt.Sprintf("let shard %d, which is %v, absorb it", left.Shard, left.Span),
	)
}
