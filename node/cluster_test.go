package node_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
	"github.com/kvdstore/kvd/transport"
)

// process is one node with its server.
type process struct {
	node   *node.Node
	server *grpc.Server
	dir    string
}

type cluster struct {
	t     testing.TB
	list  []node.FoundNode
	lis   []net.Listener
	nodes []*process
	cuts  [][]byte
}

func newCluster(t testing.TB, n int, cuts ...string) *cluster {
	c := &cluster{t: t}
	for _, k := range cuts {
		c.cuts = append(c.cuts, []byte(k))
	}
	for i := range n {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		c.lis = append(c.lis, lis)
		c.list = append(c.list, node.FoundNode{Name: fmt.Sprintf("n%d", i+1), Address: lis.Addr().String()})
		c.nodes = append(c.nodes, &process{dir: t.TempDir()})
	}
	return c
}

// start starts a node; it does not wait until it is founded.
func (c *cluster) start(i int) <-chan error {
	lis := c.lis[i]
	if lis == nil {
		var err error
		lis, err = net.Listen("tcp", c.list[i].Address)
		require.NoError(c.t, err)
	}
	c.lis[i] = nil
	level := slog.LevelWarn
	if os.Getenv("KVD_TEST_LOG") != "" {
		level = slog.LevelDebug
	}
	server := &transport.Server{}
	n, err := node.Open(node.Config{
		Name: c.list[i].Name, DataDir: c.nodes[i].dir, Advertise: c.list[i].Address, Initial: c.list, Token: "test",
		Cuts: c.cuts, Replicas: 3, MemoryBytes: 64 << 20,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("node", i+1),
		Ask:    transport.Ask(nil),
		Fatal:  func(err error) { panic(err) },
		Network: func(n *node.Node, self node.Self) node.Network {
			t := transport.New(transport.Config{
				Cluster: self.Cluster, Node: self.Node, Life: self.Life, Address: n.Address, Handler: n, Logger: n.Logger,
			})
			server.Use(t)
			return t
		},
	})
	require.NoError(c.t, err)
	server.Founding = n.Found
	g := grpc.NewServer(grpc.ForceServerCodecV2(wire.Codec()), grpc.MaxRecvMsgSize(kv.MessageBytesMax))
	kvdv1.RegisterNodeServiceServer(g, server)
	go func() { _ = g.Serve(lis) }()
	c.nodes[i].node, c.nodes[i].server = n, g
	started := make(chan error, 1)
	go func() { started <- n.Start(context.Background()) }()
	return started
}

func (c *cluster) startAll() {
	var all []<-chan error
	for i := range c.nodes {
		all = append(all, c.start(i))
	}
	for _, s := range all {
		require.NoError(c.t, <-s)
	}
}

func (c *cluster) stop(i int, now bool) {
	p := c.nodes[i]
	if p.node == nil {
		return
	}
	require.NoError(c.t, p.node.Stop(now))
	p.server.Stop()
	p.node = nil
}

func (c *cluster) close() {
	for i := range c.nodes {
		c.stop(i, true)
	}
}

func (c *cluster) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	c.t.Cleanup(cancel)
	return ctx
}

func put(key, value string) *kv.Command {
	return &kv.Command{Op: kv.OpPut, Key: []byte(key), Value: []byte(value)}
}

func (c *cluster) put(i int, key, value string) {
	r, _, err := c.nodes[i].node.Write(c.ctx(), kv.Route{}, put(key, value))
	require.NoError(c.t, err)
	require.Equal(c.t, kv.Done, r.Status)
}

func (c *cluster) get(i int, key string) string {
	rec, found, _, err := c.nodes[i].node.Get(c.ctx(), kv.Route{}, []byte(key), kv.Linearizable)
	require.NoError(c.t, err)
	if !found {
		return ""
	}
	return string(rec.Value)
}

func TestSingleNode(t *testing.T) {
	c := newCluster(t, 1, "m")
	defer c.close()
	c.startAll()
	c.put(0, "a", "1")
	c.put(0, "z", "2")
	require.Equal(t, "1", c.get(0, "a"))
	require.Equal(t, "", c.get(0, "b"))
	c.stop(0, false)
	require.NoError(t, <-c.start(0))
	require.Equal(t, "1", c.get(0, "a"))
	require.Equal(t, "2", c.get(0, "z"))
}

func TestThreeNodes(t *testing.T) {
	c := newCluster(t, 3, "g", "p")
	defer c.close()
	c.startAll()
	for i := range 3 {
		for _, k := range []string{"a", "h", "q"} {
			c.put(i, fmt.Sprintf("%s%d", k, i), fmt.Sprint(i))
		}
	}
	for i := range 3 {
		for j := range 3 {
			require.Equal(t, fmt.Sprint(j), c.get(i, fmt.Sprintf("h%d", j)))
		}
	}
	chunk, err := c.nodes[1].node.ScanChunk(c.ctx(), kv.Route{}, kv.ScanRequest{Span: kv.PrefixSpan([]byte("q"))})
	require.NoError(t, err)
	require.Len(t, chunk.Items, 3)
	require.Nil(t, chunk.Resume)

	c.stop(0, true)
	c.put(1, "a9", "nine")
	require.Equal(t, "nine", c.get(2, "a9"))
	require.NoError(t, <-c.start(0))
	require.Equal(t, "nine", c.get(0, "a9"))
	require.NoError(t, c.nodes[2].node.SetSetting(c.ctx(), "log-keep", "100"))
	shards, silent, err := c.nodes[0].node.Shards(c.ctx())
	require.NoError(t, err)
	require.Empty(t, silent)
	require.Len(t, shards, 3)
}

// TestLaggardComesBackBySnapshot: the log is truncated while a node is away.
func TestLaggardComesBackBySnapshot(t *testing.T) {
	c := newCluster(t, 3)
	defer c.close()
	c.startAll()
	require.NoError(t, c.nodes[0].node.SetSetting(c.ctx(), "log-keep", "8"))
	c.put(0, "before", "x")
	c.stop(2, true)
	for i := range 300 {
		c.put(0, fmt.Sprintf("k%d", i), "v")
	}
	require.Eventually(t, func() bool {
		st, err := c.nodes[0].node.Local(c.ctx())
		return err == nil && st.Local[1].Truncated > 200
	}, 20*time.Second, 50*time.Millisecond)
	require.NoError(t, <-c.start(2))
	require.Eventually(t, func() bool {
		rec, found, _, err := c.nodes[2].node.Get(c.ctx(), kv.Route{}, []byte("k299"), kv.Eventual)
		return err == nil && found && string(rec.Value) == "v"
	}, 20*time.Second, 50*time.Millisecond)
}
