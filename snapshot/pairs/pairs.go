// Package pairs is the encoding of keys with their records in snapshots and backups: a format byte, then for each pair the
// key, the revision, the expiry and the value, numbers and lengths as varints.
package pairs

import (
	"encoding/binary"
	"fmt"

	"github.com/kvdstore/kvd/kv"
)

// Format is the first byte of pairs.
const Format = 1

// New makes room for so many bytes of pairs.
func New(bytes int) []byte {
	b := make([]byte, 1, bytes+1)
	b[0] = Format
	return b
}

// Append adds a pair to pairs, or to nothing.
func Append(b, key []byte, rec kv.Record) []byte {
	b = binary.AppendUvarint(b, uint64(len(key)))
	b = append(b, key...)
	b = binary.AppendUvarint(b, uint64(rec.Revision))
	b = binary.AppendUvarint(b, uint64(rec.ExpireAt))
	b = binary.AppendUvarint(b, uint64(len(rec.Value)))
	return append(b, rec.Value...)
}

// Each calls f for each pair, until one fails. Key and value are parts of b. What no writer wrote is refused with a
// *kv.InvalidError.
func Each(b []byte, f func(key []byte, rec kv.Record) error) error {
	if len(b) == 0 || b[0] != Format {
		return &kv.InvalidError{Field: "pairs", Bound: fmt.Sprintf("of format %d", Format)}
	}
	for b = b[1:]; len(b) > 0; {
		key, rec, rest, ok := decode(b)
		if !ok {
			return &kv.InvalidError{Field: "pairs", Bound: "whole pairs"}
		}
		if err := f(key, rec); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// decode reads a pair; it is not copied.
func decode(b []byte) (key []byte, rec kv.Record, rest []byte, ok bool) {
	if key, b, ok = decodeBytes(b); !ok {
		return nil, rec, nil, false
	}
	revision, n := binary.Uvarint(b)
	if n <= 0 {
		return nil, rec, nil, false
	}
	b = b[n:]
	expire, n := binary.Uvarint(b)
	if n <= 0 || int64(expire) < 0 {
		return nil, rec, nil, false
	}
	rec = kv.Record{Revision: kv.Revision(revision), ExpireAt: int64(expire)}
	rec.Value, rest, ok = decodeBytes(b[n:])
	return key, rec, rest, ok
}

func decodeBytes(b []byte) (value, rest []byte, ok bool) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, false
	}
	return b[n : n+int(size)], b[n+int(size):], true
}
