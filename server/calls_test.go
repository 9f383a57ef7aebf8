package server

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// TestDeleteRangeOverShards: chunk by chunk and shard by shard, nothing outside of the span.
func TestDeleteRangeOverShards(t *testing.T) {
	for name, c := range map[string]struct {
		request *kvdv1.DeleteRangeRequest
		count   uint64
		left    string
	}{
		"a span":          {&kvdv1.DeleteRangeRequest{Start: []byte("b"), End: []byte("n")}, 7, "a1 a2 n1 z1"},
		"a prefix":        {&kvdv1.DeleteRangeRequest{Prefix: []byte("m")}, 2, "a1 a2 b1 b2 b3 b4 c1 n1 z1"},
		"from a key on":   {&kvdv1.DeleteRangeRequest{Start: []byte("m2")}, 3, "a1 a2 b1 b2 b3 b4 c1 m1"},
		"up to a key":     {&kvdv1.DeleteRangeRequest{End: []byte("b2")}, 3, "b2 b3 b4 c1 m1 m2 n1 z1"},
		"an empty span":   {&kvdv1.DeleteRangeRequest{Start: []byte("n"), End: []byte("b")}, 0, "a1 a2 b1 b2 b3 b4 c1 m1 m2 n1 z1"},
		"up to the shard": {&kvdv1.DeleteRangeRequest{Start: []byte("b"), End: []byte("m")}, 5, "a1 a2 m1 m2 n1 z1"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTable("b3", "m")
			m.fill("a1 a2 b1 b2 b3 b4 c1 m1 m2 n1 z1")
			_, conn := serve(t, Config{Backend: m})
			resp, err := kvdv1.NewKVClient(conn).DeleteRange(t.Context(), c.request)
			require.NoError(t, err)
			require.Equal(t, c.count, resp.GetCount())
			require.Empty(t, resp.GetResume())
			require.Equal(t, c.left, m.left())
		})
	}
}

// TestDeleteRangeThatIsRefusedMidway: "not done" means that nothing was removed; what was is counted, with the key to go
// on from.
func TestDeleteRangeThatIsRefusedMidway(t *testing.T) {
	all := &kvdv1.DeleteRangeRequest{Prefix: []byte("k")}
	for name, c := range map[string]struct {
		at   int
		with error
	}{
		"overloaded": {2, &kv.OverloadError{What: "x", RetryAfter: 1}}, "stopping": {2, kv.ErrStopping}, "no leader": {3, &kv.NotLeaderError{Shard: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTable("k5")
			m.fill("k1 k2 k3 k4 k5 k6")
			m.refuse = func(n int, _ *kv.Command) error {
				if n == c.at {
					return c.with
				}
				return nil
			}
			api := kvdv1.NewKVClient(conn(t, m))
			resp, err := api.DeleteRange(t.Context(), all)
			require.NoError(t, err, "keys were removed, so it is not \"not done\"")
			require.NotZero(t, resp.GetCount())
			require.NotEmpty(t, resp.GetResume())
			rest, err := api.DeleteRange(t.Context(), &kvdv1.DeleteRangeRequest{Start: resp.GetResume(), End: kv.PrefixEnd([]byte("k"))})
			require.NoError(t, err)
			require.EqualValues(t, 6, resp.GetCount()+rest.GetCount())
			require.Empty(t, m.left())
		})
	}
	t.Run("at first", func(t *testing.T) {
		m := newTable()
		m.fill("k1")
		m.refuse = func(int, *kv.Command) error { return kv.ErrStopping }
		_, err := kvdv1.NewKVClient(conn(t, m)).DeleteRange(t.Context(), all)
		require.Equal(t, codes.Unavailable, status.Code(err))
		require.Equal(t, kvdv1.ErrorDetail_NOT_DONE, wire.DetailOf(err).GetOutcome())
		require.Equal(t, "k1", m.left())
	})
	t.Run("unknown", func(t *testing.T) {
		m := newTable("k5")
		m.fill("k1 k2 k3 k4 k5")
		m.refuse = func(n int, _ *kv.Command) error {
			if n == 2 {
				return kv.ErrUnknown
			}
			return nil
		}
		_, err := kvdv1.NewKVClient(conn(t, m)).DeleteRange(t.Context(), all)
		require.Equal(t, codes.Unknown, status.Code(err))
		require.Equal(t, kvdv1.ErrorDetail_UNKNOWN, wire.DetailOf(err).GetOutcome())
	})
}

// conn serves a backend.
func conn(t *testing.T, b Backend) *grpc.ClientConn {
	_, c := serve(t, Config{Backend: b})
	return c
}

// scan gathers what a scan gives.
func scan(t *testing.T, api kvdv1.KVClient, r *kvdv1.ScanRequest) (items []*kvdv1.KeyValue, chunks []*kvdv1.ScanResponse, err error) {
	stream, err := api.Scan(t.Context(), r)
	require.NoError(t, err)
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return items, chunks, nil
		}
		if err != nil {
			return items, chunks, err
		}
		items, chunks = append(items, chunk.Items...), append(chunks, chunk)
	}
}

// TestScanOverShards: in key order, each chunk of one shard, with the key to resume from.
func TestScanOverShards(t *testing.T) {
	const keys = "a1 a2 b1 b2 b3 b4 c1 m1 m2 n1 z1"
	m := newTable("b3", "m")
	m.fill(keys)
	api := kvdv1.NewKVClient(conn(t, m))
	for name, c := range map[string]struct {
		request *kvdv1.ScanRequest
		want    string
	}{
		"everything":      {&kvdv1.ScanRequest{}, keys},
		"a span":          {&kvdv1.ScanRequest{Start: []byte("b"), End: []byte("n")}, "b1 b2 b3 b4 c1 m1 m2"},
		"a prefix":        {&kvdv1.ScanRequest{Prefix: []byte("b")}, "b1 b2 b3 b4"},
		"a limit":         {&kvdv1.ScanRequest{Limit: 7}, "a1 a2 b1 b2 b3 b4 c1"},
		"a limit of all":  {&kvdv1.ScanRequest{Limit: 11}, keys},
		"more than there": {&kvdv1.ScanRequest{Limit: 100}, keys},
		"an empty span":   {&kvdv1.ScanRequest{Start: []byte("n"), End: []byte("b")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			items, chunks, err := scan(t, api, c.request)
			require.NoError(t, err)
			got := ""
			for i, item := range items {
				if i > 0 {
					got += " "
				}
				got += string(item.Key)
				require.Equal(t, "value of "+string(item.Key), string(item.Value))
				require.NotZero(t, item.Revision)
			}
			require.Equal(t, c.want, got)
			for i, chunk := range chunks {
				for _, item := range chunk.Items {
					h, _, _ := m.shardOf(item.Key)
					require.EqualValues(t, h.Shard, chunk.GetHeader().GetShard())
				}
				if i < len(chunks)-1 {
					require.NotEmpty(t, chunk.Resume)
				}
			}
		})
	}
	items, _, err := scan(t, api, &kvdv1.ScanRequest{KeysOnly: true, Limit: 1})
	require.NoError(t, err)
	require.Len(t, items, 1)
	require.Empty(t, items[0].Value)
	for _, r := range []*kvdv1.ScanRequest{{Prefix: []byte("a"), End: []byte("b")}, {Limit: 1 << 60}, {Start: make([]byte, kv.KeyBytesMax+1)}} {
		_, _, err := scan(t, api, r)
		require.Equal(t, codes.InvalidArgument, status.Code(err), "%v", err)
	}
	m.fail = &kv.NotLeaderError{Shard: 2, Leader: 3}
	_, _, err = scan(t, api, &kvdv1.ScanRequest{})
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.EqualValues(t, 3, wire.DetailOf(err).GetLeader())
	require.NotEmpty(t, wire.DetailOf(err).GetLeaderAddress())
}

// TestBatchGet: in the order asked for, from memory or not, and no answer larger than the bound.
func TestBatchGet(t *testing.T) {
	for _, cold := range []bool{false, true} {
		m := newTable()
		m.cold = cold
		m.fill("a b")
		m.keys["large"] = kv.Record{Value: make([]byte, kv.ValueBytesMax), Revision: 9}
		api := kvdv1.NewKVClient(conn(t, m))
		resp, err := api.BatchGet(t.Context(), &kvdv1.BatchGetRequest{Keys: [][]byte{[]byte("b"), []byte("missing"), []byte("a")}})
		require.NoError(t, err)
		require.Len(t, resp.Results, 3)
		require.Equal(t, "value of b", string(resp.Results[0].Value))
		require.False(t, resp.Results[1].Found)
		require.Equal(t, "value of a", string(resp.Results[2].Value))
		require.Zero(t, resp.KeysLeft)

		keys := make([][]byte, 200)
		for i := range keys {
			keys[i] = []byte("large")
		}
		read := 0
		for len(keys) > 0 {
			resp, err := api.BatchGet(t.Context(), &kvdv1.BatchGetRequest{Keys: keys})
			require.NoError(t, err)
			require.NotEmpty(t, resp.Results)
			require.LessOrEqual(t, resp.SizeVT(), kv.AnswerBytesMax)
			require.Equal(t, len(keys), len(resp.Results)+int(resp.KeysLeft))
			read += len(resp.Results)
			keys = keys[len(resp.Results):]
		}
		require.Equal(t, 200, read)

		empty, err := api.BatchGet(t.Context(), &kvdv1.BatchGetRequest{})
		require.NoError(t, err)
		require.Empty(t, empty.Results)
		m.fail = &kv.NotLeaderError{Shard: 1}
		_, err = api.BatchGet(t.Context(), &kvdv1.BatchGetRequest{Keys: [][]byte{[]byte("nowhere"), []byte("a")}})
		require.Equal(t, codes.Unavailable, status.Code(err))
	}
}

// deadlines tells what deadline a call brought to the backend.
type deadlines struct {
	*table
	got chan bool
}

func (d deadlines) Write(ctx context.Context, r kv.Route, c *kv.Command) (kv.Result, kv.Header, error) {
	_, ok := ctx.Deadline()
	d.got <- ok
	return d.table.Write(ctx, r, c)
}

// TestEveryRequestHasADeadline: also when the client gave none.
func TestEveryRequestHasADeadline(t *testing.T) {
	d := deadlines{newTable(), make(chan bool, 1)}
	_, err := kvdv1.NewKVClient(conn(t, d)).Put(t.Context(), &kvdv1.PutRequest{Key: []byte("k")})
	require.NoError(t, err)
	require.True(t, <-d.got)
}

// TestMap: nothing when the client has the newest.
func TestMap(t *testing.T) {
	api := kvdv1.NewKVClient(conn(t, newTable("m")))
	resp, err := api.Map(t.Context(), &kvdv1.MapRequest{})
	require.NoError(t, err)
	require.Len(t, resp.Descriptors, 2)
	require.EqualValues(t, 1, resp.Descriptors[0].Leader)
	resp, err = api.Map(t.Context(), &kvdv1.MapRequest{KnownVersion: resp.Version})
	require.NoError(t, err)
	require.Empty(t, resp.Descriptors)
	_, err = kvdv1.NewKVClient(conn(t, newMemory())).Map(t.Context(), &kvdv1.MapRequest{})
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Equal(t, kvdv1.ErrorDetail_NO_MAP, wire.DetailOf(err).GetReason())
}

// parked is a backend whose scans wait.
type parked struct {
	*table
	asked chan int // How large the chunk may be.
	leave chan struct{}
}

func (p *parked) ScanChunk(ctx context.Context, route kv.Route, r kv.ScanRequest) (kv.Chunk, error) {
	p.asked <- r.ChunkBytes()
	<-p.leave
	return p.table.ScanChunk(ctx, route, r)
}

func (p *parked) Write(ctx context.Context, route kv.Route, c *kv.Command) (kv.Result, kv.Header, error) {
	p.asked <- 0
	<-p.leave
	return p.table.Write(ctx, route, c)
}

func (p *parked) Submit(ctx context.Context, _ time.Time, r kv.Route, c *kv.Command, done func(kv.Result, kv.Header, error)) {
	go func() { done(p.Write(ctx, r, c)) }()
}

// TestManyScans: many scans at a time get smaller chunks, too many are refused, and a scan that ended makes room.
func TestManyScans(t *testing.T) {
	p := &parked{newTable(), make(chan int), make(chan struct{})}
	p.fill("k")
	c := conn(t, p)
	ends := make(chan error, kv.ScansMax)
	one := func() {
		stream, err := kvdv1.NewKVClient(c).Scan(t.Context(), &kvdv1.ScanRequest{})
		for err == nil {
			_, err = stream.Recv()
		}
		ends <- err
	}
	sum := 0
	for i := range kv.ScansMax {
		go one()
		asked := <-p.asked
		require.Equal(t, min(kv.ScansBytesMax/(i+1), kv.ScanChunkBytes), asked)
		sum += asked
	}
	require.LessOrEqual(t, sum, 8*kv.ScansBytesMax)
	_, _, err := scan(t, kvdv1.NewKVClient(c), &kvdv1.ScanRequest{})
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.EqualValues(t, kv.RetryAfter.Milliseconds(), wire.DetailOf(err).GetRetryAfterMs())
	p.leave <- struct{}{}
	require.ErrorIs(t, <-ends, io.EOF)
	go one()
	require.Equal(t, kv.ScansBytesMax/kv.ScansMax, <-p.asked)
	close(p.leave)
	for range kv.ScansMax {
		require.ErrorIs(t, <-ends, io.EOF)
	}
}

// TestDrain: calls and operations that have begun are answered, and what is only open (a pipeline
// in which nothing is under way, a watch) keeps nobody.
func TestDrain(t *testing.T) {
	for name, begin := range map[string]func(t *testing.T, c *grpc.ClientConn) (end func() error){
		"a scan": func(t *testing.T, c *grpc.ClientConn) func() error {
			return func() error {
				_, _, err := scan(t, kvdv1.NewKVClient(c), &kvdv1.ScanRequest{})
				return err
			}
		},
		"a write": func(t *testing.T, c *grpc.ClientConn) func() error {
			return func() error {
				_, err := kvdv1.NewKVClient(c).Put(t.Context(), &kvdv1.PutRequest{Key: []byte("k")})
				return err
			}
		},
		"an operation of a pipeline": func(t *testing.T, c *grpc.ClientConn) func() error {
			stream, err := kvdv1.NewKVClient(c).Pipeline(t.Context())
			require.NoError(t, err)
			require.NoError(t, stream.Send(&kvdv1.PipelineRequest{Ops: []*kvdv1.PipelineOp{{
				Id: 1, Op: &kvdv1.PipelineOp_Delete{Delete: &kvdv1.DeleteRequest{Key: []byte("k")}},
			}}}))
			return func() error {
				r, err := stream.Recv()
				if err == nil && r.Results[0].GetError() != nil {
					err = errors.New(r.Results[0].GetError().GetMessage())
				}
				return err
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := &parked{newTable(), make(chan int), make(chan struct{})}
			p.fill("k")
			defer close(p.leave)
			s, c := serve(t, Config{Backend: p})
			idle, err := kvdv1.NewKVClient(c).Pipeline(t.Context())
			require.NoError(t, err)
			require.NoError(t, idle.Send(&kvdv1.PipelineRequest{}))
			watch, err := healthv1.NewHealthClient(c).Watch(t.Context(), &healthv1.HealthCheckRequest{})
			require.NoError(t, err)
			_, err = watch.Recv()
			require.NoError(t, err)

			end := begin(t, c)
			ended, drained, tick := make(chan error, 1), make(chan struct{}), make(chan time.Time)
			go func() { ended <- end() }()
			<-p.asked
			go func() {
				s.drain(tick, nil)
				close(drained)
			}()
			for range 2 * idleLooks {
				select {
				case tick <- time.Time{}:
				case <-drained:
					t.Fatal("it did not wait")
				}
			}
			p.leave <- struct{}{}
			require.NoError(t, <-ended)
			for open := true; open; {
				select {
				case tick <- time.Time{}:
				case <-drained:
					open = false
				}
			}
		})
	}
}
