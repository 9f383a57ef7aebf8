package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/kvdstore/kvd/kv"
)

// Cluster is some kvd processes.
type Cluster struct {
	cfg    Config
	id     string // In names of what outlives a process.
	links  *links
	net    network
	http   *http.Client
	cancel context.CancelFunc // Of what runs beside.
	group  sync.WaitGroup

	mu        sync.Mutex
	nodes     []*Node
	surprises []string
}

// Start starts the nodes and waits until all are ready. After an error nothing is left but files.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	c, err := open(cfg)
	if err != nil {
		return nil, err
	}
	if err := c.found(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// open readies everything but the nodes.
func open(cfg Config) (*Cluster, error) {
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, err
	}
	var err error
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(cfg.Dir, "n1")); err == nil {
		return nil, &kv.InvalidError{Field: "dir", Bound: fmt.Sprintf("a directory without the data of an earlier cluster; %s has some", cfg.Dir)}
	}
	c := &Cluster{cfg: cfg, id: fmt.Sprintf("%d-%d", os.Getpid(), networks.Add(1)), links: newLinks()}
	if cfg.Namespaces {
		c.net, err = newBridged(c.links, cfg.Proxied)
	} else {
		c.net, err = newLoopback(c.links)
	}
	if err != nil {
		return nil, err
	}
	c.http = &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	watching, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.group.Go(func() { c.watch(watching) })
	return c, nil
}

// found starts the nodes of the list.
func (c *Cluster) found(ctx context.Context) error {
	var list []string
	for i := range c.cfg.Nodes {
		n, err := c.node(fmt.Sprintf("n%d", i+1))
		if err != nil {
			return err
		}
		list = append(list, n.name+"="+n.advertise)
	}
	for _, n := range c.Nodes() {
		if len(list) > 1 { // A list of one node is none.
			n.how = []string{"--initial-cluster", strings.Join(list, ",")}
		}
		if err := n.Start(); err != nil {
			return err
		}
	}
	return c.AwaitReady(ctx)
}

// node makes room for a node.
func (c *Cluster) node(name string) (*Node, error) {
	w, err := c.net.add(name)
	if err != nil {
		return nil, err
	}
	n := &Node{c: c, name: name, place: w}
	if c.cfg.TestBuild {
		if err := os.MkdirAll(n.testDir(), 0o755); err != nil {
			return nil, err
		}
	}
	n.groups, n.capped = c.groups(name)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.nodes) >= NodesMax {
		return nil, &kv.InvalidError{Field: "nodes", Bound: fmt.Sprintf("at most %d in one run", NodesMax)}
	}
	c.nodes = append(c.nodes, n)
	return n, nil
}

// Join starts one more node, which asks the others to let it in; it does not wait for that.
func (c *Cluster) Join() (*Node, error) {
	all := c.Nodes()
	n, err := c.node(fmt.Sprintf("n%d", len(all)+1))
	if err != nil {
		return nil, err
	}
	var members []string
	for _, m := range all {
		if !m.Gone() {
			members = append(members, m.advertise)
		}
	}
	n.how = []string{"--join", strings.Join(members, ",")}
	return n, n.Start()
}

// Nodes are all that ever were, in the order of their names' numbers.
func (c *Cluster) Nodes() []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.nodes)
}

// Members are the nodes that are in the cluster, as far as this program knows.
func (c *Cluster) Members() []*Node {
	return slices.DeleteFunc(c.Nodes(), (*Node).Gone)
}

// Node gives a node by its name; nil if there is none.
func (c *Cluster) Node(name string) *Node {
	for _, n := range c.Nodes() {
		if n.name == name {
			return n
		}
	}
	return nil
}

// Endpoints are those that clients reach the members at, with ClientOptions.
func (c *Cluster) Endpoints() (list []string) {
	for _, n := range c.Members() {
		list = append(list, n.advertise)
	}
	return list
}

// ClientOptions are what clients need to reach the nodes: client.Config.DialOptions.
func (c *Cluster) ClientOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithContextDialer(c.net.dial)}
}

// AwaitReady waits until all members that run are ready.
func (c *Cluster) AwaitReady(ctx context.Context) error {
	var errs []error
	for _, n := range c.Members() {
		errs = append(errs, n.AwaitReady(ctx))
	}
	return errors.Join(errs...)
}

// Cut loses what goes over these links from now on, and over no others.
func (c *Cluster) Cut(list []Link) error { return c.net.cut(list) }

// Slow makes these links slow from now on, and no others.
func (c *Cluster) Slow(list map[Link]Slowness) { c.links.setSlow(list) }

// Heal makes all links whole, lets paused nodes go on and starts the dead ones.
func (c *Cluster) Heal() error {
	errs := []error{c.Cut(nil)}
	c.Slow(nil)
	for _, n := range c.Members() {
		n.Resume()
		errs = append(errs, n.Start())
	}
	return errors.Join(errs...)
}

func (c *Cluster) surprised(n *Node, why string) {
	c.mu.Lock()
	c.surprises = append(c.surprises, why)
	c.mu.Unlock()
	if c.cfg.Ended != nil {
		c.cfg.Ended(n, why)
	}
}

// Surprises tell which processes ended although nobody had asked for it.
func (c *Cluster) Surprises() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.surprises)
}

// Stop ends the processes and takes namespaces and proxies away; data and logs stay. It may be called twice.
func (c *Cluster) Stop() error {
	errs := []error{c.Cut(nil)}
	c.Slow(nil)
	var all sync.WaitGroup
	nodes := c.Nodes()
	ends := make([]error, len(nodes))
	for i, n := range nodes {
		all.Go(func() { ends[i] = n.Terminate() })
	}
	all.Wait()
	c.cancel()
	c.group.Wait()
	errs = append(append(errs, ends...), c.net.close(), removeGroups(groupPrefix+c.id))
	return errors.Join(errs...)
}
