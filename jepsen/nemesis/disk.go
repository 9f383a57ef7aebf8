package nemesis

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/kvdstore/kvd/internal/wait"
	"github.com/kvdstore/kvd/jepsen/cluster"
)

// Files that a kvd built for tests looks at, in its directory for them.
const (
	diskFile  = "disk"
	clockFile = "clock"
	stallFile = "stall"
)

// dyingMax is how long a process may take to end by what its disk did last.
const dyingMax = 500 * time.Millisecond

// tamper tells nodes what their disks, or clocks, are to do.
func (n *Nemesis) tamper(names []string, file, what string) error {
	return n.each(names, func(m *cluster.Node) error { return m.Tamper(file, what) })
}

// disk gives the disks of nodes a fault for a while. The processes may end by it, and are started again when it is over.
func (n *Nemesis) disk(names []string, how map[string]any) (*act, error) {
	text, err := json.Marshal(how)
	if err != nil {
		return nil, err
	}
	fated := func(yes bool) {
		for _, name := range names {
			n.Cluster.Node(name).MayEnd(yes)
		}
	}
	fated(true)
	if err := n.tamper(names, diskFile, string(text)); err != nil {
		return nil, err
	}
	return &act{nodes: names, details: how, undo: func(ctx context.Context) error {
		err := n.tamper(names, diskFile, "")
		if err == nil {
			err = wait.For(ctx, dyingMax)
		}
		if err == nil {
			err = n.each(names, startEnded)
		}
		if err == nil {
			fated(false)
		}
		return err
	}}, nil
}

// diskLoss kills nodes whose disks then have only what was synced.
func diskLoss(ctx context.Context, n *Nemesis, s Step, rng *rand.Rand) (*act, error) {
	return kill(ctx, n, s, rng)
}

// diskFull leaves little room, or none.
func diskFull(_ context.Context, n *Nemesis, _ Step, rng *rand.Rand) (*act, error) {
	names, err := n.victims(rng)
	if err != nil {
		return nil, err
	}
	if rng.IntN(3) == 0 {
		return n.disk(names, map[string]any{"full": true})
	}
	return n.disk(names, map[string]any{"free": rng.IntN(8 << 20)})
}

// slowDisk makes each write and sync slow, or has them stand still.
func slowDisk(_ context.Context, n *Nemesis, _ Step, rng *rand.Rand) (*act, error) {
	names, err := n.victims(rng)
	if err != nil {
		return nil, err
	}
	if rng.IntN(3) == 0 {
		return n.disk(names, map[string]any{"stall": true})
	}
	return n.disk(names, map[string]any{"slow": (time.Duration(5+rng.IntN(200)) * time.Millisecond).String()})
}

// diskFail has writes and syncs fail: the process stops at the first.
func diskFail(_ context.Context, n *Nemesis, _ Step, rng *rand.Rand) (*act, error) {
	names, err := n.victims(rng)
	if err != nil {
		return nil, err
	}
	return n.disk(names, map[string]any{"fail": true})
}

// clock steps the wall clocks of nodes, forth and back, by up to Config.Skew.
func clock(_ context.Context, n *Nemesis, _ Step, rng *rand.Rand) (*act, error) {
	names, err := n.victims(rng)
	if err != nil {
		return nil, err
	}
	steps := map[string]any{}
	for _, name := range names {
		by := time.Duration(rng.Int64N(2*int64(n.Skew)+1)) - n.Skew
		if rng.IntN(3) == 0 { // Not all steps are large.
			by /= 100
		}
		if err := n.tamper([]string{name}, clockFile, by.String()); err != nil {
			return nil, err
		}
		steps[name] = by.String()
	}
	return &act{nodes: names, details: map[string]any{"steps": steps}, undo: func(context.Context) error {
		if err := n.tamper(names, clockFile, ""); err != nil {
			return fmt.Errorf("set the clocks right: %w", err)
		}
		return nil
	}}, nil
}
