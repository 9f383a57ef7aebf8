package node

// A caller waits for its answer alone. One goroutine looks at all that wait a few times a second, while there are any, and tells
// those whose time is over or whose context has ended. A timer for each, and a select of its answer, that timer and the context's end,
// took 4 % of the servers' time by put. So an answer is told at once, and an end up to lookEvery late.

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvdstore/kvd/kv"
)

const (
	// lookEvery is how often callers are looked at, and idleLooks how often in vain before the goroutine ends.
	lookEvery = 50 * time.Millisecond
	idleLooks = 20
	// callerLists keep callers from waiting for each other.
	callerLists = 16
)

// caller waits for one outcome. It is used again once it has that.
type caller struct {
	told chan outcome
	// tell gives the outcome; only the first counts.
	tell func(kv.Result, error)

	// list is where it waits, and what follows is guarded by the list's lock.
	list       *callerList
	prev, next *caller
	parent     context.Context
	deadline   time.Time // Zero for none but the context's.
	ended      bool      // It was told that it is over.
}

// callerList is a ring of callers.
type callerList struct {
	mu   sync.Mutex
	root caller
	_    [64]byte // The next list's lock is on another cache line.
}

// callers are those that wait. Safe for concurrent use.
type callers struct {
	awake atomic.Bool
	lists [callerLists]callerList
	pool  sync.Pool
}

func newCallers() *callers {
	w := &callers{}
	for i := range w.lists {
		root := &w.lists[i].root
		root.prev, root.next = root, root
	}
	w.pool.New = func() any {
		c := &caller{told: make(chan outcome, 1), list: &w.lists[rand.IntN(callerLists)]}
		c.tell = func(r kv.Result, err error) {
			select {
			case c.told <- outcome{r, err}:
			default:
			}
		}
		return c
	}
	return w
}

// caller gives one for a wait.
func (w *callers) caller() *caller { return w.pool.Get().(*caller) }

// wait waits until the caller is told, or its context has ended. The caller is not used again but by caller.
func (w *callers) wait(ctx context.Context, c *caller) (kv.Result, error) {
	select {
	case o := <-c.told: // It was refused, say.
		w.pool.Put(c)
		return o.result, o.err
	default:
	}
	w.add(c, ctx)
	o := <-c.told
	if ended := w.remove(c); !ended {
		w.pool.Put(c)
	}
	return o.result, o.err
}

// add has a caller looked at.
func (w *callers) add(c *caller, ctx context.Context) {
	parent, deadline := ctx, time.Time{}
	if b, ok := ctx.(*Bounded); ok {
		parent, deadline = b.parent, b.deadline
	}
	root := &c.list.root
	c.list.mu.Lock()
	c.parent, c.deadline, c.ended = parent, deadline, false
	c.prev, c.next = root.prev, root
	c.prev.next, root.prev = c, c
	c.list.mu.Unlock()
	if !w.awake.Load() && w.awake.CompareAndSwap(false, true) {
		go w.watch()
	}
}

// remove takes a caller out again, and reports whether it was told that it is over: its outcome may yet come.
func (w *callers) remove(c *caller) (ended bool) {
	c.list.mu.Lock()
	defer c.list.mu.Unlock()
	c.prev.next, c.next.prev = c.next, c.prev
	c.prev, c.next, c.parent = nil, nil, nil
	return c.ended
}

// watch looks at all callers until there are none for a while.
func (w *callers) watch() {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for idle := 0; ; {
		<-ticker.C
		if idle++; w.look(time.Now()) {
			idle = 0
		}
		if idle < idleLooks {
			continue
		}
		w.awake.Store(false)
		// Who came before it fell asleep has to be seen.
		if !w.look(time.Now()) || !w.awake.CompareAndSwap(false, true) {
			return
		}
		idle = 0
	}
}

// look tells callers that their time is over, and reports whether there are any.
func (w *callers) look(now time.Time) (some bool) {
	for i := range w.lists {
		some = w.lists[i].look(now) || some
	}
	return some
}

func (l *callerList) look(now time.Time) (some bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := l.root.next; c != &l.root; c = c.next {
		if err := c.over(now); err != nil {
			c.ended = true
			c.tell(kv.Result{}, err)
		}
	}
	return l.root.next != &l.root
}

// over tells why a caller need not wait any more; nil if it has to.
func (c *caller) over(now time.Time) error {
	if !c.deadline.IsZero() && !now.Before(c.deadline) {
		return context.DeadlineExceeded
	}
	return c.parent.Err()
}
