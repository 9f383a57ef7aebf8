package sim

import (
	"slices"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// scene is a part of a story: what is done once something has come to be.
type scene struct {
	when func() bool
	then func()
}

// play tells scenes one after the other. What has not come to be when the time is up is left out.
func (w *world) play(limit time.Duration, scenes ...scene) {
	end := w.now + limit
	var look func()
	look = func() {
		if w.quiet || w.now > end || len(scenes) == 0 {
			return
		}
		if scenes[0].when() {
			scenes[0].then()
			scenes = scenes[1:]
		}
		w.after(10*time.Millisecond, look)
	}
	look()
}

// ask has the meta group's leader carry a command out, if there is one.
func (w *world) ask(c *kvdv1.MetaCommand) {
	if m := w.leader(kv.MetaShard); m != nil && c != nil {
		w.command(m, c, func(kv.Result) {})
	}
}

// pickShard draws a shard that has a leader.
func (w *world) pickShard() (*kv.Descriptor, *machine) {
	list := w.newest.Descriptors()
	d := list[w.fate.IntN(len(list))]
	return d, w.leader(d.Shard)
}

// stalledSplit: the disk of a shard's leader stalls with a split on its way there. The others have it, and apply it, long
// before the leader does, which may still read by its lease.
func (w *world) stalledSplit() time.Duration {
	d, leader := w.pickShard()
	if leader == nil {
		return 0
	}
	election := time.Duration(w.ElectionTicks) * w.Tick
	w.onStep = func(m *machine, p phase, shard kv.ShardID, s step) {
		if m == leader && p == written && shard == d.Shard && s == splitStep {
			m.stalled = w.now + between(w.fate, election, 5*election)
			w.onStep = nil
		}
	}
	w.ask(w.splitGoal(d))
	w.after(3*time.Second, func() {
		w.onStep = nil
		if list := w.newest.Descriptors(); len(list) > 4 { // So that there is something left to be split.
			i := w.fate.IntN(len(list) - 1)
			w.ask(w.mergeGoal(list[i], list[i+1]))
		}
	})
	return 4 * time.Second
}

// brokenMerges: while shards merge and split all the time, a node that others wait for pauses now and then, until the merge
// is given up.
func (w *world) brokenMerges() time.Duration {
	w.onStep = func(m *machine, p phase, shard kv.ShardID, s step) {
		if s == intentStep && p == applied && m.leads(shard) && oneIn(w.fate, 3) {
			other := m.others(1)[0]
			w.after(between(w.fate, 0, 20*time.Millisecond), func() {
				other.paused = max(other.paused, w.now+between(w.fate, time.Second, 6*time.Second))
				w.stats.Pauses++
			})
		}
	}
	return time.Second
}

// staleWord: a node gets a replica, of which the map does not know yet, and hears of nobody any more but of the leader of
// the meta group.
func (w *world) staleWord() time.Duration {
	d, leader := w.pickShard()
	president := w.leader(kv.MetaShard)
	if leader == nil || president == nil || leader == president {
		return 0
	}
	goal := w.moveGoal(d)
	if goal == nil {
		return 0
	}
	newcomer := w.node(kv.NodeID(goal.GetSetGoal().GetReplicas().GetAdd()[0].GetNode()))
	if newcomer == president {
		return 0
	}
	w.onStep = func(m *machine, p phase, shard kv.ShardID, s step) {
		if m == leader && p == written && shard == d.Shard && s == confStep {
			w.blocked[link{leader.id, president.id}] = true
			w.onStep = nil
		}
	}
	w.ask(goal)
	w.play(3*time.Second, scene{
		when: func() bool { return newcomer.view(d.Shard) != nil },
		then: func() {
			rest := slices.DeleteFunc(slices.Clone(w.nodes), func(m *machine) bool { return m == newcomer || m == president })
			w.split([]*machine{newcomer}, rest)
		},
	})
	w.after(8*time.Second, func() {
		w.onStep = nil
		w.joinAll()
	})
	return 9 * time.Second
}
