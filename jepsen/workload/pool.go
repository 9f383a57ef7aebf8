package workload

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/kv"
)

// buckets are what keys are spread over: two hexadecimal digits after the prefix.
const buckets = 256

// bucketed is the beginning of keys of bucket b.
func bucketed(prefix string, b int) string { return fmt.Sprintf("%s%02x/", prefix, b) }

// Cuts are keys at which to cut a cluster's shards so that a run's keys are spread evenly over that many, at most 256.
func Cuts(prefix string, shards int) []string {
	var cuts []string
	for i := 1; i < min(shards, buckets); i++ {
		cuts = append(cuts, fmt.Sprintf("%s%02x", prefix, i*buckets/min(shards, buckets)))
	}
	return cuts
}

// spread gives the n-th name under the prefix: any few that follow one another lie far apart.
func spread(prefix string, n int) string {
	const odd = 157 // Steps of about the golden ratio, and through all buckets.
	return fmt.Sprintf("%s%d", bucketed(prefix, n*odd%buckets), n)
}

// pool hands out names that are in use at the moment. A name has had its day after so many uses: the search for an
// order of operations is quick for some hundreds only.
type pool struct {
	prefix  string
	usesMax int

	mu    sync.Mutex
	slots []slot
	made  []string // All that there have been.
}

type slot struct {
	name string
	uses int
	// revision is what some process has seen last.
	revision kv.Revision
}

func newPool(prefix string, slots, usesMax int) *pool {
	p := &pool{prefix: prefix, usesMax: usesMax, slots: make([]slot, slots)}
	for i := range p.slots {
		p.renew(i)
	}
	return p
}

func (p *pool) renew(i int) {
	p.slots[i] = slot{name: spread(p.prefix, len(p.made))}
	p.made = append(p.made, p.slots[i].name)
}

// pick gives a name by chance, and the revision that was seen of it last.
func (p *pool) pick(rng *rand.Rand) (name string, revision kv.Revision) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := rng.IntN(len(p.slots))
	if p.slots[i].uses++; p.slots[i].uses > p.usesMax {
		p.renew(i)
		p.slots[i].uses = 1
	}
	return p.slots[i].name, p.slots[i].revision
}

// doubtUses is what an operation whose end is unknown counts for: it lengthens the search most.
const doubtUses = 10

// judge counts how an operation on a name has ended. A group that lies in two shards has its day sooner too.
func (p *pool) judge(name string, err error) {
	if errors.Is(err, client.ErrUnknown) || separated(err) {
		p.with(name, func(s *slot) { s.uses += doubtUses })
	}
}

// separated tells whether a transaction was refused because its keys lie in several shards.
func separated(err error) bool { return errors.As(err, new(*kv.CrossShardError)) }

// retire puts a name aside when it is picked next.
func (p *pool) retire(name string) {
	p.with(name, func(s *slot) { s.uses = p.usesMax })
}

// saw tells which revision a name was seen at.
func (p *pool) saw(name string, revision kv.Revision) {
	p.with(name, func(s *slot) { s.revision = max(s.revision, revision) })
}

func (p *pool) with(name string, f func(s *slot)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.slots {
		if p.slots[i].name == name {
			f(&p.slots[i])
		}
	}
}

// all gives every name that there has been.
func (p *pool) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.made[:len(p.made):len(p.made)]
}
