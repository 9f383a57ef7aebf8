package check

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/kvdstore/kvd/kv"
)

// LineBytesMax bounds a line of a history: a value of the largest size, twice, in base64.
const LineBytesMax = 4 << 20

// line is an operation in a file: one JSON object a line, with Jepsen's names (process, type, f, key, value) where
// it has one. A string that is not UTF-8 is written in base64 under the name with _bytes.
type line struct {
	Process       int         `json:"process"`
	Type          string      `json:"type"`
	F             string      `json:"f"`
	Key           string      `json:"key,omitempty"`
	KeyBytes      []byte      `json:"key_bytes,omitempty"`
	Value         string      `json:"value,omitempty"`
	ValueBytes    []byte      `json:"value_bytes,omitempty"`
	Expect        kv.Revision `json:"expect,omitempty"`
	Delta         int64       `json:"delta,omitempty"`
	TTL           int64       `json:"ttl,omitempty"`
	ExpireAt      int64       `json:"expire_at,omitempty"`
	Call          int64       `json:"call"`
	Return        int64       `json:"return"`
	Found         bool        `json:"found,omitempty"`
	Succeeded     bool        `json:"succeeded,omitempty"`
	Observed      string      `json:"observed,omitempty"`
	ObservedBytes []byte      `json:"observed_bytes,omitempty"`
	Revision      kv.Revision `json:"revision,omitempty"`
}

// Write writes a history as JSON lines.
func Write(w io.Writer, h History) error {
	if err := h.Validate(); err != nil {
		return fmt.Errorf("write a history: %w", err)
	}
	out := bufio.NewWriter(w)
	lines := json.NewEncoder(out)
	for i := range h {
		if err := lines.Encode(lineOf(&h[i])); err != nil {
			return fmt.Errorf("write a history: %w", err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write a history: %w", err)
	}
	return nil
}

// Read reads a history from JSON lines; empty lines are passed over. An error names the line and the field.
func Read(r io.Reader) (History, error) {
	var h History
	err := eachLine(r, func(text []byte) error {
		o, err := parse(text)
		h = append(h, o)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read a history: %w", err)
	}
	return h, nil
}

// eachLine hands every line of a file on, but for empty ones. An error names the line.
func eachLine(r io.Reader, take func(text []byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, LineBytesMax)
	n := 1
	for ; lines.Scan(); n++ {
		if len(lines.Bytes()) == 0 {
			continue
		}
		if err := take(lines.Bytes()); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return &kv.InvalidError{Field: fmt.Sprintf("line %d", n), Bound: fmt.Sprintf("at most %d bytes", LineBytesMax)}
	}
	return lines.Err()
}

func parse(text []byte) (Operation, error) {
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return Operation{}, err
	}
	o := Operation{
		Process: l.Process, Kind: Kind(nameIndex(kindNames[:], l.F)), Outcome: Outcome(nameIndex(outcomeNames[:], l.Type)),
		Key: join(l.Key, l.KeyBytes), Value: join(l.Value, l.ValueBytes), Observed: join(l.Observed, l.ObservedBytes),
		Expect: l.Expect, Delta: l.Delta, TTL: l.TTL, ExpireAt: l.ExpireAt, Call: l.Call, Return: l.Return,
		Found: l.Found, Succeeded: l.Succeeded, Revision: l.Revision,
	}
	return o, o.validate()
}

func lineOf(o *Operation) line {
	l := line{
		Process: o.Process, Type: o.Outcome.String(), F: o.Kind.String(),
		Expect: o.Expect, Delta: o.Delta, TTL: o.TTL, ExpireAt: o.ExpireAt, Call: o.Call, Return: o.Return,
		Found: o.Found, Succeeded: o.Succeeded, Revision: o.Revision,
	}
	l.Key, l.KeyBytes = split(o.Key)
	l.Value, l.ValueBytes = split(o.Value)
	l.Observed, l.ObservedBytes = split(o.Observed)
	return l
}

func split(s string) (text string, bytes []byte) {
	if utf8.ValidString(s) {
		return s, nil
	}
	return "", []byte(s)
}

func join(text string, bytes []byte) string {
	if bytes != nil {
		return string(bytes)
	}
	return text
}

// nameIndex finds a name, and gives 0 for a stranger.
func nameIndex(names []string, name string) int {
	if name == "" {
		return 0
	}
	return max(slices.Index(names, name), 0)
}
