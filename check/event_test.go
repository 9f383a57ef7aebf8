package check_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/check"
)

func TestRecorder(t *testing.T) {
	r := check.NewRecorder()
	r.Record(check.Event{Process: 0, Type: check.Invoked, F: "put", Node: "n1"}, map[string]any{"key": "k"})
	r.Record(check.Event{Process: check.Nemesis, Type: check.Info, F: "kill", Node: "n2"}, nil)
	r.Record(check.Event{Process: 1, Type: check.Invoked, F: "get"}, "k")
	r.Record(check.Event{Process: 0, Type: check.OK, F: "put"}, 7)
	var file bytes.Buffer
	require.NoError(t, check.WriteEvents(&file, r.Events()))
	require.Contains(t, file.String(), `{"index":1,"process":"nemesis","type":"info","f":"kill","value":null,`)
	read, err := check.ReadEvents(&file)
	require.NoError(t, err)
	require.Equal(t, r.Events(), read)
	calls, err := check.Calls(read)
	require.NoError(t, err)
	require.Len(t, calls, 2)
	require.Equal(t, check.OK, calls[0].Type())
	require.Equal(t, "7", string(calls[0].Done.Value))
	require.Equal(t, check.Info, calls[1].Type())
	require.LessOrEqual(t, read[0].Time, read[3].Time)
}

func TestEventsRefused(t *testing.T) {
	for text, field := range map[string]string{
		`{"process":-1,"type":"ok","f":"get"}`:          "process",
		`{"process":0,"type":"done","f":"get"}`:         "type",
		`{"process":0,"type":"ok","f":""}`:              "f:",
		`{"process":0,"type":"ok","f":"get","time":-1}`: "time",
		`{`: "line 1",
	} {
		_, err := check.ReadEvents(strings.NewReader(text))
		require.ErrorContains(t, err, field, text)
	}
}

func TestCallsRefused(t *testing.T) {
	invoke := func(p int, f string) check.Event { return check.Event{Process: p, Type: check.Invoked, F: f} }
	end := func(p int, kind check.EventType, f string) check.Event {
		return check.Event{Process: p, Type: kind, F: f}
	}
	for name, events := range map[string][]check.Event{
		"an end without a beginning":  {end(0, check.OK, "get")},
		"another's end":               {invoke(0, "get"), end(0, check.OK, "put")},
		"two at a time":               {invoke(0, "get"), invoke(0, "get")},
		"a process after its end":     {invoke(0, "get"), end(0, check.Info, "get"), invoke(0, "get")},
		"no type":                     {{F: "get"}},
		"an end before its beginning": {{Process: 0, Type: check.Invoked, F: "scan", Time: 2}, {Process: 0, Type: check.OK, F: "scan", Time: 1}},
	} {
		_, err := check.Calls(events)
		require.Error(t, err, name)
	}
}

func TestMoment(t *testing.T) {
	r := check.NewRecorder()
	now := r.Moment(time.Now().UnixMilli())
	require.InDelta(t, 0, now, float64(time.Hour))
	require.Equal(t, int64(time.Second), r.Moment(2000)-r.Moment(1000))
}
