package storage

import (
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/kvdstore/kvd/kv"
)

// digest is a checksum over numbers and strings of bytes.
type digest struct {
	h *xxhash.Digest
	b []byte
}

func newDigest() *digest { return &digest{h: xxhash.New()} }

func (d *digest) numbers(numbers ...uint64) {
	d.b = d.b[:0]
	for _, n := range numbers {
		d.b = binary.BigEndian.AppendUint64(d.b, n)
	}
	_, _ = d.h.Write(d.b)
}

func (d *digest) bytes(b []byte) {
	d.numbers(uint64(len(b)))
	_, _ = d.h.Write(b)
}

// hashLog is a checksum over what a log store holds.
func hashLog(l Log) (uint64, error) {
	groups, err := l.Groups()
	if err != nil {
		return 0, err
	}
	d := newDigest()
	for _, id := range groups {
		st, _, err := l.Load(id)
		if err != nil {
			return 0, err
		}
		d.numbers(uint64(id.Shard), uint64(id.Replica), uint64(st.Hard.Term), uint64(st.Hard.Vote), uint64(st.Hard.Commit),
			uint64(st.Truncated.Index), uint64(st.Truncated.Term), uint64(st.Last))
		for lo := st.Truncated.Index + 1; lo <= st.Last; {
			entries, err := l.Entries(id, lo, st.Last+1, 1<<20)
			if err != nil {
				return 0, err
			}
			for _, e := range entries {
				d.numbers(e.GetIndex(), e.GetTerm(), uint64(e.GetType()))
				d.bytes(e.GetData())
			}
			lo += kv.Index(len(entries))
		}
	}
	return d.h.Sum64(), nil
}

// hashState is a checksum over what a state store holds: states of replicas, tombstones, data, and the index of expiries.
func hashState(s State) (uint64, error) {
	d := newDigest()
	shards, err := s.Shards()
	if err != nil {
		return 0, err
	}
	for _, record := range shards {
		state, err := record.State.MarshalVT()
		if err != nil {
			return 0, err
		}
		d.numbers(uint64(record.Shard))
		d.bytes(state)
	}
	tombstones, err := s.Tombstones()
	if err != nil {
		return 0, err
	}
	for _, shard := range slices.Sorted(maps.Keys(tombstones)) {
		d.numbers(uint64(shard), uint64(tombstones[shard]))
	}
	it, err := s.Iter(kv.Span{})
	if err != nil {
		return 0, err
	}
	for it.Next() {
		rec, err := it.Record()
		if err != nil {
			return 0, errors.Join(err, it.Close())
		}
		d.bytes(it.Key())
		d.bytes(rec.Value)
		d.numbers(uint64(rec.Revision), uint64(rec.ExpireAt))
	}
	if err := it.Close(); err != nil {
		return 0, err
	}
	_, _, err = s.Due(kv.Due{}, math.MaxInt64, math.MaxInt, func(x kv.Due) bool {
		d.numbers(uint64(x.ExpireAt))
		d.bytes(x.Key)
		return true
	})
	return d.h.Sum64(), err
}
