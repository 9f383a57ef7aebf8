// Package sim runs a whole cluster in one goroutine: the turns of package node on a virtual clock, with a network that
// delays, loses, repeats and reorders, disks that lose what was not synced, and processes that crash, pause and stall.
// One seed decides everything, so a failure is replayed from its seed.
package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/kv"
)

// Plan is what a run does.
type Plan struct {
	Nodes, Shards, KeysPerShard, Clients int
	Tick                                 time.Duration
	ElectionTicks                        int
	// Duration is how long clients and faults go on; what follows is healing.
	Duration time.Duration
	// Think is the longest time between two operations of a client, Patience how long it waits for an answer.
	Think, Patience time.Duration
	ReadPercent     int
	// Silent is a time in which no client begins anything.
	Silent [2]time.Duration
	// PinOneIn: so rarely a client talks to one node only; 0 is never. The others are chances as rare.
	PinOneIn, LoseOneIn, DuplicateOneIn, DelayOneIn int
	CrashAtWriteOneIn, CrashAtInstallOneIn          int
	// MeanFault is the time between two faults; the others are their weights.
	MeanFault                                           time.Duration
	Crash, Pause, Partition, Stall, ClockStep, HandOver int
	// SendTakes and InstallTakes are how much longer than a moment a snapshot takes on its way, and when it has arrived.
	SendTakes, InstallTakes time.Duration
	// Drift is how much a clock may be too fast or too slow, as a share.
	Drift float64
	// Story, if set, is what happens instead of faults by chance.
	Story Story
}

// Stats count what happened in runs.
type Stats struct {
	Turns, Elections, Crashes, Pauses, Partitions, HandOvers   int
	Snapshots, Installs, Truncations, Checksums, MetaCommands  int
	MetaInstalls                                               int
	Operations, Answered, LeaseReads, IndexReads, VirtualMilli int
}

// Add adds another run's.
func (s *Stats) Add(o Stats) {
	s.Turns += o.Turns
	s.Elections += o.Elections
	s.Crashes += o.Crashes
	s.Pauses += o.Pauses
	s.Partitions += o.Partitions
	s.HandOvers += o.HandOvers
	s.Snapshots += o.Snapshots
	s.Installs += o.Installs
	s.Truncations += o.Truncations
	s.Checksums += o.Checksums
	s.MetaCommands += o.MetaCommands
	s.MetaInstalls += o.MetaInstalls
	s.Operations += o.Operations
	s.Answered += o.Answered
	s.LeaseReads += o.LeaseReads
	s.IndexReads += o.IndexReads
	s.VirtualMilli += o.VirtualMilli
}

// healTime is how long a healed cluster has to agree and to go quiet.
const healTime = 8 * time.Second

// Run runs a plan from a seed. It gives a hash of everything that happened, and what was wrong.
func Run(seed uint64, plan Plan) (trace uint64, stats Stats, err error) {
	w := newWorld(seed, plan)
	w.found()
	for i := range plan.Clients {
		w.newClient(i)
	}
	w.operate()
	w.chaos()
	w.tell()
	w.run(plan.Duration)
	w.guarded(w.heal)
	w.run(plan.Duration + healTime)
	if w.err == nil {
		w.judge()
	}
	w.stats.Operations = len(w.history)
	w.stats.VirtualMilli = int(w.now / time.Millisecond)
	return w.trace.Sum64(), w.stats, w.err
}

// judge checks the end and the history.
func (w *world) judge() {
	final := map[string]check.Final{}
	for id := range kv.ShardID(w.Shards + 1) {
		var first *machine
		for _, m := range w.nodes {
			if first == nil {
				first = m
				continue
			}
			if err := w.same(id, first, m); err != nil {
				w.fail("%v", err)
				return
			}
		}
	}
	items, err := readState(w.nodes[0])
	if err != nil {
		w.fail("%v", err)
		return
	}
	for _, item := range items {
		final[string(item.Key)] = check.Final{Value: string(item.Record.Value), Revision: item.Record.Revision}
	}
	h := make(check.History, len(w.history))
	for i, op := range w.history {
		h[i] = *op
	}
	for _, found := range [][]check.Violation{check.Revisions(h), check.NoLostWrites(h, final), check.Linearizable(h, 20*time.Second)} {
		if len(found) > 0 {
			w.fail("%v", found[0])
			return
		}
	}
}

func readState(m *machine) ([]kv.Item, error) {
	v, err := m.state.View(0, kv.Span{})
	if err != nil {
		return nil, err
	}
	return readAll(v, kv.Span{})
}

// same checks that two replicas of a shard agree after everything has healed.
func (w *world) same(id kv.ShardID, a, b *machine) error {
	var sums [2]uint64
	var applied [2]uint64
	for i, m := range []*machine{a, b} {
		span := kv.Span{}
		if d, ok := w.shards.Shard(id); ok {
			span = d.Span
		}
		v, err := m.state.View(id, span)
		if err != nil {
			return err
		}
		applied[i] = v.State().GetRevision()
		items, err := readAll(v, span)
		if err != nil {
			return err
		}
		sums[i] = sumOf(items)
	}
	if applied != [2]uint64{applied[0], applied[0]} {
		return fmt.Errorf("shard %d: node %d is at revision %d and node %d at %d, long after everything healed", id, a.id, applied[0], b.id, applied[1])
	}
	if id != kv.MetaShard && sums[0] != sums[1] {
		return fmt.Errorf("shard %d: nodes %d and %d differ at revision %d", id, a.id, b.id, applied[0])
	}
	return nil
}

func sumOf(items []kv.Item) uint64 {
	h := xxhash.New()
	for _, i := range items {
		_, _ = h.Write(i.Key)
		_, _ = h.Write(i.Record.Value)
		_, _ = h.Write(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(i.Record.Revision)), uint64(i.Record.ExpireAt)))
	}
	return h.Sum64()
}

// ErrLacking tells that many runs together did not do what they are for.
var ErrLacking = errors.New("the runs lack what they are for")

// Enough fails if many runs together lack something.
func (s *Stats) Enough() error {
	for name, n := range map[string]int{
		"elections": s.Elections, "crashes": s.Crashes, "pauses": s.Pauses, "partitions": s.Partitions, "snapshots": s.Snapshots,
		"installs": s.Installs, "truncations": s.Truncations, "lease reads": s.LeaseReads, "reads by ReadIndex": s.IndexReads,
		"checksums": s.Checksums, "installs of the meta group": s.MetaInstalls, "hand-overs": s.HandOvers,
	} {
		if n == 0 {
			return fmt.Errorf("%w: no %s in %+v", ErrLacking, name, *s)
		}
	}
	return nil
}
