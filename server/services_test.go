package server

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// foreign is how a client that knows nothing of kvd connects: with gRPC's own codec and limits.
func foreign() grpc.DialOption { return grpc.WithTransportCredentials(insecure.NewCredentials()) }

// TestReflection: what grpcurl does for "list" and "describe".
func TestReflection(t *testing.T) {
	_, conn := serve(t, Config{Backend: newTable(), Nodes: kvdv1.UnimplementedNodeServiceServer{}}, foreign())
	stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	require.NoError(t, err)
	ask := func(r *reflectionv1.ServerReflectionRequest) *reflectionv1.ServerReflectionResponse {
		require.NoError(t, stream.Send(r))
		resp, err := stream.Recv()
		require.NoError(t, err)
		require.Nil(t, resp.GetErrorResponse())
		return resp
	}
	var names []string
	list := &reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}
	for _, s := range ask(list).GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	require.Subset(t, names, []string{"kvd.v1.KV", "kvd.v1.Admin", "kvd.v1.NodeService", "grpc.health.v1.Health"})
	describe := &reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "kvd.v1.KV.Get"}}
	files := ask(describe).GetFileDescriptorResponse().GetFileDescriptorProto()
	require.NotEmpty(t, files)
	file := &descriptorpb.FileDescriptorProto{}
	require.NoError(t, proto.Unmarshal(files[0], file))
	require.Equal(t, "kvd.v1", file.GetPackage())
}

// TestForeignClient: gRPC's standard codec, and its limit of 4 MiB, do for every answer.
func TestForeignClient(t *testing.T) {
	m := newTable()
	_, conn := serve(t, Config{Backend: m}, foreign())
	api := kvdv1.NewKVClient(conn)
	_, err := api.Put(t.Context(), &kvdv1.PutRequest{Key: []byte("k"), Value: make([]byte, kv.ValueBytesMax)})
	require.NoError(t, err)
	resp, err := api.Get(t.Context(), &kvdv1.GetRequest{Key: []byte("k")})
	require.NoError(t, err)
	require.Len(t, resp.Value, kv.ValueBytesMax)
	batch, err := api.BatchGet(t.Context(), &kvdv1.BatchGetRequest{Keys: [][]byte{[]byte("k"), []byte("k"), []byte("k"), []byte("k")}})
	require.NoError(t, err)
	require.EqualValues(t, 2, batch.KeysLeft)
	// What nodes send to each other is larger than what clients may.
	_, err = api.Put(t.Context(), &kvdv1.PutRequest{Key: []byte("k"), Value: make([]byte, kv.EntryBytesMax+kv.AppendBytesMax)})
	require.NotEqual(t, codes.ResourceExhausted, status.Code(err))
	_, err = api.Put(t.Context(), &kvdv1.PutRequest{Key: []byte("k"), Value: make([]byte, kv.MessageBytesMax)})
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
}

// TestHealthFollowsTheNode: not serving until it does, and not any more before it stops.
func TestHealthFollowsTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &readiness{table: newTable()}
		s := New(Config{Backend: m})
		defer s.grpc.Stop() // It ends the workers.
		is := func(want healthv1.HealthCheckResponse_ServingStatus) {
			time.Sleep(readyInterval) // The bubble's clock: nothing is waited for.
			synctest.Wait()
			for _, name := range []string{"", "kvd.v1.KV", "kvd.v1.Admin"} {
				resp, err := s.health.Check(t.Context(), &healthv1.HealthCheckRequest{Service: name})
				require.NoError(t, err)
				require.Equal(t, want, resp.Status, name)
			}
		}
		is(healthv1.HealthCheckResponse_NOT_SERVING)
		ctx, cancel := context.WithCancel(t.Context())
		go s.WatchReady(ctx)
		is(healthv1.HealthCheckResponse_NOT_SERVING)
		m.set(true)
		is(healthv1.HealthCheckResponse_SERVING)
		m.set(false)
		is(healthv1.HealthCheckResponse_NOT_SERVING)
		m.set(true)
		is(healthv1.HealthCheckResponse_SERVING)
		cancel()
		is(healthv1.HealthCheckResponse_NOT_SERVING)
	})
}

// readiness is a backend that serves or does not.
type readiness struct {
	*table
	serves bool
}

func (r *readiness) set(serves bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.serves = serves
}

func (r *readiness) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.serves {
		return nil
	}
	return kv.ErrNoMap
}

// raw sends bytes as they are.
type raw struct{}

func (raw) Name() string { return "proto" }
func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}
func (raw) Unmarshal(mem.BufferSlice, any) error { return nil }

// TestGarbage: bytes that are no message are refused by every method, and the server goes on.
func TestGarbage(t *testing.T) {
	s, conn := serve(t, Config{Backend: newTable(), Nodes: kvdv1.UnimplementedNodeServiceServer{}}, foreign())
	for name := range s.methods {
		if !strings.HasPrefix(name, "/kvd.v1.") {
			continue
		}
		for _, garbage := range []string{"\xff", "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "\x0a\x05abc"} {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, name, grpc.ForceCodecV2(raw{}))
			require.NoError(t, err)
			_ = stream.SendMsg([]byte(garbage))
			_ = stream.CloseSend()
			err = stream.RecvMsg(nil)
			cancel()
			require.Contains(t, []codes.Code{codes.Internal, codes.Unimplemented}, status.Code(err), "%s: %v", name, err)
		}
	}
	_, err := kvdv1.NewKVClient(conn).Put(t.Context(), &kvdv1.PutRequest{Key: []byte("k")})
	require.NoError(t, err)
}

// TestTooManyParts: a message that would take far more memory than it has bytes is refused.
func TestTooManyParts(t *testing.T) {
	_, conn := serve(t, Config{Backend: newTable()}, foreign())
	for method, element := range map[string]string{"Pipeline": "\x0a\x00", "BatchGet": "\x12\x00", "Txn": "\x1a\x00"} {
		stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/kvd.v1.KV/"+method, grpc.ForceCodecV2(raw{}))
		require.NoError(t, err)
		_ = stream.SendMsg([]byte(strings.Repeat(element, kv.MessagePartsMax+1)))
		_ = stream.CloseSend()
		require.ErrorContains(t, stream.RecvMsg(nil), "at most 65536 elements", method)
	}
}

// TestCallsAreCounted: by method and code.
func TestCallsAreCounted(t *testing.T) {
	m := newTable()
	s, conn := serve(t, Config{Backend: m})
	api := kvdv1.NewKVClient(conn)
	for range 3 {
		_, err := api.Put(t.Context(), &kvdv1.PutRequest{Key: []byte("k")})
		require.NoError(t, err)
	}
	_, err := api.Get(t.Context(), &kvdv1.GetRequest{})
	require.Error(t, err)
	w := httptest.NewRecorder()
	s.HTTP().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	require.Contains(t, w.Body.String(), `kvd_call_seconds_count{code="OK",method="/kvd.v1.KV/Put"} 3`)
	require.Contains(t, w.Body.String(), "\nkvd_log_syncs_total 0\n", "bench reads it by this name")
	require.Contains(t, w.Body.String(), `kvd_call_seconds_count{code="InvalidArgument",method="/kvd.v1.KV/Get"} 1`)
	require.Contains(t, w.Body.String(), "kvd_memory_budget_bytes")
}

// BenchmarkInterceptor is a call without its work.
func BenchmarkInterceptor(b *testing.B) {
	s := New(Config{Backend: newTable()})
	info := &grpc.UnaryServerInfo{FullMethod: kvdv1.KV_Get_FullMethodName}
	handler := func(context.Context, any) (any, error) { return nil, nil }
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = s.unary(ctx, nil, info, handler)
	}
}

// BenchmarkCall is a call over a connection on loopback.
func BenchmarkCall(b *testing.B) {
	m := newTable()
	m.fill("k")
	_, conn := serve(b, Config{Backend: m})
	api := kvdv1.NewKVClient(conn)
	b.Run("Get", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := api.Get(b.Context(), &kvdv1.GetRequest{Key: []byte("k")}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Put", func(b *testing.B) {
		value := make([]byte, 128)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := api.Put(b.Context(), &kvdv1.PutRequest{Key: []byte("k"), Value: value}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
