package node

import (
	"context"
	"sync"
	"time"
)

// Bounded is a context with a deadline that makes no timer before somebody asks for more than the deadline. Nearly all writes
// are answered before anybody does: await needs the parent and the deadline only. A context of the library with a timer,
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
