package cluster

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"sync"
)

// network is how the nodes reach each other, and how this program reaches them.
type network interface {
	// add makes room for a node.
	add(node string) (place, error)
	// cut loses what goes over these links, and over no others.
	cut(list []Link) error
	// prepare readies a command to run where the node is; undo is called, in the same thread, once it was started.
	prepare(node string, c *exec.Cmd) (undo func(), err error)
	// dial connects clients to an address that a node advertises.
	dial(ctx context.Context, address string) (net.Conn, error)
	// close takes everything away.
	close() error
}

// place is where a node is.
type place struct {
	// listen, advertise and http are the node's addresses.
	listen, advertise, http string
	// proxy is where it finds its proxy; empty for none.
	proxy string
}

// loopback has the nodes at ports of 127.0.0.1, and a proxy for each, and one for the clients.
type loopback struct {
	links   *links
	clients *proxy

	mu      sync.Mutex
	proxies []*proxy
	names   map[string][2]string // By what is advertised: the node and where it listens.
}

func newLoopback(l *links) (*loopback, error) {
	b := &loopback{links: l, names: map[string][2]string{}}
	var err error
	b.clients, err = b.proxy(Clients)
	return b, err
}

func (b *loopback) proxy(caller string) (*proxy, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{caller: caller, links: b.links, target: b.target, dial: dialTCP}
	p.start(lis)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.proxies = append(b.proxies, p)
	return p, nil
}

func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

func (b *loopback) target(address string) (name, at string, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, ok := b.names[address]
	return t[0], t[1], ok
}

func (b *loopback) add(node string) (place, error) {
	ports, err := freePorts(2)
	if err != nil {
		return place{}, err
	}
	p, err := b.proxy(node)
	if err != nil {
		return place{}, err
	}
	// gRPC never asks a proxy for an address of loopback, so the node has a name.
	w := place{
		listen: fmt.Sprintf("127.0.0.1:%d", ports[0]), http: fmt.Sprintf("127.0.0.1:%d", ports[1]),
		advertise: fmt.Sprintf("%s.kvd.test:%d", node, ports[0]), proxy: p.address(),
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.names[w.advertise] = [2]string{node, w.listen}
	return w, nil
}

// freePorts gives ports that were free a moment ago.
func freePorts(n int) ([]int, error) {
	var list []int
	for range n {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = lis.Close() }() // All at the end, so that they differ.
		list = append(list, lis.Addr().(*net.TCPAddr).Port)
	}
	return list, nil
}

func (b *loopback) cut(list []Link) error {
	b.links.setCut(list)
	return nil
}

func (b *loopback) prepare(string, *exec.Cmd) (func(), error) { return func() {}, nil }

func (b *loopback) dial(ctx context.Context, address string) (net.Conn, error) {
	return through(ctx, b.clients.address(), address)
}

func (b *loopback) close() error {
	b.mu.Lock()
	list := b.proxies
	b.proxies = nil
	b.mu.Unlock()
	for _, p := range list {
		p.close()
	}
	return nil
}
