package node

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

// FuzzFounding: whatever is asked and answered while a cluster is founded, nothing panics, and a store that is FOUNDED
// holds a record that a cluster can begin with, which names it. Nobody has a certificate of a member yet.
func FuzzFounding(f *testing.F) {
	nodes := []FoundNode{{Name: "a", Address: "h:1"}, {Name: "b", Address: "h:2"}, {Name: "c", Address: "h:3"}}
	hash := FoundListHash(nodes, "t")
	start := func(name string) *Founder {
		founder, err := NewFounder(FounderConfig{
			Name: name, Nodes: nodes, Token: "t", Rand: rand.New(rand.NewPCG(1, 1)),
			MakeFounding: func(stores map[string]kv.StoreID) *kvdv1.Founding { return foundTestFounding(nodes, stores) },
		})
		if err != nil {
			panic(err)
		}
		return founder
	}
	own := start("b").Unsynced().StoreId
	founding := foundTestFounding(nodes, map[string]kv.StoreID{"a": 1, "b": kv.StoreID(own), "c": 3})
	founding.Meta.ClusterId, founding.ListHash, founding.Sequence = 9, hash, 4
	encode := func(m interface{ MarshalVT() ([]byte, error) }) []byte {
		b, err := m.MarshalVT()
		require.NoError(f, err)
		return b
	}
	prepare := encode(&kvdv1.FoundRequest{FromName: "a", StoreId: 1, Step: kvdv1.FoundRequest_PREPARE, Founding: founding})
	begin := encode(&kvdv1.FoundRequest{FromName: "a", StoreId: 1, Step: kvdv1.FoundRequest_FOUNDED, Founding: founding})
	empty := encode(&kvdv1.FoundResponse{StoreId: 5})
	holds := encode(&kvdv1.FoundResponse{StoreId: 1, Phase: kvdv1.StoreRecord_PREPARED, Founding: founding})
	runs := encode(&kvdv1.FoundResponse{StoreId: 1, Phase: kvdv1.StoreRecord_FOUNDED, Founding: founding})
	for _, lowest := range []bool{true, false} {
		f.Add(lowest, prepare, begin, empty, empty)
		f.Add(lowest, prepare, prepare, holds, empty)
		f.Add(lowest, begin, begin, runs, holds)
		f.Add(lowest, begin, begin, holds, holds)
		f.Add(lowest, []byte{}, []byte{}, []byte{}, encode(&kvdv1.FoundResponse{StoreId: 6}))
	}
	f.Fuzz(func(t *testing.T, lowest bool, ask1, ask2, answer1, answer2 []byte) {
		name := "b"
		if lowest {
			name = "a"
		}
		founder := start(name)
		sync := func() {
			for founder.Unsynced() != nil {
				founder.Synced()
				if r := founder.Record(); foundBegun(r.Phase) {
					require.NoError(t, raftmeta.Check(r.Founding.GetMeta()))
					store, ok := foundStore(r.Founding, name)
					require.True(t, ok)
					require.Equal(t, r.StoreId, store)
					require.NotZero(t, r.ClusterId)
					require.NotZero(t, r.NodeId)
				}
			}
		}
		for _, b := range [][]byte{ask1, ask2} {
			sync()
			r := &kvdv1.FoundRequest{}
			if r.UnmarshalVT(b) != nil {
				return
			}
			r.ListHash = hash
			founder.Request(r)
			sync()
			_ = founder.Answer(r)
		}
		for range 3 {
			founder.Tick()
			sync()
			for i, s := range founder.Sends() {
				r := &kvdv1.FoundResponse{}
				if r.UnmarshalVT([][]byte{answer1, answer2}[i]) != nil {
					return
				}
				r.Name, r.ListHash = s.To.Name, hash
				founder.Response(s, r)
				sync()
			}
		}
		_ = founder.Missing()
	})
}

// TestCopiedDataDirectory: two nodes that hold the same store, since one data directory was copied, found nothing, and
// the log says why.
func TestCopiedDataDirectory(t *testing.T) {
	nodes := []FoundNode{{Name: "a", Address: "h:1"}, {Name: "b", Address: "h:2"}, {Name: "c", Address: "h:3"}}
	for _, stores := range []map[string]uint64{{"b": 5, "c": 5}, {"b": 5, "c": 7}, {"b": 0, "c": 5}} {
		founder, err := NewFounder(FounderConfig{
			Name: "a", Nodes: nodes, Record: &kvdv1.StoreRecord{StoreId: 7}, Rand: rand.New(rand.NewPCG(1, 1)),
			MakeFounding: func(stores map[string]kv.StoreID) *kvdv1.Founding { return foundTestFounding(nodes, stores) },
		})
		require.NoError(t, err)
		for _, s := range founder.Sends() {
			founder.Response(s, &kvdv1.FoundResponse{Name: s.To.Name, ListHash: FoundListHash(nodes, ""), StoreId: stores[s.To.Name]})
		}
		require.Nil(t, founder.Unsynced(), "a cluster is founded")
		require.Len(t, founder.Missing(), 1)
		if stores["b"] != 0 {
			require.Contains(t, founder.Missing()[0], "a data directory was copied")
		}
	}
}
