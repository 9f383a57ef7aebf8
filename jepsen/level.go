package main

import (
	"context"
	"fmt"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/internal/wait"
)

// A cluster that was healed is level when every replica that the map names is on its node. One that a node has removed although
// it is a member, or that can never come, is missed here: nobody else misses it, as long as the others are a majority.

const (
	// levelMax is how long a healed cluster may take until it is level, and levelEvery the time between two looks.
	levelMax, levelEvery = 45 * time.Second, 200 * time.Millisecond
	// statusMax bounds how long a node may take to describe itself.
	statusMax = 2 * time.Second
)

// level waits until the cluster is level, and else tells what was missing.
func (t *trial) level(ctx context.Context) (missing []string) {
	ctx, cancel := context.WithTimeout(ctx, levelMax)
	defer cancel()
	for {
		if seen, ok := t.missing(ctx); ok {
			missing = seen
		}
		if len(missing) == 0 || wait.For(ctx, levelEvery) != nil {
			return missing
		}
	}
}

// missing looks once; ok is false if the map could not be had.
func (t *trial) missing(ctx context.Context) (list []string, ok bool) {
	var held []*kvdv1.StatusResponse
	for _, n := range t.cluster.Members() {
		if st, err := t.status(ctx, n.Address()); err == nil {
			held = append(held, st)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, statusMax)
	defer cancel()
	m, err := t.operator.Map(ctx)
	if err != nil {
		return nil, false
	}
	return missingReplicas(m.GetDescriptors(), held), true
}

// status asks one node.
func (t *trial) status(ctx context.Context, address string) (*kvdv1.StatusResponse, error) {
	c, err := client.New(client.Config{Endpoints: []string{address}, Only: true, DialOptions: t.cluster.ClientOptions()})
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(ctx, statusMax)
	defer cancel()
	return c.Status(ctx)
}

// missingReplicas tells of replicas that a map names and their nodes do not hold. Of nodes that have not described themselves nothing is told.
func missingReplicas(shards []*kvdv1.Descriptor, nodes []*kvdv1.StatusResponse) (list []string) {
	type place struct{ node, shard, replica uint64 }
	told, held := map[uint64]string{}, map[place]bool{}
	for _, n := range nodes {
		told[n.GetNode().GetNode()] = n.GetNode().GetName()
		for _, r := range n.GetLocal() {
			held[place{n.GetNode().GetNode(), r.GetShard(), r.GetReplica()}] = true
		}
	}
	for _, d := range shards {
		for _, r := range d.GetReplicas() {
			if name, ok := told[r.GetNode()]; ok && !held[place{r.GetNode(), d.GetShard(), r.GetReplica()}] {
				list = append(list, fmt.Sprintf("long after everything healed: %s does not hold replica %d of shard %d", name, r.GetReplica(), d.GetShard()))
			}
		}
	}
	return list
}
