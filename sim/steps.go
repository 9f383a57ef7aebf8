package sim

import (
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/shard"
)

// step is a kind of entry that changes what a shard is, and at which crashes are worth most.
type step string

const (
	noStep       step = ""
	confStep     step = "configuration change"
	measureStep  step = "measure"
	splitStep    step = "split"
	intentStep   step = "intent"
	freezeStep   step = "freeze"
	mergeStep    step = "merge"
	abortStep    step = "abort"
	unfreezeStep step = "unfreeze"
	settleStep   step = "settle"
)

// stepOf tells what kind of step an entry is.
func stepOf(e *raftpb.Entry) step {
	if e.GetType() == raftpb.EntryConfChangeV2 {
		return confStep
	}
	if e.GetType() != raftpb.EntryNormal || len(e.GetData()) == 0 {
		return noStep
	}
	b, err := shard.Decode(e.GetData())
	if err != nil || len(b.Commands) == 0 {
		return noStep
	}
	switch b.Commands[0].GetShape().GetShape().(type) {
	case *kvdv1.Shape_Measure:
		return measureStep
	case *kvdv1.Shape_Split:
		return splitStep
	case *kvdv1.Shape_Intent:
		return intentStep
	case *kvdv1.Shape_Freeze:
		return freezeStep
	case *kvdv1.Shape_Merge:
		return mergeStep
	case *kvdv1.Shape_Abort:
		return abortStep
	case *kvdv1.Shape_Unfreeze:
		return unfreezeStep
	case *kvdv1.Shape_Settle:
		return settleStep
	}
	return noStep
}

// phase is where a replica is with an entry.
type phase uint8

const (
	// written: the entry was handed to the disk of the log, and is not durable there.
	written phase = iota
	// applied: its effects are in the state store, and not durable there.
	applied
)

// at follows a machine through the steps of its shards.
func (m *machine) at(p phase, shard kv.ShardID, entries []*raftpb.Entry) {
	if m.FaultAtStepOneIn == 0 && m.onStep == nil {
		return
	}
	for _, e := range entries {
		s := stepOf(e)
		if s == noStep {
			continue
		}
		if m.onStep != nil {
			m.onStep(m, p, shard, s)
		}
		if !m.quiet && oneIn(m.fate, m.FaultAtStepOneIn) {
			m.process(between(m.fate, 0, 5*time.Millisecond), m.disturb)
		}
	}
}

// disturb lets something go wrong on a machine, now that it is worth it.
func (m *machine) disturb() {
	if m.quiet {
		return
	}
	m.stats.Disturbed++
	switch m.fate.IntN(8) {
	case 0, 1:
		m.crash()
		m.restartLater()
	case 2, 3:
		m.crashAll()
	case 4:
		m.paused = max(m.paused, m.now+between(m.fate, 50*time.Millisecond, 3*time.Second))
	case 5:
		m.stalled = max(m.stalled, m.now+between(m.fate, 50*time.Millisecond, 2*time.Second))
	case 6:
		m.cutFor(m.others(1+m.fate.IntN(len(m.nodes))), between(m.fate, 100*time.Millisecond, 4*time.Second))
	case 7:
		m.delayFor(between(m.fate, 100*time.Millisecond, 2*time.Second), between(m.fate, 500*time.Millisecond, 4*time.Second))
	}
}

// others draws so many other machines, or all that there are.
func (m *machine) others(n int) []*machine {
	rest := slices.DeleteFunc(slices.Clone(m.nodes), func(o *machine) bool { return o == m })
	m.fate.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	return rest[:min(n, len(rest))]
}

// cutFor cuts a machine from others for a while.
func (m *machine) cutFor(others []*machine, d time.Duration) {
	m.split([]*machine{m}, others)
	m.after(d, func() {
		for _, o := range others {
			m.join(m, o)
		}
	})
}

// delayFor makes all that a machine says come so much later, for a while.
func (m *machine) delayFor(late, d time.Duration) {
	for _, o := range m.nodes {
		m.late[link{m.id, o.id}] = late
	}
	m.after(d, func() {
		for _, o := range m.nodes {
			delete(m.late, link{m.id, o.id})
		}
	})
}

// crashAll crashes every node at one moment: what none of them has on its disk is gone for good.
func (w *world) crashAll() {
	w.stats.CrashesOfAll++
	for _, m := range w.nodes {
		if m.core != nil {
			m.crash()
			m.restartLater()
		}
	}
}
