package sim

import (
	"slices"
	"time"

	"github.com/kvdstore/kvd/kv"
)

// Story is a course of events that chance alone would hardly ever find. Each is told again and again in a run, with
// other moments.
type Story uint8

const (
	// NoStory leaves everything to chance.
	NoStory Story = iota
	// RestartedVoter: the leader is cut from one follower, and later from the other, which starts anew at the same
	// moment and is asked for its vote while the leader's lease runs.
	RestartedVoter
	// TicksPileUp: the leader is cut from one follower; the other is paused, hears the leader when it goes on, and has
	// missed more ticks than an election timeout.
	TicksPileUp
	// LostVote: a voter crashes just after it has voted, and is asked again by another candidate.
	LostVote
	// Overwritten: of five nodes, the leader is left with one follower, and proposes on. Another node is elected, and
	// reaches the deposed leader alone, whose last proposals it replaces. Then either that follower is elected, which
	// still has them, so that they are done after all, or the deposed leader, without them; or it is elected again before they
	// were replaced.
	Overwritten
	// DelayedAnswers: what the followers answer to the leader comes late, and then they do not hear it any more.
	DelayedAnswers
	// StalledSplit: the disk of a leader stalls with a split on its way there, which the others have.
	StalledSplit
	// BrokenMerges: shards merge and split, and a node that is waited for pauses.
	BrokenMerges
	// StaleWord: a new replica, of which the map does not know yet, hears of the leader of the meta group alone.
	StaleWord
	// ReturningShard: a shard leaves a node, and comes back to it through a merge.
	ReturningShard
	// LateUnfreeze: a merge is given up, and when it is tried anew the order to end the first freeze comes once more.
	LateUnfreeze
	// MovingBoundaries: scans over many shards, which split and merge all the time.
	MovingBoundaries
	// HeirAgain: who led a shard when it was split is cut from the child's leader of later.
	HeirAgain
	// WokenSleeper: all shards sleep, and are woken by a node that starts anew.
	WokenSleeper
	// KeptTail: a follower of a deposed leader takes a snapshot that ends below what it had in its log, and starts anew.
	KeptTail
	// EarlyCut: nodes crash after splits, and their state stores come back as they were long before.
	EarlyCut
	// EarlyMerge: a node crashes after a merge, and its state store comes back as it was long before.
	EarlyMerge
	// MissedSplit: of five nodes, two are behind when a shard splits, and a third is lost: before it hears that the split is
	// committed, or when it leads the child. The two get a snapshot that is past the split.
	MissedSplit Story = 20
)

// tell begins the plan's story.
func (w *world) tell() {
	switch w.Story {
	case RestartedVoter:
		w.again(w.restartedVoter)
	case TicksPileUp:
		w.again(w.ticksPileUp)
	case LostVote:
		w.again(w.lostVote)
	case Overwritten:
		w.again(w.overwritten)
	case DelayedAnswers:
		w.again(w.delayedAnswers)
	case StalledSplit:
		w.again(w.stalledSplit)
	case BrokenMerges:
		w.again(w.brokenMerges)
	case StaleWord:
		w.again(w.staleWord)
	case ReturningShard:
		w.again(w.returningShard)
	case LateUnfreeze:
		w.again(w.lateUnfreeze)
	case HeirAgain:
		w.again(w.heirAgain)
	case WokenSleeper:
		w.again(w.wokenSleeper)
	case KeptTail:
		w.again(w.keptTail)
	case EarlyCut:
		w.again(w.earlyCut)
	case EarlyMerge:
		w.again(w.earlyMerge)
	case MissedSplit:
		w.again(w.missedSplit)
	}
}

// again tells a story until the faults are over; it gives the time until the next.
func (w *world) again(story func() time.Duration) {
	w.after(between(w.fate, 1500*time.Millisecond, 2500*time.Millisecond), func() {
		if w.quiet {
			return
		}
		pause := story()
		w.after(pause, func() { w.again(story) })
	})
}

// cast gives the leader of a shard and its two followers, in an order drawn by chance; ok is false without a leader.
func (w *world) cast() (leader, follower, other *machine, ok bool) {
	groups := w.groups()
	shard := groups[w.fate.IntN(len(groups))]
	for i, m := range w.nodes {
		if m.core == nil {
			return nil, nil, nil, false
		}
		if m.leads(shard) {
			rest := []*machine{w.nodes[(i+1)%3], w.nodes[(i+2)%3]}
			first := w.fate.IntN(2)
			return m, rest[first], rest[1-first], true
		}
	}
	return nil, nil, nil, false
}

func (w *world) cut(a, b *machine) {
	w.blocked[link{a.id, b.id}], w.blocked[link{b.id, a.id}] = true, true
}

func (w *world) join(a, b *machine) {
	delete(w.blocked, link{a.id, b.id})
	delete(w.blocked, link{b.id, a.id})
}

func (w *world) restartedVoter() time.Duration {
	leader, voter, candidate, ok := w.cast()
	if !ok {
		return 0
	}
	w.cut(leader, candidate)
	w.after(between(w.fate, 0, 2*time.Second), func() {
		if w.quiet || voter.core == nil {
			return
		}
		w.cut(leader, voter)
		voter.crash()
		w.after(between(w.fate, time.Millisecond, 50*time.Millisecond), func() {
			if voter.core == nil {
				voter.start()
			}
		})
	})
	w.after(4*time.Second, func() { w.join(leader, candidate); w.join(leader, voter) })
	return 4 * time.Second
}

func (w *world) ticksPileUp() time.Duration {
	leader, voter, candidate, ok := w.cast()
	if !ok {
		return 0
	}
	election := time.Duration(w.ElectionTicks) * w.Tick
	w.cut(leader, candidate)
	w.after(between(w.fate, 0, election), func() {
		voter.paused = w.now + between(w.fate, election, 2*election)
		w.stats.Pauses++
	})
	w.after(5*election, func() { w.join(leader, candidate) })
	return 6 * election
}

func (w *world) delayedAnswers() time.Duration {
	leader, follower, other, ok := w.cast()
	if !ok {
		return 0
	}
	// By less than the promises run: before the leader asks again, or after.
	election := time.Duration(w.ElectionTicks) * w.Tick
	late := between(w.fate, 3*w.Tick, 4*w.Tick)
	if oneIn(w.fate, 2) {
		late = between(w.fate, 4*w.Tick, election)
	}
	w.late[link{follower.id, leader.id}], w.late[link{other.id, leader.id}] = late, late
	leader.onReadIndex = func() {
		w.after(between(w.fate, 3*time.Millisecond, 30*time.Millisecond), func() {
			if !w.quiet {
				w.blocked[link{leader.id, follower.id}], w.blocked[link{leader.id, other.id}] = true, true
			}
		})
	}
	w.after(5*election, func() {
		leader.onReadIndex = nil
		clear(w.late)
		w.join(leader, follower)
		w.join(leader, other)
	})
	return 5 * election
}

func (w *world) lostVote() time.Duration {
	leader, voter, candidate, ok := w.cast()
	if !ok {
		return 0
	}
	// The leader is away; one of the two asks the other, which crashes with the vote on its way to the disk, comes back
	// and hears the old leader instead, who has become a candidate too.
	w.cut(leader, voter)
	w.cut(leader, candidate)
	voter.voteless = true
	voter.onVoteless = func() {
		w.cut(voter, candidate)
		w.join(voter, leader)
	}
	w.after(6*time.Second, func() {
		voter.voteless, voter.onVoteless = false, func() {}
		w.join(leader, voter)
		w.join(leader, candidate)
		w.join(voter, candidate)
	})
	return 6500 * time.Millisecond
}

// split cuts every link between two sides; the links within are not touched.
func (w *world) split(a, b []*machine) {
	for _, m := range a {
		for _, o := range b {
			w.cut(m, o)
		}
	}
}

// joinAll ends every cut.
func (w *world) joinAll() {
	for _, m := range w.nodes {
		for _, o := range w.nodes {
			w.join(m, o)
		}
	}
}

func (w *world) overwritten() time.Duration {
	groups := w.groups()
	shard := groups[1+w.fate.IntN(len(groups)-1)]
	var deposed *machine
	var rest []*machine
	for _, m := range w.nodes {
		if m.core == nil {
			return 0
		}
		if m.leads(shard) && deposed == nil {
			deposed = m
		} else {
			rest = append(rest, m)
		}
	}
	if deposed == nil {
		return 0
	}
	w.fate.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	follower, majority := rest[0], rest[1:]
	w.split([]*machine{deposed, follower}, majority)
	ending := w.fate.IntN(3)
	w.elected = func(s kv.ShardID, next *machine) {
		if s != shard || next == deposed || next == follower {
			return
		}
		w.elected = nil
		others := slices.DeleteFunc(slices.Clone(majority), func(m *machine) bool { return m == next })
		w.split([]*machine{next}, append(others, follower))
		w.cut(deposed, follower)
		if ending != 2 {
			w.join(next, deposed)
		}
		w.after(between(w.fate, 150*time.Millisecond, 500*time.Millisecond), func() {
			w.stats.Overwritten++
			// Two of the majority and one more elect it: they have neither what was proposed nor what replaced it.
			with := follower
			if ending > 0 {
				with = deposed
			}
			for _, m := range others {
				w.join(with, m)
			}
		})
	}
	w.after(6*time.Second, func() {
		w.elected = nil
		w.joinAll()
	})
	return 6500 * time.Millisecond
}
