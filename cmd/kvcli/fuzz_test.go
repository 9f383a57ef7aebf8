package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/kv"
)

// FuzzImportLine: a line is refused, or gives a key and a value; exported, these are a line that gives them again.
func FuzzImportLine(f *testing.F) {
	for _, line := range []string{
		"k\tv", "k\t", "\\x00\tv\tw", "hex:zz\tv", "no tab", `{"key":"k","value":"v"}`, `{"key":"k","value":{"a":[1, 2]}}`, `{"key":"k","value":null}`,
		`{"key":"k","value_base64":"/w=="}`, `{"key":"k"}`, `{"key":"k","value":"v","value_base64":"eA=="}`, `{`, `{}`, `{"key":"k","value":1e400}`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if len(line) == 0 || len(line) > lineBytesMax {
			return // These are not parsed.
		}
		key, value, err := parseLine(bytes.Clone(line))
		if err != nil {
			require.ErrorAs(t, err, new(*kv.InvalidError))
			return
		}
		exported, err := json.Marshal(recordOf(client.Item{Key: key, Record: kv.Record{Value: value, Revision: 1}}))
		require.NoError(t, err)
		again, same, err := parseLine(exported)
		require.NoError(t, err)
		require.Equal(t, string(key), string(again))
		require.Equal(t, string(value), string(same))
	})
}

// FuzzImportPlace: a line of a place is refused, or gives a key within its bounds and a value that is JSON.
func FuzzImportPlace(f *testing.F) {
	for _, line := range []string{"1\tBern\tCH\t46.9\t7.4\t133000", "1\tx\ty\tNaN\tInf\t0", "\t\t\t0\t0\t0", "1\tx\ty\t91\t0\t0", "a/b\tx\ty\t-90\t180\t-5", "1\t2"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		key, value, err := parsePlace([]byte(line))
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		require.NoError(t, kv.CheckKey("key", key))
		require.True(t, strings.HasPrefix(string(key), geoPrefix))
		require.True(t, json.Valid(value))
	})
}

// FuzzTxn: what stands on standard input is refused, or is a transaction whose parts all say what they are.
func FuzzTxn(f *testing.F) {
	for _, text := range []string{
		`{"then":[{"put":{"key":"k","value":"v","ttl_ms":5}}]}`, `{"compare":[{"key":"k","absent":true}],"then":[{"get":{"key":"k"}}],"else":[{"delete":{"key":"k"}}]}`,
		`{"compare":[{"key":"k"}]}`, `{"then":[{}]}`, `{"then":[null]}`, `{"x":1}`, `{"compare":[{"key":"k","value":"v"},{"key":"hex:00","revision":7}]}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseTxn(strings.NewReader(text))
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		for _, c := range r.Compare {
			require.NotNil(t, c.Kind)
		}
		for _, o := range append(r.Then, r.Else...) {
			require.NotNil(t, o.Op)
		}
	})
}
