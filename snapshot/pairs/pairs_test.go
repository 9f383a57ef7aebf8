package pairs

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/kvdstore/kvd/kv"
)

type pair struct {
	key string
	rec kv.Record
}

func all(b []byte) (list []pair, err error) {
	err = Each(b, func(key []byte, rec kv.Record) error {
		list = append(list, pair{string(key), rec})
		return nil
	})
	return list, err
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, want := New(16), []pair(nil)
		for range rapid.IntRange(0, 5).Draw(t, "pairs") {
			p := pair{rapid.StringN(0, 5, 20).Draw(t, "key"), kv.Record{
				Value: []byte(rapid.StringN(0, 5, 20).Draw(t, "value")), Revision: kv.Revision(rapid.Uint64().Draw(t, "revision")),
				ExpireAt: rapid.Int64Min(0).Draw(t, "expiry"),
			}}
			b, want = Append(b, []byte(p.key), p.rec), append(want, p)
		}
		got, err := all(b)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%v became %v, %v", want, got, err)
		}
		for i := range got {
			if got[i].key != want[i].key || !bytes.Equal(got[i].rec.Value, want[i].rec.Value) || got[i].rec.Revision != want[i].rec.Revision || got[i].rec.ExpireAt != want[i].rec.ExpireAt {
				t.Fatalf("%v became %v", want[i], got[i])
			}
		}
	})
}

// TestRefused: the empty text, another format, a pair that ends too early, an expiry below 0; and the error of f ends it.
func TestRefused(t *testing.T) {
	whole := Append(New(0), []byte("key"), kv.Record{Value: []byte("value"), Revision: 3})
	for name, b := range map[string][]byte{
		"nothing": nil, "another format": {2}, "cut": whole[:len(whole)-1], "a length past the end": {1, 200, 1},
		"an expiry below 0": {1, 1, 'k', 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0},
	} {
		if _, err := all(b); !errors.As(err, new(*kv.InvalidError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Each(whole, func([]byte, kv.Record) error { return kv.ErrStopping }); !errors.Is(err, kv.ErrStopping) {
		t.Errorf("got %v", err)
	}
}

// FuzzEach: whatever comes, it is read or refused, and what is read can be written again.
func FuzzEach(f *testing.F) {
	f.Add(Append(New(0), []byte("key"), kv.Record{Value: []byte("value"), Revision: 3, ExpireAt: 9}))
	f.Add([]byte{1, 200, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		again := New(len(b))
		err := Each(b, func(key []byte, rec kv.Record) error {
			again = Append(again, key, rec)
			return nil
		})
		if err == nil {
			if list, err := all(again); err != nil || len(again) > len(b) {
				t.Fatalf("%x became %x: %v, %v", b, again, list, err)
			}
		}
	})
}
