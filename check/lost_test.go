package check

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestGeneratedHistoriesPass runs every checker over correct histories, with lost answers and refused operations.
func TestGeneratedHistoriesPass(t *testing.T) {
	for seed := range uint64(60) {
		for _, kinds := range [][]Kind{{Get, Put}, {Get, Put, CAS, Delete, Clear}, {Get, Increment}} {
			c := newCluster(seed, kinds...)
			h := append(c.run("a", 6, 60), c.run("b", 3, 60)...)
			require.Empty(t, Linearizable(h, patience), "seed %d", seed)
			require.Empty(t, Revisions(h), "seed %d", seed)
			require.Empty(t, NoLostWrites(h, c.final()), "seed %d", seed)
			require.Empty(t, Linearizable(h.Ended(0, c.final()), patience), "seed %d", seed)
		}
	}
}

// TestWrongEndsAreRefused: each history is right, and each end is wrong in one way.
func TestWrongEndsAreRefused(t *testing.T) {
	puts := History{op(Put, "a", 1, 2, 1), op(Put, "b", 3, 4, 2)}
	counts := History{op(Increment, "1", 1, 2, 1), op(Increment, "2", 3, 4, 2)}
	deleted := History{op(Put, "a", 1, 2, 1), op(Delete, "", 3, 4, 2)}
	for name, c := range map[string]struct {
		h     History
		final map[string]Final
		rule  Rule
	}{
		"the last write is gone":                      {puts, map[string]Final{"k": {Value: "a", Revision: 1}}, LostWrite},
		"everything is gone":                          {puts, nil, LostWrite},
		"nobody wrote this":                           {puts, map[string]Final{"k": {Value: "c", Revision: 3}}, PhantomWrite},
		"a key that nobody named":                     {puts, map[string]Final{"k": {Value: "b", Revision: 2}, "l": {Value: "b", Revision: 2}}, PhantomWrite},
		"an increment counted twice":                  {append(counts, op(Increment, "", 5, 6, 0).unknown()), map[string]Final{"k": {Value: "4", Revision: 4}}, WrongCount},
		"an unknown write was read, and is gone":      {append(puts, op(Put, "c", 5, 6, 0).unknown(), op(Get, "c", 7, 8, 3)), map[string]Final{"k": {Value: "b", Revision: 2}}, LostWrite},
		"an unknown write was read, and nothing left": {History{op(Put, "c", 5, 6, 0).unknown(), op(Get, "c", 7, 8, 3)}, nil, LostWrite},
		"it was read with another value":              {append(puts, op(Put, "c", 5, 6, 0).unknown(), op(Get, "c", 7, 8, 3)), map[string]Final{"k": {Value: "b", Revision: 3}}, LostWrite},
		"a count was read, and is gone":               {append(counts, op(Get, "2", 5, 6, 2)), nil, LostWrite},
		"an acknowledged increment is missing":        {append(counts, op(Increment, "", 5, 6, 0).unknown()), map[string]Final{"k": {Value: "1", Revision: 2}}, LostWrite},
		"a refused increment counts":                  {append(counts, op(Increment, "", 5, 6, 0).notDone()), map[string]Final{"k": {Value: "3", Revision: 3}}, PhantomWrite},
		"a deleted key came back":                     {deleted, map[string]Final{"k": {Value: "a", Revision: 1}}, LostWrite},
		"a refused write has taken place":             {History{op(Put, "a", 1, 2, 1), op(Put, "b", 3, 4, 0).notDone()}, map[string]Final{"k": {Value: "b", Revision: 2}}, PhantomWrite},
	} {
		t.Run(name, func(t *testing.T) {
			found := NoLostWrites(c.h, c.final)
			require.NotEmpty(t, found)
			require.Equal(t, c.rule, found[0].Rule, "%v", found[0])
			require.NotEmpty(t, Linearizable(c.h.Ended(0, c.final), patience))
		})
	}
	require.Empty(t, NoLostWrites(puts, map[string]Final{"k": {Value: "b", Revision: 2}}))
	require.Empty(t, NoLostWrites(append(puts, op(Put, "c", 5, 6, 0).unknown()), map[string]Final{"k": {Value: "c", Revision: 3}}))
}

// TestWrongRevisionsAreRefused: each history is wrong in one way.
func TestWrongRevisionsAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		h    History
		rule Rule
	}{
		"a read goes back":           {History{op(Put, "a", 1, 2, 1), op(Put, "b", 3, 4, 2), op(Get, "a", 5, 6, 1)}, RevisionWentBack},
		"two writes at one revision": {History{op(Put, "a", 1, 4, 1), op(Put, "b", 2, 3, 1)}, RevisionShared},
		"two values at one revision": {History{op(Put, "a", 1, 9, 1), op(Get, "b", 2, 3, 1)}, ValueChanged},
	} {
		t.Run(name, func(t *testing.T) {
			found := Revisions(c.h)
			require.NotEmpty(t, found)
			require.Equal(t, c.rule, found[0].Rule, "%v", found[0])
		})
	}
}
