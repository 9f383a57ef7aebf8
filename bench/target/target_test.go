package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvdstore/kvd/bench/load"
	"github.com/kvdstore/kvd/bench/measure"
	"github.com/kvdstore/kvd/kv"
)

// TestRefused: what a store cannot do is refused, with field and bound.
func TestRefused(t *testing.T) {
	here := []string{"127.0.0.1:1"}
	for want, c := range map[string]Config{
		`target: one of [echo etcd kvd memcached pebble redis], is "x"`: {Kind: "x"},
		"endpoints: at least one HOST:PORT":                             {Kind: "kvd"},
		`endpoints: HOST:PORT, one is "127.0.0.1"`:                      {Kind: "etcd", Endpoints: []string{"127.0.0.1"}},
		"endpoints: one for redis, are 2":                               {Kind: "redis", Endpoints: append(here, here...)},
		"etcd can do: it has no pipeline":                               {Kind: "etcd", Endpoints: here, Pipelined: true},
		"memcached can do: it has no scans":                             {Kind: "memcached", Endpoints: here, Ordered: true},
		"depth: 1 without a pipeline, is 2":                             {Kind: "kvd", Endpoints: here, Depth: 2},
	} {
		_, err := Open(c)
		require.ErrorContains(t, err, want)
		_, ok := errors.AsType[*kv.InvalidError](err)
		require.True(t, ok)
	}
}

// TestJudge: an error is unknown when the write may have been done.
func TestJudge(t *testing.T) {
	write, read := load.Op{Kind: load.Update}, load.Op{Kind: load.Read}
	late := &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}
	for _, c := range []struct {
		store       Target
		err         error
		write, read string
	}{
		{&etcd{}, status.Error(codes.Unavailable, "gone"), measure.Unknown, measure.NotDone},
		{&etcd{}, context.DeadlineExceeded, measure.Unknown, measure.NotDone},
		{&etcd{}, status.Error(codes.ResourceExhausted, "too many requests"), measure.NotDone, measure.NotDone},
		{&etcd{}, rpctypes.ErrTimeoutDueToLeaderFail, measure.Unknown, measure.NotDone},
		{&etcd{}, rpctypes.ErrTooManyRequests, measure.NotDone, measure.NotDone},
		{&etcd{}, rpctypes.ErrEmptyKey, measure.Other, measure.Other},
		{&etcd{}, status.Error(codes.InvalidArgument, "no"), measure.Other, measure.Other},
		{&redisStore{}, late, measure.Unknown, measure.NotDone},
		{&redisStore{}, io.EOF, measure.Unknown, measure.NotDone},
		{&redisStore{}, redis.Nil, measure.NotDone, measure.NotDone},
		{&redisStore{}, errors.New("odd"), measure.Other, measure.Other},
		{&memcached{}, fmt.Errorf("read: %w", late), measure.Unknown, measure.NotDone},
		{&echo{}, status.Error(codes.Unavailable, "gone"), measure.NotDone, measure.NotDone},
		{&kvd{}, kv.ErrUnknown, measure.Unknown, measure.Unknown},
		{&kvd{}, errors.New("odd"), measure.Other, measure.Other},
	} {
		require.Equal(t, c.write, c.store.Judge(write, c.err), "%T: a write with %v", c.store, c.err)
		require.Equal(t, c.read, c.store.Judge(read, c.err), "%T: a read with %v", c.store, c.err)
	}
}

// TestSpread: all stores have about as many connections.
func TestSpread(t *testing.T) {
	for servers, want := range map[int]int{1: 6, 2: 3, 3: 2, 5: 2, 9: 1} {
		require.Equal(t, want, perServer(servers), "%d servers", servers)
	}
}

// TestPebble: what was put is found, scanned in order and removed; the rest of a deep turn goes on.
func TestPebble(t *testing.T) {
	s, err := Open(Config{Kind: "pebble", Endpoints: []string{t.TempDir()}, Pipelined: true, Depth: 5})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	x, err := s.Session(0)
	require.NoError(t, err)
	do := func(ops ...load.Op) []load.Result {
		results := make([]load.Result, len(ops))
		x.Do(t.Context(), ops, results)
		return results
	}
	require.Equal(t, []load.Result{{}, {}, {Missed: true}},
		do(load.Op{Kind: load.Insert, Key: []byte("a"), Value: []byte("1")}, load.Op{Kind: load.Update, Key: []byte("b"), Value: []byte("2")}, load.Op{Key: []byte("a")}))
	require.Equal(t, []load.Result{{}, {}, {Missed: true}, {}},
		do(load.Op{Key: []byte("a")}, load.Op{Kind: load.Scan, Key: []byte("b"), Limit: 3}, load.Op{Kind: load.Scan, Key: []byte("b"), End: []byte("b"), Limit: 3}, load.Op{Kind: load.Delete, Key: []byte("a")}))
	require.Equal(t, []load.Result{{Missed: true}}, do(load.Op{Key: []byte("a")}))
}
