package main

import (
	"slices"
	"time"
)

const (
	// evenUpTo is what the busiest node may carry of the mean load.
	evenUpTo = 1.3
	// evenWithin is how soon it must stay at or below that after the hot spot has moved.
	evenWithin = 30 * time.Second
	// smooth is over how many seconds loads are taken together: what comes by chance, and a pause of a shared machine, is no
	// imbalance.
	smooth = 3
)

// gauge is what was seen of a phase, second by second.
type gauge struct {
	nodes   []uint64
	seconds []second
}

// ratio is what the busiest node carried in the last seconds, as a multiple of the mean. Without load it is 1.
func (g *gauge) ratio(at int) float64 {
	most, all := 0, 0
	for _, node := range g.nodes {
		n := 0
		for _, s := range g.seconds[max(0, at-smooth+1) : at+1] {
			n += s.served[node]
		}
		most, all = max(most, n), all+n
	}
	if all == 0 {
		return 1
	}
	return float64(most*len(g.nodes)) / float64(all)
}

// even gives the time until the load was shared out and stayed so, and whether it was at the end.
func (g *gauge) even() (after time.Duration, ok bool) {
	for at := len(g.seconds) - 1; at >= 0; at-- {
		if g.ratio(at) > evenUpTo {
			return time.Duration(at+1) * time.Second, at < len(g.seconds)-1
		}
	}
	return 0, true
}

// worst gives the highest ratio after a time.
func (g *gauge) worst(after time.Duration) float64 {
	worst := 1.0
	for at := int(after / time.Second); at < len(g.seconds); at++ {
		worst = max(worst, g.ratio(at))
	}
	return worst
}

// counts lists what the nodes served in a second, in their order.
func (g *gauge) counts(s second) (list []int) {
	for _, node := range g.nodes {
		list = append(list, s.served[node])
	}
	return list
}

// typical gives the median of a figure over all seconds.
func (g *gauge) typical(of func(s second) time.Duration) time.Duration {
	var list []time.Duration
	for _, s := range g.seconds {
		list = append(list, of(s))
	}
	if slices.Sort(list); len(list) == 0 {
		return 0
	}
	return list[len(list)/2]
}
