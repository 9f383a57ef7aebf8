package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// TestFoundingRuns founds clusters with real goroutines, in every order of starting, while requests of nodes that are
// there already come before and between this node's own: none of its requests may be forgotten.
func TestFoundingRuns(t *testing.T) {
	for _, size := range []int{1, 3, 5} {
		for seed := range uint64(20) {
			found(t, size, seed)
		}
	}
}

func found(t *testing.T, size int, seed uint64) {
	var nodes []FoundNode
	for i := range size {
		nodes = append(nodes, FoundNode{Name: fmt.Sprintf("n%d", i+1), Address: fmt.Sprintf("a%d", i+1)})
	}
	var mu sync.Mutex
	running := map[string]*Founding{}
	ask := func(ctx context.Context, address string, r *kvdv1.FoundRequest) (*kvdv1.FoundResponse, error) {
		mu.Lock()
		f := running[address]
		mu.Unlock()
		if f == nil {
			return nil, errors.New("connection refused")
		}
		return f.Answer(ctx, r)
	}
	records := make(chan *kvdv1.StoreRecord, size)
	var wait sync.WaitGroup
	for _, i := range rand.New(rand.NewPCG(seed, 1)).Perm(size) {
		founder, err := NewFounder(FounderConfig{
			Name: nodes[i].Name, Nodes: nodes, Token: "t", Rand: rand.New(rand.NewPCG(seed, uint64(i))),
			MakeFounding: func(stores map[string]kv.StoreID) *kvdv1.Founding { return foundTestFounding(nodes, stores) },
		})
		require.NoError(t, err)
		f := NewFounding(founder, func(*kvdv1.StoreRecord) error { return nil }, slog.New(slog.DiscardHandler))
		f.Ask = ask
		mu.Lock()
		running[nodes[i].Address] = f
		mu.Unlock()
		wait.Go(func() {
			record, err := f.Run(t.Context())
			if err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			records <- record
		})
	}
	wait.Wait()
	first := <-records
	for range size - 1 {
		require.Equal(t, first.GetClusterId(), (<-records).GetClusterId())
	}
}
