package shard

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// discard takes a step's effects and keeps none.
type discard struct{}

func (discard) Put([]byte, kv.Record)                  {}
func (discard) Delete([]byte)                          {}
func (discard) PutDue(kv.Due)                          {}
func (discard) DeleteDue(kv.Due)                       {}
func (discard) PutShard(kv.ShardID, *kvdv1.ShardState) {}

// BenchmarkApplyPut applies puts of 128 bytes to 4,096 keys that are stored, 64 an entry, an entry a step; the store
// is in memory, and the writer keeps nothing. A figure is of one put.
func BenchmarkApplyPut(b *testing.B) {
	s := newShard(b)
	var entries []*kvdv1.Batch
	for i := 0; i < 4096; i += 64 {
		e := &kvdv1.Batch{}
		for j := range 64 {
			c := put(fmt.Sprintf("key/%08d", i+j), string(make([]byte, 128)))
			e.Commands = append(e.Commands, EncodeCommand(&c))
		}
		entries = append(entries, e)
	}
	s.step(entries...)
	index, _ := s.m.Applied()
	i := 0
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if n%64 != 0 {
			continue
		}
		s.m.Begin(discard{})
		index++
		if _, err := s.m.Apply(index, 6, entries[i%len(entries)]); err != nil {
			b.Fatal(err)
		}
		i++
		s.m.Finish()
		s.m.Committed()
	}
}

// BenchmarkDecode decodes the payload of an entry of 64 puts of 128 bytes. A figure is of one entry.
func BenchmarkDecode(b *testing.B) {
	e := &kvdv1.Batch{}
	for i := range 64 {
		c := put(fmt.Sprintf("key/%08d", i), string(make([]byte, 128)))
		e.Commands = append(e.Commands, EncodeCommand(&c))
	}
	payload, err := Encode(e)
	require.NoError(b, err)
	for name, decode := range map[string]func([]byte) (*kvdv1.Batch, error){"copied": Decode, "shared": DecodeShared} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := decode(payload); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDeleteRangeAgain applies commands over one span of 50,000 keys in one step, as clients that try again or a
// replica that catches up have it. A figure is of all of them.
func BenchmarkDeleteRangeAgain(b *testing.B) {
	s := newShard(b)
	const keys = 50_000
	for i := 0; i < keys; {
		e := &kvdv1.Batch{}
		for range 1000 {
			c := put(fmt.Sprintf("key/%08d", i), "v")
			e.Commands = append(e.Commands, EncodeCommand(&c))
			i++
		}
		s.step(e)
	}
	st := s.m.State()
	remove := kv.Command{Op: kv.OpDeleteRange, Key: []byte("key/"), End: []byte("key0")}
	e := &kvdv1.Batch{}
	for range keys/kv.DeleteChunkMax + 1 {
		e.Commands = append(e.Commands, EncodeCommand(&remove))
	}
	for b.Loop() {
		m := New(st, s.store)
		m.Begin(discard{})
		if _, err := m.Apply(kv.Index(st.AppliedIndex)+1, 6, e); err != nil {
			b.Fatal(err)
		}
		if m.Keys() != 0 {
			b.Fatalf("%d keys are left", m.Keys())
		}
	}
}
