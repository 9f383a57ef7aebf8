package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

// process is a kvd of its own.
type process struct {
	t            *testing.T
	cmd          *exec.Cmd
	listen, http string
	states       *net.UnixConn
	ended        chan struct{}
	err          error

	mu  sync.Mutex
	out strings.Builder
	log []string
	// news has room for one: there are new lines.
	news chan struct{}
}

// freeAddress gives an address on loopback that nobody listens on. Its port is below those that the system gives to
// connections, or another program could be given it before kvd listens there.
func freeAddress(t *testing.T) string {
	for range 1000 {
		lis, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000)))
		if err == nil {
			defer lis.Close()
			return lis.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// start starts kvd in a directory as systemd would.
func start(t *testing.T, dir string, args ...string) *process {
	p := &process{t: t, listen: freeAddress(t), http: freeAddress(t), ended: make(chan struct{}), news: make(chan struct{}, 1)}
	socket := filepath.Join(t.TempDir(), "s")
	var err error
	p.states, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	p.cmd = exec.Command("kvd", append([]string{"--listen", p.listen, "--http", p.http, "--memory", "64MiB", "--data-dir", filepath.Join(dir, "data")}, args...)...)
	p.cmd.Dir, p.cmd.Env = dir, append(os.Environ(), "NOTIFY_SOCKET="+socket)
	stdout, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	stderr, err := p.cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	var read sync.WaitGroup
	read.Go(func() { p.gather(stdout, func(line string) { p.out.WriteString(line + "\n") }) })
	read.Go(func() { p.gather(stderr, func(line string) { p.log = append(p.log, line) }) })
	go func() {
		read.Wait()
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		_ = p.states.Close()
		if t.Failed() {
			t.Log(strings.Join(p.log, "\n"))
		}
	})
	return p
}

func (p *process) gather(from io.Reader, add func(line string)) {
	for lines := bufio.NewScanner(from); lines.Scan(); {
		p.mu.Lock()
		add(lines.Text())
		p.mu.Unlock()
		select {
		case p.news <- struct{}{}:
		default:
		}
	}
}

// state waits until kvd tells systemd a state.
func (p *process) state(want string) {
	p.t.Helper()
	require.NoError(p.t, p.states.SetReadDeadline(time.Now().Add(30*time.Second)))
	b := make([]byte, 256)
	n, err := p.states.Read(b)
	require.NoError(p.t, err)
	require.Equal(p.t, want, string(b[:n]))
}

// says waits until the output or the log holds a text.
func (p *process) says(text string) {
	p.t.Helper()
	late := time.After(30 * time.Second)
	for {
		p.mu.Lock()
		all := p.out.String() + strings.Join(p.log, "\n")
		p.mu.Unlock()
		if strings.Contains(all, text) {
			return
		}
		select {
		case <-p.news:
		case <-late:
			p.t.Fatalf("kvd never said %q", text)
		}
	}
}

// end waits for the end and gives the exit code.
func (p *process) end() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		p.t.Fatal("kvd did not end")
	}
	if exit, ok := errors.AsType[*exec.ExitError](p.err); ok {
		return exit.ExitCode()
	}
	require.NoError(p.t, p.err)
	return 0
}

func (p *process) signal(s os.Signal) { require.NoError(p.t, p.cmd.Process.Signal(s)) }

func (p *process) api() kvdv1.KVClient {
	conn, err := grpc.NewClient(p.listen, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(p.t, err)
	p.t.Cleanup(func() { _ = conn.Close() })
	return kvdv1.NewKVClient(conn)
}

// get asks HTTP, and gives 0 when nobody answers.
func (p *process) get(path string) int {
	resp, err := http.Get("http://" + p.http + path)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// TestDaemon goes through the life of a node: it serves, says so, takes signals, keeps what it was given.
func TestDaemon(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "kvd.yaml")
	require.NoError(t, os.WriteFile(config, []byte("log-level: warn\n"), 0o600))
	p := start(t, dir, "--config", config, "--name", "alone")
	p.state("READY=1")
	for _, path := range []string{"/livez", "/readyz", "/metrics", "/debug/pprof/cmdline"} {
		require.Equal(t, http.StatusOK, p.get(path), path)
	}
	p.says("kvd.v1.KV/Get\n")
	p.mu.Lock()
	banner := p.out.String()
	p.mu.Unlock()
	require.Less(t, strings.Count(banner, "\n"), 24, "the banner is one screen")
	for _, want := range []string{"alone", p.listen, p.http, filepath.Join(dir, "data"), "64 MiB", "kvcli --endpoints " + p.listen} {
		require.Contains(t, banner, want)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := p.api().Put(ctx, &kvdv1.PutRequest{Key: []byte("k"), Value: []byte("v")})
	require.NoError(t, err)

	second := start(t, dir, "--name", "alone")
	require.Equal(t, 1, second.end())
	second.says("is in use")

	require.NoError(t, os.WriteFile(config, []byte("log-level: info\n"), 0o600))
	p.signal(syscall.SIGHUP)
	p.says("log level were read again")
	require.NoError(t, os.WriteFile(config, []byte("log-level: loud\n"), 0o600))
	p.signal(syscall.SIGHUP)
	p.says("the old one stays")

	p.signal(syscall.SIGTERM)
	p.state("STOPPING=1")
	require.Equal(t, 0, p.end())

	again := start(t, dir, "--name", "other")
	again.state("READY=1")
	again.says("this node keeps the name that it has in the map")
	again.says("1 (alone) of cluster")
	again.says("(1 node, 1 shard)")
	resp, err := again.api().Get(ctx, &kvdv1.GetRequest{Key: []byte("k")})
	require.NoError(t, err)
	require.Equal(t, "v", string(resp.Value))
	again.signal(os.Interrupt)
	require.Equal(t, 0, again.end())
}

// TestSecondSignal: a node that waits for its calls to end does not when it is asked again.
func TestSecondSignal(t *testing.T) {
	p := start(t, t.TempDir(), "--name", "alone")
	p.state("READY=1")
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	stream, err := p.api().Pipeline(ctx) // A call that does not end by itself.
	require.NoError(t, err)
	require.NoError(t, stream.Send(&kvdv1.PipelineRequest{Ops: []*kvdv1.PipelineOp{{Id: 1, Op: &kvdv1.PipelineOp_Get{Get: &kvdv1.GetRequest{Key: []byte("k")}}}}}))
	_, err = stream.Recv()
	require.NoError(t, err)
	p.signal(syscall.SIGTERM)
	p.state("STOPPING=1")
	p.signal(syscall.SIGTERM)
	require.Equal(t, 1, p.end())
	p.says("ended at once")
}

// TestStopBeforeTheFounding: a node that waits for others can be stopped.
func TestStopBeforeTheFounding(t *testing.T) {
	self, missing := freeAddress(t), freeAddress(t)
	list := fmt.Sprintf("n1=%s,n2=%s", self, missing)
	p := start(t, t.TempDir(), "--name", "n1", "--initial-cluster", list, "--listen", self)
	require.Eventually(t, func() bool { return p.get("/livez") == http.StatusOK }, 30*time.Second, 5*time.Millisecond)
	require.Equal(t, http.StatusServiceUnavailable, p.get("/readyz"))
	p.signal(syscall.SIGTERM)
	p.state("STOPPING=1")
	require.Equal(t, 0, p.end())
}

// TestWarnsWithoutTLS: loudly, before anybody can connect. The address is one of documentation: nobody has it.
func TestWarnsWithoutTLS(t *testing.T) {
	p := start(t, t.TempDir(), "--listen", "192.0.2.1:7400")
	require.Equal(t, 1, p.end())
	p.says("WITHOUT TLS")
	p.says("listen: ")
}
