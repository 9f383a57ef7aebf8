package check

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
)

// tail builds what one client does after everything else: each operation begins after the one before has returned.
type tail struct {
	moment int64
	// last is a value that was acknowledged at revision at; all later revisions are free.
	last string
	at   kv.Revision
}

func (e *tail) op(kind Kind, value string, above kv.Revision) Operation {
	e.moment += 10
	o := op(kind, value, e.moment, e.moment+5, e.at+above)
	if kind == Increment {
		o.Delta = 1000
	}
	return o
}

func (e *tail) missing(kind Kind) Operation {
	o := e.op(kind, "", 0)
	o.Found, o.Revision = false, 0
	return o
}

// faults are what a broken cluster might do, each beside what a whole one does.
var faults = []struct {
	name         string
	right, wrong func(e *tail) History
}{
	{
		"stale read",
		func(e *tail) History { return History{e.op(Put, "x", 1), e.op(Get, "x", 1)} },
		func(e *tail) History { return History{e.op(Put, "x", 1), e.op(Get, e.last, 0)} },
	},
	{
		"an acknowledged write is lost, and its revision given again",
		func(e *tail) History { return History{e.op(Put, "x", 1), e.op(Put, "y", 2)} },
		func(e *tail) History { return History{e.op(Put, "x", 1), e.op(Put, "y", 1)} },
	},
	{
		"a revision goes back at a write",
		func(e *tail) History { return History{e.op(Put, "x", 5), e.op(Put, "y", 6)} },
		func(e *tail) History { return History{e.op(Put, "x", 5), e.op(Put, "y", 4)} },
	},
	{
		"a revision goes back at a write after a delete",
		func(e *tail) History {
			return History{e.op(Put, "x", 1), e.op(Delete, "", 5), e.op(Put, "y", 6)}
		},
		func(e *tail) History {
			return History{e.op(Put, "x", 1), e.op(Delete, "", 5), e.op(Put, "y", 4)}
		},
	},
	{
		"an unwritten value is read",
		func(e *tail) History { return History{e.op(Put, "x", 1), e.op(Get, "x", 1)} },
		func(e *tail) History { return History{e.op(Put, "x", 1), e.op(Get, "never written", 2)} },
	},
	{
		"a write is carried out twice",
		func(e *tail) History {
			return History{e.op(Put, "x", 1), e.op(Put, "y", 2), e.op(Get, "y", 2)}
		},
		func(e *tail) History {
			return History{e.op(Put, "x", 1), e.op(Put, "y", 2), e.op(Get, "x", 3)}
		},
	},
	{
		"an unknown write is seen, then unseen",
		func(e *tail) History {
			return History{e.op(Put, "x", 0).unknown(), e.op(Get, e.last, 0), e.op(Get, "x", 1)}
		},
		func(e *tail) History {
			return History{e.op(Put, "x", 0).unknown(), e.op(Get, "x", 1), e.op(Get, e.last, 0)}
		},
	},
	{
		"an unknown write is carried out twice",
		func(e *tail) History {
			return History{e.op(Put, "x", 0).unknown(), e.op(Put, "y", 1), e.op(Get, "x", 2), e.op(Put, "z", 3)}
		},
		func(e *tail) History {
			return History{e.op(Put, "x", 0).unknown(), e.op(Get, "x", 1), e.op(Put, "y", 2), e.op(Get, "x", 3)}
		},
	},
	{
		"a time-out was told as a failure",
		func(e *tail) History { return History{e.op(Put, "x", 0).unknown(), e.op(Get, "x", 1)} },
		func(e *tail) History { return History{e.op(Put, "x", 0).notDone(), e.op(Get, "x", 1)} },
	},
	{
		"a conditional put was told as not done, and was",
		func(e *tail) History {
			return History{e.op(Put, "y", 1), e.op(CAS, "x", 0).expect(e.at + 1).unknown(), e.op(Get, "x", 2)}
		},
		func(e *tail) History {
			return History{e.op(Put, "y", 1), e.op(CAS, "x", 0).expect(e.at + 1).notDone(), e.op(Get, "x", 2)}
		},
	},
	{
		"a deleted value comes back",
		func(e *tail) History {
			return History{e.op(Put, "x", 1), e.op(Delete, "", 2), e.missing(Get)}
		},
		func(e *tail) History {
			return History{e.op(Put, "x", 1), e.op(Delete, "", 2), e.op(Get, "x", 1)}
		},
	},
	{
		"a deleted value comes back with a new revision",
		func(e *tail) History {
			return History{e.op(Put, "x", 1), e.op(Delete, "", 2), e.op(Put, "x", 3), e.op(Get, "x", 3)}
		},
		func(e *tail) History {
			return History{e.op(Put, "x", 1), e.op(Delete, "", 2), e.op(Get, "x", 3)}
		},
	},
	{
		"a conditional put succeeds on an old revision",
		func(e *tail) History {
			return History{e.op(Put, "x", 1), e.op(Put, "y", 2), e.op(CAS, "z", 3).expect(e.at + 2)}
		},
		func(e *tail) History {
			return History{e.op(Put, "x", 1), e.op(Put, "y", 2), e.op(CAS, "z", 3).expect(e.at + 1)}
		},
	},
	{
		"a conditional put fails on the expected revision",
		func(e *tail) History { return History{e.op(Put, "x", 1), e.op(CAS, "z", 1).expect(e.at).failed()} },
		func(e *tail) History { return History{e.op(Put, "x", 1), e.op(CAS, "z", 1).expect(e.at + 1).failed()} },
	},
	{
		"two conditional puts succeed on one revision",
		func(e *tail) History {
			return History{e.op(Put, "x", 1), e.op(CAS, "y", 2).expect(e.at + 1), e.op(CAS, "z", 2).expect(e.at + 1).failed()}
		},
		func(e *tail) History {
			return History{e.op(Put, "x", 1), e.op(CAS, "y", 2).expect(e.at + 1), e.op(CAS, "z", 3).expect(e.at + 1)}
		},
	},
	{
		"one revision with two values",
		func(e *tail) History { return History{e.op(Put, "x", 1), e.op(Get, "x", 1), e.op(Get, "x", 1)} },
		func(e *tail) History { return History{e.op(Put, "x", 1), e.op(Get, "x", 1), e.op(Get, "y", 1)} },
	},
	{
		"an increment counts twice",
		func(e *tail) History {
			return History{e.op(Put, "5", 1), e.op(Increment, "1005", 2), e.op(Get, "1005", 2)}
		},
		func(e *tail) History {
			return History{e.op(Put, "5", 1), e.op(Increment, "1005", 2), e.op(Get, "2005", 3)}
		},
	},
	{
		"an increment is lost under another",
		func(e *tail) History {
			return History{e.op(Put, "5", 1), e.op(Increment, "1005", 2), e.op(Increment, "2005", 3)}
		},
		func(e *tail) History {
			return History{e.op(Put, "5", 1), e.op(Increment, "1005", 2), e.op(Increment, "1005", 3)}
		},
	},
	{
		"an unknown increment counts twice",
		func(e *tail) History {
			return History{e.op(Put, "5", 1), e.op(Increment, "", 0).unknown(), e.op(Get, "1005", 2)}
		},
		func(e *tail) History {
			return History{e.op(Put, "5", 1), e.op(Increment, "", 0).unknown(), e.op(Get, "1005", 2), e.op(Get, "2005", 3)}
		},
	},
}

// TestOneFault: after a long correct history, with unknown operations that may still happen, one fault is noticed, and
// what a whole cluster does instead is not.
func TestOneFault(t *testing.T) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			for seed := range uint64(12) {
				c := newCluster(seed, Get, Put, CAS, Delete)
				c.lossOneIn = 3 + int(seed%6)
				h := c.run("k", 5, 80)
				moment := h.end() + 1
				c.revision++
				settled := op(Put, "settled", moment, moment+1, c.revision)
				h = append(h, settled)
				build := func(make func(*tail) History) History {
					return slices.Concat(h, make(&tail{moment + 10, settled.Value, settled.Revision}))
				}
				require.Empty(t, Linearizable(build(f.right), patience), "seed %d", seed)
				wrong := build(f.wrong)
				found := Linearizable(wrong, patience)
				require.Len(t, found, 1, "seed %d", seed)
				require.Equal(t, NotLinearizable, found[0].Rule)
				require.Greater(t, found[0].Operations[0].Call, moment, "the wrong operation is blamed: %v", found[0])
			}
		})
	}
}
