package snapshot

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/storage"
)

// surveyed is a store with some keys, in and out of the span, and those in it, in their order.
func surveyed(t *rapid.T) (*storage.MemState, []kv.Item) {
	s := storage.NewMemState()
	b := s.NewBatch()
	var items []kv.Item
	keys := rapid.SliceOfNDistinct(rapid.StringMatching(`[0am~]{1,3}`), 0, 12, func(key string) string { return key }).Draw(t, "keys")
	slices.Sort(keys)
	for _, key := range keys {
		item := kv.Item{Key: []byte(key), Record: kv.Record{
			Value: make([]byte, rapid.IntRange(0, 50).Draw(t, "size")), ExpireAt: rapid.Int64Range(0, 1).Draw(t, "expiry"),
		}}
		b.Put(item.Key, item.Record)
		if span.Contains(item.Key) {
			items = append(items, item)
		}
	}
	_, err := s.Commit(b)
	require.NoError(t, err)
	return s, items
}

func sizeOf(items []kv.Item) (size uint64) {
	for _, item := range items {
		size += uint64(len(item.Key) + len(item.Record.Value))
	}
	return size
}

// TestSurveys compares what the walks find with what is there.
func TestSurveys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, items := surveyed(t)
		at := []byte(rapid.StringMatching(`[am]{1,3}`).Draw(t, "at"))
		i := slices.IndexFunc(items, func(item kv.Item) bool { return bytes.Compare(item.Key, at) >= 0 })
		if i < 0 {
			i = len(items)
		}

		keys, size, expiring, err := Count(t.Context(), s, kv.Span{Start: at, End: span.End})
		require.NoError(t, err)
		require.EqualValues(t, len(items)-i, keys)
		require.Equal(t, sizeOf(items[i:]), size)
		for _, item := range items[i:] {
			expiring -= uint64(item.Record.ExpireAt)
		}
		require.Zero(t, expiring)

		left, right, err := Neighbours(t.Context(), s, span, at)
		require.NoError(t, err)
		if i == 0 || i == len(items) {
			require.Nil(t, left)
			require.Nil(t, right, "a cut at %q leaves one side empty", at)
		} else {
			require.Equal(t, []string{string(items[i-1].Key), string(items[i].Key)}, []string{string(left), string(right)})
		}

		total := sizeOf(items)
		left, right, err = Middle(t.Context(), s, span, total)
		require.NoError(t, err)
		if len(items) < 2 {
			require.Nil(t, left)
			require.Nil(t, right)
			return
		}
		at = right
		i = slices.IndexFunc(items, func(item kv.Item) bool { return bytes.Equal(item.Key, at) })
		require.Equal(t, string(items[i-1].Key), string(left))
		larger := func(i int) uint64 { return max(sizeOf(items[:i]), sizeOf(items[i:])) }
		for j := 1; j < len(items); j++ {
			require.LessOrEqual(t, larger(i), larger(j), "a cut at %q is better than at %q", items[j].Key, right)
		}
	})
}

// broken is a reader whose disk fails at some key.
type broken struct {
	storage.Reader
	at, seen int
	onNext   func()
	closed   bool
}

type brokenIterator struct {
	storage.Iterator
	b *broken
}

var errBroken = errors.New("the disk failed")

func (b *broken) Iter(span kv.Span) (storage.Iterator, error) {
	b.seen = 0
	it, err := b.Reader.Iter(span)
	return brokenIterator{it, b}, err
}

func (i brokenIterator) Next() bool {
	if i.b.onNext != nil {
		i.b.onNext()
	}
	i.b.seen++
	return i.b.seen != i.b.at && i.Iterator.Next()
}

func (i brokenIterator) Close() error {
	err := i.Iterator.Close()
	i.b.closed = true
	if i.b.at != 0 && i.b.seen >= i.b.at {
		return errBroken
	}
	return err
}

// TestSurveysFail: a disk that fails looks like the end of the data, and is none; and a walk whose context has ended goes no
// further. The iterator is closed all the same.
func TestSurveysFail(t *testing.T) {
	s, st := filled(t, 100)
	for name, survey := range map[string]func(ctx context.Context, r storage.Reader) ([]byte, error){
		"count": func(ctx context.Context, r storage.Reader) ([]byte, error) {
			keys, _, _, err := Count(ctx, r, span)
			return make([]byte, keys), err
		},
		"middle": func(ctx context.Context, r storage.Reader) ([]byte, error) {
			left, right, err := Middle(ctx, r, span, st.Bytes)
			return append(left, right...), err
		},
		"neighbours": func(ctx context.Context, r storage.Reader) ([]byte, error) {
			left, right, err := Neighbours(ctx, r, span, []byte("k00090"))
			return append(left, right...), err
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := &broken{Reader: s, at: 40}
			found, err := survey(t.Context(), b)
			require.ErrorIs(t, err, errBroken)
			require.Empty(t, found)
			require.True(t, b.closed)

			ctx, cancel := context.WithCancel(t.Context())
			b = &broken{Reader: s}
			b.onNext = func() {
				if b.seen == 10 {
					cancel()
				}
			}
			found, err = survey(ctx, b)
			require.ErrorIs(t, err, context.Canceled)
			require.Empty(t, found)
			require.Equal(t, 11, b.seen)
			require.True(t, b.closed)
		})
	}
}
