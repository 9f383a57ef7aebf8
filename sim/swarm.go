package sim

import (
	"math/rand/v2"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/raftmeta"
)

// Swarm draws the plan of a seed: each has its own mix and rates, so that together they reach what no single mix does.
func Swarm(seed uint64) Plan {
	r := rand.New(rand.NewPCG(seed, 3))
	pick := func(values ...int) int { return values[r.IntN(len(values))] }
	p := Plan{
		Nodes: pick(3, 3, 3, 4, 5, 5), Shards: 1 + r.IntN(3), KeysPerShard: 3 + r.IntN(2), Clients: 3 + r.IntN(5),
		Tick: 50 * time.Millisecond, ElectionTicks: pick(10, 15),
		Duration: between(r, 6*time.Second, 14*time.Second), Think: between(r, 20*time.Millisecond, 200*time.Millisecond),
		Patience: between(r, 500*time.Millisecond, 3*time.Second), ReadPercent: pick(20, 50, 80), ExpireOneIn: pick(0, 1, 3),
		PinOneIn: pick(0, 0, 3), LoseOneIn: pick(0, 200, 50, 10), DuplicateOneIn: pick(0, 100, 10), DelayOneIn: pick(0, 500, 50),
		CrashAtWriteOneIn: pick(0, 0, 2000, 300), CrashAtInstallOneIn: pick(0, 3),
		MeanFault: between(r, 100*time.Millisecond, 1500*time.Millisecond),
		Crash:     pick(0, 1, 4), Pause: pick(0, 1, 3), Partition: pick(0, 1, 4), Stall: pick(0, 1, 2), Slow: pick(0, 1), DiskFull: pick(0, 0, 1, 3),
		ClockStep: pick(0, 1), HandOver: pick(0, 1, 3),
		Drift: []float64{0, 0.001, 0.03}[r.IntN(3)], Skew: time.Duration(pick(0, 20, 1000)) * time.Millisecond,
	}
	if p.Nodes > 3 { // Some nodes lack some shards.
		p.Replicas = pick(3, 3, p.Nodes)
	}
	if !oneIn(r, 4) {
		p.MeanChange = between(r, 100*time.Millisecond, 2*time.Second)
		p.Split, p.Merge, p.Move, p.Join, p.Drain = pick(0, 1, 4), pick(0, 1, 4), pick(0, 1, 4), pick(0, 0, 1), pick(0, 0, 1)
		p.FaultAtStepOneIn, p.EchoOneIn = pick(0, 0, 50, 10), pick(0, 10, 2)
	}
	switch story := Story(seed % 24); story {
	case RestartedVoter, TicksPileUp, LostVote, DelayedAnswers:
		return tale(p, story)
	case StalledSplit:
		t := tale(p, story)
		t.StallHandOver = time.Minute
		return t
	case BrokenMerges:
		t := tale(p, story)
		t.ReadPercent, t.ExpireOneIn, t.Shards, t.MeanChange, t.Split, t.Merge = 50, 1, 3, 300*time.Millisecond, 1, 3
		t.FaultAtStepOneIn, t.EchoOneIn = pick(0, 20, 5), pick(1, 2, 10)
		return t
	case StaleWord:
		t := tale(p, story)
		t.Nodes, t.Replicas, t.ReadPercent, t.Shards, t.Clients = 4, 3, 70, 1+r.IntN(2), 6
		t.Duration = 24 * time.Second
		return t
	case ReturningShard:
		t := tale(p, story)
		t.Nodes, t.Replicas, t.Shards, t.KeysPerShard, t.Clients = 4, 3, 1, 6, 6
		t.ReadPercent, t.ExpireOneIn, t.Stripes, t.Duration = 60, 0, 256, 32*time.Second
		return t
	case LateUnfreeze:
		t := tale(p, story)
		t.ReadPercent, t.Shards, t.Clients, t.Duration = 50, 3, 8, 24*time.Second
		return t
	case MovingBoundaries:
		p.Shards, p.Clients, p.ReadPercent, p.WidePercent = 3, 8, 70, 40
		p.MeanChange, p.Split, p.Merge, p.Move = 150*time.Millisecond, 3, 3, 1
		p.Story = story
		return p
	case HeirAgain, WokenSleeper:
		t := tale(p, story)
		t.Shards, t.ExpireOneIn, t.Duration = 1, 0, 24*time.Second
		return t
	case EarlyMerge:
		t := tale(p, story)
		t.Shards, t.ReadPercent, t.Clients, t.Duration, t.Settings = 3, 50, 8, 16*time.Second, []*kvdv1.SettingValue{{Name: raftmeta.LogKeep, Value: "1000"}}
		return t
	case EarlyCut:
		t := tale(p, story)
		t.ReadPercent, t.Clients, t.Duration, t.Settings = 50, 8, 12*time.Second, []*kvdv1.SettingValue{{Name: raftmeta.LogKeep, Value: "1000"}}
		return t
	case MissedSplit:
		t := tale(p, story)
		t.Nodes, t.Replicas, t.Shards, t.ExpireOneIn, t.ReadPercent, t.Duration = 5, 5, 1, 0, 50, 32*time.Second
		return t
	case KeptTail:
		t := tale(p, story)
		t.Nodes, t.Replicas, t.Shards, t.ExpireOneIn = 5, 5, 1, 0
		return t
	case Overwritten:
		t := tale(p, story)
		t.Nodes, t.Replicas, t.ReadPercent, t.Clients, t.Patience = 5, 5, 50, 8, 5*time.Second
		return t
	}
	return p
}

// tale makes room for a story: three nodes, no other faults, and few writes, so that any replica may be elected.
func tale(p Plan, story Story) Plan {
	return Plan{
		Nodes: 3, Shards: p.Shards, KeysPerShard: p.KeysPerShard, Clients: p.Clients, Tick: p.Tick, ElectionTicks: p.ElectionTicks,
		Duration: 16 * time.Second, Think: 60 * time.Millisecond, Patience: p.Patience, ReadPercent: 98, ExpireOneIn: 2, Story: story,
	}
}
