package nemesis

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/internal/wait"
	"github.com/kvdstore/kvd/kv"
)

const (
	// watchEvery is the time between two looks at who leads what, and watchMax bounds one.
	watchEvery, watchMax = 500 * time.Millisecond, 2 * time.Second
)

// view is what was last heard of the cluster: faults choose by it, and it may be old.
type view struct {
	mu     sync.Mutex
	shards []*kvdv1.ShardInfo
	nodes  []*kvdv1.NodeInfo
}

// watch keeps the view.
func (n *Nemesis) watch(ctx context.Context) {
	for {
		n.look(ctx)
		n.news(ctx)
		if wait.For(ctx, watchEvery) != nil {
			return
		}
	}
}

// look takes a new view if the cluster gives one.
func (n *Nemesis) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, watchMax)
	defer cancel()
	shards, err := n.Operator.Shards(ctx)
	if err != nil {
		return
	}
	nodes, err := n.Operator.Nodes(ctx)
	if err != nil {
		return
	}
	n.view.mu.Lock()
	defer n.view.mu.Unlock()
	n.view.shards, n.view.nodes = shards.GetShards(), nodes.GetNodes()
}

// shardsIn are the shards that hold keys of a span, in the order of their keys.
func (v *view) shardsIn(s kv.Span) (list []*kvdv1.Descriptor) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, i := range v.shards {
		if d := i.GetDescriptor_(); spanOf(d).Overlaps(s) {
			list = append(list, d)
		}
	}
	slices.SortFunc(list, func(a, b *kvdv1.Descriptor) int { return bytes.Compare(a.GetStart(), b.GetStart()) })
	return list
}

// sleepers counts the shards that hold keys of a span, and those of them that sleep.
func (v *view) sleepers(s kv.Span) (all, asleep int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, i := range v.shards {
		if spanOf(i.GetDescriptor_()).Overlaps(s) {
			if all++; i.GetAsleep() {
				asleep++
			}
		}
	}
	return all, asleep
}

func spanOf(d *kvdv1.Descriptor) kv.Span { return kv.Span{Start: d.GetStart(), End: d.GetEnd()} }

// name of a node by its id; empty if it is not known.
func (v *view) name(id uint64) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, m := range v.nodes {
		if m.GetNode().GetNode() == id {
			return m.GetNode().GetName()
		}
	}
	return ""
}

// id of a node by its name; 0 if it is not known.
func (v *view) id(name string) uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, m := range v.nodes {
		if m.GetNode().GetName() == name {
			return m.GetNode().GetNode()
		}
	}
	return 0
}

// meta is the name of the node that leads the meta group; empty if nobody is known to.
func (v *view) meta() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, m := range v.nodes {
		if m.GetMetaLeader() {
			return m.GetNode().GetName()
		}
	}
	return ""
}

// leaders are the names of the nodes that lead shards of a span, each once.
func (v *view) leaders(s kv.Span) (list []string) {
	for _, d := range v.shardsIn(s) {
		if name := v.name(d.GetLeader()); name != "" && !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}

var errNobody = errors.New("no shard or node fits now")

// shard draws one of the workload's.
func (n *Nemesis) shard(rng *rand.Rand) (*kvdv1.Descriptor, error) {
	list := n.view.shardsIn(n.Span)
	if len(list) == 0 {
		return nil, errNobody
	}
	return list[rng.IntN(len(list))], nil
}

// running are the names of the members that run and are not paused, by chance in another order.
func (n *Nemesis) running(rng *rand.Rand) (list []string) {
	for _, m := range n.Cluster.Members() {
		if m.Alive() && !m.Paused() {
			list = append(list, m.Name())
		}
	}
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// victims draws whom a fault befalls that kvd survives on any number of nodes: often one, often a leader, sometimes all.
func (n *Nemesis) victims(rng *rand.Rand) ([]string, error) {
	list := n.running(rng)
	if len(list) == 0 {
		return nil, errNobody
	}
	first := func(name string) {
		if i := slices.Index(list, name); i > 0 {
			list[0], list[i] = list[i], list[0]
		}
	}
	count := 1
	switch draw := rng.IntN(10); {
	case draw < 2:
	case draw < 5:
		if leaders := n.view.leaders(n.Span); len(leaders) > 0 {
			first(leaders[rng.IntN(len(leaders))])
		}
	case draw < 6:
		first(n.view.meta())
	case draw < 8:
		count = max(1, (len(list)-1)/2)
	case draw < 9:
		count = len(list)/2 + 1
	default:
		count = len(list)
	}
	return list[:count], nil
}
