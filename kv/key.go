package kv

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// FormatKey writes a key as people read it: printable text stays, a backslash is doubled, every other byte
// becomes \xNN, and so does the first of a key that begins like the name of an encoding. ParseKey reads it back.
func FormatKey(key []byte) string {
	var b strings.Builder
	i := 0
	if bytes.HasPrefix(key, []byte("hex:")) || bytes.HasPrefix(key, []byte("base64:")) {
		fmt.Fprintf(&b, `\x%02x`, key[0])
		i = 1
	}
	for i < len(key) {
		r, n := utf8.DecodeRune(key[i:])
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case r == utf8.RuneError && n == 1, !unicode.IsPrint(r):
			for _, c := range key[i : i+n] {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		default:
			b.Write(key[i : i+n])
		}
		i += n
	}
	return b.String()
}

// ParseKey reads a key that a person wrote: text with \xNN and \\ escapes, or hex: or base64: in front of
// bytes in that encoding.
func ParseKey(s string) ([]byte, error) {
	if rest, ok := strings.CutPrefix(s, "hex:"); ok {
		key, err := hex.DecodeString(rest)
		if err != nil {
			return nil, &InvalidError{Field: "key", Bound: "hex: followed by pairs of hexadecimal digits"}
		}
		return key, nil
	}
	if rest, ok := strings.CutPrefix(s, "base64:"); ok {
		key, err := base64.StdEncoding.DecodeString(rest)
		if err != nil {
			return nil, &InvalidError{Field: "key", Bound: "base64: followed by standard, padded base64"}
		}
		return key, nil
	}
	key := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			key = append(key, s[i])
			continue
		}
		switch rest := s[i+1:]; {
		case strings.HasPrefix(rest, `\`):
			key = append(key, '\\')
			i++
		case len(rest) >= 3 && rest[0] == 'x':
			c, err := hex.DecodeString(rest[1:3])
			if err != nil {
				return nil, &InvalidError{Field: "key", Bound: `\x followed by two hexadecimal digits`}
			}
			key = append(key, c[0])
			i += 3
		default:
			return nil, &InvalidError{Field: "key", Bound: `a backslash is written \\, any other byte \xNN`}
		}
	}
	return key, nil
}

// CheckKey refuses a key outside the bounds. field is the name that the error gives.
func CheckKey(field string, key []byte) error {
	if len(key) == 0 || len(key) > KeyBytesMax {
		return &InvalidError{Field: field, Bound: fmt.Sprintf("1 to %d bytes, has %d", KeyBytesMax, len(key))}
	}
	return nil
}

// CheckValue refuses a value outside the bounds. field is the name that the error gives.
func CheckValue(field string, value []byte) error {
	if len(value) > ValueBytesMax {
		return &InvalidError{Field: field, Bound: fmt.Sprintf("at most %d bytes, has %d", ValueBytesMax, len(value))}
	}
	return nil
}
