package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/kvdstore/kvd/internal/wait"
	"github.com/kvdstore/kvd/jepsen/cluster"
)

// Faults that end a process between two steps of its own: kvds of builds for tests are told where. All are told, and when one has
// come there and ended, the others are told to go on.

// crashFile tells a kvd where it is to end.
const crashFile = "crash"

// endedEvery is the time between two looks at whether one has ended.
const endedEvery = 20 * time.Millisecond

// points are where processes can end, as docs/proof.md has them, and at which time they come there at most: some come often.
var points = []struct {
	name string
	most int
}{
	{"vote-sent", 2},
	{"log-unsynced", 200},
	{"log-synced", 200},
	{"birth-synced", 1},
	{"reset-synced", 2},
	{"removal-synced", 1},
	{"removal-unsynced", 1},
	{"state-synced", 3},
	{"installed", 2},
}

// crash has the process end that comes first to a point, and starts it again.
func crash(_ context.Context, n *Nemesis, s Step, rng *rand.Rand) (*act, error) {
	names := n.running(rng)
	if len(names) == 0 {
		return nil, errNobody
	}
	p := points[rng.IntN(len(points))]
	if _, at, shaped := strings.Cut(s.Fault, ":"); shaped {
		for _, other := range points {
			if other.name == at {
				p = other
			}
		}
	}
	times := 1 + rng.IntN(p.most)
	doom := func(yes bool) error {
		return n.each(names, func(m *cluster.Node) error {
			m.MayBeKilled(yes)
			return nil
		})
	}
	if err := doom(true); err != nil {
		return nil, err
	}
	before := n.ends()
	if err := n.tamper(names, crashFile, fmt.Sprintf("%s %d", p.name, times)); err != nil {
		return nil, err
	}
	return &act{nodes: names, details: map[string]any{"at": p.name, "times": times}, over: func(ctx context.Context) (string, error) {
		outcome := "nobody came there"
		for end := time.Now().Add(s.Lasts); time.Now().Before(end) && wait.For(ctx, endedEvery) == nil; {
			if n.ends() > before {
				outcome = "ended"
				break
			}
		}
		err := n.tamper(names, crashFile, "")
		if err == nil {
			err = wait.For(ctx, dyingMax)
		}
		if err == nil {
			err = n.each(names, startEnded)
		}
		if err == nil {
			err = doom(false)
		}
		return outcome, err
	}}, nil
}

// ends counts how often processes have ended by themselves.
func (n *Nemesis) ends() (count int) {
	for _, m := range n.Cluster.Nodes() {
		count += m.Ends()
	}
	return count
}
