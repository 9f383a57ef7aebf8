package kv

import "bytes"

// Span is the half-open range of keys [Start, End). An empty Start is the first key there can be; an empty
// End means that the span has no end.
type Span struct {
	Start, End []byte
}

// Contains reports whether key lies in the span.
func (s Span) Contains(key []byte) bool {
	return bytes.Compare(key, s.Start) >= 0 && (len(s.End) == 0 || bytes.Compare(key, s.End) < 0)
}

// ContainsSpan reports whether all of t lies in s.
func (s Span) ContainsSpan(t Span) bool {
	return bytes.Compare(t.Start, s.Start) >= 0 && compareEnds(t.End, s.End) <= 0
}

// Overlaps reports whether some key lies in both.
func (s Span) Overlaps(t Span) bool {
	return !s.Intersect(t).Empty()
}

// Empty reports whether no key lies in the span.
func (s Span) Empty() bool {
	return len(s.End) > 0 && bytes.Compare(s.Start, s.End) >= 0
}

// Intersect gives the span of the keys that lie in both.
func (s Span) Intersect(t Span) Span {
	if bytes.Compare(t.Start, s.Start) > 0 {
		s.Start = t.Start
	}
	if compareEnds(t.End, s.End) < 0 {
		s.End = t.End
	}
	return s
}

// Hull gives the smallest span that holds all keys of both, and what lies between them.
func (s Span) Hull(t Span) Span {
	if bytes.Compare(t.Start, s.Start) < 0 {
		s.Start = t.Start
	}
	if compareEnds(t.End, s.End) > 0 {
		s.End = t.End
	}
	return s
}

// Equal reports whether both hold the same keys.
func (s Span) Equal(t Span) bool {
	return bytes.Equal(s.Start, t.Start) && bytes.Equal(s.End, t.End)
}

func (s Span) String() string {
	return "[" + FormatKey(s.Start) + ", " + FormatKey(s.End) + ")"
}

// compareEnds orders two ends of spans, where an empty one is after every key.
func compareEnds(a, b []byte) int {
	switch {
	case len(a) == 0 && len(b) == 0:
		return 0
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return bytes.Compare(a, b)
}

// PrefixSpan is the span of all keys that begin with prefix.
func PrefixSpan(prefix []byte) Span {
	return Span{Start: prefix, End: PrefixEnd(prefix)}
}

// PrefixEnd is the first key after all that begin with prefix, or nil when there is none.
func PrefixEnd(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			end := bytes.Clone(prefix[:i+1])
			end[i]++
			return end
		}
	}
	return nil
}

// Next is the first key after key.
func Next(key []byte) []byte {
	return append(key[:len(key):len(key)], 0)
}
