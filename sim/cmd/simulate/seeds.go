package main

import (
	"context"
	"math"
	"sync"
)

// seeds hands out seeds, each once, in their order, until its context or their number ends.
type seeds struct {
	handing context.Context
	stop    context.CancelFunc

	mu   sync.Mutex
	next uint64
	left uint64 // MaxUint64 for no bound.
}

// newSeeds begins at a seed; number is how many there are, 0 for no bound.
func newSeeds(ctx context.Context, from, number uint64) *seeds {
	s := &seeds{next: from, left: number}
	if number == 0 {
		s.left = math.MaxUint64
	}
	s.handing, s.stop = context.WithCancel(ctx)
	return s
}

// take gives the next seed, if there is one.
func (s *seeds) take() (seed uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left == 0 || s.handing.Err() != nil {
		return 0, false
	}
	seed = s.next
	s.next++
	if s.left != math.MaxUint64 {
		s.left--
	}
	if s.next == 0 { // That was the last that there is.
		s.left = 0
	}
	return seed, true
}
