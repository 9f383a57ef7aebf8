package nemesis

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/kvdstore/kvd/jepsen/cluster"
)

// shapes of partitions; a fault "partition" takes one after the other.
var shapes = []string{"one", "halves", "ring", "one-way", "leaders", "meta"}

// partition cuts links between nodes. Clients keep theirs in one half of the cases; else they reach the majority only.
func partition(_ context.Context, n *Nemesis, s Step, rng *rand.Rand) (*act, error) {
	_, shape, given := strings.Cut(s.Fault, ":")
	if !given {
		shape = shapes[(s.Turn+int(s.Draw%2)*3)%len(shapes)]
	}
	var names []string
	for _, m := range n.Cluster.Members() {
		names = append(names, m.Name())
	}
	rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	lone, links := cut(shape, names, n.view.leaders(n.Span), n.view.meta(), rng)
	details := map[string]any{"shape": shape, "clients": "connected"}
	if len(lone) > 0 && rng.IntN(2) == 0 {
		details["clients"] = "cut off"
		links = append(links, cluster.Apart(lone, []string{cluster.Clients})...)
	}
	if err := n.Cluster.Cut(links); err != nil {
		return nil, err
	}
	return &act{nodes: lone, details: details, undo: func(context.Context) error { return n.Cluster.Cut(nil) }}, nil
}

// cut gives the links of a shape, and who is apart from the others; nobody in a ring. Names are in an order by chance.
func cut(shape string, names, leaders []string, meta string, rng *rand.Rand) (lone []string, links []cluster.Link) {
	minority := max(1, (len(names)-1)/2)
	first := func(wanted []string) {
		for i := len(wanted) - 1; i >= 0; i-- {
			if at := slices.Index(names, wanted[i]); at > 0 {
				names = slices.Concat(wanted[i:i+1], names[:at], names[at+1:])
			}
		}
	}
	switch shape {
	case "ring":
		return nil, ring(names)
	case "halves":
		lone = names[:len(names)/2]
	case "one-way":
		lone = names[:1+rng.IntN(minority)]
		if rng.IntN(2) == 0 {
			return lone, cluster.Between(lone, names[len(lone):])
		}
		return lone, cluster.Between(names[len(lone):], lone)
	case "leaders":
		first(leaders)
		lone = names[:min(minority, max(1, len(leaders)))]
		// Each by itself.
		for _, a := range lone {
			links = append(links, cluster.Apart([]string{a}, slices.DeleteFunc(slices.Clone(names), func(b string) bool { return a == b }))...)
		}
		return lone, unique(links)
	case "meta":
		first([]string{meta})
		lone = names[:1]
	default:
		lone = names[:1]
	}
	return lone, cluster.Apart(lone, names[len(lone):])
}

func unique(links []cluster.Link) (list []cluster.Link) {
	for _, k := range links {
		if !slices.Contains(list, k) {
			list = append(list, k)
		}
	}
	return list
}

// ring lets every node reach a majority, and no two the same: each reaches its neighbours in a circle. Three nodes are a
// chain.
func ring(names []string) (links []cluster.Link) {
	size := len(names)
	reach := max(1, (size/2+1)/2)
	for i := range names {
		for j := i + 1; j < size; j++ {
			if apart := min(j-i, size-(j-i)); apart > reach || size == 3 && i == 0 && j == 2 {
				links = append(links, cluster.Apart(names[i:i+1], names[j:j+1])...)
			}
		}
	}
	return links
}

// slow makes links slow: those of one node, or all, in both directions or in one.
func slow(_ context.Context, n *Nemesis, _ Step, rng *rand.Rand) (*act, error) {
	names := n.running(rng)
	if len(names) < 2 {
		return nil, errNobody
	}
	lone := names[:1]
	links := cluster.Apart(lone, names[1:])
	switch rng.IntN(3) {
	case 0:
		lone, links = names, cluster.Between(names, names)
	case 1:
		links = cluster.Between(lone, names[1:])
	}
	how := cluster.Slowness{Delay: time.Duration(10+rng.IntN(290)) * time.Millisecond}
	how.Jitter = time.Duration(rng.Int64N(int64(how.Delay)))
	if rng.IntN(3) == 0 {
		how.BytesPerSecond = 128<<10 + rng.IntN(1<<20)
	}
	all := map[cluster.Link]cluster.Slowness{}
	for _, k := range links {
		all[k] = how
	}
	n.Cluster.Slow(all)
	details := map[string]any{"links": len(links), "delay_ms": how.Delay.Milliseconds(), "jitter_ms": how.Jitter.Milliseconds(), "bytes_per_second": how.BytesPerSecond}
	return &act{nodes: lone, details: details, undo: func(context.Context) error {
		n.Cluster.Slow(nil)
		return nil
	}}, nil
}
