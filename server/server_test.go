package server

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
)

// memory is a backend that holds keys in a map, of one shard.
type memory struct {
	keys     map[string]kv.Record
	revision kv.Revision
	ready    error
	fail     error
	busy     bool
	lag      time.Duration
	operator
}

var _ Backend = (*memory)(nil)

func newMemory() *memory { return &memory{keys: map[string]kv.Record{}} }

var header = kv.Header{Shard: 1, Epoch: kv.Epoch{Version: 1, Config: 1}, Revision: 1, Node: 1}

func (m *memory) Moment() time.Duration { return time.Second }

func (m *memory) TryGet(_ time.Duration, key []byte) (kv.Record, bool, kv.Header, bool) {
	rec, found := m.keys[string(key)]
	return rec, found, header, found
}

func (m *memory) TryGets(at time.Duration, reads []node.Read) { tryEach(m, at, reads) }

// tryEach is TryGets by TryGet.
func tryEach(b interface {
	TryGet(time.Duration, []byte) (kv.Record, bool, kv.Header, bool)
}, at time.Duration, reads []node.Read) {
	for i := range reads {
		rec, found, h, ok := b.TryGet(at, reads[i].Key)
		reads[i].Get = node.Get{Ok: ok, Found: found, Record: rec, Header: h}
	}
}

func (m *memory) Get(_ context.Context, _ kv.Route, key []byte, _ kv.Level) (kv.Record, bool, kv.Header, error) {
	rec, found, h, _ := m.TryGet(m.Moment(), key)
	return rec, found, h, m.fail
}

func (m *memory) Write(_ context.Context, _ kv.Route, c *kv.Command) (kv.Result, kv.Header, error) {
	if m.fail != nil {
		return kv.Result{}, kv.Header{}, m.fail
	}
	m.revision++
	m.keys[string(c.Key)] = kv.Record{Value: c.Value, Revision: m.revision}
	return kv.Result{Status: kv.Done, Revision: m.revision}, header, nil
}

func (m *memory) Submit(ctx context.Context, _ time.Time, r kv.Route, c *kv.Command, done func(kv.Result, kv.Header, error)) {
	done(m.Write(ctx, r, c))
}
func (m *memory) ScanChunk(context.Context, kv.Route, kv.ScanRequest) (kv.Chunk, error) {
	return kv.Chunk{Header: header}, m.fail
}
func (m *memory) Stale(r kv.Route, _ []byte) []*kv.Descriptor {
	if r.Version == 0 || r.Version == 1 {
		return nil
	}
	return []*kv.Descriptor{{Shard: 1, Epoch: kv.Epoch{Version: 1, Config: 1}}}
}
func (m *memory) Meta() (*kvdv1.MetaState, <-chan struct{}) { return nil, nil }
func (m *memory) Busy() bool                                { return false }
func (m *memory) BusyHere() bool                            { return m.busy }
func (m *memory) Lag() time.Duration                        { return m.lag }
func (m *memory) Leader(kv.ShardID) kv.NodeID               { return 1 }
func (m *memory) NodeAddress(kv.NodeID) string              { return "127.0.0.1:1" }
func (m *memory) Shards(context.Context) ([]*kvdv1.ShardInfo, []kv.NodeID, error) {
	return nil, nil, m.fail
}
func (m *memory) Nodes(context.Context) ([]*kvdv1.NodeInfo, error)     { return nil, m.fail }
func (m *memory) Local(context.Context) (*kvdv1.StatusResponse, error) { return nil, m.fail }
func (m *memory) Settings(context.Context) ([]*kvdv1.Setting, error)   { return nil, m.fail }
func (m *memory) SetSetting(context.Context, string, string) error     { return m.fail }
func (m *memory) Ready() error                                         { return m.ready }
func (m *memory) Metrics() node.Metrics                                { return node.Metrics{} }

// TestErrorsSayTheirOutcome: every error of every call has a detail that says not done or unknown.
func TestErrorsSayTheirOutcome(t *testing.T) {
	for _, c := range []struct {
		err     error
		code    codes.Code
		outcome kvdv1.ErrorDetail_Outcome
	}{
		{&kv.InvalidError{Field: "key", Bound: "some"}, codes.InvalidArgument, kvdv1.ErrorDetail_NOT_DONE},
		{&kv.NotLeaderError{Shard: 1, Leader: 2}, codes.Unavailable, kvdv1.ErrorDetail_NOT_DONE},
		{&kv.OverloadError{What: "x", RetryAfter: 1}, codes.ResourceExhausted, kvdv1.ErrorDetail_NOT_DONE},
		{kv.ErrUnknown, codes.Unknown, kvdv1.ErrorDetail_UNKNOWN},
		{context.DeadlineExceeded, codes.DeadlineExceeded, kvdv1.ErrorDetail_UNKNOWN},
	} {
		s := &service{backend: &memory{fail: c.err}}
		_, err := s.Put(t.Context(), &kvdv1.PutRequest{Key: []byte("k")})
		require.Equal(t, c.code, status.Code(err))
		require.Equal(t, c.outcome, wire.DetailOf(err).GetOutcome(), "%v", c.err)
	}
}

// TestRefusalsAreShared: a call that is refused for overload costs no status of its own, and has the same one as any.
func TestRefusalsAreShared(t *testing.T) {
	e := &kv.OverloadError{What: "a queue", RetryAfter: kv.RetryAfter}
	s := &service{backend: &memory{fail: e}}
	_, first := s.Put(t.Context(), &kvdv1.PutRequest{Key: []byte("k")})
	require.Equal(t, wire.StatusError(wire.Write, e, nil).Error(), first.Error())
	require.Equal(t, kvdv1.ErrorDetail_OVERLOADED, wire.DetailOf(first).GetReason())
	_, second := s.Put(t.Context(), &kvdv1.PutRequest{Key: []byte("k")})
	require.Same(t, first, second)
	other := &kv.OverloadError{What: "another queue", RetryAfter: kv.RetryAfter}
	require.Contains(t, s.fail(wire.Read, other).Error(), "another queue")
	other.RetryAfter++
	require.EqualValues(t, kv.RetryAfter.Milliseconds()+1, wire.DetailOf(s.fail(wire.Read, other)).GetRetryAfterMs())
}

func TestRefusals(t *testing.T) {
	s := &service{backend: newMemory()}
	for name, f := range map[string]func() error{
		"an empty key": func() error { _, err := s.Get(t.Context(), &kvdv1.GetRequest{}); return err },
		"a long key": func() error {
			_, err := s.Get(t.Context(), &kvdv1.GetRequest{Key: make([]byte, kv.KeyBytesMax+1)})
			return err
		},
		"absent: false": func() error {
			_, err := s.Put(t.Context(), &kvdv1.PutRequest{Key: []byte("k"), Condition: &kvdv1.Condition{Kind: &kvdv1.Condition_Absent{}}})
			return err
		},
		"a comparison of nothing": func() error {
			_, err := s.Txn(t.Context(), &kvdv1.TxnRequest{Compare: []*kvdv1.Compare{{Key: []byte("k")}}})
			return err
		},
		"an operation of nothing": func() error {
			_, err := s.Txn(t.Context(), &kvdv1.TxnRequest{Then: []*kvdv1.TxnOp{{}}})
			return err
		},
		"too many keys": func() error {
			_, err := s.BatchGet(t.Context(), &kvdv1.BatchGetRequest{Keys: make([][]byte, kv.BatchGetKeysMax+1)})
			return err
		},
		"prefix and start": func() error {
			_, err := s.DeleteRange(t.Context(), &kvdv1.DeleteRangeRequest{Prefix: []byte("a"), Start: []byte("b")})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := f()
			require.Equal(t, codes.InvalidArgument, status.Code(err), "%v", err)
			require.Equal(t, kvdv1.ErrorDetail_NOT_DONE, wire.DetailOf(err).GetOutcome())
			require.NotEmpty(t, wire.DetailOf(err).GetField())
		})
	}
	_, err := s.Get(t.Context(), &kvdv1.GetRequest{Key: []byte("k"), Level: kvdv1.Level_SESSION})
	require.Equal(t, codes.Unimplemented, status.Code(err))
}

func TestStaleRouteBringsDescriptors(t *testing.T) {
	s := &service{backend: newMemory()}
	resp, err := s.Put(t.Context(), &kvdv1.PutRequest{Key: []byte("k"), Header: &kvdv1.RequestHeader{Shard: 9, Version: 7}})
	require.NoError(t, err)
	require.Len(t, resp.Header.Descriptors, 1)
	got, err := s.Get(t.Context(), &kvdv1.GetRequest{Key: []byte("k"), Header: &kvdv1.RequestHeader{Shard: 1, Version: 1}})
	require.NoError(t, err)
	require.True(t, got.Found)
	require.Empty(t, got.Header.Descriptors)
}

func TestHTTP(t *testing.T) {
	m := newMemory()
	s := New(Config{Backend: m})
	get := func(path, from string) int {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.RemoteAddr = from
		w := httptest.NewRecorder()
		s.HTTP().ServeHTTP(w, r)
		return w.Code
	}
	const here, away = "127.0.0.1:5", "192.0.2.1:5"
	require.Equal(t, 200, get("/livez", away))
	require.Equal(t, 200, get("/readyz", away))
	require.Equal(t, 200, get("/metrics", away))
	require.Equal(t, 200, get("/debug/pprof/cmdline", here))
	require.Equal(t, 403, get("/debug/pprof/cmdline", away))
	m.ready = kv.ErrNoMap
	require.Equal(t, 503, get("/readyz", away))
}

// FuzzRequests: whatever arrives, a call ends with an answer or an error.
func FuzzRequests(f *testing.F) {
	for _, m := range []interface{ MarshalVT() ([]byte, error) }{
		&kvdv1.PutRequest{Key: []byte("k"), Value: []byte("v")}, &kvdv1.TxnRequest{Then: []*kvdv1.TxnOp{{Op: &kvdv1.TxnOp_Get{}}}},
		&kvdv1.PipelineOp{Op: &kvdv1.PipelineOp_Get{Get: &kvdv1.GetRequest{Key: []byte("k")}}},
	} {
		b, err := m.MarshalVT()
		require.NoError(f, err)
		f.Add(b)
	}
	s := &service{backend: newMemory()}
	f.Fuzz(func(_ *testing.T, b []byte) {
		ctx := context.Background()
		get, put, txn, scan := &kvdv1.GetRequest{}, &kvdv1.PutRequest{}, &kvdv1.TxnRequest{}, &kvdv1.DeleteRangeRequest{}
		if get.UnmarshalVT(b) == nil {
			_, _ = s.Get(ctx, get)
		}
		if put.UnmarshalVT(b) == nil {
			_, _ = s.Put(ctx, put)
		}
		if txn.UnmarshalVT(b) == nil {
			_, _ = s.Txn(ctx, txn)
		}
		if scan.UnmarshalVT(b) == nil {
			_, _ = s.DeleteRange(ctx, scan)
		}
		for _, message := range [][]byte{b, frameOp(b)} {
			x := &scripted{ctx: ctx, raw: [][]byte{message}, sent: func(*kvdv1.PipelineResponse) error { return nil }}
			_ = s.Pipeline(x)
		}
	})
}

func BenchmarkGetHit(b *testing.B) {
	m := newMemory()
	m.keys["key"] = kv.Record{Value: make([]byte, 128), Revision: 1}
	s := &service{backend: m}
	r := &kvdv1.GetRequest{Key: []byte("key")}
	b.ReportAllocs()
	for b.Loop() {
		if a := (&getAnswer{}); !s.fillGet(a, r) || !a.response.Found {
			b.Fatal("it is not in memory")
		}
	}
}

func BenchmarkPut(b *testing.B) {
	s := &service{backend: newMemory()}
	r := &kvdv1.PutRequest{Key: []byte("key"), Value: make([]byte, 128)}
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Put(ctx, r); err != nil {
			b.Fatal(err)
		}
	}
}
