package client

// A call whose caller has no deadline needs a context that the client can end. One for each call, with the map of its
// children that gRPC's own context makes in it, costs as much as all else that the client does for a call. So calls that
// begin within a few ticks of each other share one: it ends when the last of them has had its time, the first of them some
// ticks more.

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// sharedTicks is for how many ticks calls begin in one context.
const sharedTicks = 5

// shared is a context of some calls, whose callers' contexts end together, or never.
type shared struct {
	context.Context
	done   <-chan struct{} // Of the callers.
	until  int64           // The tick before which calls may begin in it,
	due    int64           // and the one at which it ends.
	late   atomic.Bool     // It has ended so.
	cancel func()
}

// sharing is the contexts of the calls of one kind.
type sharing struct {
	current atomic.Pointer[shared]
	// seen is what the last caller waited for who had no part in the current one. A context is made when one comes twice: for
	// callers with a context each it would not be shared.
	seen atomic.Value // <-chan struct{}

	mu  sync.Mutex
	all []*shared // Those that have not ended.
}

// joined is a context of one call: it ends with the shared one, and all else is the caller's.
type joined struct {
	*shared
	caller context.Context
}

// Value gives the shared context to whoever looks for what can be ended; that has no other values.
func (j *joined) Value(key any) any {
	if v := j.shared.Value(key); v != nil {
		return v
	}
	return j.caller.Value(key)
}

// join gives a shared context for a call that begins at a tick and may last so long; nil when it should have its own. The
// call is in the list of flights already.
func (s *sharing) join(ctx context.Context, tick int64, limit time.Duration) *shared {
	done := ctx.Done()
	if x := s.current.Load(); x != nil && x.done == done && tick < x.until {
		return x
	}
	if last, _ := s.seen.Swap(done).(<-chan struct{}); last != done {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.current.Load(); x != nil && x.done == done && tick < x.until {
		return x
	}
	x := &shared{done: done, until: tick + sharedTicks}
	x.due = x.until - 1 + ticks(limit)
	inner, cancel := context.WithCancel(context.Background())
	x.Context, x.cancel = inner, cancel
	if done != nil {
		stop := context.AfterFunc(ctx, cancel)
		x.cancel = func() { stop(); cancel() }
	}
	s.all = append(s.all, x)
	s.current.Store(x)
	return x
}

// end ends the contexts that are due.
func (s *sharing) end(tick int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, x := range s.all {
		if tick >= x.due {
			x.late.Store(true)
			x.cancel()
			continue
		}
		s.all[n] = x
		n++
	}
	clear(s.all[n:])
	s.all = s.all[:n]
}

// close has nobody begin in the contexts that there are. What it gives ends them, once no call is under way.
func (s *sharing) close() (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current.Store(nil)
	all := slices.Clone(s.all)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, x := range all {
			x.cancel()
		}
		s.all = slices.DeleteFunc(s.all, func(x *shared) bool { return slices.Contains(all, x) })
	}
}
