package client

import (
	"context"
	"slices"
	"sync"

	"github.com/kvdstore/kvd/kv"
)

// budget bounds the operations of a client's pipelines that have no answer yet, and their bytes: while a shard has no
// leader its operations are kept for another try, and a count alone would let them grow to gigabytes. Who waits is let in
// in the order of asking, so that a large operation is not passed by small ones for ever.
type budget struct {
	mu       sync.Mutex
	ops      int
	bytes    int
	awaiting []*waiter
}

// waiter waits for a place.
type waiter struct {
	size int
	let  chan struct{} // Closed when it is let in.
}

// fits tells whether an operation may be let in. One alone always may.
func (b *budget) fits(size int) bool {
	return b.ops == 0 || b.ops < kv.ClientInFlightMax && b.bytes+size <= kv.ClientInFlightBytesMax
}

func (b *budget) take(size int) {
	b.ops++
	b.bytes += size
}

// acquire waits for a place until the context ends.
func (b *budget) acquire(ctx context.Context, size int) error {
	b.mu.Lock()
	if len(b.awaiting) == 0 && b.fits(size) {
		b.take(size)
		b.mu.Unlock()
		return nil
	}
	w := &waiter{size, make(chan struct{})}
	b.awaiting = append(b.awaiting, w)
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
		b.admit() // It may have stood before one that fits.
	}
	b.mu.Unlock()
	if i < 0 { // It was let in just now.
		b.release(size)
	}
	return ctx.Err()
}

// release gives a place back.
func (b *budget) release(size int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ops--
	b.bytes -= size
	b.admit()
}

// admit lets in who fits now.
func (b *budget) admit() {
	n := 0
	for ; n < len(b.awaiting) && b.fits(b.awaiting[n].size); n++ {
		b.take(b.awaiting[n].size)
		close(b.awaiting[n].let)
	}
	clear(b.awaiting[:n])
	b.awaiting = b.awaiting[n:]
}
