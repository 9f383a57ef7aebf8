package check

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
)

// patience bounds searches that are expected to end.
const patience = time.Minute

// op builds operations for tables: op(Put, "a", 1, 2) is a put of "a" between moments 1 and 2.
func op(kind Kind, value string, call, ret int64, revision kv.Revision) Operation {
	o := Operation{Process: int(call), Kind: kind, Key: "k", Call: call, Return: ret, Outcome: Done, Revision: revision}
	switch kind {
	case Get:
		o.Observed, o.Found = value, value != ""
	case Delete:
		o.Found = true
	case CAS:
		o.Value, o.Succeeded = value, true
	case Increment:
		o.Observed, o.Delta = value, 1
	default:
		o.Value = value
	}
	return o
}

func (o Operation) unknown() Operation {
	o.Outcome, o.Found, o.Succeeded, o.Observed, o.Revision = Unknown, false, false, "", 0
	return o
}

func (o Operation) notDone() Operation {
	o = o.unknown()
	o.Outcome = NotDone
	return o
}

func (o Operation) expect(revision kv.Revision) Operation {
	o.Expect = revision
	return o
}

func (o Operation) failed() Operation {
	o.Succeeded = false
	return o
}

func TestLinearizable(t *testing.T) {
	missing := op(Delete, "", 3, 4, 0)
	missing.Found = false
	for _, c := range []struct {
		name string
		h    History
		ok   bool
	}{
		{"empty", nil, true},
		{"read what was written", History{op(Put, "a", 1, 2, 1), op(Get, "a", 3, 4, 1)}, true},
		{"stale read", History{op(Put, "a", 1, 2, 1), op(Put, "b", 3, 4, 2), op(Get, "a", 5, 6, 1)}, false},
		{"old value while the write is under way", History{op(Put, "a", 1, 2, 1), op(Put, "b", 3, 9, 2), op(Get, "a", 4, 5, 1)}, true},
		{"new value, then the old one", History{op(Put, "a", 1, 2, 1), op(Put, "b", 3, 9, 2), op(Get, "b", 4, 5, 2), op(Get, "a", 6, 7, 1)}, false},
		{"lost write", History{op(Put, "a", 1, 2, 1), op(Get, "", 3, 4, 0)}, false},
		{"read from the future", History{op(Get, "a", 1, 2, 1), op(Put, "a", 3, 4, 1)}, false},
		{"a refused write is read", History{op(Put, "a", 1, 2, 0).notDone(), op(Get, "a", 3, 4, 1)}, false},
		{"an unknown write is read", History{op(Put, "a", 1, 2, 0).unknown(), op(Get, "a", 3, 4, 1)}, true},
		{"an unknown write is read late", History{op(Put, "a", 1, 2, 0).unknown(), op(Get, "", 3, 4, 0), op(Get, "a", 5, 6, 1)}, true},
		{"an unknown write is read before its call", History{op(Get, "a", 1, 2, 1), op(Put, "a", 3, 4, 0).unknown()}, false},
		{"an unknown write comes and goes", History{op(Put, "a", 1, 2, 0).unknown(), op(Put, "b", 3, 4, 5), op(Get, "a", 5, 6, 2)}, false},
		{"an unknown write goes in twice", History{op(Put, "a", 1, 2, 0).unknown(), op(Put, "b", 3, 4, 2), op(Get, "a", 5, 6, 3), op(Put, "c", 7, 8, 4), op(Get, "a", 9, 10, 5)}, false},
		{"right value, wrong revision", History{op(Put, "a", 1, 2, 1), op(Get, "a", 3, 4, 2)}, false},
		{"one value, two revisions of an unknown write", History{op(Put, "a", 1, 2, 0).unknown(), op(Get, "a", 3, 4, 2), op(Get, "a", 5, 6, 3)}, false},
		{"without revisions", History{op(Put, "a", 1, 2, 0), op(Put, "b", 3, 4, 0), op(Get, "b", 5, 6, 0)}, true},
		{"without revisions, stale", History{op(Put, "a", 1, 2, 0), op(Put, "b", 3, 4, 0), op(Get, "a", 5, 6, 0)}, false},
		{"deleted", History{op(Put, "a", 1, 2, 1), op(Delete, "", 3, 4, 2), op(Get, "", 5, 6, 0)}, true},
		{"back from the dead", History{op(Put, "a", 1, 2, 1), op(Delete, "", 3, 4, 2), op(Get, "a", 5, 6, 1)}, false},
		{"deleted by an unknown delete", History{op(Put, "a", 1, 2, 1), op(Delete, "", 3, 4, 0).unknown(), op(Get, "", 5, 6, 0)}, true},
		{"deleted by nobody", History{op(Put, "a", 1, 2, 1), missing}, false},
		{"a delete meets an unknown write that nobody read", History{op(Put, "a", 1, 2, 0).unknown(), op(Delete, "", 3, 4, 7)}, true},
		{"a delete meets nothing", History{op(Delete, "", 3, 4, 7)}, false},
		{"two deletes meet one unknown write", History{op(Put, "a", 1, 2, 0).unknown(), op(Delete, "", 3, 4, 7), op(Delete, "", 5, 6, 8)}, false},
		{"two deletes meet two unknown writes", History{op(Put, "a", 1, 2, 0).unknown(), op(Put, "b", 1, 2, 0).unknown(), op(Delete, "", 3, 4, 7), op(Delete, "", 5, 6, 9)}, true},
		{"conditional put", History{op(Put, "a", 1, 2, 1), op(CAS, "b", 3, 4, 2).expect(1), op(Get, "b", 5, 6, 2)}, true},
		{"conditional put on an old revision", History{op(Put, "a", 1, 2, 1), op(Put, "b", 3, 4, 2), op(CAS, "c", 5, 6, 3).expect(1)}, false},
		{"two winners", History{op(Put, "a", 1, 2, 1), op(CAS, "b", 3, 9, 2).expect(1), op(CAS, "c", 3, 9, 3).expect(1)}, false},
		{"winner and loser", History{op(Put, "a", 1, 2, 1), op(CAS, "b", 3, 9, 2).expect(1), op(CAS, "c", 3, 9, 2).expect(1).failed()}, true},
		{"it failed on the expected revision", History{op(Put, "a", 1, 2, 1), op(CAS, "b", 3, 4, 1).expect(1).failed()}, false},
		{"if absent, and it is", History{op(CAS, "a", 1, 2, 1)}, true},
		{"if absent, and it is not", History{op(Put, "a", 1, 2, 1), op(CAS, "b", 3, 4, 2)}, false},
		{"if absent fails on an absent key", History{op(CAS, "a", 1, 2, 0).failed()}, false},
		{"it failed on an unknown write", History{op(Put, "a", 1, 2, 0).unknown(), op(CAS, "b", 3, 4, 2).failed()}, true},
		{"it succeeded on an unknown write", History{op(Put, "a", 1, 2, 0).unknown(), op(CAS, "b", 3, 4, 3).expect(2)}, true},
		{"unknown conditional put, read", History{op(Put, "a", 1, 2, 1), op(CAS, "b", 3, 4, 0).expect(1).unknown(), op(Get, "b", 5, 6, 2)}, true},
		{"unknown conditional put on an old revision, read", History{op(Put, "a", 1, 2, 1), op(Put, "c", 3, 4, 2), op(CAS, "b", 5, 6, 0).expect(1).unknown(), op(Get, "b", 7, 8, 3)}, false},
		{"conditional delete", History{op(Put, "a", 1, 2, 1), op(Delete, "", 3, 4, 2).expect(1), op(Get, "", 5, 6, 0)}, true},
		{"conditional delete on an old revision", History{op(Put, "a", 1, 2, 1), op(Put, "b", 3, 4, 2), op(Delete, "", 5, 6, 3).expect(1)}, false},
		{"unknown conditional delete", History{op(Put, "a", 1, 2, 1), op(Delete, "", 3, 4, 0).expect(1).unknown(), op(Get, "", 5, 6, 0)}, true},
		{"unknown conditional delete on an old revision", History{op(Put, "a", 1, 2, 1), op(Put, "b", 3, 4, 2), op(Delete, "", 5, 6, 0).expect(1).unknown(), op(Get, "", 7, 8, 0)}, false},
		{"cleared", History{op(Put, "a", 1, 2, 1), op(Clear, "", 3, 4, 2), op(Get, "", 5, 6, 0)}, true},
		{"cleared, and there", History{op(Put, "a", 1, 2, 1), op(Clear, "", 3, 4, 2), op(Get, "a", 5, 6, 1)}, false},
		{"a clear of nothing", History{op(Clear, "", 1, 2, 3), op(Put, "a", 3, 4, 4)}, true},
		{"a clear of nothing at a later revision", History{op(Clear, "", 1, 2, 5), op(Put, "a", 3, 4, 4)}, false},
		{"counting", History{op(Increment, "1", 1, 5, 1), op(Increment, "2", 1, 5, 2), op(Get, "2", 6, 7, 2)}, true},
		{"counted once for two", History{op(Increment, "1", 1, 5, 1), op(Increment, "1", 1, 5, 2)}, false},
		{"counted twice", History{op(Increment, "1", 1, 2, 1), op(Get, "2", 3, 4, 2)}, false},
		{"an unknown increment counts", History{op(Increment, "1", 1, 2, 1), op(Increment, "", 3, 4, 0).unknown(), op(Get, "2", 5, 6, 2)}, true},
		{"an unknown increment counts twice", History{op(Increment, "", 1, 2, 0).unknown(), op(Get, "1", 3, 4, 1), op(Get, "2", 5, 6, 2)}, false},
		{"an increment of what is no number", History{op(Put, "x", 1, 2, 1), op(Increment, "1", 3, 4, 2)}, false},
		{"an increment that overflows", History{op(Put, strconv.Itoa(math.MaxInt64), 1, 2, 1), op(Increment, strconv.Itoa(math.MinInt64), 3, 4, 2)}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := Linearizable(c.h, patience)
			if c.ok {
				require.Empty(t, found)
				return
			}
			require.Len(t, found, 1)
			require.Equal(t, NotLinearizable, found[0].Rule)
			require.NotEmpty(t, found[0].Operations)
		})
	}
}

// TestExplanation: the violation names the operation that made the history impossible.
func TestExplanation(t *testing.T) {
	h := newCluster(1, Get, Put).run("k", 4, 100)
	last := h[len(h)-1].Call + 10_000
	wrong := op(Get, "never written", last, last+1, 1)
	h = append(h, wrong, op(Get, "nor this", last+2, last+3, 1))
	found := Linearizable(h, patience)
	require.Len(t, found, 1)
	require.Equal(t, wrong, found[0].Operations[0])
	require.LessOrEqual(t, len(found[0].Operations), 1+overlapsShown+earlierShown)
	require.Contains(t, found[0].Error(), `get k -> "never written" @1`)
}

func TestLinearizableByKey(t *testing.T) {
	c := newCluster(2, Get, Put, CAS, Delete)
	h := slices.Concat(c.run("a", 3, 50), c.run("b", 3, 50), c.run("c", 3, 50))
	require.Empty(t, Linearizable(h, patience))
	wrong := op(Get, "?", 1, 2, 99)
	wrong.Key = "b"
	found := Linearizable(append(h, wrong), patience)
	require.Len(t, found, 1)
	require.Equal(t, "b", found[0].Key)
}

// TestTimeOut: no answer in time is a violation. The search that ran out of time is over a wrong history whose
// unknown writes are all read and all alike.
func TestTimeOut(t *testing.T) {
	found := Linearizable(hard(24), time.Nanosecond)
	require.Len(t, found, 1)
	require.Equal(t, TimedOut, found[0].Rule)
}

// TestHardKeyLeavesTime: a key whose search does not end takes nothing from the others, nor does the explanation of a wrong one; and one that
// needs less than a third of the time has it, whatever is beside it.
func TestHardKeyLeavesTime(t *testing.T) {
	of := func(key string, list ...Operation) (h History) {
		for _, o := range list {
			o.Key = key
			h = append(h, o)
		}
		return h
	}
	wrong := of("b", op(Get, "?", 1, 2, 99))
	rules := func(h History, timeout time.Duration) (rules []string) {
		for _, v := range Linearizable(h, timeout) {
			rules = append(rules, fmt.Sprintf("%s: %s", v.Key, v.Rule))
		}
		return rules
	}
	require.Equal(t, []string{"b: " + string(NotLinearizable), "a: " + string(TimedOut)}, rules(slices.Concat(of("a", hard(24)...), wrong), time.Second))

	middling := of("a", hard(8)...)
	began := time.Now()
	require.Equal(t, porcupine.Illegal, newSearch(Bounds{}, 0).order(middling.byKey()[0].ops, 0))
	needs := max(time.Since(began), 200*time.Millisecond) // What is beside it may be slow for a moment.
	require.ElementsMatch(t, []string{"a: " + string(NotLinearizable), "b: " + string(NotLinearizable)}, rules(slices.Concat(middling, wrong), 8*needs))
}

func hard(n int) History {
	var h History
	for i := range n {
		h = append(h, op(Put, "v"+strconv.Itoa(i%3), 1, 2, 0).unknown(), op(Get, "v"+strconv.Itoa(i%3), int64(10+i), 1000, 0))
	}
	return append(h, op(Get, "w", 2000, 2001, 0))
}

// TestAgainstAllOrders compares with a search through all orders that knows none of the shortcuts, over small
// correct and spoiled histories.
func TestAgainstAllOrders(t *testing.T) {
	kinds := [][]Kind{{Get, Put}, {Get, Put, Delete}, {Get, Put, CAS}, {Get, Put, CAS, Delete}, {Get, Increment}, {Get, Put, CAS, Delete, Increment}, {Get, Put, Clear}, {Get, Put, CAS, Delete, Clear}}
	var right, wrong int
	for seed := range uint64(12_000) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		c := newCluster(seed, kinds[rnd.IntN(len(kinds))]...)
		c.lossOneIn, c.manyValues = 2+rnd.IntN(3), rnd.IntN(2) == 0
		h := c.run("k", 3, 3+rnd.IntN(5))
		if rnd.IntN(5) == 0 && !slices.Contains(c.kinds, CAS) {
			for i := range h {
				h[i].Revision = 0
			}
		}
		story := "as recorded"
		if rnd.IntN(3) != 0 {
			story = spoil(rnd, h)
		}
		if h.Validate() != nil {
			continue
		}
		want := anyOrder(h)
		if want {
			right++
		} else {
			wrong++
		}
		if story == "as recorded" {
			require.True(t, want, "seed %d: the reference refuses a correct history:\n%s", seed, show(h))
		}
		found := Linearizable(h, patience)
		require.Equal(t, want, len(found) == 0, "seed %d, %s:\n%s", seed, story, show(h))
	}
	require.Greater(t, right, 5000)
	require.Greater(t, wrong, 800)
}

func show(h History) string {
	var s string
	for i := range h {
		s += h[i].String() + "\n"
	}
	return s
}

// anyOrder reports whether some order of all done and some unknown operations explains the answers. Revisions of
// unknown writes are tried out.
func anyOrder(h History) bool {
	var left []*Operation
	revisions := map[kv.Revision]bool{}
	for i := range h {
		if h[i].Outcome != NotDone && (h[i].Outcome == Done || h[i].Kind != Get) {
			left = append(left, &h[i])
		}
		revisions[h[i].Revision*scale] = true
		revisions[h[i].Expect*scale] = true
	}
	delete(revisions, 0)
	return tryOrders(left, nil, 0, revisions)
}

// scale makes room between revisions for those of unknown writes.
const scale = 1000

func tryOrders(left []*Operation, now *Final, lowest kv.Revision, revisions map[kv.Revision]bool) bool {
	done := func(o *Operation) bool { return o.Outcome == Done }
	if !slices.ContainsFunc(left, done) {
		return true
	}
	for i, o := range left {
		before := func(p *Operation) bool { return p != o && p.Outcome == Done && p.Return < o.Call }
		if slices.ContainsFunc(left, before) {
			continue
		}
		rest := slices.Delete(slices.Clone(left), i, i+1)
		next := func(value *Final, lowest kv.Revision) bool { return tryOrders(rest, value, lowest, revisions) }
		if o.Outcome == Done && explains(o, now, lowest, revisions, next) || o.Outcome == Unknown && guess(o, now, lowest, revisions, next) {
			return true
		}
	}
	return false
}

// explains applies a done operation to what is there, if the answer fits.
func explains(o *Operation, now *Final, lowest kv.Revision, revisions map[kv.Revision]bool, next func(*Final, kv.Revision) bool) bool {
	told := o.Revision * scale
	met := now != nil && (told == 0 || told == now.Revision)
	write := func(value string) bool {
		if told == 0 {
			return anyRevision(value, lowest, revisions, next)
		}
		return told > lowest && next(&Final{Value: value, Revision: told}, told)
	}
	held := o.Expect == 0 && now == nil || o.Expect != 0 && now != nil && now.Revision == o.Expect*scale
	switch {
	case o.Kind == Get && !o.Found:
		return now == nil && next(now, lowest)
	case o.Kind == Get:
		return met && o.Observed == now.Value && next(now, lowest)
	case o.Kind == Put:
		return write(o.Value)
	case o.Kind == CAS && o.Succeeded:
		return held && write(o.Value)
	case o.Kind == CAS:
		return !held && (told == 0) == (now == nil) && (told == 0 || met) && next(now, lowest)
	case o.Kind == Clear:
		return (told == 0 || told > lowest) && next(nil, max(told, lowest))
	case o.Kind == Delete && !o.Found:
		return now == nil && next(now, lowest)
	case o.Kind == Delete:
		at := max(told, lowest)
		if told != 0 && told <= lowest {
			return false
		}
		return now != nil && (o.Expect == 0 || held) && next(nil, at)
	}
	n, err := number(now)
	return err == nil && (o.Observed == "" || strconv.FormatInt(n+o.Delta, 10) == o.Observed) && write(strconv.FormatInt(n+o.Delta, 10))
}

func number(now *Final) (int64, error) {
	if now == nil {
		return 0, nil
	}
	return strconv.ParseInt(now.Value, 10, 64)
}

// guess applies an unknown operation.
func guess(o *Operation, now *Final, lowest kv.Revision, revisions map[kv.Revision]bool, next func(*Final, kv.Revision) bool) bool {
	value := o.Value
	switch o.Kind {
	case Clear:
		return next(nil, lowest)
	case Delete:
		if o.Expect != 0 && (now == nil || now.Revision != o.Expect*scale) {
			return next(now, lowest)
		}
		return next(nil, lowest)
	case CAS:
		if held := o.Expect == 0 && now == nil || o.Expect != 0 && now != nil && now.Revision == o.Expect*scale; !held {
			return next(now, lowest)
		}
	case Increment:
		n, err := number(now)
		if err != nil {
			return next(now, lowest)
		}
		value = strconv.FormatInt(n+o.Delta, 10)
	}
	return anyRevision(value, lowest, revisions, next)
}

// anyRevision tries a write at every revision that could matter.
func anyRevision(value string, lowest kv.Revision, revisions map[kv.Revision]bool, next func(*Final, kv.Revision) bool) bool {
	if next(&Final{Value: value, Revision: lowest + 1}, lowest+1) {
		return true
	}
	for at := range revisions {
		if at > lowest && next(&Final{Value: value, Revision: at}, at) {
			return true
		}
	}
	return false
}

func BenchmarkLinearizable(b *testing.B) {
	for _, kinds := range [][]Kind{{Get, Put}, {Get, Put, CAS, Delete}, {Get, Increment}} {
		b.Run(fmt.Sprint(kinds), func(b *testing.B) {
			var histories []History
			for seed := range uint64(20) {
				histories = append(histories, newCluster(seed, kinds...).run("k", 10, 200))
			}
			for b.Loop() {
				for _, h := range histories {
					if found := Linearizable(h, patience); len(found) > 0 {
						b.Fatal(found[0])
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(histories)), "µs/history")
		})
	}
}
