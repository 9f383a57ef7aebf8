// Package test runs whole clusters in a test's process: real stores, real connections.
package test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/node"
	"github.com/kvdstore/kvd/server"
	"github.com/kvdstore/kvd/transport"
)

// Process is one node with its server.
type Process struct {
	*node.Node
	server *server.Server
	dir    string
	cancel context.CancelFunc
	joins  bool
}

// Dir is the node's data directory.
func (p *Process) Dir() string { return p.dir }

// Cluster is some nodes on loopback.
type Cluster struct {
	t     testing.TB
	list  []node.FoundNode
	lis   []net.Listener
	Nodes []*Process
	cuts  [][]byte
	// Regions are those of the nodes, in their order; it may be left out.
	Regions []string
	// Configure changes what the next node is started with, if it is set.
	Configure func(*node.Config)
}

// New prepares a cluster whose shards begin at the cuts. It ends with the test.
func New(t testing.TB, n int, cuts ...string) *Cluster {
	c := &Cluster{t: t}
	for _, k := range cuts {
		c.cuts = append(c.cuts, []byte(k))
	}
	for range n {
		c.add(false)
	}
	t.Cleanup(c.close) // Before the directories go.
	return c
}

// Add prepares a node that joins the others, and gives its place among them.
func (c *Cluster) Add() int { return c.add(true) }

func (c *Cluster) add(joins bool) int {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(c.t, err)
	i := len(c.Nodes)
	c.lis = append(c.lis, lis)
	c.list = append(c.list, node.FoundNode{Name: fmt.Sprintf("n%d", i+1), Address: lis.Addr().String()})
	c.Nodes = append(c.Nodes, &Process{dir: c.t.TempDir(), joins: joins})
	return i
}

// config is what a node is started with.
func (c *Cluster) config(i int) node.Config {
	level := slog.LevelWarn
	if os.Getenv("KVD_TEST_LOG") != "" {
		level = slog.LevelDebug
	}
	config := node.Config{
		Name: c.list[i].Name, DataDir: c.Nodes[i].dir, Advertise: c.list[i].Address, Token: "test",
		Cuts: c.cuts, Replicas: 3, MemoryBytes: 64 << 20,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("node", i+1),
		Ask:    transport.Ask(nil), AskToJoin: transport.Join(nil),
		Fatal: func(err error) { panic(err) },
	}
	if i < len(c.Regions) {
		config.Region = c.Regions[i]
	}
	for j, n := range c.list {
		if c.Nodes[i].joins {
			config.Members = append(config.Members, n.Address)
		} else if !c.Nodes[j].joins {
			config.Initial = append(config.Initial, n)
		}
	}
	if c.Configure != nil {
		c.Configure(&config)
	}
	return config
}

// Start starts a node; what it gives tells when the node serves.
func (c *Cluster) Start(i int) <-chan error {
	lis := c.lis[i]
	if lis == nil {
		var err error
		lis, err = net.Listen("tcp", c.list[i].Address)
		require.NoError(c.t, err)
	}
	c.lis[i] = nil
	nodes, config := &transport.Server{}, c.config(i)
	config.Network = func(n *node.Node, self node.Self) node.Network {
		t := transport.New(transport.Config{
			Cluster: self.Cluster, Node: self.Node, Life: self.Life, Address: n.Address, Handler: n, Logger: n.Logger,
		})
		nodes.Use(t)
		return t
	}
	n, err := node.Open(config)
	require.NoError(c.t, err)
	nodes.Founding, nodes.Joining = n.Found, n.Join
	s := server.New(server.Config{Backend: n, Nodes: nodes, Logger: n.Logger})
	go func() { _ = s.Serve(lis) }()
	ctx, cancel := context.WithCancel(context.Background())
	go s.WatchReady(ctx)
	c.Nodes[i].Node, c.Nodes[i].server, c.Nodes[i].cancel = n, s, cancel
	started := make(chan error, 1)
	go func() { started <- n.Start(ctx) }()
	return started
}

// StartAll starts all nodes, and waits until every shard has a leader.
func (c *Cluster) StartAll() {
	var all []<-chan error
	for i := range c.Nodes {
		all = append(all, c.Start(i))
	}
	for _, s := range all {
		require.NoError(c.t, <-s)
	}
	for _, n := range c.Nodes {
		require.Eventually(c.t, func() bool { return n.Ready() == nil }, 20*time.Second, 5*time.Millisecond)
	}
}

// Move gives a node that does not run another address.
func (c *Cluster) Move(i int) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(c.t, err)
	c.lis[i], c.list[i].Address = lis, lis.Addr().String()
}

// Empty takes a node's data directory away while it does not run.
func (c *Cluster) Empty(i int) { c.Nodes[i].dir = c.t.TempDir() }

// Stop stops a node; with now it gives nothing away first.
func (c *Cluster) Stop(i int, now bool) {
	p := c.Nodes[i]
	if p.Node == nil {
		return
	}
	if !now {
		p.PrepareStop()
	}
	p.cancel()
	p.server.Stop(0)
	require.NoError(c.t, p.Node.Stop(true))
	p.Node = nil
}

func (c *Cluster) close() {
	for i := range c.Nodes {
		c.Stop(i, true)
	}
}

// Context is one with a deadline that no test should need.
func (c *Cluster) Context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	c.t.Cleanup(cancel)
	return ctx
}

// Addresses are those of all nodes.
func (c *Cluster) Addresses() []string {
	var list []string
	for _, n := range c.list {
		list = append(list, n.Address)
	}
	return list
}
