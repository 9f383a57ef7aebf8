package node_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/internal/test"
	"github.com/kvdstore/kvd/kv"
)

// BenchmarkLeaseReadHit is a linearizable read from memory, below the API.
func BenchmarkLeaseReadHit(b *testing.B) {
	c := test.New(b, 1)
	c.StartAll()
	key := []byte("key")
	command := &kv.Command{Op: kv.OpPut, Key: key, Value: make([]byte, 128)}
	_, _, err := c.Nodes[0].Write(c.Context(), kv.Route{}, command)
	require.NoError(b, err)
	_, _, _, err = c.Nodes[0].Get(c.Context(), kv.Route{}, key, kv.Linearizable)
	require.NoError(b, err)
	missed := 0
	b.ReportAllocs()
	for b.Loop() {
		if _, found, _, ok := c.Nodes[0].TryGet(c.Nodes[0].Moment(), key); !ok || !found {
			missed++ // The lease is being renewed, or the entry was dropped.
			_, _, _, _ = c.Nodes[0].Get(c.Context(), kv.Route{}, key, kv.Linearizable)
		}
	}
	b.ReportMetric(float64(missed)/float64(b.N), "misses/op")
}

// BenchmarkLeaseReadAbsent is a linearizable read of a key that is not there: it always asks the state store.
func BenchmarkLeaseReadAbsent(b *testing.B) {
	c := test.New(b, 1)
	c.StartAll()
	ctx := c.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, _, err := c.Nodes[0].Get(ctx, kv.Route{}, []byte("absent"), kv.Linearizable); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPut is a durable write on one node: one caller, so one sync each.
func BenchmarkPut(b *testing.B) {
	c := test.New(b, 1)
	c.StartAll()
	ctx := c.Context()
	value := make([]byte, 128)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		command := &kv.Command{Op: kv.OpPut, Key: fmt.Appendf(nil, "key%d", i), Value: value}
		if _, _, err := c.Nodes[0].Write(ctx, kv.Route{}, command); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPutParallel is the same with many callers, who share syncs.
func BenchmarkPutParallel(b *testing.B) {
	c := test.New(b, 1)
	c.StartAll()
	ctx := c.Context()
	value := make([]byte, 128)
	b.ReportAllocs()
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			command := &kv.Command{Op: kv.OpPut, Key: fmt.Appendf(nil, "key%d", i), Value: value}
			if _, _, err := c.Nodes[0].Write(ctx, kv.Route{}, command); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkCalls is writes of many callers beside goroutines that only compute, as compactions and checksums do.
func BenchmarkCalls(b *testing.B) {
	for _, c := range []struct{ callers, computing int }{{1, 0}, {2, 0}, {64, 0}, {256, 0}, {2, 1}, {16, 1}, {2, 6}, {64, 6}} {
		b.Run(fmt.Sprintf("callers=%d/computing=%d", c.callers, c.computing), func(b *testing.B) {
			cluster := test.New(b, 1)
			cluster.StartAll()
			ctx, end := context.WithCancel(cluster.Context())
			var group sync.WaitGroup
			defer group.Wait()
			defer end()
			for range c.computing {
				group.Go(func() {
					for sum := 0; ctx.Err() == nil; {
						for i := range 10_000 {
							sum += i * sum
						}
					}
				})
			}
			var next atomic.Int64
			value := make([]byte, 128)
			var callers sync.WaitGroup
			b.ResetTimer()
			for range c.callers {
				callers.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						command := &kv.Command{Op: kv.OpPut, Key: fmt.Appendf(nil, "key%d", i), Value: value}
						if _, _, err := cluster.Nodes[0].Write(ctx, kv.Route{}, command); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			callers.Wait()
		})
	}
}
