package sim

import (
	"flag"
	"testing"
)

var (
	seeds = flag.Int("seeds", 200, "how many seeds to run")
	first = flag.Uint64("seed", 1, "the first seed")
)

func TestSeeds(t *testing.T) {
	var all Stats
	for i := range *seeds {
		seed := *first + uint64(i)
		_, stats, err := Run(seed, Swarm(seed))
		if err != nil {
			t.Fatalf("seed %d: %v\nreplay: go test ./sim -run TestSeeds -args -seeds 1 -seed %d", seed, err, seed)
		}
		all.Add(stats)
	}
	t.Logf("%+v", all)
	if *seeds >= 100 {
		if err := all.Enough(); err != nil {
			t.Error(err)
		}
	}
}
