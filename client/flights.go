package client

// Calls that have no answer yet are in lists, and one goroutine looks at them a few times a second, while there are any. A
// timer for each call would cost more than all that the client does for one, and with the context that has it the node would
// be told of a time and keep a timer too. So a time that is the client's own ends up to a tick late; the caller's is kept by
// gRPC.

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// tickEvery is how often calls are looked at, and idleTicks for how long the goroutine stays without any.
	tickEvery = 50 * time.Millisecond
	idleTicks = 20
	// flightLists keep callers from waiting for each other.
	flightLists = 16
)

// flight is a call on its way.
type flight struct {
	e    *endpoint
	conn *grpc.ClientConn
	// asks tells that the node is to be asked for a sign of life when there is no answer for long.
	asks bool
	// shared is the context that it shares with others; nil when it does not.
	shared *shared

	list       *flightList
	prev, next *flight // Guarded, as what follows, by the list's lock.
	heard      int64   // The tick at which it began, or at which its node was last asked for a sign of life.
	due        int64   // The tick at which it is cancelled, if it can be.
	late       bool    // It was.
	// cancel ends the call; nil when it has no end but the caller's, or a shared one.
	cancel context.CancelFunc
}

// flightList is a ring of flights.
type flightList struct {
	mu   sync.Mutex
	root flight
	_    [64]byte // The next list's lock is on another cache line.
}

// flights are all calls of a client on their way.
type flights struct {
	tick  atomic.Int64 // Counts while there are calls.
	awake atomic.Bool
	lists [flightLists]flightList
	// reads and writes are the contexts that they share.
	reads, writes sharing
}

func (f *flights) init() {
	for i := range f.lists {
		root := &f.lists[i].root
		root.prev, root.next = root, root
	}
}

// ticks is in how many of them a time has surely gone by: the first may come at once.
func ticks(d time.Duration) int64 { return int64((d+tickEvery-1)/tickEvery) + 1 }

// takeOff puts a flight into a list, and tells the tick. n is any number, to choose the list by.
func (c *Client) takeOff(f *flight, n int) (tick int64) {
	f.list = &c.flights.lists[uint(n)%flightLists]
	root := &f.list.root
	f.list.mu.Lock()
	tick = c.flights.tick.Load()
	f.heard, f.late, f.cancel = tick, false, nil
	f.prev, f.next = root.prev, root
	f.prev.next, root.prev = f, f
	f.list.mu.Unlock()
	if !c.flights.awake.Load() {
		c.watchFlights()
	}
	return tick
}

// bound has a flight end when so long has passed since it began.
func (f *flight) bound(cancel context.CancelFunc, limit time.Duration) {
	f.list.mu.Lock()
	defer f.list.mu.Unlock()
	f.cancel, f.due = cancel, f.heard+ticks(limit)
}

// land takes a flight out again, and tells whether it was cancelled because it took too long.
func (c *Client) land(f *flight) (late bool) {
	f.list.mu.Lock()
	defer f.list.mu.Unlock()
	f.prev.next, f.next.prev = f.next, f.prev
	f.prev, f.next = nil, nil
	return f.late || f.shared != nil && f.shared.late.Load()
}

// watchFlights has somebody look at the flights.
func (c *Client) watchFlights() {
	if c.flights.awake.CompareAndSwap(false, true) && !c.start(c.lookAtFlights) {
		c.flights.awake.Store(false)
	}
}

func (c *Client) lookAtFlights() {
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	for idle := 0; ; {
		select {
		case <-ticker.C:
		case <-c.ctx.Done():
			c.flights.reads.close()()
			c.flights.writes.close()()
			return
		}
		tick, some := c.flights.tick.Add(1), false
		for i := range c.flights.lists {
			some = c.lookAt(&c.flights.lists[i], tick) || some
		}
		c.flights.reads.end(tick)
		c.flights.writes.end(tick)
		if idle++; c.lookAtStreams(time.Now()) || some {
			idle = 0
		}
		if idle < idleTicks {
			continue
		}
		endReads, endWrites := c.flights.reads.close(), c.flights.writes.close()
		c.flights.awake.Store(false)
		// What was put in before it fell asleep has to be seen; it may have one of the contexts.
		if !c.flights.any() && !c.lookAtStreams(time.Now()) {
			endReads()
			endWrites()
			return
		}
		if !c.flights.awake.CompareAndSwap(false, true) {
			return
		}
	}
}

// any tells whether there are flights.
func (f *flights) any() bool {
	for i := range f.lists {
		l := &f.lists[i]
		l.mu.Lock()
		some := l.root.next != &l.root
		l.mu.Unlock()
		if some {
			return true
		}
	}
	return false
}

// lookAt looks at the flights of a list, and tells whether there are any.
func (c *Client) lookAt(l *flightList, tick int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for f := l.root.next; f != &l.root; f = f.next {
		switch {
		case f.cancel != nil && tick >= f.due:
			f.late = true
			f.cancel()
		case f.asks && tick-f.heard >= ticks(attemptMax):
			f.heard = tick
			c.ask(f.e, f.conn)
		}
	}
	return l.root.next != &l.root
}

// lookAtStreams looks at the streams of pipelines, and tells whether any has operations.
func (c *Client) lookAtStreams(now time.Time) (some bool) {
	c.streams.Range(func(_, s any) bool {
		some = s.(*stream).look(now) || some
		return true
	})
	return some
}

// ask has a node with a request without an answer asked whether it is alive.
func (c *Client) ask(e *endpoint, conn *grpc.ClientConn) {
	if e.suspect.Load() || !e.asked.CompareAndSwap(false, true) {
		return
	}
	if !c.start(func() {
		defer e.asked.Store(false)
		if !c.alive(conn) && c.ctx.Err() == nil {
			c.suspect(e)
			c.refresh()
		}
	}) {
		e.asked.Store(false)
	}
}

// errLate is the error of a call that the client itself has ended, as if its deadline had come.
var errLate = status.FromContextError(context.DeadlineExceeded).Err()

// lateError gives the error of a call that was ended because it took too long.
func lateError(err error) error {
	if status.Code(err) == codes.Canceled {
		return errLate
	}
	return err // It came in the meantime.
}
