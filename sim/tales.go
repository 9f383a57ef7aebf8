package sim

import (
	"slices"
	"time"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
	"github.com/kvdstore/kvd/shard"
)

// heirAgain: the leader of a shard that was split hands the child over. Then it is cut from who leads the child, and
// stands for election once more.
func (w *world) heirAgain() time.Duration {
	const period = 5 * time.Second
	d, heir := w.pickShard()
	if heir == nil {
		return 0
	}
	w.ask(w.splitGoal(d))
	var child kv.ShardID
	w.play(period,
		scene{
			when: func() bool {
				left, ok := w.newest.Shard(d.Shard)
				if !ok || left.Epoch.Version == d.Epoch.Version || len(left.Span.End) == 0 {
					return false
				}
				child = w.newest.Lookup(left.Span.End).Shard
				return heir.core != nil && heir.leads(child)
			},
			then: func() {
				heir.inbox.HandOver = true
				heir.wake()
				w.stats.HandOvers++
			},
		},
		scene{
			when: func() bool {
				next, _, _ := heir.lead(child)
				return next != 0 && next != heir.id && w.node(next).leads(child)
			},
			then: func() {
				next, _, _ := heir.lead(child)
				w.cut(heir, w.node(next))
			},
		},
	)
	w.after(period, func() {
		w.joinAll()
		w.fewer()
	})
	return period + time.Second
}

// fewer merges two shards if there are many, so that something is left to be split.
func (w *world) fewer() {
	if list := w.newest.Descriptors(); len(list) > 4 && !w.quiet {
		i := w.fate.IntN(len(list) - 1)
		w.ask(w.mergeGoal(list[i], list[i+1]))
	}
}

// asleep reports whether all shards of users sleep, on every node.
func (w *world) asleep() bool {
	return !slices.ContainsFunc(w.nodes, func(m *machine) bool { return m.core == nil || m.core.Asleep() < len(m.views)-1 })
}

// wokenSleeper: nobody asks for anything, and all shards sleep. One node starts anew, hears no leader, and asks the others,
// which wakes them. The leader reads by a lease that stands on that node's promise; the third one does not hear the leader.
func (w *world) wokenSleeper() time.Duration {
	const period = 6 * time.Second
	w.hushed = true
	w.after(period-time.Second, func() { w.hushed = false })
	w.play(period-time.Second, scene{
		when: w.asleep,
		then: func() {
			_, leader := w.pickShard()
			if leader == nil {
				return
			}
			rest := leader.others(2)
			leader.onReadIndex = func() { w.cut(leader, rest[1]) }
			rest[0].crash()
			rest[0].restartLater()
			w.stats.Woken++
		},
	})
	w.after(period, func() {
		for _, m := range w.nodes {
			m.onReadIndex = nil
		}
		w.joinAll()
	})
	return period
}

// tailEntries is how many entries the deposed leader of a tale proposes for nothing, and some more than what replaces them.
const tailEntries = 240

// ramble has the leader of a shard propose entries that change nothing, one a turn.
func (m *machine) ramble(d *kv.Descriptor, entries int) { m.rambleLong(d, entries, 1) }

// rambleLong does so with so many bytes an entry.
func (m *machine) rambleLong(d *kv.Descriptor, entries, bytes int) {
	key := append(slices.Clone(d.Span.Start), '!')
	command := &kv.Command{Op: kv.OpDelete, Key: append(key, make([]byte, bytes)...)}
	for i := range entries {
		m.process(time.Duration(i)*2*time.Millisecond, func() {
			m.inbox.Submissions = append(m.inbox.Submissions, node.Submission{
				Shard: d.Shard, Command: shard.EncodeCommand(command), Bytes: command.Size(), Waiter: waiter(func(kv.Result, error) {}),
			})
			m.wake()
		})
	}
}

// keptTail: of five nodes, the leader is left with one follower, and proposes a lot. The others elect another, commit less
// than that, and have no log of it any more: the follower takes a snapshot, loses sight of the new leader, starts
// anew, and is asked for its vote by the deposed leader.
func (w *world) keptTail() time.Duration {
	const period = 7 * time.Second
	d, deposed := w.pickShard()
	if deposed == nil || slices.ContainsFunc(w.nodes, func(m *machine) bool { return m.core == nil }) {
		return 0
	}
	others := deposed.others(len(w.nodes) - 1)
	follower, majority := others[0], others[1:]
	w.split([]*machine{deposed, follower}, majority)
	fork := follower.logEnd(d)
	deposed.ramble(d, tailEntries)
	var next *machine
	w.play(period-time.Second,
		scene{
			when: func() bool {
				i := slices.IndexFunc(majority, func(m *machine) bool { return m.leads(d.Shard) })
				if i >= 0 {
					next = majority[i]
				}
				return i >= 0
			},
			then: func() { next.ramble(d, tailEntries/4) },
		},
		scene{
			when: func() bool { return next.logStart(d) > fork },
			then: func() {
				w.onReset = func(m *machine, s kv.ShardID) {
					if m != follower || s != d.Shard {
						return
					}
					w.onReset = nil
					w.cut(follower, next)
					follower.process(between(w.fate, 5*time.Millisecond, 30*time.Millisecond), func() {
						w.stats.TailsDropped++
						follower.crash()
						follower.restartLater()
					})
				}
				w.join(follower, next)
			},
		},
	)
	w.after(period, func() {
		w.onReset = nil
		w.joinAll()
	})
	return period + 500*time.Millisecond
}

// logOf is the place of a machine's replica of a shard in its log store.
func (m *machine) logOf(d *kv.Descriptor) kv.Group {
	member, _ := d.OnNode(m.id)
	return kv.Group{Shard: d.Shard, Replica: member.Replica}
}

// logEnd is the last index of a shard's log on the machine's disk.
func (m *machine) logEnd(d *kv.Descriptor) kv.Index {
	st, _, err := m.log.Load(m.logOf(d))
	if err != nil {
		m.fail("node %d: %v", m.id, err)
	}
	return st.Last
}

// logStart is the index up to which a shard's log is truncated there.
func (m *machine) logStart(d *kv.Descriptor) kv.Index {
	st, _, err := m.log.Load(m.logOf(d))
	if err != nil {
		m.fail("node %d: %v", m.id, err)
	}
	return st.Truncated.Index
}

// earlyCut: the child of a split is written to, and then nodes crash, whose state stores have nothing of it: one, or all. No
// log is truncated in this tale, so that no state was made durable on the way.
func (w *world) earlyCut() time.Duration {
	const period = 3 * time.Second
	d, leader := w.pickShard()
	if leader == nil {
		return 0
	}
	w.ask(w.splitGoal(d))
	w.play(period/2, scene{
		when: func() bool {
			left, ok := w.newest.Shard(d.Shard)
			return ok && left.Epoch.Version > d.Epoch.Version && len(left.Span.End) > 0
		},
		then: func() {
			left, _ := w.newest.Shard(d.Shard)
			child := w.newest.Lookup(left.Span.End)
			if m := w.leader(child.Shard); m != nil {
				m.ramble(child, 1+w.fate.IntN(50))
			}
			few := oneIn(w.fate, 2)
			w.after(between(w.fate, 0, 150*time.Millisecond), func() {
				for _, m := range w.nodes {
					if m.core == nil || few && !oneIn(w.fate, 2) {
						continue
					}
					m.crashAt(func(int) int { return 0 })
					m.restartLater()
					w.stats.EarlyCuts++
				}
			})
		},
	})
	w.after(period, w.fewer)
	return period
}

// missedSplit: two of five nodes are cut off until they need a snapshot. The shard splits. Either the third follower has the split
// in its log, and is cut off before it hears that it is committed, or who leads the child is cut off once it has committed something.
// The two are back, and what they get of the parent is past the split: the child has to come to them too, so that four of five
// members have a leader.
func (w *world) missedSplit() time.Duration {
	const period = 14 * time.Second
	d, leader := w.pickShard()
	if leader == nil || len(d.Replicas) != len(w.nodes) || slices.ContainsFunc(w.nodes, func(m *machine) bool { return m.core == nil }) {
		return 0
	}
	others := leader.others(len(w.nodes) - 1)
	late, third := others[:2], others[2]
	here := append(others[2:], leader)
	w.split(late, here)
	behind := max(late[0].logEnd(d), late[1].logEnd(d))
	before := shardsOf(leader)
	children := func() []kv.ShardID {
		return slices.DeleteFunc(shardsOf(others[3]), func(s kv.ShardID) bool { return slices.Contains(before, s) })
	}
	lose := func(lost *machine) {
		w.onStep = nil
		w.joinAll()
		w.split([]*machine{lost}, lost.others(len(w.nodes)-1))
		w.stats.MissedSplits++
	}
	scenes := []scene{{
		when: func() bool { return leader.core != nil && leader.logStart(d) > behind },
		then: func() { w.ask(w.splitGoal(d)) },
	}}
	if oneIn(w.fate, 2) {
		scenes = append(scenes, scene{
			when: func() bool { c := children(); return len(c) > 0 && w.leader(c[0]) != nil },
			then: func() { lose(w.leader(children()[0])) },
		})
	} else {
		w.onStep = func(m *machine, p phase, shard kv.ShardID, s step) {
			switch {
			case shard != d.Shard || s != splitStep:
			case m == third && p == written:
				for _, from := range here {
					w.blocked[link{from.id, third.id}] = true
				}
			case m == leader && p == applied:
				lose(third)
			}
		}
	}
	leader.ramble(d, tailEntries/4)
	w.play(period/2, scenes...)
	w.after(period, func() {
		for _, child := range children() {
			if w.leader(child) == nil {
				w.fail("shard %d, which four of five nodes should have, has no leader", child)
			}
		}
		w.onStep = nil
		w.joinAll()
		w.fewer()
	})
	return period + time.Second
}

// shardsOf lists the shards of which a machine has a replica.
func shardsOf(m *machine) []kv.ShardID {
	var shards []kv.ShardID
	for _, v := range m.views {
		shards = append(shards, v.Shard())
	}
	return shards
}
