package server

import (
	"bytes"
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
)

// table is a backend of several shards whose chunks are short, and that can be told to hold or refuse.
type table struct {
	*memory
	mu   sync.Mutex
	cuts []string
	// cold keys are not answered by TryGet.
	cold bool
	// chunk bounds the keys of a chunk.
	chunk int
	// refuse is asked before each command.
	refuse func(n int, c *kv.Command) error
	writes int
	// hold, when not nil, delays writes until it is closed or their context ends.
	hold chan struct{}
	// held, when not nil, delays writes until it is closed, whatever their context.
	held chan struct{}
}

func newTable(cuts ...string) *table { return &table{memory: newMemory(), cuts: cuts, chunk: 3} }

// shardOf gives the shard of a key, its start and its end.
func (m *table) shardOf(key []byte) (h kv.Header, start, end string) {
	h = header
	for i, cut := range m.cuts {
		if string(key) < cut {
			return h, start, cut
		}
		start, h.Shard = cut, kv.ShardID(i+2)
	}
	return h, start, ""
}

func (m *table) Meta() (*kvdv1.MetaState, <-chan struct{}) {
	meta := &kvdv1.MetaState{Version: 7, ClusterId: 3}
	start := ""
	for i, end := range append(slices.Clone(m.cuts), "") {
		meta.Descriptors = append(meta.Descriptors, &kvdv1.Descriptor{Shard: uint64(i + 1), Start: []byte(start), End: []byte(end), Epoch: &kvdv1.Epoch{Version: 1}})
		start = end
	}
	return meta, nil
}

func (m *table) TryGet(_ time.Duration, key []byte) (kv.Record, bool, kv.Header, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rec, found := m.keys[string(key)]
	h, _, _ := m.shardOf(key)
	return rec, found, h, found && !m.cold
}

func (m *table) TryGets(at time.Duration, reads []node.Read) { tryEach(m, at, reads) }

func (m *table) Get(_ context.Context, _ kv.Route, key []byte, _ kv.Level) (kv.Record, bool, kv.Header, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rec, found := m.keys[string(key)]
	h, _, _ := m.shardOf(key)
	return rec, found, h, m.fail
}

func (m *table) Write(ctx context.Context, _ kv.Route, c *kv.Command) (kv.Result, kv.Header, error) {
	if m.held != nil {
		<-m.held
	}
	if m.hold != nil {
		select {
		case <-m.hold:
		case <-ctx.Done():
			return kv.Result{}, kv.Header{}, ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes++
	if m.refuse != nil {
		if err := m.refuse(m.writes, c); err != nil {
			return kv.Result{}, kv.Header{}, err
		}
	}
	h, _, end := m.shardOf(c.Key)
	m.revision++
	h.Revision = m.revision
	r := kv.Result{Status: kv.Done, Revision: m.revision}
	old, found := m.keys[string(c.Key)]
	switch c.Op {
	case kv.OpPut:
		if c.Cond.Kind == kv.IfAbsent && found {
			return kv.Result{Status: kv.ConditionFailed, Revision: old.Revision}, h, nil
		}
		m.keys[string(c.Key)] = kv.Record{Value: c.Value, Revision: m.revision}
	case kv.OpDelete:
		r.Found = found
		delete(m.keys, string(c.Key))
	case kv.OpIncrement:
		r.Counter = c.Delta
	case kv.OpDeleteRange:
		for _, key := range m.sorted(string(c.Key), string(c.End)) {
			if end != "" && key >= end {
				break
			}
			if r.Count == min(m.chunk, c.Limit) {
				r.Resume = []byte(key)
				break
			}
			delete(m.keys, key)
			r.Count++
		}
	}
	return r, h, nil
}

func (m *table) Submit(ctx context.Context, _ time.Time, r kv.Route, c *kv.Command, done func(kv.Result, kv.Header, error)) {
	go func() { done(m.Write(ctx, r, c)) }()
}

// sorted lists the keys of a span.
func (m *table) sorted(start, end string) []string {
	var list []string
	for key := range m.keys {
		if key >= start && (end == "" || key < end) {
			list = append(list, key)
		}
	}
	slices.Sort(list)
	return list
}

func (m *table) ScanChunk(_ context.Context, _ kv.Route, r kv.ScanRequest) (kv.Chunk, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return kv.Chunk{}, m.fail
	}
	if r.Limit < 0 {
		panic("a limit below nothing")
	}
	h, _, end := m.shardOf(r.Span.Start)
	chunk := kv.Chunk{Header: h}
	for _, key := range m.sorted(string(r.Span.Start), string(r.Span.End)) {
		if end != "" && key >= end {
			break
		}
		if len(chunk.Items) == m.chunk || r.Limit > 0 && len(chunk.Items) == r.Limit {
			chunk.Resume = []byte(key)
			return chunk, nil
		}
		rec := m.keys[key]
		if r.KeysOnly {
			rec.Value = nil
		}
		chunk.Items = append(chunk.Items, kv.Item{Key: []byte(key), Record: rec})
	}
	if end != "" && (len(r.Span.End) == 0 || bytes.Compare([]byte(end), r.Span.End) < 0) {
		chunk.Resume = []byte(end)
	}
	return chunk, nil
}

func (m *table) fill(keys string) {
	for _, key := range strings.Fields(keys) {
		m.revision++
		m.keys[key] = kv.Record{Value: []byte("value of " + key), Revision: m.revision}
	}
}

// left lists the keys that are there.
func (m *table) left() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.sorted("", ""), " ")
}

// serve serves a backend on loopback and connects to it, as kvd's own client or, with options, as another.
func serve(t testing.TB, c Config, options ...grpc.DialOption) (*Server, *grpc.ClientConn) {
	s := New(c)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- s.Serve(lis) }()
	if options == nil {
		options = []grpc.DialOption{
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec())),
		}
	}
	conn, err := grpc.NewClient(lis.Addr().String(), options...)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = conn.Close()
		s.Stop(0)
		require.NoError(t, <-served)
	})
	return s, conn
}
