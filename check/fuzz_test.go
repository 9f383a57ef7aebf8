package check

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzRead: whatever a file holds, it is refused with the line, or is a history that is written and read as it is, and that
// every checker judges.
func FuzzRead(f *testing.F) {
	for _, text := range []string{
		`{"process":0,"type":"ok","f":"put","key":"k","value":"v","call":1,"return":2,"revision":1}` + "\n" +
			`{"process":1,"type":"ok","f":"get","key":"k","call":2,"return":3,"found":true,"observed":"v","revision":1}`,
		`{"process":0,"type":"info","f":"cas","key":"k","value_bytes":"/w==","expect":3,"call":1,"return":2}`,
		`{"process":0,"type":"ok","f":"increment","key":"k","delta":-1,"call":1,"return":9,"observed":"-1","revision":2}`,
		`{"process":-1,"type":"fail","f":"clear","key":"","call":5,"return":1}`,
		`{"process":0,"type":"ok","f":"delete","key":"k","ttl":-5,"call":1,"return":2}`, "{}", "[", "\n\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := Read(bytes.NewReader(b))
		if err != nil {
			require.ErrorContains(t, err, "line ")
			return
		}
		if h.Validate() != nil {
			return // One process does two things at a time, say; no checker is given it.
		}
		out := &bytes.Buffer{}
		require.NoError(t, Write(out, h))
		again, err := Read(out)
		require.NoError(t, err)
		require.Equal(t, h, again)
		if len(h) < 20 {
			_ = Counts(h)
		}
	})
}

// FuzzReadEvents: the same of a recorded history.
func FuzzReadEvents(f *testing.F) {
	for _, text := range []string{
		`{"index":0,"process":0,"type":"invoke","f":"put","value":{"k":1},"time":1}` + "\n" + `{"index":1,"process":0,"type":"ok","f":"put","value":null,"time":2,"node":"n1"}`,
		`{"index":0,"process":"nemesis","type":"info","f":"kill","value":{"phase":"begin"},"time":1}`,
		`{"process":0,"type":"invoke","f":"x","time":0}` + "\n" + `{"process":0,"type":"info","f":"x","time":0}` + "\n" + `{"process":0,"type":"invoke","f":"x","time":0}`,
		`{"process":-1,"type":"ok","f":"x","time":-1}`, `{"process":{},"type":"invoke","f":""}`, "null", "\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		events, err := ReadEvents(bytes.NewReader(b))
		if err != nil {
			require.ErrorContains(t, err, "line ")
			return
		}
		out := &bytes.Buffer{}
		require.NoError(t, WriteEvents(out, events))
		text := out.String()
		again, err := ReadEvents(strings.NewReader(text))
		require.NoError(t, err)
		require.Len(t, again, len(events))
		out.Reset()
		require.NoError(t, WriteEvents(out, again))
		require.Equal(t, text, out.String())
		calls, err := Calls(events)
		if err != nil {
			require.ErrorContains(t, err, "event ")
			return
		}
		for i := range calls {
			require.Equal(t, Invoked, calls[i].Invoke.Type)
			require.NotEqual(t, Invoked, calls[i].Type())
		}
	})
}
