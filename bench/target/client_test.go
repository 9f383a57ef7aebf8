package target_test

import (
	"context"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/bench/echo"
	"github.com/kvdstore/kvd/bench/load"
	"github.com/kvdstore/kvd/bench/target"
	"github.com/kvdstore/kvd/kv"
)

// answering is the echo as a node that leads the one shard there is. A node learns from the header how long the value is to
// be, so that is the shard's version.
type answering struct{ *echo.Server }

const valueBytes = 128

func (answering) Map(context.Context, *kvdv1.MapRequest) (*kvdv1.MapResponse, error) {
	return &kvdv1.MapResponse{Version: 1, Nodes: []*kvdv1.Node{{Node: 1, Address: answeringAt.Load().(string)}}, Descriptors: []*kvdv1.Descriptor{{
		Shard: 1000, Epoch: &kvdv1.Epoch{Version: valueBytes, Config: 1}, Replicas: []*kvdv1.Replica{{Node: 1, Replica: 1}}, Leader: 1,
	}}}, nil
}

var answeringAt atomic.Value

// BenchmarkClient compares the client with gRPC's own stub on the same connections, as bench does with whole clusters: each
// kind against the same server, which is in this process. cpu-ns/op is the processor time of both sides, which says more
// than ns/op on a machine with other work.
func BenchmarkClient(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	answeringAt.Store(lis.Addr().String())
	server := grpc.NewServer(grpc.ForceServerCodecV2(wire.ServerCodec()), grpc.MaxRecvMsgSize(kv.MessageBytesMax))
	kvdv1.RegisterKVServer(server, answering{echo.New()})
	go func() { _ = server.Serve(lis) }()
	defer server.Stop()
	for _, x := range []struct {
		name           string
		kind           load.Kind
		callers, depth int
		pipelined      bool
	}{
		{"get", load.Read, 256, 1, false},
		{"put", load.Update, 256, 1, false},
		{"get-alone", load.Read, 1, 1, false},
		{"pipeline-get", load.Read, 1000, 1, true},
		{"pipeline-put", load.Update, 1000, 1, true},
		{"packed-get", load.Read, 16, 64, true},
		{"packed-put", load.Update, 16, 64, true},
	} {
		for _, kind := range []string{"echo", "kvd"} {
			b.Run(x.name+"/"+kind, func(b *testing.B) {
				to, err := target.Open(target.Config{
					Kind: kind, Endpoints: []string{lis.Addr().String()}, Pipelined: x.pipelined, Callers: x.callers, Depth: x.depth, Value: valueBytes,
				})
				require.NoError(b, err)
				defer func() { require.NoError(b, to.Close()) }()
				drive(b, to, x.kind, x.callers, x.depth)
			})
		}
	}
}

// drive has callers do b.N operations, each depth of them at a time. As of a server's requests, their context can be ended.
func drive(b *testing.B, to target.Target, kind load.Kind, callers, depth int) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var left atomic.Int64
	run := func(n int) {
		left.Store(int64(n))
		var all sync.WaitGroup
		for i := range callers {
			s, err := to.Session(i)
			require.NoError(b, err)
			all.Go(func() {
				ops, results := make([]load.Op, depth), make([]load.Result, depth)
				for j := range ops {
					ops[j] = load.Op{Kind: kind, Key: fmt.Appendf(nil, "key-%04d-%06d", i, j), Value: make([]byte, valueBytes)}
				}
				for left.Add(-int64(depth)) >= -int64(depth)+1 {
					s.Do(ctx, ops, results)
					for _, r := range results {
						if r.Err != nil {
							b.Error(r.Err)
							return
						}
					}
				}
			})
		}
		all.Wait()
	}
	run(10 * callers * depth)
	b.ReportAllocs()
	b.ResetTimer()
	before := processorTime()
	run(b.N)
	b.StopTimer()
	b.ReportMetric(float64(processorTime()-before)/float64(b.N), "cpu-ns/op")
}

// processorTime is what this process has taken so far.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
