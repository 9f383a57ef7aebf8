package nemesis

import (
	"context"
	"math/rand/v2"
	"slices"
)

// kind is a fault that there is.
type kind struct {
	name      string
	begin     func(ctx context.Context, n *Nemesis, s Step, rng *rand.Rand) (*act, error)
	nodesMin  int
	testBuild bool
	// proxied: it needs the cluster's proxy.
	proxied bool
	// replicas is how many each shard has to have; 0 for what the cluster has anyhow.
	replicas int
	// asks: it is an operator's request, which a cluster with other faults may refuse.
	asks bool
}

// act is a fault that has begun.
type act struct {
	// nodes are the names of those it befell.
	nodes []string
	// details are for the history; nil for none.
	details map[string]any
	// undo ends it after its time; nil for what ends by itself.
	undo func(ctx context.Context) error
	// over waits until it has ended by itself and tells how; nil for what is to be ended.
	over func(ctx context.Context) (outcome string, err error)
}

func kinds() []kind {
	list := []kind{
		{name: "kill", begin: kill},
		{name: "kill:voter", begin: killVoter, nodesMin: 3},
		{name: "kill:sleeper", begin: killSleeper, nodesMin: 3},
		{name: "pause", begin: pause},
		{name: "stall:voter", begin: stallVoter, nodesMin: 3, proxied: true, testBuild: true},
		{name: "restart-all", begin: restartAll},
		{name: "partition", begin: partition, nodesMin: 3},
		{name: "partition:one", begin: partition, nodesMin: 3},
		{name: "partition:halves", begin: partition, nodesMin: 3},
		{name: "partition:ring", begin: partition, nodesMin: 3},
		{name: "partition:one-way", begin: partition, nodesMin: 3},
		{name: "partition:leaders", begin: partition, nodesMin: 3},
		{name: "partition:meta", begin: partition, nodesMin: 3},
		{name: "partition:tail", begin: longTail, nodesMin: 3},
		{name: "slow", begin: slow, nodesMin: 2, proxied: true},
		{name: "slow:answers", begin: lateAnswers, nodesMin: 3, proxied: true},
		{name: "slow:transfer", begin: lateTransfers, nodesMin: 3, proxied: true, asks: true},
		{name: "split", begin: split, asks: true},
		{name: "split:slow-disk", begin: splitSlowly, nodesMin: 3, testBuild: true, asks: true},
		{name: "split:transfer", begin: splitAndTransfer, nodesMin: 3, asks: true},
		{name: "merge", begin: merge, asks: true},
		{name: "move", begin: move, nodesMin: 4, asks: true},
		{name: "move:return", begin: comeBack, nodesMin: 4, asks: true},
		{name: unknowing, begin: unknownMove, nodesMin: 4, testBuild: true, asks: true},
		{name: "merge:crash", begin: longMerge, nodesMin: 3, testBuild: true},
		{name: givingUp, begin: givenUpMerge, nodesMin: 3, testBuild: true, asks: true},
		{name: "transfer", begin: transfer, nodesMin: 2, asks: true},
		{name: "drain", begin: drain, nodesMin: 4, asks: true},
		{name: "join", begin: join, asks: true},
		{name: "remove", begin: remove, asks: true},
		{name: "clock", begin: clock, testBuild: true},
		{name: "disk-loss", begin: diskLoss, testBuild: true},
		{name: "disk-full", begin: diskFull, testBuild: true},
		{name: "disk-fail", begin: diskFail, testBuild: true},
		{name: "slow-disk", begin: slowDisk, testBuild: true},
		{name: silenced, begin: lostAppends, nodesMin: 3, testBuild: true},
		{name: overwriting, begin: overwritten, nodesMin: 5, replicas: 5, testBuild: true},
		{name: "flip", begin: flip, nodesMin: 3},
		{name: "crash", begin: crash, testBuild: true},
	}
	for _, p := range points {
		list = append(list, kind{name: "crash:" + p.name, begin: crash, testBuild: true})
	}
	return list
}

func find(name string) (kind, bool) {
	all := kinds()
	i := slices.IndexFunc(all, func(k kind) bool { return k.name == name })
	if i < 0 {
		return kind{}, false
	}
	return all[i], true
}
