package client

import (
	"context"
	"math"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
)

// A node that was not reached, whose connection broke or that was silent is suspected: requests go elsewhere where they
// can, and it is asked in the background until it answers, so that no request pays for finding out that it is still away.

const (
	// askMin and askMax bound the pause between two questions to a suspected node, and asksMax their number: then it is
	// no longer suspected, and the next request finds out.
	askMin  = 100 * time.Millisecond
	askMax  = 2 * time.Second
	asksMax = 60
)

// alive asks a node for a sign of life: for a map newer than any.
func (c *Client) alive(conn *grpc.ClientConn) bool {
	ctx, cancel := context.WithTimeout(c.ctx, attemptMax)
	defer cancel()
	_, err := kvdv1.NewKVClient(conn).Map(ctx, &kvdv1.MapRequest{KnownVersion: math.MaxUint64}, grpc.WaitForReady(true))
	return err == nil || wire.DetailOf(err) != nil
}

// suspect leaves an endpoint alone until it answers.
func (c *Client) suspect(e *endpoint) {
	if !c.pool.setSuspect(e, true) {
		return
	}
	c.routing.Lock()
	c.routes.Forget(e.address)
	c.routing.Unlock()
	if e.awaited.CompareAndSwap(false, true) && !c.start(func() { c.awaitAlive(e) }) {
		e.awaited.Store(false)
	}
}

// awaitAlive asks a suspected endpoint until it answers. There is one at a time for an endpoint.
func (c *Client) awaitAlive(e *endpoint) {
	for {
		c.askUntilAlive(e)
		c.pool.setSuspect(e, false)
		e.awaited.Store(false)
		// It may have been suspected again in between.
		if c.ctx.Err() != nil || !e.suspect.Load() || !e.awaited.CompareAndSwap(false, true) {
			return
		}
	}
}

func (c *Client) askUntilAlive(e *endpoint) {
	pause := askMin
	for range asksMax {
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-timer.C:
		case <-c.ctx.Done():
			timer.Stop()
			return
		}
		if !e.suspect.Load() || c.alive(e.conn()) {
			return
		}
		pause = min(2*pause, askMax)
	}
}

// answered takes that a node is alive.
func (c *Client) answered(e *endpoint) {
	if e.suspect.Load() {
		c.pool.setSuspect(e, false)
	}
}
