package sim

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
	"github.com/kvdstore/kvd/raftmeta"
	"github.com/kvdstore/kvd/shard"
)

// command submits a command of the meta group to a node, and calls done if it was carried out or refused there.
func (w *world) command(m *machine, c *kvdv1.MetaCommand, done func(kv.Result)) {
	value, err := c.MarshalVT()
	if err != nil {
		w.fail("%v", err)
		return
	}
	command := &kv.Command{Op: kv.OpMeta, Value: value}
	m.process(0, func() {
		m.inbox.Submissions = append(m.inbox.Submissions, node.Submission{
			Shard: kv.MetaShard, Command: shard.EncodeCommand(command), Bytes: command.Size(),
			Waiter: waiter(func(r kv.Result, err error) {
				if err == nil {
					done(r)
				}
			}),
		})
		m.wake()
	})
}

// operate changes a setting now and then, so that the meta group's log grows, is truncated and travels as a snapshot
// too: one of it must leave the keys of users alone.
func (w *world) operate() {
	w.after(between(w.chance, 20*time.Millisecond, 200*time.Millisecond), func() {
		if w.now > w.Duration {
			return
		}
		w.operate()
		m := w.nodes[w.chance.IntN(len(w.nodes))]
		if m.core == nil || m.view(kv.MetaShard) == nil {
			return
		}
		w.command(m, &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_SetSetting{SetSetting: &kvdv1.SettingValue{
			Name: raftmeta.DiskStallExit, Value: time.Duration(30*time.Second + time.Duration(w.chance.IntN(60))*time.Second).String(),
		}}}, func(kv.Result) { w.stats.MetaCommands++ })
	})
}

// reshape asks for one change of shards or nodes after another, until the faults are over.
func (w *world) reshape() {
	if w.MeanChange == 0 {
		return
	}
	w.after(between(w.fate, w.MeanChange/4, 2*w.MeanChange), func() {
		if w.quiet {
			return
		}
		w.reshape()
		m := w.leader(kv.MetaShard)
		if m == nil {
			return
		}
		if c := w.drawChange(); c != nil {
			w.note('o', m.id)
			w.command(m, c, func(r kv.Result) {
				if r.Status == kv.Done {
					w.stats.Changes++
				}
			})
		}
	})
}

// drawChange draws what to ask for; nil when it is not possible now.
func (w *world) drawChange() *kvdv1.MetaCommand {
	list := w.newest.Descriptors()
	i := w.fate.IntN(len(list))
	draw := w.fate.IntN(max(1, w.Split+w.Merge+w.Move+w.Join+w.Drain))
	pick := func(weight int) bool {
		draw -= weight
		return draw < 0
	}
	switch {
	case pick(w.Split):
		return w.splitGoal(list[i])
	case pick(w.Merge):
		if i+1 < len(list) {
			return w.mergeGoal(list[i], list[i+1])
		}
	case pick(w.Move):
		d := list[i]
		if oneIn(w.fate, 4) {
			d = w.newest.Meta()
		}
		return w.moveGoal(d)
	case pick(w.Join):
		w.joinNode()
	case pick(w.Drain):
		return w.leave()
	}
	return nil
}

func setGoal(d *kv.Descriptor, g *kvdv1.Goal) *kvdv1.MetaCommand {
	g.Shard, g.Reason, g.ByOperator = uint64(d.Shard), "chance", true
	g.Epoch = &kvdv1.Epoch{Version: d.Epoch.Version, Config: d.Epoch.Config}
	return &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_SetGoal{SetGoal: g}}
}

// splitGoal splits a shard at one of the keys in it, or wherever its leader likes.
func (w *world) splitGoal(d *kv.Descriptor) *kvdv1.MetaCommand {
	goal := &kvdv1.SplitGoal{ByLoad: oneIn(w.fate, 2)}
	var inside []string
	for row := range w.Shards {
		for n := range w.KeysPerShard {
			if key := keyName(row, n); d.Span.Contains([]byte(key)) && key != string(d.Span.Start) {
				inside = append(inside, key)
			}
		}
	}
	if len(inside) > 0 && !oneIn(w.fate, 4) {
		goal.Key = []byte(inside[w.fate.IntN(len(inside))])
	}
	return setGoal(d, &kvdv1.Goal{Goal: &kvdv1.Goal_Split{Split: goal}})
}

func (w *world) mergeGoal(left, right *kv.Descriptor) *kvdv1.MetaCommand {
	return setGoal(left, &kvdv1.Goal{Goal: &kvdv1.Goal_Merge{Merge: &kvdv1.MergeGoal{Right: uint64(right.Shard)}}})
}

// moveGoal moves one replica of a shard to a node without one; nil if there is no such node.
func (w *world) moveGoal(d *kv.Descriptor) *kvdv1.MetaCommand {
	var others []kv.NodeID
	for _, n := range w.newest.Nodes() {
		if _, here := d.OnNode(n.ID); !here {
			others = append(others, n.ID)
		}
	}
	if len(others) == 0 {
		return nil
	}
	from, to := d.Replicas[w.fate.IntN(len(d.Replicas))].Node, others[w.fate.IntN(len(others))]
	return setGoal(d, &kvdv1.Goal{Goal: &kvdv1.Goal_Replicas{Replicas: &kvdv1.ReplicasGoal{
		Add: []*kvdv1.Replica{{Node: uint64(to)}}, Remove: []uint64{uint64(from)},
	}}})
}

// joinsMax bounds the nodes that a run has at a time, beyond those of its founding.
const joinsMax = 2

// joinNode begins to let a new machine join (B2).
func (w *world) joinNode() {
	if len(w.machines) < w.Nodes+2*joinsMax && len(w.nodes) < w.Nodes+joinsMax {
		if m := w.newMachine(); m != nil {
			w.askToJoin(m, len(w.machines))
		}
	}
}

// askToJoin asks the meta group, again and again with the same store, until there is an answer.
func (w *world) askToJoin(m *machine, store int) {
	if m.id != 0 {
		return
	}
	w.after(between(w.fate, 300*time.Millisecond, time.Second), func() { w.askToJoin(m, store) })
	leader := w.leader(kv.MetaShard)
	if leader == nil {
		return
	}
	w.command(leader, &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_Join{Join: &kvdv1.MetaNode{
		Node: &kvdv1.Node{Name: "n" + strconv.Itoa(store), Address: "sim"}, StoreId: uint64(store),
	}}}, func(r kv.Result) {
		if r.Status != kv.Done {
			w.fail("a node may not join: %s", r.Reason)
			return
		}
		if m.id != 0 {
			if m.id != kv.NodeID(r.Counter) {
				w.fail("store %d becomes node %d, and then node %d", store, m.id, r.Counter)
			}
			return
		}
		m.id, m.given = kv.NodeID(r.Counter), leader.shards.State()
		w.nodes = append(w.nodes, m)
		slices.SortFunc(w.nodes, func(a, b *machine) int { return cmp.Compare(a.id, b.id) })
		w.stats.Joins++
		m.start()
	})
}

// leave makes a node leave: first it is drained, then removed.
func (w *world) leave() *kvdv1.MetaCommand {
	var draining *machine
	for _, n := range w.newest.State().GetNodes() {
		if !n.GetDraining() {
			continue
		}
		draining = w.node(kv.NodeID(n.GetNode().GetNode()))
		if draining != nil && !w.holds(draining.id) {
			w.remove(draining)
			return nil
		}
	}
	if draining != nil && !oneIn(w.fate, 4) {
		return nil // Wait for it.
	}
	if draining == nil {
		if len(w.nodes) <= max(3, w.Replicas) {
			return nil
		}
		draining = w.nodes[w.fate.IntN(len(w.nodes))]
		return setDraining(draining.id, true)
	}
	return setDraining(draining.id, false)
}

func setDraining(id kv.NodeID, draining bool) *kvdv1.MetaCommand {
	return &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_SetDraining{SetDraining: &kvdv1.SetDraining{Node: uint64(id), Draining: draining}}}
}

// holds reports whether the map has a replica on a node.
func (w *world) holds(id kv.NodeID) bool {
	return slices.ContainsFunc(w.groups(), func(shard kv.ShardID) bool {
		d, _ := w.newest.Shard(shard)
		_, ok := d.OnNode(id)
		return ok
	})
}

// remove makes a node that holds nothing leave. Its machine is switched off when that is done.
func (w *world) remove(m *machine) {
	leader := w.leader(kv.MetaShard)
	if leader == nil {
		return
	}
	w.command(leader, &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_RemoveNode{RemoveNode: &kvdv1.RemoveNode{Node: uint64(m.id)}}}, func(kv.Result) {})
}

// retire switches off the machines of nodes that are removed.
func (w *world) retire(shards *raftmeta.Map) {
	w.nodes = slices.DeleteFunc(slices.Clone(w.nodes), func(m *machine) bool {
		if _, member := shards.Node(m.id); member {
			return false
		}
		m.gone = true
		w.after(0, m.crash)
		w.stats.Removals++
		return true
	})
}
