package raftmeta

import (
	"bytes"
	"fmt"
	"slices"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// Check reports a broken invariant of the metadata: the map covers the whole key space and each key once, ids are
// used once and below the next one, by what is, what was absorbed and what goals want; voters are an odd number of at
// most ReplicasMax, in both halves of a joint configuration too; no two nodes have a store; a shard takes part in one
// goal at most, which is neither reached nor impossible.
func Check(m *kvdv1.MetaState) error {
	if m.GetClusterId() == 0 || m.GetVersion() == 0 {
		return broken("there is no cluster id, or no version")
	}
	if m.GetTickMs() == 0 || m.GetElectionTicks() < 2 {
		return broken("a tick of %d ms and an election timeout of %d ticks", m.GetTickMs(), m.GetElectionTicks())
	}
	x := &checker{m: m, shards: make(map[uint64]int, len(m.GetDescriptors())), replicas: make(map[uint64]owner, 3*len(m.GetDescriptors()))}
	for _, check := range []func() error{x.nodes, x.metaGroup, x.descriptors, x.absorbed, x.goals, x.rules} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func broken(format string, args ...any) error { return fmt.Errorf("metadata: "+format, args...) }

type checker struct {
	m        *kvdv1.MetaState
	shards   map[uint64]int // Places among the descriptors.
	replicas map[uint64]owner
}

// owner is what a replica id belongs to.
type owner struct{ shard, node uint64 }

func (x *checker) nodes() error {
	m, nodes, names, stores := x.m, map[uint64]bool{}, map[string]bool{}, map[uint64]bool{}
	for _, n := range m.GetNodes() {
		id, name := n.GetNode().GetNode(), n.GetNode().GetName()
		if id == 0 || id >= m.GetNextNode() || nodes[id] {
			return broken("node id %d is 0, used twice, or not below the next one", id)
		}
		if name == "" || names[name] {
			return broken("node %d: the name %q is empty or used twice", id, name)
		}
		if n.GetStoreId() == 0 || stores[n.GetStoreId()] {
			return broken("node %d: the store id is missing or another node's", id)
		}
		nodes[id], names[name], stores[n.GetStoreId()] = true, true, true
	}
	if len(nodes) == 0 || len(nodes) > kv.NodesMax || len(m.GetRemoved()) > RemovedMax {
		return broken("%d nodes, and %d removed ones", len(nodes), len(m.GetRemoved()))
	}
	for _, n := range m.GetRemoved() {
		id := n.GetNode().GetNode()
		if id == 0 || id >= m.GetNextNode() || nodes[id] || stores[n.GetStoreId()] {
			return broken("the removed node %d is a member, its store is one's, or its id was never given", id)
		}
		nodes[id], stores[n.GetStoreId()] = true, true
	}
	return nil
}

func (x *checker) metaGroup() error {
	d := x.m.GetMeta()
	if d == nil || d.GetShard() != uint64(kv.MetaShard) {
		return broken("the meta group's descriptor is missing")
	}
	if refused := checkMembers(x.m, d); refused != "" {
		return broken("the meta group: %s", refused)
	}
	return x.own(d)
}

func (x *checker) descriptors() error {
	var end []byte
	for i, d := range x.m.GetDescriptors() {
		if refused := checkDescriptor(x.m, d); refused != "" {
			return broken("shard %d: %s", d.GetShard(), refused)
		}
		if _, ok := x.shards[d.Shard]; ok {
			return broken("shard id %d is used twice", d.Shard)
		}
		x.shards[d.Shard] = i
		if err := x.own(d); err != nil {
			return err
		}
		if !bytes.Equal(d.Start, end) || i > 0 && len(end) == 0 {
			return broken("shard %d begins at %s, after an end at %s", d.Shard, kv.FormatKey(d.Start), kv.FormatKey(end))
		}
		end = d.End
	}
	if len(x.m.GetDescriptors()) == 0 || len(end) > 0 {
		return broken("the end of the key space is in no shard")
	}
	return nil
}

// own notes the ids of a shard's replicas, which nothing else may have.
func (x *checker) own(d *kvdv1.Descriptor) error {
	for _, r := range d.GetReplicas() {
		if _, ok := x.replicas[r.GetReplica()]; ok {
			return broken("shard %d: replica id %d is used twice", d.GetShard(), r.GetReplica())
		}
		x.replicas[r.GetReplica()] = owner{d.GetShard(), r.GetNode()}
	}
	return nil
}

func (x *checker) absorbed() error {
	if n := len(x.m.GetAbsorbed()); n > kv.AbsorbedMapMax {
		return broken("%d absorbed shards", n)
	}
	gone := map[uint64]bool{}
	for _, a := range x.m.GetAbsorbed() {
		d := a.GetDescriptor_()
		if refused := checkDescriptor(x.m, d); refused != "" {
			return broken("the absorbed shard %d: %s", d.GetShard(), refused)
		}
		_, live := x.shards[d.Shard]
		if live || gone[d.Shard] || a.GetAbsorber() == 0 || a.Absorber >= x.m.GetNextShard() || a.Absorber == d.Shard {
			return broken("shard %d was absorbed by %d, and is there, or was twice", d.Shard, a.GetAbsorber())
		}
		gone[d.Shard] = true
		if err := x.own(d); err != nil {
			return err
		}
	}
	return nil
}

func (x *checker) goals() error {
	if n := len(x.m.GetGoals()); n > kv.GoalsMax {
		return broken("%d goals", n)
	}
	at := func(shard uint64) int {
		if i, ok := x.shards[shard]; ok {
			return i
		}
		return -1
	}
	last, busy, children := uint64(0), map[uint64]bool{}, map[uint64]bool{}
	for _, g := range x.m.GetGoals() {
		if g.GetId() <= last || g.Id >= x.m.GetNextGoal() {
			return broken("goal %d after goal %d is out of order, or not below the next one", g.GetId(), last)
		}
		last = g.Id
		for _, shard := range partners(g) {
			if busy[shard] {
				return broken("goal %d: shard %d takes part in another one", g.Id, shard)
			}
			busy[shard] = true
		}
		if reached, impossible := standing(x.m, at, g); reached || impossible != "" {
			return broken("goal %d is reached, or cannot be: %s", g.Id, impossible)
		}
		if child := g.GetSplit().GetChild(); g.GetSplit() != nil && (child == 0 || child >= x.m.GetNextShard() || children[child]) {
			return broken("goal %d: the new shard's id %d is 0, used twice, or not below the next one", g.Id, child)
		}
		children[g.GetSplit().GetChild()] = true
		if err := x.wanted(g); err != nil {
			return err
		}
	}
	return nil
}

// wanted checks the ids of replicas that a goal was given: nothing else has them, but the shard that it is for.
func (x *checker) wanted(g *kvdv1.Goal) error {
	list, shard := wantedReplicas(g)
	for _, r := range list {
		id := r.GetReplica()
		has, ok := x.replicas[id]
		if id == 0 || id >= x.m.GetNextReplica() || ok && has != (owner{shard, r.GetNode()}) {
			return broken("goal %d: replica id %d is 0, another's, or not below the next one", g.Id, id)
		}
		if indexOfNode(x.m, r.GetNode()) < 0 && g.GetSplit() == nil {
			return broken("goal %d puts a replica on the unknown node %d", g.Id, r.GetNode())
		}
		x.replicas[id] = owner{shard, r.GetNode()}
	}
	return nil
}

func (x *checker) rules() error {
	if n := len(x.m.GetRules()); n > kv.RulesMax {
		return broken("%d rules", n)
	}
	for i, r := range x.m.GetRules() {
		if refused := checkRule(r); refused != "" {
			return broken("the rule of %s: %s", kv.FormatKey(r.GetPrefix()), refused)
		}
		if i > 0 && bytes.Compare(x.m.Rules[i-1].GetPrefix(), r.GetPrefix()) >= 0 {
			return broken("the rule of %s is out of order", kv.FormatKey(r.GetPrefix()))
		}
	}
	return nil
}

// checkDescriptor refuses a shard's descriptor that no log can have, whatever else there is.
func checkDescriptor(m *kvdv1.MetaState, d *kvdv1.Descriptor) (refused string) {
	switch id := d.GetShard(); {
	case id == uint64(kv.MetaShard) || id >= m.GetNextShard():
		return fmt.Sprintf("shard: must be from 1 to %d, the last id that was given, is %d", m.GetNextShard()-1, id)
	case max(len(d.GetStart()), len(d.GetEnd())) > kv.KeyBytesMax:
		return fmt.Sprintf("start and end: at most %d bytes", kv.KeyBytesMax)
	case kv.Span{Start: d.GetStart(), End: d.GetEnd()}.Empty():
		return fmt.Sprintf("end: must be above the start, is %s", kv.FormatKey(d.GetEnd()))
	}
	return checkMembers(m, d)
}

// checkMembers refuses replicas on nodes that there never were, two of them on a node, and ids that were not given. A
// node that was removed is let through: a late order of a goal that was dropped may have put a replica there, and the
// map has to say so for that to be mended.
func checkMembers(m *kvdv1.MetaState, d *kvdv1.Descriptor) (refused string) {
	if e := wire.ToEpoch(d.GetEpoch()); e.Version == 0 || e.Config == 0 {
		return "epoch: must be above 0"
	}
	if n := len(d.GetReplicas()); n > MembersMax {
		return fmt.Sprintf("replicas: at most %d, are %d", MembersMax, n)
	}
	voters, before := 0, 0
	for i, r := range d.GetReplicas() {
		switch id, node := r.GetReplica(), r.GetNode(); {
		case id == 0 || id >= m.GetNextReplica():
			return fmt.Sprintf("replicas: ids must be from 1 to %d, the last that was given, has %d", m.GetNextReplica()-1, id)
		case node == 0 || node >= m.GetNextNode():
			return fmt.Sprintf("replicas: must be on nodes from 1 to %d, has one on %d", m.GetNextNode()-1, node)
		case slices.ContainsFunc(d.Replicas[:i], onNode(node)):
			return fmt.Sprintf("replicas: at most one on a node, has two on %d", node)
		case r.GetIncoming() && r.GetOutgoing(), r.GetLearner() && (r.GetIncoming() || r.GetOutgoing()):
			return fmt.Sprintf("replicas: must have one role each, %d has two", id)
		}
		if !r.GetLearner() && !r.GetOutgoing() {
			voters++
		}
		if !r.GetLearner() && !r.GetIncoming() {
			before++
		}
	}
	for _, n := range []int{voters, before} {
		if n%2 == 0 || n > ReplicasMax {
			return fmt.Sprintf("replicas: must be an odd number of voters, at most %d, are %d", ReplicasMax, n)
		}
	}
	return ""
}
