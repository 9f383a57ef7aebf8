package loadcut

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/kvdstore/kvd/kv"
)

// repeated makes samples from keys with a number: "a*20 b*12".
func repeated(list string) [][]byte {
	var samples [][]byte
	for word := range strings.FieldsSeq(list) {
		key, n := "", 0
		_, _ = fmt.Sscanf(strings.ReplaceAll(word, "*", " "), "%s %d", &key, &n)
		for range n {
			samples = append(samples, []byte(key))
		}
	}
	return samples
}

func TestChoose(t *testing.T) {
	for name, test := range map[string]struct {
		samples, key, reason string
		span                 kv.Span
	}{
		"nothing was asked for":         {reason: "0 were sampled, 32 are wanted"},
		"too little was asked for":      {samples: "a*16 b*15", reason: "31 were sampled"},
		"two keys":                      {samples: "apple*16 apricot*16", key: "apr"},
		"the middle":                    {samples: "a*10 b*10 c*10 d*10", key: "c"},
		"one key":                       {samples: "hot*40", reason: "the key hot takes 100 % of the requests"},
		"one key among cold ones":       {samples: "a*5 hot*30 z*5", reason: "the key hot takes 75 % of the requests"},
		"one key, the rest on one side": {samples: "a*20 hot*30", key: "h"},
		"just a quarter":                {samples: "a*10 hot*30", key: "h"},
		"not quite a quarter":           {samples: "a*9 hot*30", reason: "the key hot takes 76 % of the requests"},
		"others outside the span":       {samples: "a*100 b*16 c*16 d*100", span: kv.Span{Start: []byte("b"), End: []byte("d")}, key: "c"},
		"only others outside the span":  {samples: "a*100", span: kv.Span{Start: []byte("b")}, reason: "0 were sampled"},
	} {
		t.Run(name, func(t *testing.T) {
			key, reason := Choose(repeated(test.samples), test.span)
			require.Equal(t, test.key, string(key))
			if test.reason == "" {
				require.Empty(t, reason)
			} else {
				require.Contains(t, reason, test.reason)
			}
		})
	}
}

// TestChooseParts: of whatever was sampled, either the cut leaves each side a quarter and no other cut is nearer to the
// half, or one key takes more than half.
func TestChooseParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOfN(rapid.StringMatching(`[ab]{0,3}`), SamplesMin, 60).Draw(t, "keys")
		if rapid.Bool().Draw(t, "skewed") {
			keys = append(keys, slices.Repeat([]string{"ab"}, rapid.IntRange(0, 200).Draw(t, "hot"))...)
		}
		span := kv.Span{Start: []byte("a"), End: []byte("bb")}
		var samples [][]byte
		inside, counts := 0, map[string]int{}
		for _, key := range keys {
			samples = append(samples, []byte(key))
			if span.Contains([]byte(key)) {
				inside++
				counts[key]++
			}
		}
		smaller := func(cut string) int {
			below := 0
			for key, n := range counts {
				if key < cut {
					below += n
				}
			}
			return min(below, inside-below)
		}
		key, reason := Choose(samples, span)
		require.Equal(t, key == nil, reason != "")
		hottest := 0
		for cut, n := range counts {
			hottest = max(hottest, n)
			if key != nil {
				require.LessOrEqual(t, smaller(cut), smaller(string(key)), "a cut at %q is better", cut)
			}
		}
		switch {
		case inside < SamplesMin:
			require.Nil(t, key)
		case key == nil:
			require.Greater(t, 2*hottest, inside)
		default:
			require.True(t, span.Contains(key) && !bytes.Equal(key, span.Start))
			require.GreaterOrEqual(t, 4*smaller(string(key)), inside)
		}
	})
}

func TestHottest(t *testing.T) {
	require.Empty(t, Hottest(repeated("a*31"), kv.Span{}, 3))
	require.Equal(t, []Share{{[]byte("b"), 0.5}, {[]byte("a"), 0.25}, {[]byte("c"), 0.25}}, Hottest(repeated("z*9 a*8 b*16 c*8"), kv.Span{End: []byte("d")}, 4))
	require.Equal(t, []Share{{[]byte("b"), 0.6}}, Hottest(repeated("a*16 b*24"), kv.Span{}, 1))
}
