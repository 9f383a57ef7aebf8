// Package sim runs a whole cluster in one goroutine: the turns of package node on a virtual clock, with a network that
// delays, loses, repeats and reorders, disks that lose what was not synced, and processes that crash, pause and stall.
// One seed decides everything, so a failure is replayed from its seed.
package sim

import (
	"errors"
	"fmt"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

// Plan is what a run does.
type Plan struct {
	Nodes, Shards, KeysPerShard, Clients int
	// IdleShards are further ones, behind all others, whose keys no client uses.
	IdleShards int
	// Settings of the cluster, beside those that every run has.
	Settings []*kvdv1.SettingValue
	// Replicas of a shard; 0 puts one on every node.
	Replicas      int
	Tick          time.Duration
	ElectionTicks int
	// Duration is how long clients and faults go on; what follows is healing.
	Duration time.Duration
	// Think is the longest time between two operations of a client, Patience how long it waits for an answer.
	Think, Patience time.Duration
	ReadPercent     int
	// WidePercent of the reads are scans over many shards; 0 is 2.
	WidePercent int
	// ExpireOneIn: one write in so many has an expiry; 0 is none.
	ExpireOneIn int
	// Stripes of the cache's guard; 0 is 16, so that keys get into each other's way.
	Stripes int
	// Silent is a time in which no client begins anything.
	Silent [2]time.Duration
	// PinOneIn: so rarely a client talks to one node only; 0 is never. The others are chances as rare.
	PinOneIn, LoseOneIn, DuplicateOneIn, DelayOneIn int
	CrashAtWriteOneIn, CrashAtInstallOneIn          int
	// FaultAtStepOneIn: so rarely something goes wrong at a step of a shard, where it does the most harm. EchoOneIn: so
	// rarely an envelope with orders, questions or words comes once more, much later.
	FaultAtStepOneIn, EchoOneIn int
	// MeanFault is the time between two faults; the others are their weights.
	MeanFault                                           time.Duration
	Crash, Pause, Partition, Stall, ClockStep, HandOver int
	// MeanChange is the time between two changes of shards and nodes that are asked for; 0 is never. The others are their
	// weights.
	MeanChange                      time.Duration
	Split, Merge, Move, Join, Drain int
	// SendTakes and InstallTakes are how much longer than a moment a snapshot takes on its way, and when it has arrived.
	SendTakes, InstallTakes time.Duration
	Slow, DiskFull          int
	// StallHandOver is after how long a disk that does not answer costs a node its leaderships; 0 is half a second.
	StallHandOver time.Duration
	// SleepAfter is after how long shards that nobody uses sleep; 0 is a second.
	SleepAfter time.Duration
	// Drift is how much a clock may be too fast or too slow, as a share; Skew is how much a wall clock may be off.
	Drift float64
	Skew  time.Duration
	// Pebble puts the stores on Pebble, as they are in production, and not in memory.
	Pebble bool
	// Story, if set, is what happens instead of faults by chance.
	Story Story
}

// Stats count what happened in runs.
type Stats struct {
	Sleeps, Turns, Elections, Crashes, Pauses, Partitions, HandOvers         int
	Snapshots, Installs, Truncations, Checksums, MetaCommands                int
	MetaInstalls, MetaStreamed, Expired, Scans, WideScans                    int
	Slows, Fills, DiskFull                                                   int // DiskFull counts refusals.
	Woken, TailsDropped, EarlyCuts, MissedSplits, Overwritten                int
	Disturbed, CrashesOfAll, Changes, Splits, Merges, Moves, Joins, Removals int
	Operations, Answered, LeaseReads, IndexReads, VirtualMilli               int
}

// Add adds another run's.
func (s *Stats) Add(o Stats) {
	s.Turns += o.Turns
	s.Sleeps += o.Sleeps
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
	s.MetaStreamed += o.MetaStreamed
	s.Expired += o.Expired
	s.Scans += o.Scans
	s.WideScans += o.WideScans
	s.DiskFull += o.DiskFull
	s.Slows += o.Slows
	s.Fills += o.Fills
	s.Overwritten += o.Overwritten
	s.Woken += o.Woken
	s.TailsDropped += o.TailsDropped
	s.EarlyCuts += o.EarlyCuts
	s.MissedSplits += o.MissedSplits
	s.Disturbed += o.Disturbed
	s.CrashesOfAll += o.CrashesOfAll
	s.Changes += o.Changes
	s.Splits += o.Splits
	s.Merges += o.Merges
	s.Moves += o.Moves
	s.Joins += o.Joins
	s.Removals += o.Removals
	s.Operations += o.Operations
	s.Answered += o.Answered
	s.LeaseReads += o.LeaseReads
	s.IndexReads += o.IndexReads
	s.VirtualMilli += o.VirtualMilli
}

// Run runs a plan from a seed. It gives a hash of everything that happened, and what was wrong.
func Run(seed uint64, plan Plan) (trace uint64, stats Stats, err error) {
	w := newWorld(seed, plan)
	w.found()
	for i := range plan.Clients {
		w.newClient(i)
	}
	w.operate()
	w.stream()
	w.reshape()
	w.chaos()
	w.tell()
	w.run(plan.Duration)
	w.guarded(w.heal)
	w.run(plan.Duration + healTime)
	w.level()
	if w.err == nil {
		w.judge()
	}
	if err := w.closeStores(); err != nil {
		w.fail("%v", err)
	}
	w.stats.Operations = len(w.history)
	w.stats.VirtualMilli = int(w.now / time.Millisecond)
	return w.trace.Sum64(), w.stats, w.err
}

// ErrLacking tells that many runs together did not do what they are for.
var ErrLacking = errors.New("the runs lack what they are for")

// Enough fails if many runs together lack something.
func (s *Stats) Enough() error {
	for name, n := range map[string]int{
		"sleeps": s.Sleeps, "elections": s.Elections, "crashes": s.Crashes, "pauses": s.Pauses, "partitions": s.Partitions, "snapshots": s.Snapshots,
		"installs": s.Installs, "truncations": s.Truncations, "lease reads": s.LeaseReads, "reads by ReadIndex": s.IndexReads,
		"checksums": s.Checksums, "installs of the meta group": s.MetaInstalls, "hand-overs": s.HandOvers, "metadata for nodes without a meta replica": s.MetaStreamed,
		"overwritten proposals": s.Overwritten, "splits": s.Splits, "merges": s.Merges, "moves": s.Moves, "joins": s.Joins, "woken sleepers": s.Woken, "log tails dropped": s.TailsDropped, "crashes at early cuts": s.EarlyCuts, "splits missed by most": s.MissedSplits, "scans": s.Scans, "scans of many shards": s.WideScans, "keys that expired": s.Expired, "slow disks": s.Slows, "refusals by full disks": s.DiskFull,
	} {
		if n == 0 {
			return fmt.Errorf("%w: no %s in %+v", ErrLacking, name, *s)
		}
	}
	return nil
}
