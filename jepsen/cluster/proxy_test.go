package cluster

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// echo answers what it is sent, by loopback's proxies as node n1.
func echo(t *testing.T, b *loopback) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = lis.Close() })
	b.names["n1.kvd.test:1"] = [2]string{"n1", lis.Addr().String()}
	go func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
}

func asked(t *testing.T, conn net.Conn, what string) {
	_, err := io.WriteString(conn, what)
	require.NoError(t, err)
}

// heard reads until so much has come, or the deadline.
func heard(conn net.Conn, n int, patience time.Duration) string {
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, n)
	n, _ = io.ReadFull(conn, b)
	return string(b[:n])
}

// TestCutLinks: a cut direction holds everything back, also new connections, and what was held comes when it is whole.
func TestCutLinks(t *testing.T) {
	const short, long = 100 * time.Millisecond, 20 * time.Second
	for _, cut := range []Link{{Clients, "n1"}, {"n1", Clients}} {
		b, err := newLoopback(newLinks())
		require.NoError(t, err)
		echo(t, b)
		conn, err := b.dial(t.Context(), "n1.kvd.test:1")
		require.NoError(t, err)
		asked(t, conn, "before")
		require.Equal(t, "before", heard(conn, 6, long))

		require.NoError(t, b.cut([]Link{cut, {"n1", "n2"}}))
		asked(t, conn, "during")
		require.Empty(t, heard(conn, 6, short))
		ctx, cancel := context.WithTimeout(t.Context(), short)
		_, err = b.dial(ctx, "n1.kvd.test:1")
		require.Error(t, err)
		cancel()

		require.NoError(t, b.cut([]Link{{"n1", "n2"}}))
		require.Equal(t, "during", heard(conn, 6, long))
		require.NoError(t, conn.Close())
		require.NoError(t, b.close())
	}
}

// TestUnknownTarget: the proxy leads to nodes, and to nothing else.
func TestUnknownTarget(t *testing.T) {
	b, err := newLoopback(newLinks())
	require.NoError(t, err)
	_, err = b.dial(t.Context(), "n7.kvd.test:1")
	require.ErrorContains(t, err, "502 no such node")
	require.NoError(t, b.close())
}

// TestSlowLinks: what is said on a slow link comes late, and in its order.
func TestSlowLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &proxy{links: newLinks()}
		k := Link{"n1", "n2"}
		p.links.setSlow(map[Link]Slowness{k: {Delay: 50 * time.Millisecond, Jitter: 20 * time.Millisecond}})
		in, from := net.Pipe()
		to, out := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go p.pump(ctx, k, in, out)
		began := time.Now()
		for _, w := range []string{"one", "two", "six"} {
			asked(t, from, w)
		}
		got := make([]byte, 9)
		_, err := io.ReadFull(to, got)
		require.NoError(t, err)
		require.Equal(t, "onetwosix", string(got))
		took := time.Since(began)
		require.True(t, took >= 50*time.Millisecond && took < 70*time.Millisecond, "%v", took)
		cancel()
		_, _, _, _ = from.Close(), to.Close(), in.Close(), out.Close()
	})
}

func TestDueAt(t *testing.T) {
	now := time.Unix(100, 0)
	half := func(n int64) int64 { return n / 2 }
	ms := time.Millisecond
	require.Equal(t, now, dueAt(now, time.Time{}, 10, Slowness{}, half))
	require.Equal(t, now.Add(25*ms), dueAt(now, time.Time{}, 10, Slowness{Delay: 20 * ms, Jitter: 10 * ms}, half))
	require.Equal(t, now.Add(40*ms), dueAt(now, now.Add(40*ms), 10, Slowness{Delay: 20 * ms}, half), "the order stays")
	require.Equal(t, now.Add(30*ms), dueAt(now, now.Add(20*ms), 10, Slowness{BytesPerSecond: 1000}, half))
}
