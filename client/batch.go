package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// BatchGet reads many keys, each linearizable on its own. The answer has nil where a key is not there. The nodes that
// lead the keys are asked side by side.
func (c *Client) BatchGet(ctx context.Context, keys [][]byte, list ...ReadOption) ([]*Item, error) {
	for _, key := range keys {
		if err := checkKey(key); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, notDone{err}
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	c.refreshFirst()
	out := make([]*Item, len(keys))
	groups := c.byNode(keys, placeOf(level(list)))
	errs := make([]error, len(groups))
	var wait sync.WaitGroup
	for i, group := range groups {
		wait.Go(func() {
			if errs[i] = c.getGroup(ctx, keys, group, level(list), out); errs[i] != nil {
				cancel()
			}
		})
	}
	wait.Wait()
	for _, err := range errs { // The cause, rather than what was cancelled because of it.
		if err != nil && !errors.Is(err, context.Canceled) {
			return nil, err
		}
	}
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// byNode groups the indexes of keys by the node that they go to: at most as many groups as there are nodes.
func (c *Client) byNode(keys [][]byte, at place) [][]int {
	place := map[string]int{}
	var groups [][]int
	n := rand.Int() & 0xffff
	for i, key := range keys {
		address := c.target(at, key, n).Address
		g, ok := place[address]
		if !ok {
			g = len(groups)
			place[address] = g
			groups = append(groups, nil)
		}
		groups[g] = append(groups[g], i)
	}
	return groups
}

// getGroup reads the keys at some indexes. The node that gets the request passes on what it does not lead.
func (c *Client) getGroup(ctx context.Context, keys [][]byte, group []int, l kvdv1.Level, out []*Item) error {
	for len(group) > 0 {
		some := group[:min(len(group), kv.BatchGetKeysMax)]
		r := &kvdv1.BatchGetRequest{Level: l}
		for _, i := range some {
			r.Keys = append(r.Keys, keys[i])
		}
		var resp *kvdv1.BatchGetResponse
		err := c.do(ctx, &request{op: wire.Read, at: placeOf(l), key: r.Keys[0], call: byStub(func(ctx context.Context, api services) (err error) {
			resp, err = api.BatchGet(ctx, r)
			return err
		})})
		if err != nil {
			return err
		}
		n := len(resp.GetResults())
		if n == 0 || n > len(some) {
			return notDone{errors.New("the node's answer does not fit the keys of a BatchGet")}
		}
		for j, one := range resp.GetResults() {
			if one.GetFound() {
				item := itemOf(r.Keys[j], one)
				out[some[j]] = &item
			}
		}
		group = group[n:]
	}
	return nil
}
