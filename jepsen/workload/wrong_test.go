package workload_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/jepsen/workload"
)

// expected is the value of the first event of a history in testdata, which the nemesis records under the name "expect": the
// rules that it breaks.
func expected(t *testing.T, events []check.Event) []check.Rule {
	require.NotEmpty(t, events)
	require.Equal(t, check.Nemesis, events[0].Process)
	require.Equal(t, "expect", events[0].F)
	var rules []check.Rule
	require.NoError(t, json.Unmarshal(events[0].Value, &rules))
	return rules
}

// histories calls f with each history of testdata, which lies in a directory with the name of its workload.
func histories(t *testing.T, f func(t *testing.T, name, file string, events []check.Event)) {
	require.NoError(t, filepath.WalkDir("testdata", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		t.Run(strings.TrimPrefix(filepath.ToSlash(path), "testdata/"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			events, err := check.ReadEvents(bytes.NewReader(text))
			require.NoError(t, err)
			f(t, filepath.Base(filepath.Dir(path)), filepath.Base(path), events)
		})
		return nil
	}))
}

// TestHistories: each wrong history is refused for what is wrong with it and nothing else; of each workload there is a right
// one, of the same clients before something went wrong, and it holds.
func TestHistories(t *testing.T) {
	right, wrong := map[string]bool{}, map[string]int{}
	histories(t, func(t *testing.T, name, file string, events []check.Event) {
		rules := expected(t, events)
		require.Equal(t, file == "right.jsonl", len(rules) == 0)
		v, err := workload.Judge(name, events)
		require.NoError(t, err)
		var found []check.Rule
		for _, x := range v.Violations {
			if !slices.Contains(found, x.Rule) {
				found = append(found, x.Rule)
			}
		}
		require.ElementsMatch(t, rules, found, "%v", v.Violations)
		require.Equal(t, len(rules) == 0, v.Valid)
		require.NotZero(t, v.OK)
		require.NotZero(t, v.Unknown, "a history in which nothing is doubtful proves little")
		require.NotZero(t, v.Failed)
		if v.Valid {
			right[name] = true
		} else {
			wrong[name]++
		}
	})
	for _, name := range workload.Names() {
		require.True(t, right[name], "a right history of %s", name)
		require.GreaterOrEqual(t, wrong[name], 4, "wrong histories of %s", name)
	}
}

// TestVisualize: there is a page about each key whose operations have no order.
func TestVisualize(t *testing.T) {
	pages := 0
	histories(t, func(t *testing.T, name, _ string, events []check.Event) {
		v, err := workload.Judge(name, events)
		require.NoError(t, err)
		for _, x := range v.Violations {
			if x.Rule != check.NotLinearizable {
				continue
			}
			var page bytes.Buffer
			require.NoError(t, workload.Visualize(&page, events, x.Key))
			require.Contains(t, page.String(), x.Operations[0].String()[:20])
			pages++
		}
	})
	require.Greater(t, pages, 10)
}

// TestUndone: a history in which a workload did nothing of one sort, or had none of it answered, tells so: it would be valid on a
// cluster that refuses every write.
func TestUndone(t *testing.T) {
	histories(t, func(t *testing.T, name, file string, events []check.Event) {
		if file != "right.jsonl" {
			return
		}
		v, err := workload.Judge(name, events)
		require.NoError(t, err)
		require.Empty(t, v.Undone)
		seen := map[string]bool{}
		for _, e := range events {
			if e.Process == check.Nemesis || e.Type != check.Invoked || seen[e.F] {
				continue
			}
			seen[e.F] = true
			without := slices.Clone(events)
			for i := range without {
				if w := &without[i]; w.F == e.F && w.Type == check.OK {
					w.Type, w.Value, w.Error = check.Failed, nil, "refused"
				}
			}
			v, err := workload.Judge(name, without)
			require.NoError(t, err)
			beside := e.F == "clocks" || e.F == "delete" || e.F == "get" && name == "stale"
			require.Equal(t, beside, len(v.Undone) == 0, e.F)
		}
		v, err = workload.Judge(name, nil)
		require.NoError(t, err)
		require.True(t, v.Valid)
		require.GreaterOrEqual(t, len(v.Undone), 2)
	})
}
