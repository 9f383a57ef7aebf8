package server

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// TestGetsShareNothing: what a call leaves behind in the objects that the next one takes (route, key, value, descriptors) is
// not seen there.
func TestGetsShareNothing(t *testing.T) {
	m := newMemory()
	for i := range 16 {
		m.keys[fmt.Sprint("key", i)] = kv.Record{Value: fmt.Append(nil, "value of ", i), Revision: kv.Revision(100 + i), ExpireAt: int64(i % 2)}
	}
	m.keys["k"] = kv.Record{Revision: 1}
	_, conn := serve(t, Config{Backend: m})
	api := kvdv1.NewKVClient(conn)
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for n := range 200 {
				r := &kvdv1.GetRequest{Key: fmt.Append(nil, "key", i)}
				old := n%3 == 0
				if old {
					r.Header = &kvdv1.RequestHeader{Shard: 9, Version: 7}
				}
				resp, err := api.Get(t.Context(), r)
				if err != nil || string(resp.Value) != fmt.Sprint("value of ", i) || resp.Revision != uint64(100+i) || resp.ExpireAtMs != int64(i%2) || (len(resp.Header.Descriptors) > 0) != old {
					t.Errorf("get %d of key%d: %v, %v", n, i, resp, err)
					return
				}
				if resp, err = api.Get(t.Context(), &kvdv1.GetRequest{Key: []byte("k")}); err != nil || !resp.Found || len(resp.Value) > 0 || resp.ExpireAtMs != 0 {
					t.Errorf("get %d of an empty value: %v, %v", n, resp, err)
					return
				}
			}
		})
	}
	all.Wait()
}

// TestColdReadsLookOnce: a key that is not in memory is looked for there once, by whatever way it is asked for.
func TestColdReadsLookOnce(t *testing.T) {
	m := &counted{table: newTable()}
	m.cold, m.keys["k"] = true, kv.Record{Value: []byte("v"), Revision: 1}
	_, conn := serve(t, Config{Backend: m})
	api := kvdv1.NewKVClient(conn)
	one, err := api.Get(t.Context(), &kvdv1.GetRequest{Key: []byte("k")})
	require.NoError(t, err)
	require.True(t, one.Found)
	require.EqualValues(t, 1, m.reads.Load())
	batch, err := api.BatchGet(t.Context(), &kvdv1.BatchGetRequest{Keys: [][]byte{[]byte("k")}})
	require.NoError(t, err)
	require.Len(t, batch.Results, 1)
	require.EqualValues(t, 2, m.reads.Load())
	stream, err := api.Pipeline(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&kvdv1.PipelineRequest{Ops: []*kvdv1.PipelineOp{getOp(1, "k")}}))
	answer, err := stream.Recv()
	require.NoError(t, err)
	require.Len(t, answer.Results, 1)
	require.EqualValues(t, 3, m.reads.Load())
}

// sent is a request as it comes from the transport.
func sent(tb testing.TB, r *kvdv1.GetRequest) func(any) error {
	b, err := r.MarshalVT()
	require.NoError(tb, err)
	return func(into any) error {
		m := into.(*getRequest)
		m.Reset()
		return m.UnmarshalVT(b)
	}
}

// TestGetAllocates nothing below gRPC, if the answer is in memory.
func TestGetAllocates(t *testing.T) {
	n := testing.AllocsPerRun(1000, oneCall(t))
	require.Less(t, n, 1.0)
}

// BenchmarkGetCall is a Get from memory below gRPC, decoded, counted and encoded.
func BenchmarkGetCall(b *testing.B) {
	call := oneCall(b)
	b.ReportAllocs()
	for b.Loop() {
		call()
	}
}

func oneCall(tb testing.TB) func() {
	m := newTable()
	m.fill("k")
	s := New(Config{Backend: m})
	tb.Cleanup(s.grpc.Stop)
	decode := sent(tb, &kvdv1.GetRequest{Key: []byte("k"), Header: &kvdv1.RequestHeader{Shard: 1, Version: 1}})
	ctx, b := context.Background(), make([]byte, 1024)
	return func() {
		resp, err := s.handleGet(nil, ctx, decode, nil)
		if err != nil {
			tb.Fatal(err)
		}
		reply := resp.(*getReply)
		if _, err := reply.MarshalToSizedBufferVT(b[:reply.SizeVT()]); err != nil {
			tb.Fatal(err)
		}
		reply.Encoded()
	}
}
