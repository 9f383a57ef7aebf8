package client

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvdstore/kvd/kv"
)

// budget bounds the operations of a client's pipelines that have no answer yet, and their bytes: while a shard has no
// leader its operations are kept for another try, and a count alone would let them grow to gigabytes. Who waits is let in
// in the order of asking, so that a large operation is not passed by small ones for ever. As long as nobody waits, nobody
// takes the lock.
type budget struct {
	used    atomic.Int64 // Operations times opUnit, and bytes.
	waiting atomic.Int32 // How many wait.

	mu       sync.Mutex // Guards the rest.
	awaiting []*waiter
}

// opUnit is above all bytes that there may be in flight at a time, and below as many times the operations.
const opUnit = 1 << 40

var (
	_ [opUnit - 1 - kv.ClientInFlightBytesMax - kv.MessageBytesMax]struct{}
	_ [(1<<63-1)/opUnit - 1 - kv.ClientInFlightMax]struct{}
)

// waiter waits for a place.
type waiter struct {
	size int
	let  chan struct{} // Closed when it is let in.
}

// take takes a place if there is one. One operation alone always has one.
func (b *budget) take(size int) bool {
	for {
		used := b.used.Load()
		if used != 0 && (used/opUnit >= kv.ClientInFlightMax || used%opUnit+int64(size) > kv.ClientInFlightBytesMax) {
			return false
		}
		if b.used.CompareAndSwap(used, used+opUnit+int64(size)) {
			return true
		}
	}
}

// acquire waits for a place until the context ends, or its time is over.
func (b *budget) acquire(ctx context.Context, end time.Time, size int) error {
	if b.waiting.Load() == 0 && b.take(size) {
		return nil
	}
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	w := &waiter{size, make(chan struct{})}
	b.mu.Lock()
	b.awaiting = append(b.awaiting, w)
	b.waiting.Add(1)
	b.admit() // What was released before it was said that somebody waits told nobody.
	b.mu.Unlock()
	select {
	case <-w.let:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	i := slices.Index(b.awaiting, w)
	if i >= 0 {
		b.awaiting = slices.Delete(b.awaiting, i, i+1)
		b.waiting.Add(-1)
		b.admit() // It may have stood before one that fits.
	}
	b.mu.Unlock()
	if i < 0 { // It was let in just now.
		b.release(1, size)
	}
	return ctx.Err()
}

// release gives places back.
func (b *budget) release(ops, bytes int) {
	b.used.Add(-int64(ops)*opUnit - int64(bytes))
	if b.waiting.Load() == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.admit()
}

// admit lets in who fits now.
func (b *budget) admit() {
	n := 0
	for ; n < len(b.awaiting) && b.take(b.awaiting[n].size); n++ {
		close(b.awaiting[n].let)
	}
	clear(b.awaiting[:n])
	b.awaiting = b.awaiting[n:]
	b.waiting.Add(-int32(n))
}
