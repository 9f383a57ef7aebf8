package cluster

import (
	"maps"
	"sync"
	"time"
)

// Clients is the name of this program among the nodes: its clients are one end of a link too.
const Clients = "clients"

// Link is one direction between two nodes, or between a node and Clients.
type Link struct{ From, To string }

// Slowness is what a slow link does to the bytes on it.
type Slowness struct {
	// Delay holds everything back for so long, and Jitter for a drawn time up to so much longer. The order stays.
	Delay, Jitter time.Duration
	// BytesPerSecond bounds what goes through, 0 for no bound.
	BytesPerSecond int
}

// links is what is wrong with the links now.
type links struct {
	mu   sync.Mutex
	cut  map[Link]bool
	slow map[Link]Slowness
	// changed is closed with the next change.
	changed chan struct{}
}

func newLinks() *links { return &links{changed: make(chan struct{})} }

// look tells of one link, and gives a channel that is closed when that may have changed.
func (l *links) look(k Link) (cut bool, slow Slowness, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut[k], l.slow[k], l.changed
}

func (l *links) setCut(list []Link) {
	l.set(func() {
		l.cut = map[Link]bool{}
		for _, k := range list {
			l.cut[k] = true
		}
	})
}

func (l *links) setSlow(list map[Link]Slowness) { l.set(func() { l.slow = maps.Clone(list) }) }

func (l *links) set(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.changed)
	l.changed = make(chan struct{})
}

// Between gives the links from each of some to each of others, of one direction.
func Between(from, to []string) (list []Link) {
	for _, a := range from {
		for _, b := range to {
			if a != b {
				list = append(list, Link{a, b})
			}
		}
	}
	return list
}

// Apart gives the links between two groups, of both directions.
func Apart(a, b []string) []Link { return append(Between(a, b), Between(b, a)...) }
