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
	"github.com/kvdstore/kvd/internal/test"
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

// TestStores: what was put is found, scanned in order and bounds, and removed, by a turn of one operation and by a deep one.
func TestStores(t *testing.T) {
	c := test.New(t, 1)
	c.StartAll()
	for name, config := range map[string]Config{
		"pebble": {Kind: "pebble", Endpoints: []string{t.TempDir()}},
		"kvd":    {Kind: "kvd", Endpoints: c.Addresses()},
		"deep":   {Kind: "kvd", Endpoints: c.Addresses(), Pipelined: true, Depth: 8},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(config)
			require.NoError(t, err)
			defer func() { require.NoError(t, s.Close()) }()
			checkStore(t, s)
		})
	}
}

func checkStore(t *testing.T, s Target) {
	x, err := s.Session(0)
	require.NoError(t, err)
	do := func(kind load.Kind, keys ...string) []load.Result {
		var ops []load.Op
		for _, key := range keys {
			ops = append(ops, load.Op{Kind: kind, Key: []byte(key), Value: []byte("1")})
		}
		results := make([]load.Result, len(ops))
		x.Do(t.Context(), ops, results)
		return results
	}
	scan := func(from, to string, limit int) load.Result {
		results := make([]load.Result, 1)
		x.Do(t.Context(), []load.Op{{Kind: load.Scan, Key: []byte(from), End: []byte(to), Limit: limit}}, results)
		return results[0]
	}
	done := []load.Result{{}, {}, {}}
	require.Equal(t, done, do(load.Insert, "a", "b", "c"))
	require.Equal(t, done, do(load.Update, "a", "b", "c"))
	require.Equal(t, []load.Result{{}, {}, {Missed: true}}, do(load.Read, "a", "c", "d"))
	require.Equal(t, load.Result{Items: 3}, scan("a", "", 10))
	require.Equal(t, load.Result{Items: 2}, scan("a", "", 2))
	require.Equal(t, load.Result{Items: 1}, scan("b", "c", 10))
	require.Equal(t, load.Result{Missed: true}, scan("d", "", 10))
	require.Equal(t, done[:2], do(load.Delete, "a", "b"))
	require.Equal(t, []load.Result{{Missed: true}, {Missed: true}, {}}, do(load.Read, "a", "b", "c"))
	require.Equal(t, done[:1], do(load.Delete, "c"))
	require.ErrorIs(t, cannot(load.Op{}, "it").Err, kv.ErrUnsupported)
}
