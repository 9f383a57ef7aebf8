package check

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
)

// on moves an operation to another key.
func (o Operation) on(key string) Operation {
	o.Key = key
	return o
}

// TestCuts: the history writes k and l, together at revision 3.
func TestCuts(t *testing.T) {
	h := History{
		op(Put, "a", 1, 2, 1), op(Put, "b", 3, 4, 2).on("l"), op(Put, "c", 5, 6, 3), op(Put, "d", 5, 6, 3).on("l"), op(Clear, "", 7, 8, 5).on("l"),
	}
	get := func(key, value string, revision kv.Revision) Operation {
		return op(Get, value, 9, 10, revision).on(key)
	}
	for name, c := range map[string]struct {
		h    History
		cut  []Operation
		torn bool
	}{
		"before both":                           {h, []Operation{get("k", "a", 1), get("l", "b", 2)}, false},
		"after both":                            {h, []Operation{get("k", "c", 3), get("l", "d", 3)}, false},
		"one is missing":                        {h, []Operation{get("k", "c", 3), get("l", "b", 2)}, true},
		"the other is missing":                  {h, []Operation{get("k", "a", 1), get("l", "d", 3)}, true},
		"one is not there":                      {h[:4], []Operation{get("k", "c", 3), get("l", "", 0)}, true},
		"one is not there, and the write is":    {h, []Operation{get("k", "", 0), get("l", "b", 2)}, true},
		"neither is there":                      {h, []Operation{get("k", "", 0), get("l", "", 0)}, false},
		"one is not there yet":                  {h, []Operation{get("k", "a", 1), get("l", "", 0)}, false},
		"it was cleared":                        {append(h, op(Put, "e", 9, 10, 6)), []Operation{get("k", "e", 6), get("l", "", 0)}, false},
		"a clear was missed":                    {append(h, op(Put, "e", 9, 10, 6)), []Operation{get("k", "e", 6), get("l", "d", 3)}, true},
		"one is not there, and was cleared":     {h, []Operation{get("k", "c", 3), get("l", "", 0)}, false},
		"it was cleared later":                  {append(h, op(Delete, "", 11, 12, 6)), []Operation{get("k", "", 0), get("l", "d", 3)}, true},
		"it was cleared later, all of it shows": {append(h, op(Delete, "", 11, 12, 6)), []Operation{get("k", "", 0), get("l", "", 0)}, false},
		"it was removed after what is seen":     {append(h, op(Delete, "", 5, 6, 4)), []Operation{get("k", "", 0), get("l", "d", 3)}, false},
		"an unknown delete may be why":          {append(h, op(Delete, "", 1, 2, 0).on("l").unknown()), []Operation{get("k", "c", 3), get("l", "", 0)}, false},
		"what is newer than the others may be":  {append(h, op(Put, "f", 11, 12, 7).on("m")), []Operation{get("k", "c", 3), get("m", "", 0)}, false},
		"what is not a read does not count":     {h, []Operation{op(CAS, "", 9, 10, 3).failed(), get("l", "b", 2)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			found := Cuts(c.h, [][]Operation{c.cut})
			require.Equal(t, c.torn, len(found) > 0, "%v", found)
			if c.torn {
				require.Equal(t, TornRead, found[0].Rule)
			}
		})
	}
	require.Equal(t, BadHistory, Cuts(History{{}}, nil)[0].Rule)
}
