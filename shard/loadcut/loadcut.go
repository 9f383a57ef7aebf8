// Package loadcut chooses where a shard is split to spread its load, from keys that were sampled of its requests: a key that
// was asked for twice as often is there twice as often.
//
// The key that halves the samples halves the load, as far as a key can: what one key takes stays on one side. Where no key
// takes more than half of the samples, some cut leaves each side a quarter or more.
package loadcut

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/shard"
)

const (
	// SamplesMin is how many samples tell something: with fewer a cut that seems to leave each side a quarter may leave one
	// almost nothing.
	SamplesMin = 32
	// sideMin is the part of the samples, one in so many, that a cut must leave each side to be worth the split.
	sideMin = 4
)

// Share is a key, and the part of all samples that it takes, above 0 and at most 1.
type Share struct {
	Key   []byte
	Share float64
}

// Choose gives the key of a span at which a split leaves each side as near to half of the samples as can be, and at least a
// quarter. The key lies between two sampled ones, inside the span and not at its start, and is the shortest that parts
// these; what lies between them in the data is not known here (S6). Samples outside the span do not count. Without such a
// key the reason says why, for people.
func Choose(samples [][]byte, span kv.Span) (key []byte, reason string) {
	groups, n := group(samples, span)
	if n < SamplesMin {
		return nil, fmt.Sprintf("too few requests to tell where the load is: %d were sampled, %d are wanted", n, SamplesMin)
	}
	at, below, best := 0, 0, 0
	for i, g := range groups {
		if smaller := min(below, n-below); smaller > best {
			at, best = i, smaller
		}
		below += g.count
	}
	if best*sideMin < n {
		hottest := slices.MaxFunc(groups, func(a, b counted) int { return cmp.Compare(a.count, b.count) })
		return nil, fmt.Sprintf("the key %s takes %d %% of the requests, which no split can part", kv.FormatKey(hottest.key), hottest.count*100/n)
	}
	return bytes.Clone(shard.Separator(groups[at-1].key, groups[at].key)), ""
}

// Hottest gives the keys of a span that were sampled most often, at most so many, the hottest first and equal ones in their
// order. It gives none where there are too few samples to tell. The keys share the samples' memory.
func Hottest(samples [][]byte, span kv.Span, most int) []Share {
	groups, n := group(samples, span)
	if n < SamplesMin {
		return nil
	}
	slices.SortStableFunc(groups, func(a, b counted) int { return cmp.Compare(b.count, a.count) })
	list := make([]Share, min(most, len(groups)))
	for i := range list {
		list[i] = Share{Key: groups[i].key, Share: float64(groups[i].count) / float64(n)}
	}
	return list
}

// counted is a key, and how often it was sampled.
type counted struct {
	key   []byte
	count int
}

// group counts the keys in a span, in their order; n is the sum.
func group(samples [][]byte, span kv.Span) (groups []counted, n int) {
	keys := make([][]byte, 0, len(samples))
	for _, key := range samples {
		if span.Contains(key) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	for _, key := range keys {
		if last := len(groups) - 1; last >= 0 && bytes.Equal(groups[last].key, key) {
			groups[last].count++
		} else {
			groups = append(groups, counted{key, 1})
		}
	}
	return groups, len(keys)
}
