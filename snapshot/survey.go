package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/storage"
)

// A survey walks through a shard's data for a split: it finds where to cut, and counts what lies above. It takes as long as
// the data is large, so it is done beside the loop, on a view, and ends with the context's error soon after the context has
// ended.

// walk calls f at each key of a span until it returns false. The iterator is at the key.
func walk(ctx context.Context, r storage.Reader, span kv.Span, f func(it storage.Iterator) (bool, error)) error {
	it, err := r.Iter(span)
	if err != nil {
		return fmt.Errorf("read the data of a survey: %w", err)
	}
	for more := true; more && it.Next(); {
		if more, err = f(it); err == nil {
			err = ctx.Err()
		}
		if err != nil {
			break
		}
	}
	// An iterator that failed looks as if it had come to its end: only its Close tells.
	if err := errors.Join(err, it.Close()); err != nil {
		return fmt.Errorf("read the data of a survey: %w", err)
	}
	return nil
}

// sized calls f for each key of a span with the bytes of key and value, and whether it expires, until f returns false.
func sized(ctx context.Context, r storage.Reader, span kv.Span, f func(key []byte, size uint64, expires bool) bool) error {
	return walk(ctx, r, span, func(it storage.Iterator) (bool, error) {
		rec, err := it.Record()
		if err != nil {
			return false, err
		}
		return f(it.Key(), uint64(len(it.Key())+len(rec.Value)), rec.ExpireAt != 0), nil
	})
}

// Count counts what lies in a span, exactly: keys, bytes of keys and values, and keys with an expiry.
func Count(ctx context.Context, r storage.Reader, span kv.Span) (keys, size, expiring uint64, err error) {
	err = sized(ctx, r, span, func(_ []byte, n uint64, expires bool) bool {
		keys, size = keys+1, size+n
		if expires {
			expiring++
		}
		return true
	})
	if err != nil {
		return 0, 0, 0, err
	}
	return keys, size, expiring, nil
}

// Middle gives the two neighbours in the data of a span between which a cut leaves the larger side as small as can be, where
// total is the bytes of all keys and values. Both are nil if there are not two keys.
func Middle(ctx context.Context, r storage.Reader, span kv.Span, total uint64) (left, right []byte, err error) {
	var last []byte
	var before, best uint64
	err = sized(ctx, r, span, func(key []byte, n uint64, _ bool) bool {
		if last != nil {
			if larger := max(before, total-min(before, total)); right == nil || larger < best {
				left, right, best = append(left[:0], last...), append(right[:0], key...), larger
			}
			if before >= total-min(before, total) {
				return false // From here on the left side is the larger, and grows.
			}
		}
		last, before = append(last[:0], key...), before+n
		return true
	})
	if err != nil {
		return nil, nil, err
	}
	return left, right, nil
}

// Neighbours gives the last key of a span below one, and the first at or above it: any key above the first and up to the
// second cuts the data alike. Both are nil if either is missing: then a cut there leaves one side empty.
func Neighbours(ctx context.Context, r storage.Reader, span kv.Span, at []byte) (left, right []byte, err error) {
	err = walk(ctx, r, span, func(it storage.Iterator) (bool, error) {
		if bytes.Compare(it.Key(), at) >= 0 {
			right = bytes.Clone(it.Key())
			return false, nil
		}
		left = append(left[:0], it.Key()...)
		return true, nil
	})
	if err != nil || left == nil || right == nil {
		return nil, nil, err
	}
	return left, right, nil
}
