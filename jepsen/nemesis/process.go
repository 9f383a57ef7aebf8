package nemesis

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/kvdstore/kvd/jepsen/cluster"
)

// each does something to nodes at the same time.
func (n *Nemesis) each(names []string, f func(m *cluster.Node) error) error {
	var all sync.WaitGroup
	errs := make([]error, len(names))
	for i, name := range names {
		if m := n.Cluster.Node(name); m != nil {
			all.Go(func() { errs[i] = f(m) })
		}
	}
	all.Wait()
	return errors.Join(errs...)
}

func killNow(m *cluster.Node) error {
	m.Kill()
	return nil
}

// start starts a node, unless it was taken away meanwhile.
func start(m *cluster.Node) error {
	if m.Gone() {
		return nil
	}
	return m.Start()
}

// startEnded starts a node whose process has ended by itself: one that another fault has killed is not yet to come back.
func startEnded(m *cluster.Node) error {
	if !m.EndedByItself() {
		return nil
	}
	return start(m)
}

// kill is kill -9, and after a while another start.
func kill(_ context.Context, n *Nemesis, _ Step, rng *rand.Rand) (*act, error) {
	names, err := n.victims(rng)
	if err != nil {
		return nil, err
	}
	if err := n.each(names, killNow); err != nil {
		return nil, err
	}
	return &act{nodes: names, undo: func(context.Context) error { return n.each(names, start) }}, nil
}

// pause is SIGSTOP, and after a while SIGCONT: longer than leases and elections last.
func pause(_ context.Context, n *Nemesis, _ Step, rng *rand.Rand) (*act, error) {
	names, err := n.victims(rng)
	if err != nil {
		return nil, err
	}
	stand := func(f func(m *cluster.Node)) error {
		return n.each(names, func(m *cluster.Node) error {
			f(m)
			return nil
		})
	}
	if err := stand((*cluster.Node).Pause); err != nil {
		return nil, err
	}
	return &act{nodes: names, undo: func(context.Context) error { return stand((*cluster.Node).Resume) }}, nil
}

// restartAll kills all processes and starts all at once, at once.
func restartAll(_ context.Context, n *Nemesis, _ Step, rng *rand.Rand) (*act, error) {
	names := n.running(rng)
	if len(names) == 0 {
		return nil, errNobody
	}
	slices.Sort(names)
	if err := n.each(names, killNow); err != nil {
		return nil, err
	}
	return &act{nodes: names, over: func(context.Context) (string, error) { return "started", n.each(names, start) }}, nil
}
