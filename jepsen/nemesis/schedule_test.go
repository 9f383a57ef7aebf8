package nemesis

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/jepsen/cluster"
)

var some = []string{"kill", "pause", "partition", "partition:ring", "split"}

// TestSchedule: equal seeds give equal schedules and others others; no fault is forgotten or favoured, none outlasts the run,
// and there is quiet between any two rounds.
func TestSchedule(t *testing.T) {
	const length = 5 * time.Minute
	for seed := range uint64(50) {
		rounds := Schedule(seed, some, length, Calm)
		require.Equal(t, rounds, Schedule(seed, some, length, Calm))
		require.NotEqual(t, rounds, Schedule(seed+1, some, length, Calm))
		counts := map[string]int{}
		free := Calm.QuietMin
		for _, r := range rounds {
			require.GreaterOrEqual(t, r.At, free)
			free = r.At + r.lasts() + Calm.QuietMin
			seen := map[string]bool{}
			for i, s := range r.Steps {
				require.True(t, s.After < staggerMax && (s.After == 0) == (i == 0))
				require.Equal(t, counts[s.Fault], s.Turn)
				require.False(t, seen[s.Fault])
				require.True(t, s.Lasts >= Calm.LastMin && s.Lasts < Calm.LastMax)
				seen[s.Fault] = true
				counts[s.Fault]++
			}
			require.False(t, seen["partition"] && seen["partition:ring"], "two partitions at a time")
		}
		require.LessOrEqual(t, free-Calm.QuietMin, length)
		var times []int
		for _, f := range some {
			times = append(times, counts[f])
		}
		require.LessOrEqual(t, slices.Max(times)-slices.Min(times), 2, "%v", counts)
		require.Greater(t, slices.Min(times), 10)
	}
	require.Empty(t, Schedule(1, nil, length, Calm))
	require.Empty(t, Schedule(1, some, time.Second, Calm))
}

func TestParse(t *testing.T) {
	require.NoError(t, Parse(some, 3))
	require.NoError(t, Parse(nil, 1))
	require.ErrorContains(t, Parse([]string{"kill", "meteor"}, 3), `one is "meteor"`)
	require.ErrorContains(t, Parse([]string{"kill", "kill"}, 3), "kill is there twice")
	require.ErrorContains(t, Parse([]string{"partition"}, 2), "partition needs 3")
}

// TestShapes: in a ring each node reaches a majority, itself included, and not all; otherwise there is a majority whose
// members all reach each other, and somebody who is apart.
func TestShapes(t *testing.T) {
	for nodes := 3; nodes <= 9; nodes++ {
		for _, shape := range shapes {
			for seed := range uint64(20) {
				names := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i"}[:nodes]
				lone, links := cut(shape, slices.Clone(names), []string{"b", "c"}, "b", rand.New(rand.NewPCG(seed, 0)))
				reach := func(a, b string) bool {
					return !slices.Contains(links, cluster.Link{From: a, To: b}) && !slices.Contains(links, cluster.Link{From: b, To: a})
				}
				apart := 0
				for _, a := range names {
					n := 0
					for _, b := range names {
						if reach(a, b) {
							n++
						}
					}
					if n < nodes {
						apart++
					}
					if shape == "halves" && nodes%2 == 0 {
						continue // Neither is a majority.
					}
					if shape == "ring" || !slices.Contains(lone, a) {
						require.Greater(t, n, nodes/2, "%s of %d: %v", shape, nodes, links)
					}
				}
				require.Positive(t, apart, "%s of %d", shape, nodes)
				require.Less(t, len(lone), nodes/2+1)
				if shape == "meta" {
					require.Equal(t, []string{"b"}, lone)
				}
				if shape == "leaders" && nodes >= 5 {
					require.Equal(t, []string{"b", "c"}, lone)
				}
				if shape == "one-way" {
					for _, k := range links {
						require.NotContains(t, links, cluster.Link{From: k.To, To: k.From})
					}
				}
			}
		}
	}
}

// TestNeeds: faults get the nodes and the replicas that the most demanding of them needs.
func TestNeeds(t *testing.T) {
	require.Equal(t, 5, NeedsNodes([]string{"kill", overwriting, "partition"}))
	require.Equal(t, 5, NeedsReplicas([]string{"kill", overwriting}))
	require.Zero(t, NeedsReplicas([]string{"kill", silenced}))
	require.Zero(t, NeedsNodes(nil))
}
