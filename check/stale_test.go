package check

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEventual(t *testing.T) {
	a, b := op(Put, "a", 1, 2, 1), op(Put, "b", 3, 4, 2)
	for _, c := range []struct {
		name string
		h    History
		read Operation
		want Rule
		age  time.Duration
	}{
		{"the latest", History{a, b}, op(Get, "b", 5, 6, 2), "", 0},
		{"an old one", History{a, b}, op(Get, "a", 9, 10, 1), "", 5},
		{"none", History{a, b}, op(Get, "", 9, 10, 0), "", 7},
		{"none, early", History{a, b}, op(Get, "", 1, 10, 0), "", 0},
		{"old while the write is under way", History{a, op(Put, "b", 3, 9, 2)}, op(Get, "a", 8, 10, 1), "", 0},
		{"the second of two that came later counts if it was first", History{a, op(Put, "b", 3, 8, 2), op(Put, "c", 3, 4, 3)}, op(Get, "a", 9, 10, 1), "", 5},
		{"an unknown write", History{a, b.unknown()}, op(Get, "b", 5, 6, 2), "", 0},
		{"an unknown write is no reason to be old", History{a, b.unknown()}, op(Get, "a", 5, 6, 1), "", 0},
		{"nobody wrote it", History{a, b}, op(Get, "c", 5, 6, 2), PhantomWrite, 0},
		{"of another key", nil, op(Get, "c", 5, 6, 2), PhantomWrite, 0},
		{"it was refused", History{a, b.notDone()}, op(Get, "b", 5, 6, 2), PhantomWrite, 0},
		{"its condition was not met", History{a, op(CAS, "b", 3, 4, 1).expect(9).failed()}, op(Get, "b", 5, 6, 2), PhantomWrite, 0},
		{"of the future", History{a, b}, op(Get, "b", 1, 2, 2), FutureRead, 0},
		{"at another revision", History{a, b}, op(Get, "b", 5, 6, 3), ValueChanged, 0},
		{"an unknown one at another's revision", History{a, b.unknown()}, op(Get, "b", 5, 6, 1), ValueChanged, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, ages := Eventual(c.h, []Operation{c.read})
			if c.want == "" {
				require.Empty(t, found)
				require.Equal(t, []Age{{c.read.Call, c.age}}, ages)
				return
			}
			require.Len(t, found, 1)
			require.Equal(t, c.want, found[0].Rule)
		})
	}
	found, _ := Eventual(History{{}}, nil)
	require.Equal(t, BadHistory, found[0].Rule)
}

// TestEventualHolds: what a linearizable read may see, an eventual one may see too, and at any later time.
func TestEventualHolds(t *testing.T) {
	for seed := range uint64(200) {
		c := newCluster(seed, Get, Put, CAS)
		c.lossOneIn = 2 + int(seed%6)
		h := c.run("k", 5, 100)
		var reads []Operation
		for _, o := range h {
			if o.Kind == Get && o.Outcome == Done {
				later := o
				later.Call, later.Return = o.Call+5000, o.Return+5000
				reads = append(reads, o, later)
			}
		}
		found, ages := Eventual(h, reads)
		require.Empty(t, found, "seed %d", seed)
		require.Len(t, ages, len(reads))
		for i := 0; i < len(ages); i += 2 {
			require.Zero(t, ages[i].Age, "seed %d: a linearizable read is not old: %v", seed, &reads[i])
		}
	}
}

func TestEventualOf(t *testing.T) {
	reads, failed, err := EventualOf([]Call{
		bankCall(0, EventualName, `{"key":"k"}`, OK, `{"found":true,"observed":"x","revision":2}`),
		bankCall(1, EventualName, `{"key":"k"}`, Failed, `null`), bankCall(2, "get", `{"key":"k"}`, OK, `{}`),
	})
	require.NoError(t, err)
	require.Equal(t, 1, failed)
	require.Equal(t, []Operation{{Kind: Get, Key: "k", Call: 0, Return: 5, Outcome: Done, Found: true, Observed: "x", Revision: 2}}, reads)
	_, _, err = EventualOf([]Call{bankCall(0, EventualName, `{}`, OK, `{}`)})
	require.ErrorContains(t, err, "event 0: key")
}

func TestAway(t *testing.T) {
	require.Equal(t, int64(0), (&ClocksTold{AheadLeast: -3, AheadMost: 4}).Away())
	require.Equal(t, int64(3), (&ClocksTold{AheadLeast: 3, AheadMost: 4}).Away())
	require.Equal(t, int64(3), (&ClocksTold{AheadLeast: -4, AheadMost: -3}).Away())
}

func TestSkewOf(t *testing.T) {
	require.Zero(t, SkewOf(nil))
	require.Equal(t, int64(7), SkewOf([]Call{
		bankCall(0, ClocksName, `{}`, OK, `{"skew":5}`), bankCall(1, ClocksName, `{}`, OK, `{"skew":7}`), bankCall(2, ClocksName, `{}`, Failed, `{"skew":9}`),
		bankCall(3, "get", `{}`, OK, `{"skew":9}`),
	}))
}
