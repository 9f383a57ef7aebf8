package check

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func txn(call, ret int64, ops ...ListOp) ListTxn {
	return ListTxn{Process: int(call), Call: call, Return: ret, Outcome: Done, Ops: ops}
}

func (t ListTxn) end(o Outcome) ListTxn {
	t.Outcome = o
	for i := range t.Ops {
		t.Ops[i].List = nil
	}
	return t
}

func app(key string, element int64) ListOp      { return ListOp{Append: true, Key: key, Element: element} }
func read(key string, elements ...int64) ListOp { return ListOp{Key: key, List: elements} }

func TestAppends(t *testing.T) {
	for _, c := range []struct {
		name string
		txns []ListTxn
		want Rule
	}{
		{"nothing", nil, ""},
		{"one after another", []ListTxn{txn(1, 2, app("x", 1)), txn(3, 4, read("x", 1), app("x", 2)), txn(5, 6, read("x", 1, 2))}, ""},
		{"its own appends", []ListTxn{txn(1, 2, app("x", 1), read("x", 1), app("x", 2), read("x", 1, 2))}, ""},
		{"lost", []ListTxn{txn(1, 2, app("x", 1)), txn(3, 4, read("x"))}, AppendLost},
		{"lost under another", []ListTxn{txn(1, 2, app("x", 1)), txn(3, 4, app("x", 2)), txn(5, 6, read("x", 2))}, AppendLost},
		{"an unknown one is seen, then not", []ListTxn{txn(1, 2, app("x", 1)).end(Unknown), txn(3, 4, read("x", 1)), txn(5, 6, read("x"))}, AppendLost},
		{"unknown, and seen late", []ListTxn{txn(1, 2, app("x", 1)).end(Unknown), txn(3, 4, read("x")), txn(5, 6, read("x", 1))}, ""},
		{"doubled", []ListTxn{txn(1, 2, app("x", 1)), txn(3, 4, read("x", 1, 1))}, AppendDoubled},
		{"an unknown one is doubled", []ListTxn{txn(1, 2, app("x", 1)).end(Unknown), txn(1, 2, app("x", 2)), txn(3, 4, read("x", 1, 2, 1))}, AppendDoubled},
		{"made up", []ListTxn{txn(1, 2, app("x", 1)), txn(3, 4, read("x", 1, 7))}, PhantomWrite},
		{"of the future", []ListTxn{txn(1, 2, read("x", 1)), txn(3, 4, app("x", 1))}, PhantomWrite},
		{"in two orders", []ListTxn{txn(1, 9, app("x", 1)), txn(1, 9, app("x", 2)), txn(1, 9, read("x", 1, 2)), txn(1, 9, read("x", 2, 1))}, ListsDiverge},
		{"its own append is not there", []ListTxn{txn(1, 2, app("x", 1), read("x"))}, OwnAppendUnseen},
		{"its own append is not last", []ListTxn{txn(1, 9, app("x", 1), read("x", 1, 2)), txn(1, 9, app("x", 2))}, OwnAppendUnseen},
		{"read twice, changed in between", []ListTxn{txn(1, 9, read("x"), read("x", 2)), txn(1, 9, app("x", 2))}, OwnAppendUnseen},
		{"G0", []ListTxn{
			txn(1, 9, app("x", 1), app("y", 1)), txn(1, 9, app("x", 2), app("y", 2)),
			txn(10, 11, read("x", 1, 2)), txn(10, 11, read("y", 2, 1)),
		}, WriteCycle},
		{"G0 in one list", []ListTxn{txn(1, 9, app("x", 1), app("x", 3)), txn(1, 9, app("x", 2)), txn(10, 11, read("x", 1, 2, 3))}, WriteCycle},
		{"G1a", []ListTxn{txn(1, 2, app("x", 1)).end(NotDone), txn(3, 4, read("x", 1))}, AbortedRead},
		{"G1b", []ListTxn{txn(1, 9, app("x", 1), app("x", 2)), txn(1, 9, read("x", 1))}, IntermediateRead},
		{"all of it", []ListTxn{txn(1, 9, app("x", 1), app("x", 2)), txn(1, 9, read("x", 1, 2))}, ""},
		{"G1c", []ListTxn{txn(1, 9, app("x", 1), read("y", 1)), txn(1, 9, app("y", 1), read("x", 1))}, InformationCycle},
		{"G1c of three", []ListTxn{
			txn(1, 9, app("x", 1), read("z", 1)), txn(1, 9, app("y", 1), read("x", 1)), txn(1, 9, app("z", 1), read("y", 1)),
		}, InformationCycle},
		{"G2, one read that is out of date", []ListTxn{
			txn(1, 9, read("x"), app("y", 1)), txn(1, 9, app("x", 1), app("y", 2)), txn(10, 11, read("x", 1)), txn(10, 11, read("y", 2, 1)),
		}, AntiDependencyCycle},
		{"G2, write skew", []ListTxn{txn(1, 9, read("x"), app("y", 1)), txn(1, 9, read("y"), app("x", 1)), txn(10, 11, read("x", 1), read("y", 1))}, AntiDependencyCycle},
		{"G2, nobody read what was written", []ListTxn{txn(1, 9, read("x"), app("y", 1)), txn(1, 9, read("y"), app("x", 1))}, AntiDependencyCycle},
		{"half of a transaction", []ListTxn{txn(1, 9, app("x", 1), app("y", 1)), txn(1, 9, read("x", 1), read("y"))}, AntiDependencyCycle},
		{"half of an unknown one", []ListTxn{txn(1, 2, app("x", 1), app("y", 1)).end(Unknown), txn(3, 9, read("x", 1), read("y"))}, AntiDependencyCycle},
		{"out of date by real time only", []ListTxn{
			txn(1, 9, app("x", 1)), txn(1, 9, app("y", 1)), txn(1, 2, read("x", 1), read("y")), txn(3, 4, read("y", 1)), txn(5, 6, read("y", 1), read("x", 1)),
		}, ""},
		{"two orders of what is under way", []ListTxn{
			txn(1, 9, app("x", 1)), txn(1, 9, app("y", 1)), txn(2, 3, read("x", 1), read("y")), txn(2, 3, read("x"), read("y", 1)),
		}, AntiDependencyCycle},
		{"reads in an order that real time forbids", []ListTxn{
			txn(1, 20, app("x", 1)), txn(1, 20, app("y", 1), read("x", 1)), txn(2, 3, read("y", 1)), txn(4, 5, read("x")),
		}, RealTimeCycle},
		{"an element that is appended twice", []ListTxn{txn(1, 2, app("x", 1)), txn(1, 2, app("x", 1))}, BadHistory},
		{"an end before the beginning", []ListTxn{txn(3, 2, app("x", 1))}, BadHistory},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := Appends(c.txns)
			if c.want == "" {
				require.Empty(t, found)
				return
			}
			require.NotEmpty(t, found)
			require.Equal(t, c.want, found[0].Rule, "%v", found)
		})
	}
}

// TestCircleIsToldWhole: a transaction that appends twice in a row does not come before itself.
func TestCircleIsToldWhole(t *testing.T) {
	found := Appends([]ListTxn{
		txn(1, 9, app("x", 1), app("x", 2), app("y", 1)), txn(2, 9, app("x", 3), app("y", 2)), txn(10, 11, read("x", 1, 2, 3)), txn(10, 11, read("y", 2, 1)),
	})
	require.Len(t, found, 1)
	require.Equal(t, WriteCycle, found[0].Rule)
	require.Contains(t, found[0].Text, "process 1: append x 1 append x 2 append y 1  -- ww x")
	require.Contains(t, found[0].Text, "process 2: append x 3 append y 2  -- ww y")
}

// lists makes a correct history of transactions on lists.
func lists(seed uint64, keys, txns int) []ListTxn {
	rng := rand.New(rand.NewPCG(seed, 3))
	store := map[string][]int64{}
	var all moments
	out := make([]ListTxn, txns)
	for i := range out {
		t := &out[i]
		*t = ListTxn{Process: i, Call: int64(i)*100 + rng.Int64N(400), Outcome: Done}
		effect := t.Call + rng.Int64N(400)
		t.Return = effect + rng.Int64N(400)
		for n := range 1 + rng.IntN(4) {
			key := fmt.Sprint("k", rng.IntN(keys))
			if rng.IntN(2) == 0 {
				t.Ops = append(t.Ops, app(key, int64(10*i+n)))
			} else {
				t.Ops = append(t.Ops, read(key))
			}
		}
		happens := true
		switch rng.IntN(8) {
		case 0:
			t.Outcome, happens = NotDone, false
		case 1, 2:
			t.Outcome, happens = Unknown, rng.IntN(2) == 0
			effect += rng.Int64N(3000)
		}
		if !happens {
			continue
		}
		all.add(effect, func() {
			for n := range t.Ops {
				o := &t.Ops[n]
				if o.Append {
					store[o.Key] = append(store[o.Key], o.Element)
				} else if t.Outcome == Done {
					o.List = slices.Clone(store[o.Key])
				}
			}
		})
	}
	all.run()
	end := ListTxn{Process: txns, Call: 1 << 40, Return: 1 << 41, Outcome: Done}
	for key := range keys {
		end.Ops = append(end.Ops, read(fmt.Sprint("k", key), store[fmt.Sprint("k", key)]...))
	}
	return append(out, end)
}

func TestAppendsHold(t *testing.T) {
	for seed := range uint64(300) {
		require.Empty(t, Appends(lists(seed, 1+int(seed%6), 80)), "seed %d", seed)
	}
}

// TestAppendsOneFault: after a correct history, what a fault does to its end is noticed: an acknowledged element vanishes
// from the last reads, or a read in the middle is of an earlier moment than it may be.
func TestAppendsOneFault(t *testing.T) {
	noticed := 0
	for seed := range uint64(100) {
		h := lists(seed, 2, 80)
		rng := rand.New(rand.NewPCG(seed, 4))
		var reads []*ListOp
		for i := range h {
			for n := range h[i].Ops {
				if o := &h[i].Ops[n]; h[i].Outcome == Done && !o.Append && len(o.List) > 1 {
					reads = append(reads, o)
				}
			}
		}
		o := reads[rng.IntN(len(reads))]
		at := rng.IntN(len(o.List) - 1)
		o.List = slices.Delete(slices.Clone(o.List), at, at+1)
		if len(Appends(h)) > 0 {
			noticed++
		}
	}
	require.Equal(t, 100, noticed, "an element within a list does not vanish unnoticed")
}

func TestListsAsJSON(t *testing.T) {
	text := `[["append","x",3],["r","x",[1,3]],["r","y",null]]`
	var ops []ListOp
	require.NoError(t, json.Unmarshal([]byte(text), &ops))
	require.Equal(t, []ListOp{app("x", 3), read("x", 1, 3), read("y")}, ops)
	again, err := json.Marshal(ops)
	require.NoError(t, err)
	require.Equal(t, text, string(again))
	for _, bad := range []string{`[["append","x"]]`, `[["w","x",1]]`, `[["append","x","y"]]`, `[["r",1,null]]`, `[3]`} {
		require.Error(t, json.Unmarshal([]byte(bad), &ops), bad)
	}
}

func TestListTxnsOf(t *testing.T) {
	event := func(p int, kind EventType, at int64, value string) Event {
		return Event{Index: int(at), Process: p, Type: kind, F: TxnName, Time: at, Value: []byte(value)}
	}
	calls, err := Calls([]Event{
		event(0, Invoked, 1, `{"due":1,"txn":[["append","x",1],["r","x",null]]}`), event(0, OK, 2, `[["append","x",1],["r","x",[1]]]`),
		event(1, Invoked, 3, `{"txn":[["r","x",null]]}`), event(1, Failed, 4, `null`), event(2, Invoked, 5, `{"txn":[["append","x",2]]}`),
	})
	require.NoError(t, err)
	txns, err := ListTxnsOf(calls)
	require.NoError(t, err)
	require.Equal(t, []ListTxn{
		{Process: 0, Ops: []ListOp{app("x", 1), read("x", 1)}, Call: 1, Return: 2, Outcome: Done},
		{Process: 1, Ops: []ListOp{read("x")}, Call: 3, Return: 4, Outcome: NotDone},
		{Process: 2, Ops: []ListOp{app("x", 2)}, Call: 5, Outcome: Unknown},
	}, txns)
	calls[0].Done.Value = []byte(`[["append","x",9],["r","x",[1]]]`)
	_, err = ListTxnsOf(calls)
	require.ErrorContains(t, err, "event 2: txn: the steps that were asked for")
}
