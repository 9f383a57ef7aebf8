package cluster

// The proxy is asked by HTTP's CONNECT, as gRPC does where HTTPS_PROXY is set. One proxy serves one caller, so that it
// knows both ends of each link. Each direction of a connection is a pump: what was read waits in a bounded queue until it is due.
// A cut link holds bytes back, as a network that loses every packet does; it breaks no connection by itself.

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/kvdstore/kvd/internal/wait"
)

const (
	// pumpChunk is what is read at a time, and pumpQueue how many such chunks wait in a pump at most.
	pumpChunk, pumpQueue = 32 << 10, 256
	// dialMax bounds a connection's making.
	dialMax = 20 * time.Second
)

// proxy connects one caller to the nodes.
type proxy struct {
	caller string
	links  *links
	// target gives the name of an address, and where it is in truth.
	target func(address string) (name, at string, ok bool)
	dial   func(ctx context.Context, address string) (net.Conn, error)

	lis    net.Listener
	ctx    context.Context
	cancel context.CancelFunc
	group  sync.WaitGroup
}

func (p *proxy) start(lis net.Listener) {
	p.lis = lis
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.group.Go(func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			p.group.Go(func() { p.serve(conn) })
		}
	})
}

func (p *proxy) address() string { return p.lis.Addr().String() }

func (p *proxy) close() {
	p.cancel()
	_ = p.lis.Close()
	p.group.Wait()
}

// serve carries one connection.
func (p *proxy) serve(conn net.Conn) {
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	in := bufio.NewReader(conn)
	r, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	name, at, ok := p.target(r.Host)
	if r.Method != http.MethodConnect || !ok {
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 502 no such node: %s\r\n\r\n", r.Host)
		return
	}
	there, back := Link{p.caller, name}, Link{name, p.caller}
	// The first packet there and the answer to it must come through.
	if p.open(ctx, there) != nil || p.open(ctx, back) != nil {
		return
	}
	dialing, stop := context.WithTimeout(ctx, dialMax)
	other, err := p.dial(dialing, at)
	stop()
	if err != nil {
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 502 %v\r\n\r\n", err)
		return
	}
	context.AfterFunc(ctx, func() { _ = other.Close() })
	if _, err := io.WriteString(conn, "HTTP/1.1 200 connected\r\n\r\n"); err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		p.pump(ctx, there, in, other)
	}()
	p.pump(ctx, back, other, conn)
	cancel()
	<-done
}

// open waits until a link is not cut.
func (p *proxy) open(ctx context.Context, k Link) error {
	for {
		cut, _, changed := p.links.look(k)
		if !cut {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// chunk are bytes on their way.
type chunk struct {
	bytes []byte
	due   time.Time
}

// pump carries one direction until it ends; what was read before an end is still carried.
func (p *proxy) pump(ctx context.Context, k Link, from io.Reader, to io.Writer) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	queue := make(chan chunk, pumpQueue)
	go func() {
		defer close(queue)
		p.read(ctx, k, from, queue)
	}()
	for c := range queue {
		if wait.For(ctx, time.Until(c.due)) != nil || p.open(ctx, k) != nil {
			return
		}
		if _, err := to.Write(c.bytes); err != nil {
			return
		}
	}
}

func (p *proxy) read(ctx context.Context, k Link, from io.Reader, queue chan<- chunk) {
	var due time.Time
	for {
		b := make([]byte, pumpChunk)
		n, err := from.Read(b)
		if n > 0 {
			_, slow, _ := p.links.look(k)
			due = dueAt(time.Now(), due, n, slow, rand.Int64N)
			select {
			case queue <- chunk{b[:n], due}:
			case <-ctx.Done():
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// dueAt is when n bytes that came now leave a link on which the last are to leave at last.
func dueAt(now, last time.Time, n int, s Slowness, draw func(int64) int64) time.Time {
	due := now.Add(s.Delay)
	if s.Jitter > 0 {
		due = due.Add(time.Duration(draw(int64(s.Jitter))))
	}
	if due.Before(last) {
		due = last
	}
	if s.BytesPerSecond > 0 {
		due = due.Add(time.Duration(n) * time.Second / time.Duration(s.BytesPerSecond))
	}
	return due
}

// through dials an address by a proxy.
func through(ctx context.Context, proxy, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", proxy)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", address, address); err != nil {
		_ = conn.Close()
		return nil, err
	}
	// The answer is read byte by byte: what follows it is the connection's.
	resp, err := http.ReadResponse(bufio.NewReaderSize(oneByte{conn}, 16), &http.Request{Method: http.MethodConnect})
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("dial %s: %s", address, resp.Status)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

type oneByte struct{ io.Reader }

func (r oneByte) Read(b []byte) (int, error) { return r.Reader.Read(b[:min(len(b), 1)]) }
