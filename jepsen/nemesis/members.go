package nemesis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/internal/wait"
	"github.com/kvdstore/kvd/jepsen/cluster"
)

const (
	// moreMost is how many nodes there may be more than to begin with.
	moreMost = 2
	// undrainMax bounds the end of a drain.
	undrainMax = 20 * time.Second
)

// drain moves everything off a node for a while.
func drain(ctx context.Context, n *Nemesis, _ Step, rng *rand.Rand) (*act, error) {
	name, id, err := n.beginDrain(ctx, rng)
	if err != nil {
		return nil, err
	}
	return &act{nodes: []string{name}, undo: func(ctx context.Context) error { return n.undrain(ctx, name, id) }}, nil
}

// beginDrain begins to drain a member by lot. From then on Heal ends that, whatever else happens.
func (n *Nemesis) beginDrain(ctx context.Context, rng *rand.Rand) (name string, id uint64, err error) {
	for _, name = range n.running(rng) {
		if id = n.view.id(name); id != 0 {
			break
		}
	}
	if id == 0 {
		return "", 0, errNobody
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.draining) > 0 {
		return "", 0, fmt.Errorf("another is being drained: %w", errNobody)
	}
	n.draining[name] = id
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	_, err = n.Operator.SetDraining(ctx, &kvdv1.SetDrainingRequest{Node: id, Draining: true})
	return name, id, err
}

// undrain ends the draining of a node, and tries until it is done.
func (n *Nemesis) undrain(ctx context.Context, name string, id uint64) error {
	ctx, cancel := context.WithTimeout(ctx, undrainMax)
	defer cancel()
	for {
		asking, stop := context.WithTimeout(ctx, askMax)
		_, err := n.Operator.SetDraining(asking, &kvdv1.SetDrainingRequest{Node: id})
		stop()
		if err == nil {
			n.drained(name)
			return nil
		}
		if known, there := n.listed(ctx, id); known && !there {
			n.left(name)
			return nil
		}
		if wait.For(ctx, lookEvery) != nil {
			return fmt.Errorf("end the draining of %s: %w", name, err)
		}
	}
}

// drained notes that a node is not to be emptied any more.
func (n *Nemesis) drained(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.draining, name)
}

// left notes that the cluster has forgotten a node.
func (n *Nemesis) left(name string) {
	n.drained(name)
	n.Cluster.Node(name).Leave()
}

// join starts a new node and lets it into the cluster.
func join(_ context.Context, n *Nemesis, _ Step, _ *rand.Rand) (*act, error) {
	m, err := n.joined()
	if err != nil {
		return nil, err
	}
	return &act{nodes: []string{m.Name()}, over: func(ctx context.Context) (string, error) { return n.member(ctx, m) }}, nil
}

func (n *Nemesis) joined() (*cluster.Node, error) {
	if len(n.Cluster.Members()) >= n.Nodes+moreMost {
		return nil, fmt.Errorf("there are %d nodes already: %w", len(n.Cluster.Members()), errNobody)
	}
	return n.Cluster.Join()
}

// member waits until a node is one.
func (n *Nemesis) member(ctx context.Context, m *cluster.Node) (string, error) {
	for n.view.id(m.Name()) == 0 {
		if wait.For(ctx, lookEvery) != nil {
			return "waits to be let in", nil
		}
	}
	return "a member", nil
}

// remove drains a member, has the cluster forget it, and ends its process. If there would be too few, another joins first.
func remove(ctx context.Context, n *Nemesis, _ Step, rng *rand.Rand) (*act, error) {
	if len(n.Cluster.Members()) <= n.Nodes {
		m, err := n.joined()
		if err != nil {
			return nil, err
		}
		limited, cancel := context.WithTimeout(ctx, askMax)
		defer cancel()
		if outcome, err := n.member(limited, m); err != nil || n.view.id(m.Name()) == 0 {
			return nil, errors.Join(fmt.Errorf("the node that is to come instead %s", outcome), err)
		}
	}
	name, id, err := n.beginDrain(ctx, rng)
	if err != nil {
		return nil, err
	}
	return &act{nodes: []string{name}, over: func(ctx context.Context) (string, error) {
		if !n.emptied(ctx, id) {
			return "not drained in time", n.undrain(context.WithoutCancel(ctx), name, id)
		}
		return n.forget(ctx, name, id)
	}}, nil
}

// emptied waits until a node holds no replica.
func (n *Nemesis) emptied(ctx context.Context, id uint64) bool {
	for wait.For(ctx, lookEvery) == nil {
		asking, cancel := context.WithTimeout(ctx, askMax)
		r, err := n.Operator.SetDraining(asking, &kvdv1.SetDrainingRequest{Node: id, Draining: true})
		cancel()
		if err == nil && r.GetReplicas() == 0 {
			return true
		}
	}
	return false
}

// forget removes a node from the cluster; its process then ends by itself, or is ended.
func (n *Nemesis) forget(ctx context.Context, name string, id uint64) (string, error) {
	n.Cluster.Node(name).MayEnd(true)
	for {
		asking, cancel := context.WithTimeout(ctx, askMax)
		_, err := n.Operator.RemoveNode(asking, &kvdv1.RemoveNodeRequest{Node: id})
		cancel()
		if known, there := n.listed(ctx, id); known && !there {
			n.left(name)
			return "removed", nil
		}
		if wait.For(ctx, lookEvery) != nil {
			return "not removed in time", err
		}
	}
}

// listed asks whether a node is a member.
func (n *Nemesis) listed(ctx context.Context, id uint64) (known, there bool) {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	list, err := n.Operator.Nodes(ctx)
	if err != nil {
		return false, false
	}
	for _, m := range list.GetNodes() {
		there = there || m.GetNode().GetNode() == id
	}
	return true, there
}
