package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/internal/test"
	"github.com/kvdstore/kvd/kv"
)

func connect(t testing.TB, endpoints ...string) *client.Client {
	c, err := client.New(client.Config{Endpoints: endpoints})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func b(s string) []byte { return []byte(s) }

// TestVerbs uses every call on three nodes and three shards.
func TestVerbs(t *testing.T) {
	cluster := test.New(t, 3, "h", "p")
	cluster.StartAll()
	c, ctx := connect(t, cluster.Addresses()...), cluster.Context()

	_, found, err := c.Get(ctx, b("a"))
	require.NoError(t, err)
	require.False(t, found)
	put, err := c.Put(ctx, b("a"), b("1"), client.IfAbsent())
	require.NoError(t, err)
	require.True(t, put.Succeeded)
	again, err := c.Put(ctx, b("a"), b("2"), client.IfAbsent())
	require.NoError(t, err)
	require.False(t, again.Succeeded)
	require.Equal(t, put.Revision, again.Revision)
	third, err := c.Put(ctx, b("a"), b("3"), client.IfRevision(put.Revision))
	require.NoError(t, err)
	require.True(t, third.Succeeded)
	item, found, err := c.Get(ctx, b("a"))
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, "3", string(item.Record.Value))
	require.Equal(t, third.Revision, item.Record.Revision)

	n, _, err := c.Increment(ctx, b("z"), 5)
	require.NoError(t, err)
	require.EqualValues(t, 5, n)
	_, _, err = c.Increment(ctx, b("a"), 1)
	require.NoError(t, err)
	_, err = c.Put(ctx, b("word"), b("word"))
	require.NoError(t, err)
	_, _, err = c.Increment(ctx, b("word"), 1)
	require.ErrorIs(t, err, kv.ErrNotANumber)
	require.ErrorIs(t, err, client.ErrNotDone)

	resp, err := c.Txn(ctx, &kvdv1.TxnRequest{
		Compare: []*kvdv1.Compare{{Key: b("z"), Kind: &kvdv1.Compare_Value{Value: b("5")}}},
		Then: []*kvdv1.TxnOp{
			{Op: &kvdv1.TxnOp_Put{Put: &kvdv1.TxnPut{Key: b("y"), Value: b("in")}}},
			{Op: &kvdv1.TxnOp_Get{Get: &kvdv1.TxnGet{Key: b("y")}}},
		},
	})
	require.NoError(t, err)
	require.True(t, resp.Succeeded)
	require.Equal(t, "in", string(resp.Results[1].Value))
	_, err = c.Txn(ctx, &kvdv1.TxnRequest{Then: []*kvdv1.TxnOp{
		{Op: &kvdv1.TxnOp_Delete{Delete: &kvdv1.TxnDelete{Key: b("a")}}}, {Op: &kvdv1.TxnOp_Delete{Delete: &kvdv1.TxnDelete{Key: b("z")}}},
	}})
	require.ErrorAs(t, err, new(*kv.CrossShardError))
	require.ErrorIs(t, err, client.ErrNotDone)

	for i := range 30 {
		_, err := c.Put(ctx, fmt.Appendf(nil, "%c/scan", 'b'+i%24), b("s"))
		require.NoError(t, err)
	}
	var keys []string
	for item, err := range c.Scan(ctx, client.ScanOptions{KeysOnly: true}) {
		require.NoError(t, err)
		keys = append(keys, string(item.Key))
	}
	require.IsIncreasing(t, keys)
	require.Len(t, keys, 24+4)
	keys = nil
	for item, err := range c.Scan(ctx, client.ScanOptions{Span: kv.Span{Start: b("c")}, Limit: 9}) {
		require.NoError(t, err)
		keys = append(keys, string(item.Key))
	}
	require.Len(t, keys, 9)
	items, err := c.BatchGet(ctx, [][]byte{b("a"), b("none"), b("z")})
	require.NoError(t, err)
	require.Nil(t, items[1])
	require.Equal(t, "5", string(items[2].Record.Value))

	deleted, err := c.Delete(ctx, b("a"))
	require.NoError(t, err)
	require.True(t, deleted.Found)
	count, err := c.DeleteRange(ctx, kv.Span{})
	require.NoError(t, err)
	require.EqualValues(t, 27, count)
}

func TestExpiry(t *testing.T) {
	cluster := test.New(t, 1)
	cluster.StartAll()
	c, ctx := connect(t, cluster.Addresses()...), cluster.Context()
	_, err := c.Put(ctx, b("short"), b("x"), client.TTL(150*time.Millisecond))
	require.NoError(t, err)
	_, err = c.Put(ctx, b("long"), b("x"), client.TTL(time.Hour))
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, found, err := c.Get(ctx, b("short"))
		return err == nil && !found
	}, 10*time.Second, 10*time.Millisecond)
	_, found, err := c.Get(ctx, b("long"))
	require.NoError(t, err)
	require.True(t, found)
	_, err = c.Put(ctx, b("bad"), b("x"), client.TTL(-time.Second))
	require.ErrorAs(t, err, new(*kv.InvalidError))
}

// TestPipelineThroughALostLeader: a node goes away without a word while writes are under way. Each ends once; those that
// are not known are repeated here, and at the end all are there.
func TestPipelineThroughALostLeader(t *testing.T) {
	cluster := test.New(t, 3, "k3")
	cluster.StartAll()
	c := connect(t, cluster.Addresses()...)
	p := c.Pipeline()
	const writes = 3000
	var wait sync.WaitGroup
	var put func(i int)
	put = func(i int) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		p.GoPut(ctx, fmt.Appendf(nil, "k%d", i), fmt.Appendf(nil, "v%d", i), func(_ client.PutResult, err error) {
			cancel()
			switch {
			case err == nil:
				wait.Done()
			case errors.Is(err, client.ErrUnknown) || errors.Is(err, client.ErrNotDone):
				go put(i)
			default:
				t.Errorf("an error that says neither: %v", err)
				wait.Done()
			}
		})
	}
	for i := range writes {
		wait.Add(1)
		put(i)
		if i == writes/2 {
			cluster.Stop(0, true)
		}
	}
	wait.Wait()
	for i := range writes {
		item, found, err := p.Get(cluster.Context(), fmt.Appendf(nil, "k%d", i))
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, fmt.Sprintf("v%d", i), string(item.Record.Value))
	}
}

// TestNobodyThere: without a cluster a write was surely not done.
func TestNobodyThere(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, lis.Close())
	c := connect(t, lis.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = c.Put(ctx, b("a"), b("1"))
	require.ErrorIs(t, err, client.ErrNotDone)
	require.NotErrorIs(t, err, client.ErrUnknown)
	_, _, err = c.Get(ctx, b("a"))
	require.ErrorIs(t, err, client.ErrNotDone)
}

// TestSilentNode: a node that takes a write and never answers leaves it unknown.
func TestSilentNode(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer lis.Close()
	c := connect(t, lis.Addr().String())
	go func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			// A server's first frame, and then nothing.
			_, _ = conn.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0})
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err = c.Put(ctx, b("a"), b("1"))
	require.ErrorIs(t, err, client.ErrUnknown)
}
