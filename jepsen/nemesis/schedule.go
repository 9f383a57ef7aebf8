package nemesis

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/kvdstore/kvd/kv"
)

const (
	// staggerMax bounds by how much the faults of a round begin after each other: what one does may be needed for another to tell.
	staggerMax = 1500 * time.Millisecond
	// widthMax bounds the faults of a round; of many there are one more in each, so that a minute has them all.
	widthMax, many = 3, 8
)

// Pace is how fast rounds follow each other.
type Pace struct {
	// A fault lasts from LastMin to LastMax, and between two rounds there is quiet from QuietMin to QuietMax.
	LastMin, LastMax, QuietMin, QuietMax time.Duration
}

// Calm lets clients come to rest between two rounds; Hasty is for who looks for something.
var (
	Calm  = Pace{2 * time.Second, 5 * time.Second, 2 * time.Second, 3 * time.Second}
	Hasty = Pace{time.Second, 3 * time.Second, 700 * time.Millisecond, 1500 * time.Millisecond}
)

// Round is some faults at about the same time.
type Round struct {
	// At is since the beginning of the run; a round waits for the end of the one before, and a quiet time.
	At    time.Duration
	Steps []Step
}

// Step is one fault.
type Step struct {
	Fault string
	// After the round's beginning it begins; 0 for the first.
	After time.Duration
	// Lasts is how long it lasts, if it does not end by itself.
	Lasts time.Duration
	// Draw is the seed of all that is drawn for it, and Turn counts the faults of this name before it.
	Draw uint64
	Turn int
}

// Schedule draws the rounds of a run from a seed: each fault comes as often as any other, give or take one. A fault that is
// named alone has every round for itself. A round that would not be over by the end of the run is left out.
func Schedule(seed uint64, faults []string, length time.Duration, pace Pace) []Round {
	if len(faults) == 0 {
		return nil
	}
	rng := rand.New(rand.NewPCG(seed, 0x6e656d65736973))
	between := func(low, high time.Duration) time.Duration { return low + time.Duration(rng.Int64N(int64(high-low))) }
	var rounds []Round
	var deck []string
	turns := map[string]int{}
	for at := between(pace.QuietMin, pace.QuietMax); ; {
		r := Round{At: at}
		width := 1 + rng.IntN(min(widthMax, len(faults)))
		if len(faults) > many {
			width++
		}
		for len(r.Steps) < width {
			if len(deck) == 0 {
				deck = slices.Clone(faults)
				rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
			}
			i := slices.IndexFunc(deck, func(f string) bool { return !r.has(f) })
			if i < 0 {
				break // All that are left of this deck are in the round.
			}
			f := deck[i]
			deck = slices.Delete(deck, i, i+1)
			s := Step{Fault: f, Lasts: between(pace.LastMin, pace.LastMax), Draw: rng.Uint64(), Turn: turns[f]}
			if len(r.Steps) > 0 {
				s.After = between(0, staggerMax)
			}
			r.Steps = append(r.Steps, s)
			turns[f]++
		}
		at += r.lasts()
		if at > length {
			return rounds
		}
		rounds = append(rounds, r)
		at += between(pace.QuietMin, pace.QuietMax)
	}
}

// has tells whether a fault of that family is in the round: two partitions at a time are one.
func (r *Round) has(fault string) bool {
	family := func(f string) string {
		name, _, _ := strings.Cut(f, ":")
		return name
	}
	return slices.ContainsFunc(r.Steps, func(s Step) bool { return family(s.Fault) == family(fault) })
}

// lasts is how long a round takes if nothing in it takes longer.
func (r *Round) lasts() (most time.Duration) {
	for _, s := range r.Steps {
		most = max(most, s.After+s.Lasts)
	}
	return most
}

// Names lists the faults that there are, those that need a build of kvd for tests last.
func Names() []string {
	var names []string
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return names
}

// Parse checks names of faults against those that there are and the number of nodes; an error names the one that is wrong.
func Parse(names []string, nodes int) error {
	for i, name := range names {
		k, known := find(name)
		switch {
		case !known:
			return &kv.InvalidError{Field: "faults", Bound: fmt.Sprintf("of %s; one is %q", strings.Join(Names(), ", "), name)}
		case slices.Contains(names[:i], name):
			return &kv.InvalidError{Field: "faults", Bound: fmt.Sprintf("each once; %s is there twice", name)}
		case nodes < k.nodesMin:
			return &kv.InvalidError{Field: "faults", Bound: fmt.Sprintf("such as %d nodes can have: %s needs %d", nodes, name, k.nodesMin)}
		}
	}
	return nil
}

// NeedsTestBuild tells whether one of the faults needs a kvd that was built with the tag kvdtest.
func NeedsTestBuild(names []string) bool {
	return anyOf(names, func(k kind) bool { return k.testBuild })
}

// NeedsNodes tells how many nodes faults need.
func NeedsNodes(names []string) (most int) {
	for _, name := range names {
		k, _ := find(name)
		most = max(most, k.nodesMin)
	}
	return most
}

// NeedsReplicas tells how many replicas of each shard faults need; 0 if it is all the same to them.
func NeedsReplicas(names []string) (most int) {
	for _, name := range names {
		k, _ := find(name)
		most = max(most, k.replicas)
	}
	return most
}

// NeedsProxy tells whether one of the faults needs the cluster's proxy.
func NeedsProxy(names []string) bool { return anyOf(names, func(k kind) bool { return k.proxied }) }

func anyOf(names []string, is func(k kind) bool) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		k, _ := find(name)
		return is(k)
	})
}
