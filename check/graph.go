package check

import (
	"fmt"
	"slices"

	"github.com/kvdstore/kvd/kv"
)

// edgeKind says why one node comes before another.
type edgeKind uint8

const (
	edgeWW   edgeKind = 1 << iota // The other wrote after it.
	edgeWR                        // The other read what it wrote.
	edgeRW                        // The other changed what it had read.
	edgeTime                      // It had returned when the other began.
)

var edgeNames = map[edgeKind]string{edgeWW: "ww", edgeWR: "wr", edgeRW: "rw", edgeTime: "real time"}

// edge says that from comes before to.
type edge struct {
	from, to int
	kind     edgeKind
	key      string // By which list; empty for real time.
}

func (e edge) text() string {
	if e.key == "" {
		return fmt.Sprintf("  -- %s", edgeNames[e.kind])
	}
	return fmt.Sprintf("  -- %s %s", edgeNames[e.kind], kv.FormatKey([]byte(e.key)))
}

// graph is an order of nodes, or would be one if it had no circles.
type graph struct {
	out [][]edge
}

func newGraph(nodes int) *graph { return &graph{make([][]edge, nodes)} }

// grow adds nodes, and gives the first.
func (g *graph) grow(nodes int) (first int) {
	first = len(g.out)
	g.out = append(g.out, make([][]edge, nodes)...)
	return first
}

// add adds an edge, unless a node would come before itself.
func (g *graph) add(from, to int, kind edgeKind, key string) {
	if from != to {
		g.out[from] = append(g.out[from], edge{from, to, kind, key})
	}
}

// circles gives a short circle, over edges of some kinds, from each component that has one and no node that was reported
// before; what it gives is reported then. Nodes past the end of reported do not count.
func (g *graph) circles(kinds edgeKind, reported []bool) [][]edge {
	var all [][]edge
	for _, component := range g.components(kinds) {
		old := slices.ContainsFunc(component, func(n int) bool { return n < len(reported) && reported[n] })
		if len(component) < 2 || old {
			continue
		}
		all = append(all, g.circle(component, kinds))
		for _, n := range component {
			if n < len(reported) {
				reported[n] = true
			}
		}
	}
	return all
}

// startsMax bounds the nodes of a component from which a short circle is looked for.
const startsMax = 64

// circle gives a short circle in a strongly connected component.
func (g *graph) circle(component []int, kinds edgeKind) (shortest []edge) {
	inside := map[int]bool{}
	for _, n := range component {
		inside[n] = true
	}
	slices.Sort(component)
	for _, start := range component[:min(len(component), startsMax)] {
		if c := g.around(start, inside, kinds); shortest == nil || len(c) < len(shortest) {
			shortest = c
		}
	}
	return shortest
}

// around gives a shortest circle through a node of a component.
func (g *graph) around(start int, inside map[int]bool, kinds edgeKind) []edge {
	came := map[int]edge{}
	for queue := []int{start}; len(queue) > 0; queue = queue[1:] {
		for _, e := range g.out[queue[0]] {
			if _, seen := came[e.to]; seen || e.kind&kinds == 0 || !inside[e.to] {
				continue
			}
			came[e.to] = e
			queue = append(queue, e.to)
		}
		if _, closed := came[start]; closed {
			break
		}
	}
	var back []edge
	for n := start; ; {
		e := came[n]
		back = append(back, e)
		if n = e.from; n == start {
			slices.Reverse(back)
			return back
		}
	}
}

// components gives the strongly connected components over edges of some kinds (Tarjan, with a stack of its own: a chain of
// transactions is as long as the run).
func (g *graph) components(kinds edgeKind) [][]int {
	const unseen = -1
	index, low := make([]int, len(g.out)), make([]int, len(g.out))
	for i := range index {
		index[i] = unseen
	}
	on := make([]bool, len(g.out))
	var stack []int
	var all [][]int
	type visit struct{ node, next int }
	count := 0
	for root := range g.out {
		if index[root] != unseen {
			continue
		}
		visits := []visit{{root, 0}}
		for len(visits) > 0 {
			v := &visits[len(visits)-1]
			if index[v.node] == unseen {
				index[v.node], low[v.node] = count, count
				count++
				stack, on[v.node] = append(stack, v.node), true
			}
			if v.next < len(g.out[v.node]) {
				e := g.out[v.node][v.next]
				v.next++
				switch {
				case e.kind&kinds == 0:
				case index[e.to] == unseen:
					visits = append(visits, visit{e.to, 0})
				case on[e.to]:
					low[v.node] = min(low[v.node], index[e.to])
				}
				continue
			}
			node := v.node
			visits = visits[:len(visits)-1]
			if len(visits) > 0 {
				parent := visits[len(visits)-1].node
				low[parent] = min(low[parent], low[node])
			}
			if low[node] != index[node] {
				continue
			}
			at := len(stack) - 1
			for stack[at] != node {
				at--
			}
			component := slices.Clone(stack[at:])
			stack = stack[:at]
			for _, n := range component {
				on[n] = false
			}
			all = append(all, component)
		}
	}
	return all
}
