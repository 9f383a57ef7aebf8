package client

import (
	"context"
	"math/rand/v2"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/client/route"
	"github.com/kvdstore/kvd/kv"
)

// place is which node a request needs.
type place uint8

const (
	atLeader  place = iota // The one that leads the key's shard.
	atReplica              // One that holds the key's shard.
	atAny
)

// target picks where an attempt goes; n numbers the attempts, from a random start. What falls into a gap of the map, as a split
// leaves one, goes to any node, which passes it on; and the map is asked for again, so that it does not stay so.
func (c *Client) target(at place, key []byte, n int) route.Target {
	t, gap := c.lookUp(at, key, n)
	if gap {
		c.refresh()
	}
	return t
}

func (c *Client) lookUp(at place, key []byte, n int) (t route.Target, gap bool) {
	c.routing.RLock()
	defer c.routing.RUnlock()
	switch {
	case c.cfg.Only || at == atAny:
	case at == atReplica:
		t = c.routes.Replica(key, n, c.pool.suspected)
	default:
		t = c.routes.Lookup(key, n, c.pool.suspected)
	}
	gap = at != atAny && !c.cfg.Only && t.Route.Version == 0 && c.routes.Version() != 0
	if t.Address == "" {
		t = route.Target{Address: c.anyNode(n)}
	}
	return t, gap
}

// anyNode picks an endpoint or, unless only those are wanted, any node: one that is not suspected, if there is one.
func (c *Client) anyNode(n int) string {
	var others []string
	if !c.cfg.Only {
		others = c.routes.Addresses()
	}
	all := len(c.cfg.Endpoints) + len(others)
	at := func(i int) string {
		if i %= all; i >= len(c.cfg.Endpoints) {
			return others[i-len(c.cfg.Endpoints)]
		}
		return c.cfg.Endpoints[i]
	}
	for i := range all {
		if address := at(n + i); !c.pool.suspected(address) {
			return address
		}
	}
	return at(n)
}

// refreshFirst asks for the map when nothing is known yet.
func (c *Client) refreshFirst() {
	if !c.mapped.Load() {
		c.refresh()
	}
}

// refresh asks for the map, now and then, one call at a time. It does not wait for the answer.
func (c *Client) refresh() {
	c.mu.Lock()
	due := !c.cfg.Only && !c.fetching && time.Since(c.refreshed) > refreshEvery
	if due {
		c.fetching, c.refreshed = true, time.Now()
	}
	c.mu.Unlock()
	if due && !c.start(c.fetch) {
		c.mu.Lock()
		c.fetching = false
		c.mu.Unlock()
	}
}

// fetch asks any one node for the whole map: leaders change without a new version of it.
func (c *Client) fetch() {
	defer func() {
		c.mu.Lock()
		c.fetching = false
		c.mu.Unlock()
	}()
	r := c.mapRequest(new(*kvdv1.MapResponse))
	r.begin(c.ctx)
	c.attempt(c.ctx, r, rand.Int()&0xffff, attemptMax)
}

// mapRequest asks for the whole map, and takes it.
func (c *Client) mapRequest(into **kvdv1.MapResponse) *request {
	return &request{op: wire.Read, at: atAny, call: byStub(func(ctx context.Context, api services) error {
		m, err := api.Map(ctx, &kvdv1.MapRequest{})
		if err == nil {
			c.take(m)
			*into = m
		}
		return err
	})}
}

// take takes a whole map.
func (c *Client) take(m *kvdv1.MapResponse) {
	if c.cfg.Only {
		return
	}
	descriptors := make([]*kv.Descriptor, 0, len(m.GetDescriptors()))
	leaders := make(map[kv.ShardID]kv.NodeID, len(m.GetDescriptors()))
	for _, d := range m.GetDescriptors() {
		descriptors = append(descriptors, wire.ToDescriptor(d))
		leaders[kv.ShardID(d.GetShard())] = kv.NodeID(d.GetLeader())
	}
	nodes := make([]route.Node, 0, len(m.GetNodes()))
	for _, n := range m.GetNodes() {
		nodes = append(nodes, route.Node{ID: kv.NodeID(n.GetNode()), Address: n.GetAddress()})
	}
	known := make(map[string]bool, len(nodes)+len(c.cfg.Endpoints))
	for _, e := range c.cfg.Endpoints {
		known[e] = true
	}
	c.routing.Lock()
	taken := c.routes.Replace(m.GetVersion(), descriptors, leaders, nodes)
	for _, address := range c.routes.Addresses() {
		known[address] = true
	}
	c.mapped.Store(c.routes.Version() != 0)
	c.routing.Unlock()
	if taken {
		c.pool.keep(known)
	}
}

// learn takes what an answer tells of the map. led tells that the node that served it leads the shard.
func (c *Client) learn(t route.Target, h *kvdv1.ResponseHeader, led bool) {
	if c.cfg.Only {
		return
	}
	shard, node := kv.ShardID(h.GetShard()), kv.NodeID(h.GetNode())
	if led && t.Leader == node && t.Route.Shard == shard && len(h.GetDescriptors()) == 0 {
		return // It was known, as nearly always.
	}
	led = led && shard != kv.MetaShard && node != 0
	c.routing.RLock()
	led = led && c.routes.Leader(shard) != node
	c.routing.RUnlock()
	if !led && len(h.GetDescriptors()) == 0 {
		return
	}
	c.routing.Lock()
	defer c.routing.Unlock()
	c.learnDescriptors(h.GetDescriptors())
	if led {
		c.routes.Lead(shard, node, "")
	}
}

func (c *Client) learnDescriptors(list []*kvdv1.Descriptor) {
	for _, d := range list {
		if c.routes.Learn(wire.ToDescriptor(d)) {
			c.routes.Lead(kv.ShardID(d.GetShard()), kv.NodeID(d.GetLeader()), "")
		}
	}
}

// learnError takes what a refusal tells of the map. It tells whether another node is now known to be better.
func (c *Client) learnError(t route.Target, d *kvdv1.ErrorDetail) (redirect bool) {
	shard := kv.ShardID(d.GetShard())
	switch d.GetReason() {
	case kvdv1.ErrorDetail_NOT_LEADER:
		if c.cfg.Only || shard == kv.MetaShard {
			return false
		}
		c.routing.Lock()
		if d.GetLeader() != 0 {
			c.routes.Lead(shard, kv.NodeID(d.GetLeader()), d.GetLeaderAddress())
		} else {
			c.routes.Unled(shard, t.Address)
		}
		c.routing.Unlock()
		if d.GetLeader() == 0 {
			c.refresh()
			return false
		}
		return d.GetLeaderAddress() != "" && d.GetLeaderAddress() != t.Address && !c.pool.suspected(d.GetLeaderAddress())
	case kvdv1.ErrorDetail_STALE_EPOCH:
		if c.cfg.Only {
			return false
		}
		c.routing.Lock()
		c.learnDescriptors(d.GetDescriptors())
		c.routing.Unlock()
		c.refresh()
		return len(d.GetDescriptors()) > 0
	case kvdv1.ErrorDetail_STOPPING:
		c.routing.Lock()
		c.routes.Forget(t.Address)
		c.routing.Unlock()
		c.refresh()
	}
	return false
}
