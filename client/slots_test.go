package client

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kvdstore/kvd/kv"
)

// TestSlots: an id gives the operation that it was given for, once; no other gives any.
func TestSlots(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s slots
		var ids []uint64 // In flight.
		given := map[uint64]bool{}
		flying, over := map[uint64]*operation{}, []uint64{0, 1, kv.PipelineInFlight, 1<<64 - 1}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "put") {
				o := &operation{}
				id := s.put(o)
				if given[id] {
					t.Fatalf("id %d is given twice", id)
				}
				flying[id], given[id] = o, true
				ids = append(ids, id)
			}
			id := rapid.SampledFrom(over).Draw(t, "an old id")
			if flying[id] == nil && s.take(id) != nil {
				t.Fatalf("id %d, which is over or never was, gives an operation", id)
			}
			ids = slices.DeleteFunc(ids, func(id uint64) bool {
				if !rapid.Bool().Draw(t, "answered") {
					return false
				}
				if s.take(id) != flying[id] {
					t.Fatalf("id %d gives another operation", id)
				}
				delete(flying, id)
				over = append(over, id)
				return true
			})
			if s.len() != len(flying) {
				t.Fatalf("%d are said to be in flight, %d are", s.len(), len(flying))
			}
		}
	})
}
