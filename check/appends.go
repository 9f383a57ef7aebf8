package check

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Appends judges transactions that append to lists and read them. A list tells of its own past: who read [1 2 3] knows who
// wrote before whom. So the order of the transactions can be read off the lists, and where it runs in a circle there was
// none (Kingsbury and Alvaro, "Elle", VLDB 2020; the rules bear Adya's names):
//
//   - WriteCycle: a circle of writes alone (ww: it appended right before the other);
//   - AbortedRead: something was read of a transaction that was not done;
//   - IntermediateRead: a list was read as a transaction had left it halfway;
//   - InformationCycle: a circle of writes, and of reads of what was written (wr);
//   - AntiDependencyCycle: a circle with at least one read of what another changed afterwards (rw);
//   - RealTimeCycle: one that closes only because a transaction had returned before another began.
//
// Besides, no list has an element twice, or one that nobody appended; all that was read of one list are beginnings of one
// another; what was acknowledged or seen is in every list that is read later; and a transaction sees its own appends.
//
// An unknown transaction may have happened: it has, if one of its elements was seen, and else nothing can come after it. All
// lists are empty at first.
func Appends(txns []ListTxn) []Violation {
	a := &appends{txns: txns, lists: map[string]*list{}}
	if bad := a.gather(); len(bad) > 0 {
		return bad
	}
	for _, key := range slices.Sorted(maps.Keys(a.lists)) {
		a.judge(key, a.lists[key])
	}
	a.intermediate()
	return append(a.found, a.circles()...)
}

// appends is a history of transactions on lists.
type appends struct {
	txns  []ListTxn
	lists map[string]*list
	found []Violation
}

// list is one key's.
type list struct {
	// writers are the transactions that append elements, by element; not all are done.
	writers map[int64]int
	// last tells of a transaction which element is the last that it appends.
	last  map[int]int64
	reads []listRead
	// order is the longest list that was read, if the others are its beginnings and nothing is wrong with it; ordered is
	// false otherwise.
	order   []int64
	ordered bool
}

// listRead is what one transaction saw of one list: before is without its own appends, all is with those that it read.
type listRead struct {
	txn         int
	before, all []int64
}

func (a *appends) list(key string) *list {
	l := a.lists[key]
	if l == nil {
		l = &list{writers: map[int64]int{}, last: map[int]int64{}}
		a.lists[key] = l
	}
	return l
}

// report notes a violation that some transactions show.
func (a *appends) report(rule Rule, key, text string, txns ...int) {
	for _, t := range txns {
		text += "\n  " + a.txns[t].String()
	}
	a.found = append(a.found, violation(rule, key, text))
}

// gather sorts what was done by lists.
func (a *appends) gather() (bad []Violation) {
	for i := range a.txns {
		t := &a.txns[i]
		if t.Outcome < Done || t.Outcome > Unknown || t.Outcome != Unknown && t.Return < t.Call {
			bad = append(bad, violation(BadHistory, "", "a transaction that ends before it begins, or not at all: "+t.String()))
		}
		for _, o := range t.Ops {
			l := a.list(o.Key)
			if !o.Append {
				continue
			}
			if _, again := l.writers[o.Element]; again {
				bad = append(bad, violation(BadHistory, o.Key, fmt.Sprintf("%d is appended twice: %v", o.Element, t)))
			}
			l.writers[o.Element], l.last[i] = i, o.Element
		}
	}
	for i := range a.txns {
		if a.txns[i].Outcome == Done {
			a.gatherReads(i)
		}
	}
	return bad
}

// gatherReads notes what a transaction saw, and judges whether it saw its own appends.
func (a *appends) gatherReads(txn int) {
	own := map[string][]int64{}
	seen := map[string]int{} // The place of its read among the list's.
	for _, o := range a.txns[txn].Ops {
		l := a.list(o.Key)
		if o.Append {
			own[o.Key] = append(own[o.Key], o.Element)
			continue
		}
		mine := own[o.Key]
		before := o.List[:max(0, len(o.List)-len(mine))]
		if !slices.Equal(o.List[len(before):], mine) {
			a.report(OwnAppendUnseen, o.Key, fmt.Sprintf("a transaction had appended %v and read %v", mine, o.List), txn)
			continue
		}
		at, again := seen[o.Key]
		switch {
		case !again:
			seen[o.Key] = len(l.reads)
			l.reads = append(l.reads, listRead{txn, before, o.List})
		case !slices.Equal(l.reads[at].before, before):
			a.report(OwnAppendUnseen, o.Key, "a transaction read a list twice, and others had changed it", txn)
		default:
			l.reads[at].all = o.List
		}
	}
}

// judge judges one list.
func (a *appends) judge(key string, l *list) {
	l.ordered = true
	longest := -1
	for i, r := range l.reads {
		if longest < 0 || len(r.all) > len(l.reads[longest].all) {
			longest = i
		}
		if !a.judgeElements(key, l, r) {
			l.ordered = false
		}
	}
	if longest < 0 {
		return
	}
	l.order = l.reads[longest].all
	for _, r := range l.reads {
		if l.ordered && !slices.Equal(r.all, l.order[:len(r.all)]) {
			l.ordered = false
			a.report(ListsDiverge, key, fmt.Sprintf("%v was read, and is no beginning of %v", r.all, l.order), r.txn, l.reads[longest].txn)
		}
	}
	a.judgeLost(key, l)
}

// judgeElements judges whether a list that was read has each element once, and only such as were appended.
func (a *appends) judgeElements(key string, l *list, r listRead) bool {
	good := true
	seen := map[int64]bool{}
	for _, e := range r.all {
		w, known := l.writers[e]
		text := fmt.Sprintf("%d is in %v", e, r.all)
		switch {
		case seen[e]:
			a.report(AppendDoubled, key, text+" more than once", r.txn)
		case !known:
			a.report(PhantomWrite, key, text+", and nobody appended it", r.txn)
		case a.txns[w].Outcome == NotDone:
			a.report(AbortedRead, key, text+", of a transaction that was not done", r.txn, w)
		case a.txns[w].Call > a.txns[r.txn].Return:
			a.report(PhantomWrite, key, text+", which was appended only later", r.txn, w)
		default:
			seen[e] = true
			continue
		}
		good, seen[e] = false, true
	}
	return good
}

// judgeLost looks for elements that a read lacks, although they were acknowledged, or seen, before it began.
func (a *appends) judgeLost(key string, l *list) {
	type proof struct {
		at  int64
		txn int
	}
	known := map[int64]proof{}
	note := func(e int64, txn int) {
		if t := &a.txns[txn]; t.Outcome == Done {
			if p, before := known[e]; !before || t.Return < p.at {
				known[e] = proof{t.Return, txn}
			}
		}
	}
	for e, w := range l.writers {
		note(e, w)
	}
	for _, r := range l.reads {
		for _, e := range r.all {
			note(e, r.txn)
		}
	}
	elements := slices.Sorted(maps.Keys(known))
	lost := map[int64]bool{}
	for _, r := range l.reads {
		has := map[int64]bool{}
		for _, e := range r.all {
			has[e] = true
		}
		for _, e := range elements {
			if p := known[e]; !has[e] && !lost[e] && p.at < a.txns[r.txn].Call {
				lost[e] = true
				a.report(AppendLost, key, fmt.Sprintf("%d is not in %v", e, r.all), r.txn, p.txn)
			}
		}
	}
}

// intermediate looks for lists as a transaction had left them halfway.
func (a *appends) intermediate() {
	for _, key := range slices.Sorted(maps.Keys(a.lists)) {
		l := a.lists[key]
		for _, r := range l.reads {
			if len(r.before) == 0 {
				continue
			}
			e := r.before[len(r.before)-1]
			if w, known := l.writers[e]; known && w != r.txn && l.last[w] != e {
				a.report(IntermediateRead, key, fmt.Sprintf("%v ends with %d, and the transaction that appended it appended %d too", r.before, e, l.last[w]), r.txn, w)
			}
		}
	}
}

// circles looks for circles in the order of the transactions, those of the fewest kinds first.
func (a *appends) circles() []Violation {
	g := newGraph(len(a.txns))
	for _, key := range slices.Sorted(maps.Keys(a.lists)) {
		if l := a.lists[key]; l.ordered {
			l.edges(g, key)
		}
	}
	a.realTime(g)
	var found []Violation
	reported := make([]bool, len(a.txns))
	for _, level := range []struct {
		rule  Rule
		kinds edgeKind
	}{
		{WriteCycle, edgeWW},
		{InformationCycle, edgeWW | edgeWR},
		{AntiDependencyCycle, edgeWW | edgeWR | edgeRW},
		{RealTimeCycle, edgeWW | edgeWR | edgeRW | edgeTime},
	} {
		for _, circle := range g.circles(level.kinds, reported) {
			key := ""
			for _, e := range circle {
				key = cmp.Or(key, e.key)
			}
			found = append(found, violation(level.rule, key, a.describe(circle)))
		}
	}
	return found
}

// describe tells a circle.
func (a *appends) describe(circle []edge) string {
	text := "each of these comes before the next, and the last before the first:"
	for i := 0; i < len(circle); i++ {
		if from := circle[i].from; from < len(a.txns) {
			text += "\n  " + a.txns[from].String() + circle[i].text()
		}
	}
	return text
}

// edges adds the order of the transactions that one list shows.
func (l *list) edges(g *graph, key string) {
	writer := func(i int) int { return l.writers[l.order[i]] }
	for i := 1; i < len(l.order); i++ {
		g.add(writer(i-1), writer(i), edgeWW, key)
	}
	// What was never seen came after everything that was, if it happened. Of what did not, nothing leads away.
	seen := map[int64]bool{}
	for _, e := range l.order {
		seen[e] = true
	}
	var unseen []int
	for _, e := range slices.Sorted(maps.Keys(l.writers)) {
		if !seen[e] {
			unseen = append(unseen, l.writers[e])
		}
	}
	if n := len(l.order); n > 0 {
		for _, w := range unseen {
			g.add(writer(n-1), w, edgeWW, key)
		}
	}
	for _, r := range l.reads {
		n := len(r.before)
		if n > 0 {
			g.add(writer(n-1), r.txn, edgeWR, key)
		}
		if n < len(l.order) {
			g.add(r.txn, writer(n), edgeRW, key)
			continue
		}
		for _, w := range unseen {
			g.add(r.txn, w, edgeRW, key)
		}
	}
}

// realTime adds that a transaction comes after all that had returned before it began: by way of nodes that stand for the
// returns, in their order.
func (a *appends) realTime(g *graph) {
	var returned []int
	for i := range a.txns {
		if a.txns[i].Outcome == Done {
			returned = append(returned, i)
		}
	}
	slices.SortStableFunc(returned, func(x, y int) int { return cmp.Compare(a.txns[x].Return, a.txns[y].Return) })
	first := g.grow(len(returned))
	for i, txn := range returned {
		g.add(txn, first+i, edgeTime, "")
		if i > 0 {
			g.add(first+i-1, first+i, edgeTime, "")
		}
	}
	for i := range a.txns {
		n, _ := slices.BinarySearchFunc(returned, a.txns[i].Call, func(x int, call int64) int { return cmp.Compare(a.txns[x].Return, call) })
		if n > 0 {
			g.add(first+n-1, i, edgeTime, "")
		}
	}
}
