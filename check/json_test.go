package check

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
)

func TestHistoriesReadBack(t *testing.T) {
	for seed := range uint64(20) {
		h := newExpiring(seed, Get, Put, CAS, Delete, Increment).run("a\xff\x00", 4, 60)
		h[0].Value = "\xfe"
		var file bytes.Buffer
		require.NoError(t, Write(&file, h))
		back, err := Read(strings.NewReader("\n" + file.String()))
		require.NoError(t, err)
		require.Equal(t, h, back)
	}
}

// TestBadLines: each line is wrong in one field, which the error names.
func TestBadLines(t *testing.T) {
	for line, field := range map[string]string{
		`{"type":"ok","f":"swap","key":"k"}`:                                             "f",
		`{"type":"ok","f":"expire","key":"k"}`:                                           "f",
		`{"type":"done","f":"get","key":"k"}`:                                            "type",
		`{"type":"ok","f":"get"}`:                                                        "key",
		`{"type":"ok","f":"get","key":"k","call":2,"return":1}`:                          "return",
		`{"type":"ok","f":"put","key":"k","ttl":-1}`:                                     "ttl",
		`{"type":"info","f":"put","key":"k","ttl":1,"expire_at":1}`:                      "expire_at",
		`{"type":"ok","f":"get","key":"k","expire_at":1}`:                                "expire_at",
		`{"type":"ok","f":"increment","key":"k","expire_at":1,"revision":1}`:             "expire_at",
		`{"type":"ok","f":"put","key":"k","expire_at":1}`:                                "revision",
		`{"type":"ok","f":"put","key":"k","value":"` + strings.Repeat("v", 5<<20) + `"}`: "line 2",
	} {
		_, err := Read(strings.NewReader("\n" + line + "\n"))
		var invalid *kv.InvalidError
		require.ErrorAs(t, err, &invalid, "%.80s", line)
		require.Equal(t, field, invalid.Field, "%.80s", line)
	}
	_, err := Read(strings.NewReader("{\"type\":"))
	require.ErrorContains(t, err, "line 1")
}
