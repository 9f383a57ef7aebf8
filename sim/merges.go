package sim

import (
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// pickNeighbours draws two shards, side by side, and gives the machine that leads the left one; ok is false if there are
// none.
func (w *world) pickNeighbours() (left, right *kv.Descriptor, leader *machine, ok bool) {
	list := w.newest.Descriptors()
	if len(list) < 2 {
		w.ask(w.splitGoal(list[0]))
		return nil, nil, nil, false
	}
	i := w.fate.IntN(len(list) - 1)
	leader = w.leader(list[i].Shard)
	return list[i], list[i+1], leader, leader != nil
}

// lateUnfreeze: a merge is given up since a node pauses, and begun anew. When it is about to succeed, the order to end the
// first freeze comes once more.
func (w *world) lateUnfreeze() time.Duration {
	const period = 11 * time.Second
	left, right, _, ok := w.pickNeighbours()
	if !ok {
		return time.Second
	}
	w.ask(w.mergeGoal(left, right))
	election := time.Duration(w.ElectionTicks) * w.Tick
	var (
		kept  *kvdv1.RaftMessage // The order of the first attempt.
		muted time.Duration      // Until when the left shard says nothing.
	)
	w.tap = func(_ *machine, _ kv.NodeID, m *kvdv1.RaftMessage) bool {
		if o := m.GetOrder(); o.GetUnfreeze() != nil && o.GetShard() == uint64(right.Shard) && kept == nil {
			kept = m
		}
		return m.GetShard() == uint64(left.Shard) && w.now < muted
	}
	w.onStep = func(m *machine, p phase, shard kv.ShardID, s step) {
		switch {
		case shard != left.Shard || !m.leads(left.Shard) || !m.leads(right.Shard):
		case kept == nil && s == intentStep && p == applied:
			m.others(1)[0].paused = w.now + 7*election
			w.stats.Pauses++
		case kept != nil && s == mergeStep && p == written && muted == 0:
			muted = w.now + between(w.fate, 100*time.Millisecond, 400*time.Millisecond)
			from := m.others(1)[0]
			delete(from.sentTo, m.id) // It is of no turn.
			host{from, from.epoch}.Send(m.id, []*kvdv1.RaftMessage{kept})
		}
	}
	w.after(period, func() { w.tap, w.onStep = nil, nil })
	return period
}

// returningShard: a part of a shard is split off, leaves the node that leads it, is written to elsewhere, and comes back
// through a merge. What that node has in memory of it is from before. But for two short times nobody reads or writes, so
// that nothing else touches that.
func (w *world) returningShard() time.Duration {
	const (
		period = 9 * time.Second
		awake  = 500 * time.Millisecond
	)
	d, leader := w.pickShard()
	if leader == nil {
		return 0
	}
	w.ask(w.splitGoal(d))
	var left, right *kv.Descriptor
	since := w.now
	// settled reports that something has held for a while, with no goal open.
	settled := func(held func() bool) bool {
		var ok bool
		if left, ok = w.newest.Shard(d.Shard); !ok || len(left.Span.End) == 0 {
			return false
		}
		right = w.newest.Lookup(left.Span.End)
		if len(w.newest.State().GetGoals()) > 0 || !held() {
			since = w.now
		}
		return w.now-since > awake
	}
	w.play(period,
		scene{
			when: func() bool {
				return settled(func() bool { return leader.leads(right.Shard) && leader.leads(left.Shard) })
			},
			then: func() {
				w.hushed = true
				w.ask(w.moveAway(right, leader))
			},
		},
		scene{
			when: func() bool {
				return settled(func() bool {
					_, here := right.OnNode(leader.id)
					w.hushed = here
					return !here
				})
			},
			then: func() {
				w.hushed = true
				w.ask(w.mergeGoal(left, right))
			},
		},
		scene{
			when: func() bool {
				v := leader.view(left.Shard)
				return v == nil || v.Descriptor().Epoch.Version > left.Epoch.Version
			},
			then: func() { w.hushed = false },
		},
	)
	w.after(period, func() { w.hushed = false })
	return period
}

// moveAway moves the replica of a shard from a node to one that has none; nil if there is no such node.
func (w *world) moveAway(d *kv.Descriptor, from *machine) *kvdv1.MetaCommand {
	for _, n := range w.newest.Nodes() {
		if _, here := d.OnNode(n.ID); !here {
			return setGoal(d, &kvdv1.Goal{Goal: &kvdv1.Goal_Replicas{Replicas: &kvdv1.ReplicasGoal{
				Add: []*kvdv1.Replica{{Node: uint64(n.ID)}}, Remove: []uint64{uint64(from.id)},
			}}})
		}
	}
	return nil
}

// What the right shard of an early merge has in its log, beyond what a replica applies in a turn when it starts anew.
const (
	rightEntries = 300
	rightBytes   = 3 << 10 // Of each.
)

// earlyMerge: a node crashes as soon as it has applied a merge, and its state store comes back as it was long before: the
// right shard, of which there is a lot to be applied again, is short of the freeze, and of the left one there is little.
func (w *world) earlyMerge() time.Duration {
	const period = 4 * time.Second
	left, right, leader, ok := w.pickNeighbours()
	if !ok {
		return time.Second
	}
	if m := w.leader(right.Shard); m != nil {
		m.rambleLong(right, rightEntries, rightBytes)
	}
	w.after(rightEntries*2*time.Millisecond, func() { w.ask(w.mergeGoal(left, right)) })
	victim := leader
	if oneIn(w.fate, 2) {
		victim = leader.others(1)[0]
	}
	w.onStep = func(m *machine, p phase, shard kv.ShardID, s step) {
		if m == victim && shard == left.Shard && s == mergeStep && p == applied {
			w.onStep = nil
			m.process(between(w.fate, 0, 5*time.Millisecond), func() {
				m.crashAt(func(int) int { return 0 })
				m.restartLater()
				w.stats.EarlyCuts++
			})
		}
	}
	w.after(period, func() { w.onStep = nil })
	return period
}
