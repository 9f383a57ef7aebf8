package node

import (
	"context"
	"sync"
	"time"
)

// Bounded is a context with a deadline that makes no timer before somebody asks for more than the deadline. Nearly all writes
// are answered before anybody does: await waits with a timer that is used again. A context of the library with a timer,
// and a place among its parent's children, took a twentieth of a Put. Safe for concurrent use.
type Bounded struct {
	parent   context.Context
	deadline time.Time
	once     sync.Once
	made     context.Context
	cancel   context.CancelFunc
}

// Bound gives a context, which must have no deadline, one. End ends it.
func Bound(parent context.Context, d time.Duration) *Bounded {
	return &Bounded{parent: parent, deadline: time.Now().Add(d)}
}

// over is what one becomes that nobody asked before its end.
var over = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// End releases what was made.
func (b *Bounded) End() {
	b.once.Do(func() { b.made = over })
	if b.cancel != nil {
		b.cancel()
	}
}

func (b *Bounded) make() context.Context {
	b.once.Do(func() { b.made, b.cancel = context.WithDeadline(b.parent, b.deadline) })
	return b.made
}

// Deadline is there always.
func (b *Bounded) Deadline() (time.Time, bool) { return b.deadline, true }

// Done is closed at the deadline, when the parent ends, or by End.
func (b *Bounded) Done() <-chan struct{} { return b.make().Done() }

// Err says which.
func (b *Bounded) Err() error { return b.make().Err() }

// Value is the parent's. The library finds a context's children by it.
func (b *Bounded) Value(key any) any { return b.make().Value(key) }

// timers are reused: those of waits that are over.
var timers = sync.Pool{New: func() any {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}}

// wait gives what ends a wait besides what is waited for: the end of the context's parent and its time, and what gives the
// timer back.
func wait(ctx context.Context) (done <-chan struct{}, late <-chan time.Time, timer *time.Timer) {
	b, ok := ctx.(*Bounded)
	if !ok {
		return ctx.Done(), nil, nil
	}
	timer = timers.Get().(*time.Timer)
	timer.Reset(time.Until(b.deadline))
	return b.parent.Done(), timer.C, timer
}

// waited gives a timer back.
func waited(t *time.Timer) {
	if t != nil {
		t.Stop()
		timers.Put(t)
	}
}
