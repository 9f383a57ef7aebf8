package check_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/check"
)

// recorded is a history of events in which each call ends before the next begins, at moments 0, 1, 2, ...
type recorded []check.Event

func (r *recorded) call(f string, asked string, kind check.EventType, told string) {
	add := func(kind check.EventType, value string) {
		n := len(*r)
		*r = append(*r, check.Event{Index: n, Process: n / 2, Type: kind, F: f, Value: []byte(value), Time: int64(n)})
	}
	add(check.Invoked, asked)
	add(kind, told)
}

func TestOperations(t *testing.T) {
	var r recorded
	r.call("put", `{"key":"a","value":"x"}`, check.OK, `{"revision":3}`)
	r.call("cas", `{"key":"a","value":"y","expect":3}`, check.Info, `null`)
	r.call("scan", `{"from":"a"}`, check.OK, `[]`)
	r.call("increment", `{"key":"n","delta":2}`, check.Failed, `null`)
	r.call("get", `{"key":"a","final":true}`, check.OK, `{"found":true,"observed":"y","revision":4,"expire_at":9}`)
	r.call("get", `{"key":"n","final":true}`, check.OK, `{}`)
	r.call("get", `{"key":"m","final":true}`, check.Failed, `null`)
	r.call("get", `{"key":"q"}`, check.OK, `{"found":true,"observed":"z","revision":9}`)
	calls, err := check.Calls(r)
	require.NoError(t, err)
	k, err := check.Operations(calls)
	require.NoError(t, err)
	require.Equal(t, check.History{
		{Process: 0, Kind: check.Put, Key: "a", Value: "x", Call: 0, Return: 1, Outcome: check.Done, Revision: 3},
		{Process: 1, Kind: check.CAS, Key: "a", Value: "y", Expect: 3, Call: 2, Return: 3, Outcome: check.Unknown},
		{Process: 3, Kind: check.Increment, Key: "n", Delta: 2, Call: 6, Return: 7, Outcome: check.NotDone},
		{Process: 4, Kind: check.Get, Key: "a", Call: 8, Return: 9, Outcome: check.Done, Found: true, Observed: "y", Revision: 4, ExpireAt: 9},
		{Process: 5, Kind: check.Get, Key: "n", Call: 10, Return: 11, Outcome: check.Done},
		{Process: 6, Kind: check.Get, Key: "m", Call: 12, Return: 13, Outcome: check.NotDone},
		{Process: 7, Kind: check.Get, Key: "q", Call: 14, Return: 15, Outcome: check.Done, Found: true, Observed: "z", Revision: 9},
	}, k.History)
	require.Equal(t, append(k.History[:3:3], k.History[6]), k.Running)
	require.Equal(t, map[string]check.Final{"a": {Value: "y", Revision: 4, ExpireAt: 9}}, k.Ends)
	require.Equal(t, map[string]bool{"a": true, "n": true}, k.Final)
	require.Len(t, k.History.Of(map[string]bool{"n": true}), 2)
}

func TestOperationsRefused(t *testing.T) {
	for asked, text := range map[string]string{`7`: "event 0", `{}`: "key: at least 1 byte", `{"key":"k","ttl":-1}`: "ttl: 0 or more"} {
		var r recorded
		r.call("put", asked, check.OK, `{}`)
		calls, err := check.Calls(r)
		require.NoError(t, err)
		_, err = check.Operations(calls)
		require.ErrorContains(t, err, text)
	}
}

// TestLatency: what had to wait for its turn is as slow as its caller saw it.
func TestLatency(t *testing.T) {
	end := check.Event{Time: 90}
	for value, want := range map[string]time.Duration{`{"due":20}`: 70, `{"due":0}`: 40, `{"due":60}`: 40, `null`: 40, `[1]`: 40} {
		got, ok := (&check.Call{Invoke: check.Event{Time: 50, Value: []byte(value)}, Done: &end}).Latency()
		require.True(t, ok)
		require.Equal(t, want, got, value)
	}
	_, ok := (&check.Call{}).Latency()
	require.False(t, ok)
}

func TestVisualize(t *testing.T) {
	h := check.History{
		{Kind: check.Put, Key: "k", Value: "was written", Call: 1, Return: 2, Outcome: check.Done, Revision: 1},
		{Kind: check.Put, Key: "k", Value: "may have been", Call: 3, Outcome: check.Unknown},
		{Kind: check.Get, Key: "k", Call: 5, Return: 6, Outcome: check.Done},
	}
	var page bytes.Buffer
	require.NoError(t, check.Visualize(&page, h, "k", check.Bounds{}, time.Minute))
	require.Contains(t, page.String(), "was written")
	require.ErrorContains(t, check.Visualize(&page, h, "other", check.Bounds{}, time.Minute), "key: one of the history")
}
