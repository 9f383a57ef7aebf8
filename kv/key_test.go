package kv

import (
	"bytes"
	"errors"
	"testing"
	"unicode"

	"pgregory.net/rapid"
)

func TestKeyTextRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := append([]byte(rapid.SampledFrom([]string{"", "hex:", "base64:"}).Draw(t, "prefix")), rapid.SliceOf(rapid.Byte()).Draw(t, "rest")...)
		text := FormatKey(key)
		back, err := ParseKey(text)
		if err != nil || !bytes.Equal(key, back) {
			t.Fatalf("%q became %q, %v", text, back, err)
		}
	})
}

func TestParseKey(t *testing.T) {
	for text, want := range map[string]string{
		`a/b`: "a/b", `\x00\xff`: "\x00\xff", `a\\b`: `a\b`, `\x68ex:6`: "hex:6", "hex:6162": "ab", "base64:YWI=": "ab",
	} {
		if got, err := ParseKey(text); err != nil || string(got) != want {
			t.Errorf("ParseKey(%q) = %q, %v", text, got, err)
		}
	}
	for _, text := range []string{`\`, `\x`, `\x0`, `\xgg`, `\q`, "hex:6", "base64:*"} {
		var invalid *InvalidError
		if _, err := ParseKey(text); !errors.As(err, &invalid) || invalid.Field != "key" {
			t.Errorf("ParseKey(%q) gave %v", text, err)
		}
	}
}

// FuzzParseKey: what a person wrote is a key that can be written and read again, or an error that names the key.
func FuzzParseKey(f *testing.F) {
	for _, text := range []string{`a/b`, `\x00\xff`, `a\\b`, `\x68ex:6`, "hex:6162", "base64:YWI=", `\xg`, "\xff\u00e9\u202e"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		key, err := ParseKey(text)
		if err != nil {
			var invalid *InvalidError
			if !errors.As(err, &invalid) || invalid.Field != "key" {
				t.Fatalf("ParseKey(%q) gave %v", text, err)
			}
			return
		}
		again, err := ParseKey(FormatKey(key))
		if err != nil || !bytes.Equal(key, again) {
			t.Fatalf("%q is the key %q, which is written %q and read as %q, %v", text, key, FormatKey(key), again, err)
		}
	})
}

func TestCheckKeyNamesFieldAndBound(t *testing.T) {
	for _, n := range []int{0, KeyBytesMax + 1} {
		var invalid *InvalidError
		if err := CheckKey("compare.key", make([]byte, n)); !errors.As(err, &invalid) || invalid.Field != "compare.key" {
			t.Errorf("%d bytes gave %v", n, err)
		}
	}
	if err := CheckKey("key", make([]byte, KeyBytesMax)); err != nil {
		t.Error(err)
	}
}

func TestPrefixEnd(t *testing.T) {
	for prefix, want := range map[string]string{"a": "b", "a\xff": "b", "\xff\xff": "", "": "", "a\xfe": "a\xff"} {
		if got := PrefixEnd([]byte(prefix)); string(got) != want {
			t.Errorf("PrefixEnd(%q) = %q", prefix, got)
		}
	}
}

func TestSpans(t *testing.T) {
	span := func(a, b string) Span { return Span{Start: []byte(a), End: []byte(b)} }
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[a-c]{0,2}`)
		s, u := span(text.Draw(t, "a"), text.Draw(t, "b")), span(text.Draw(t, "c"), text.Draw(t, "d"))
		key := []byte(text.Draw(t, "key"))
		if got := s.Intersect(u).Contains(key); got != (s.Contains(key) && u.Contains(key)) {
			t.Fatalf("%v and %v: %q in the intersection: %v", s, u, key, got)
		}
		hull := s.Hull(u)
		if !hull.ContainsSpan(s) || !hull.ContainsSpan(u) {
			t.Fatalf("%v and %v: not in the hull %v", s, u, hull)
		}
		if string(hull.Start) != min(string(s.Start), string(u.Start)) || string(hull.End) != string(s.End) && string(hull.End) != string(u.End) {
			t.Fatalf("%v and %v: the hull %v is wider", s, u, hull)
		}
		if s.Empty() && s.Contains(key) {
			t.Fatalf("%v is empty and holds %q", s, key)
		}
		if s.ContainsSpan(u) && u.Contains(key) && !s.Contains(key) {
			t.Fatalf("%v contains %v but not %q", s, u, key)
		}
	})
}

func TestOutcomes(t *testing.T) {
	for _, err := range []error{&InvalidError{}, &NotLeaderError{}, &StaleEpochError{}, &OverloadError{}, ErrNoMap, ErrStopping} {
		if OutcomeOf(err) != NotDone {
			t.Errorf("%v must say not done", err)
		}
	}
	for _, err := range []error{ErrUnknown, errors.New("something else")} {
		if OutcomeOf(err) != Unknown || Retryable(err) {
			t.Errorf("%v must be unknown, and not repeated", err)
		}
	}
}

// FuzzFormatKey: every key is written as text of which it is read again, and that shows nothing that moves a cursor.
func FuzzFormatKey(f *testing.F) {
	for _, key := range []string{"a/b", "\x00\xff", `\`, "hex:00", "base64:", "\u202e\x1b[2J", "\xf0\x90\x80"} {
		f.Add([]byte(key))
	}
	f.Fuzz(func(t *testing.T, key []byte) {
		if CheckKey("key", key) != nil {
			return
		}
		text := FormatKey(key)
		again, err := ParseKey(text)
		if err != nil || !bytes.Equal(key, again) {
			t.Fatalf("%x is written %q and read as %x, %v", key, text, again, err)
		}
		for _, r := range text {
			if !unicode.IsPrint(r) {
				t.Fatalf("%x is written %q", key, text)
			}
		}
	})
}
