package check

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
)

func TestScans(t *testing.T) {
	on := func(key string, o Operation) Operation {
		o.Key = key
		return o
	}
	a, b, c := on("a", op(Put, "1", 1, 2, 1)), on("b", op(Put, "2", 1, 2, 2)), on("c", op(Put, "3", 1, 2, 3))
	there := History{a, b, c}
	item := func(key, value string, revision kv.Revision) ScanItem { return ScanItem{key, value, revision} }
	x, y, z := item("a", "1", 1), item("b", "2", 2), item("c", "3", 3)
	scan := func(items ...ScanItem) Scan { return Scan{From: "a", To: "d", Call: 10, Return: 20, Items: items} }
	limited := func(n int, items ...ScanItem) Scan {
		s := scan(items...)
		s.Limit = n
		return s
	}
	keysOnly := scan(item("a", "", 1), item("b", "", 2), item("c", "", 3))
	keysOnly.KeysOnly = true
	early := scan(x, y)
	early.Return = 9
	open := scan(x, y, z)
	open.To = ""
	for _, c := range []struct {
		name  string
		h     History
		scans []Scan
		want  Rule
	}{
		{"all", there, []Scan{scan(x, y, z), open, keysOnly}, ""},
		{"nothing", nil, []Scan{scan()}, ""},
		{"the first ones", there, []Scan{limited(2, x, y), limited(4, x, y, z), limited(3, x, y, z)}, ""},
		{"one is missing", there, []Scan{scan(x, z)}, MissingInScan},
		{"the last is missing", there, []Scan{scan(x, y)}, MissingInScan},
		{"one is missing before the limit", there, []Scan{limited(2, x, z)}, MissingInScan},
		{"fewer than the limit", there, []Scan{limited(3, x, y)}, MissingInScan},
		{"one is given twice", there, []Scan{scan(x, y, y, z)}, RepeatedInScan},
		{"one is given again later", there, []Scan{scan(x, y, z, x)}, RepeatedInScan},
		{"out of order", there, []Scan{scan(x, z, y)}, UnorderedScan},
		{"above the limit", there, []Scan{limited(2, x, y, z)}, ScanOutside},
		{"before the span", there, []Scan{{From: "b", Call: 10, Return: 20, Items: []ScanItem{x, y, z}}}, ScanOutside},
		{"after the span", there, []Scan{{From: "a", To: "c", Call: 10, Return: 20, Items: []ScanItem{x, y, z}}}, ScanOutside},
		{"a key that nobody wrote", there[:2], []Scan{scan(x, y, z)}, PhantomWrite},
		{"a value that nobody wrote", there, []Scan{scan(x, y, item("c", "4", 3))}, PhantomWrite},
		{"a key that was refused", History{a, b, c.notDone()}, []Scan{scan(x, y, z)}, PhantomWrite},
		{"a key of the future", History{a, b, on("c", op(Put, "3", 30, 40, 3))}, []Scan{scan(x, y, z)}, PhantomWrite},
		{"written meanwhile", History{a, b, on("c", op(Put, "3", 15, 40, 3))}, []Scan{scan(x, y, z), scan(x, y)}, ""},
		{"an unknown write", History{a, b, c.unknown()}, []Scan{scan(x, y, z), scan(x, y)}, ""},
		{"an unknown write was seen, then not", History{a, b, c.unknown(), on("c", op(Get, "3", 3, 4, 3))}, []Scan{scan(x, y)}, MissingInScan},
		{"one scan shows what another lacks", History{a, b, c.unknown()}, []Scan{{From: "a", Call: 1, Return: 9, Items: []ScanItem{x, y, z}}, scan(x, y)}, MissingInScan},
		{"deleted", append(there, on("c", op(Delete, "", 5, 6, 4))), []Scan{scan(x, y)}, ""},
		{"deleted meanwhile", append(there, on("c", op(Delete, "", 15, 30, 4))), []Scan{scan(x, y), scan(x, y, z)}, ""},
		{"perhaps deleted", append(there, on("c", op(Delete, "", 3, 4, 0).unknown())), []Scan{scan(x, y), scan(x, y, z)}, ""},
		{"deleted afterwards", append(there, on("c", op(Delete, "", 21, 30, 4))), []Scan{scan(x, y)}, MissingInScan},
		{"deleted, and written again", append(there, on("c", op(Delete, "", 3, 4, 4)), on("c", op(Put, "5", 5, 6, 5))), []Scan{scan(x, y)}, MissingInScan},
		{"written again by the revisions", append(there, on("c", op(Delete, "", 3, 6, 4)), on("c", op(Put, "5", 3, 6, 5))), []Scan{scan(x, y)}, MissingInScan},
		{"deleted last by the revisions", append(there, on("c", op(Delete, "", 3, 6, 5)), on("c", op(Put, "5", 3, 6, 4))), []Scan{scan(x, y)}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := Scans(c.h, c.scans)
			if c.want == "" {
				require.Empty(t, found)
				return
			}
			require.NotEmpty(t, found)
			require.Equal(t, c.want, found[0].Rule, "%v", found)
		})
	}
}

func TestScanned(t *testing.T) {
	h := History{op(Put, "x", 1, 2, 1)}
	s := Scan{From: "a", Call: 3, Return: 4, Items: []ScanItem{{Key: "k", Revision: 1}}, KeysOnly: true}
	read := Operation{Process: 2, Kind: Get, Key: "k", Call: 3, Return: 4, Outcome: Done, Found: true, Observed: "x", Revision: 1}
	require.Equal(t, append(h, read), Scanned(h, []Scan{s}), "the value is known from the write")
	s.Items[0].Revision = 2
	require.Equal(t, h, Scanned(h, []Scan{s}), "it is not known")
	s.Items = nil
	read.Found, read.Observed, read.Revision = false, "", 0
	require.Equal(t, append(h, read), Scanned(h, []Scan{s}), "it was not there")
	require.NotEmpty(t, Linearizable(Scanned(h, []Scan{s}), patience))
}

// moments are what happens in a model cluster, each at its moment.
type moments []struct {
	at int64
	f  func()
}

func (m *moments) add(at int64, f func()) {
	*m = append(*m, struct {
		at int64
		f  func()
	}{at, f})
}

func (m moments) run() {
	slices.SortStableFunc(m, func(a, b struct {
		at int64
		f  func()
	},
	) int {
		return cmp.Compare(a.at, b.at)
	})
	for _, x := range m {
		x.f()
	}
}

// manyKeys makes a correct history of puts, deletes and scans; each scan sees each key at a moment of its own, in order.
func manyKeys(seed uint64) (History, []Scan) {
	const keys, operations, span = 12, 150, 10_000
	rng := rand.New(rand.NewPCG(seed, 7))
	store := map[string]ScanItem{}
	h, scans := make(History, operations), make([]Scan, 25)
	var all moments
	var revision kv.Revision
	name := func(i int) string { return fmt.Sprintf("k%02d", i) }
	for i := range h {
		o := &h[i]
		*o = Operation{Process: i, Kind: Put, Key: name(rng.IntN(keys)), Value: fmt.Sprint(i), Call: rng.Int64N(span), Outcome: Done}
		effect := o.Call + rng.Int64N(500)
		o.Return = effect + rng.Int64N(500)
		if rng.IntN(3) == 0 {
			o.Kind, o.Value = Delete, ""
		}
		happens := true
		switch rng.IntN(8) {
		case 0:
			o.Outcome, happens = NotDone, false
		case 1, 2:
			o.Outcome, happens = Unknown, rng.IntN(2) == 0
			effect += rng.Int64N(3000)
		}
		if !happens {
			continue
		}
		all.add(effect, func() {
			was, found := store[o.Key]
			if o.Kind == Delete && !found {
				return
			}
			revision++
			if o.Kind == Delete {
				delete(store, was.Key)
			} else {
				store[o.Key] = ScanItem{o.Key, o.Value, revision}
			}
			if o.Outcome == Done {
				o.Found, o.Revision = o.Kind == Delete, revision
			}
		})
	}
	for i := range scans {
		s := &scans[i]
		from, to := rng.IntN(keys), rng.IntN(keys)+1
		*s = Scan{Process: operations + i, From: name(from), To: name(to), Call: rng.Int64N(span), KeysOnly: rng.IntN(2) == 0}
		if rng.IntN(3) == 0 {
			s.Limit = 1 + rng.IntN(keys)
		}
		now := s.Call
		for k := from; k < to; k++ {
			now += rng.Int64N(100)
			all.add(now, func() {
				item, found := store[name(k)]
				if s.KeysOnly {
					item.Value = ""
				}
				if found && (s.Limit == 0 || len(s.Items) < s.Limit) {
					s.Items = append(s.Items, item)
				}
			})
		}
		s.Return = now + rng.Int64N(200)
	}
	all.run()
	return h, scans
}

// TestScansHold: no checker accuses a correct history.
func TestScansHold(t *testing.T) {
	for seed := range uint64(200) {
		h, scans := manyKeys(seed)
		require.Empty(t, Scans(h, scans), "seed %d", seed)
		read := Scanned(h, scans)
		require.Greater(t, len(read), len(h))
		require.Empty(t, Revisions(read), "seed %d", seed)
		require.Empty(t, Linearizable(read, patience), "seed %d", seed)
	}
}

// TestScanOfKeysTellsOfUnknownWrites: keys only, of a write whose value nobody was told, are shown at its revision: the key is
// there from then on, and not again at an older revision.
func TestScanOfKeysTellsOfUnknownWrites(t *testing.T) {
	insert := Operation{Process: 1, Kind: Put, Key: "k", Value: "a", Call: 1, Outcome: Unknown}
	put := Operation{Process: 2, Kind: Put, Key: "k", Value: "b", Call: 3, Return: 4, Outcome: Done, Revision: 7}
	remove := Operation{Process: 2, Kind: Delete, Key: "k", Call: 3, Return: 4, Outcome: Done, Found: true, Revision: 7}
	scan := func(call int64, items ...ScanItem) Scan {
		return Scan{Process: 3, From: "a", To: "z", KeysOnly: true, Call: call, Return: call + 1, Items: items}
	}
	at := func(revision kv.Revision) ScanItem { return ScanItem{Key: "k", Revision: revision} }
	for _, c := range []struct {
		name  string
		h     History
		scans []Scan
		rules []Rule
	}{
		{"seen, and there", History{insert}, []Scan{scan(5), scan(7, at(1)), scan(9, at(1))}, nil},
		{"seen, and missing", History{insert}, []Scan{scan(5, at(1)), scan(7)}, []Rule{MissingInScan}},
		{"seen while it is overwritten", History{insert, put}, []Scan{scan(2, at(1)), scan(3, at(1)), scan(5, at(7))}, nil},
		{"seen, and overwritten later", History{insert, put}, []Scan{scan(5, at(7)), scan(7, at(9))}, nil},
		{"back after another write", History{insert, put}, []Scan{scan(5, at(1))}, []Rule{RevisionWentBack}},
		{"back after it was removed", History{insert, remove}, []Scan{scan(5, at(1))}, []Rule{RevisionWentBack}},
		{"seen, and removed", History{insert, remove}, []Scan{scan(2, at(1)), scan(5)}, nil},
		{"seen at a revision, and at an older one", History{insert, {Process: 4, Kind: Put, Key: "k", Value: "c", Call: 1, Outcome: Unknown}}, []Scan{scan(5, at(9)), scan(7, at(8))}, []Rule{RevisionWentBack}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var rules []Rule
			for _, v := range Scans(c.h, c.scans) {
				rules = append(rules, v.Rule)
			}
			require.Equal(t, c.rules, rules)
		})
	}
}
