package node

import (
	"sync"
	"sync/atomic"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// inbox gathers what the next turn takes in. Envelopes are bounded here, submissions before.
type inbox struct {
	mu    sync.Mutex
	in    Input // Without submissions.
	bytes int   // Of envelopes.
	wake  chan struct{}
	// newest is the last of the submissions. Hundreds of callers submit at a time: behind a lock they would stand in a
	// convoy, each woken for a moment's work.
	newest atomic.Pointer[waiting]
}

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

// add changes the input of the next turn, and wakes the loop.
func (b *inbox) add(f func(in *Input)) {
	b.mu.Lock()
	f(&b.in)
	b.mu.Unlock()
	b.signal()
}

func (b *inbox) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// submit adds a submission. Only the first since the last turn needs to wake the loop.
func (b *inbox) submit(w *waiting) {
	for {
		before := b.newest.Load()
		w.before, w.number = before, 1
		if before != nil {
			w.number = before.number + 1
		}
		if b.newest.CompareAndSwap(before, w) {
			if before == nil {
				b.signal()
			}
			return
		}
	}
}

// submitted is how many submissions wait, and whether the newest is a call's.
func (b *inbox) submitted() (number int, called bool) {
	if w := b.newest.Load(); w != nil {
		return w.number, w.called
	}
	return 0, false
}

// envelope adds what a neighbour said, unless too much waits already.
func (b *inbox) envelope(e *kvdv1.Envelope) bool {
	size := e.SizeVT()
	b.mu.Lock()
	fits := b.bytes+size <= kv.InboxBytesMax
	if fits {
		b.bytes += size
		b.in.Envelopes = append(b.in.Envelopes, e)
	}
	b.mu.Unlock()
	b.signal()
	return fits
}

func (b *inbox) take() Input {
	b.mu.Lock()
	in := b.in
	b.in, b.bytes = Input{}, 0
	b.mu.Unlock()
	in.Submissions = submissions(b.newest.Swap(nil))
	return in
}

// submissions lists those that came since the last turn, in the order in which they came.
func submissions(newest *waiting) []Submission {
	count := 0
	for w := newest; w != nil; w = w.before {
		count++
	}
	if count == 0 {
		return nil
	}
	list := make([]Submission, count)
	for w := newest; w != nil; {
		count--
		list[count] = Submission{Shard: w.view.shard, Command: w.command, Bytes: int(w.size), Waiter: w}
		w, w.before, w.command = w.before, nil, nil
	}
	return list
}
