package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/kvdstore/kvd/internal/sched"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
	"github.com/kvdstore/kvd/server"
	"github.com/kvdstore/kvd/transport"
)

// stopPatience bounds how long calls under way are waited for.
const stopPatience = 3 * time.Second

const (
	// gcPercent lets the heap grow to four times what lives between two collections; the limit below bounds it.
	gcPercent = 300
	// gcPercentFrom is the memory from which that is enough. What lives when the cache is empty grows with the memory, and
	// with less of it a node that serves from a small heap would collect all the time: it may let the heap grow further, to
	// about the same half a gigabyte. With less memory than gcPercentTo the limit is near: a heap that always grows to it leaves
	// an overloaded node nothing to grow into, and it answers seconds late (`jepsen --workload overload`).
	gcPercentFrom = 2 << 30
	gcPercentTo   = 512 << 20
)

// collectorPercent is the GOGC of a node with so much memory, in bytes.
func collectorPercent(memory int64) int {
	if memory < gcPercentTo {
		return gcPercent
	}
	return int(max(gcPercent*gcPercentFrom/memory, gcPercent))
}

// exitRemoved is the code with which a node ends that was removed from its cluster: starting it again does not help.
const exitRemoved = 3

// daemon is one running kvd.
type daemon struct {
	*settings
	logger  *slog.Logger
	level   slog.LevelVar
	certs   *server.Certificates
	node    *node.Node
	server  *server.Server
	failed  chan error
	removed chan error // This node was removed from the cluster.
}

// run runs kvd until a signal or a failure ends it.
func run(s *settings) error {
	d := &daemon{settings: s, failed: make(chan error, 1), removed: make(chan error, 1)}
	d.logger = s.logger(os.Stderr, &d.level)
	// The other three eighths of the memory are the most that Pebble's blocks and memtables take, outside of the collector's reach.
	debug.SetMemoryLimit(s.memory * 5 / 8)
	debug.SetGCPercent(collectorPercent(s.memory))
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if s.exposed() && !s.secure() {
		d.logger.Warn("WITHOUT TLS beyond this machine: everybody on the network can read and write everything; see --tls-cert", "listen", s.listen)
	}
	lis, err := net.Listen("tcp", s.listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if s.governed {
		go sched.Run(ctx, d.logger)
	}
	if err := d.open(ctx); err != nil {
		return errors.Join(err, lis.Close())
	}
	go d.serve(func() error { return d.server.Serve(lis) })
	if err := d.serveHTTP(ctx); err != nil {
		return errors.Join(err, d.node.Stop(true))
	}
	started := make(chan error, 1)
	go func() { started <- d.node.Start(ctx) }()
	return d.live(ctx, cancel, started, signals)
}

// open opens the data directory and makes the services.
func (d *daemon) open(ctx context.Context) (err error) {
	var creds credentials.TransportCredentials
	if d.secure() {
		if d.certs, err = server.LoadCertificates(d.cert, d.key, d.ca); err != nil {
			return err
		}
		creds = d.certs.Client()
		go d.certs.Watch(ctx, d.logger)
	}
	nodes := &transport.Server{}
	d.node, err = node.Open(node.Config{
		Name: d.name, DataDir: d.dataDir, Advertise: d.advertise, Region: d.region, Version: buildVersion(), Initial: d.initial,
		Token: d.token, Members: d.members, Cuts: d.cuts, Replicas: d.replicas, MemoryBytes: d.memory, Logger: d.logger,
		Ask: transport.Ask(creds), AskToJoin: transport.Join(creds), Fatal: d.fatal,
		Network: func(n *node.Node, self node.Self) node.Network {
			t := transport.New(transport.Config{
				Cluster: self.Cluster, Node: self.Node, Life: self.Life, Address: n.Address, Credentials: creds, Handler: n, Logger: d.logger,
			})
			nodes.Use(t)
			return t
		},
	})
	if err != nil {
		return err
	}
	nodes.Founding, nodes.Joining = d.node.Found, d.node.Join
	d.server = server.New(server.Config{Backend: d.node, Nodes: nodes, Certificates: d.certs, CallsMax: min(kv.CallsMax, d.memory/kv.CallBytes), Logger: d.logger})
	return nil
}

// fatal ends the process at once: whatever is not on the disk now must not be acknowledged. One that was removed from the
// cluster holds nothing, and lets its clients hear the answers that are under way.
func (d *daemon) fatal(err error) {
	d.logger.Error("kvd stops", "error", err)
	if errors.Is(err, node.ErrRemoved) {
		select {
		case d.removed <- err:
		default:
		}
		return
	}
	os.Exit(2)
}

func (d *daemon) serve(f func() error) {
	if err := f(); err != nil {
		select {
		case d.failed <- err:
		default:
		}
	}
}

func (d *daemon) serveHTTP(ctx context.Context) error {
	if d.http == "" {
		return nil
	}
	lis, err := net.Listen("tcp", d.http)
	if err != nil {
		return fmt.Errorf("http: %w", err)
	}
	go d.serve(func() error { return d.server.ServeHTTP(ctx, lis) })
	return nil
}

// live waits for what happens.
func (d *daemon) live(ctx context.Context, cancel context.CancelFunc, started <-chan error, signals <-chan os.Signal) error {
	for {
		select {
		case err := <-started:
			if err != nil {
				cancel()
				return errors.Join(err, d.node.Stop(true))
			}
			started = nil
			go d.server.WatchReady(ctx)
			go d.announce(ctx)
		case err := <-d.failed:
			cancel()
			return errors.Join(err, d.node.Stop(true))
		case err := <-d.removed:
			return errors.Join(err, d.stop(cancel, started != nil))
		case s := <-signals:
			if s == syscall.SIGHUP {
				d.reload()
				continue
			}
			d.logger.Info("going down; a second signal ends at once", "signal", s.String())
			go func() {
				for s := range signals {
					if s != syscall.SIGHUP {
						d.logger.Warn("ended at once", "signal", s.String())
						os.Exit(1)
					}
				}
			}()
			return d.stop(cancel, started != nil)
		}
	}
}

func (d *daemon) stop(cancel context.CancelFunc, starting bool) error {
	notify("STOPPING=1")
	if starting {
		cancel()
		d.server.Stop(0)
		return d.node.Stop(true)
	}
	d.node.PrepareStop()
	d.server.Stop(stopPatience)
	cancel()
	return d.node.Stop(true)
}

// reload reads certificates and the log level again; what cannot be read stays as it is.
func (d *daemon) reload() {
	var certificates error
	if d.certs != nil {
		certificates = d.certs.Reload()
	}
	if err := errors.Join(certificates, d.reloadLevel()); err != nil {
		d.logger.Error("the configuration cannot be read again: the old one stays", "error", err)
		return
	}
	d.logger.Info("certificates and log level were read again", "level", d.level.Level().String())
}

func (d *daemon) reloadLevel() error {
	again := root()
	if err := again.ParseFlags(os.Args[1:]); err != nil {
		return err
	}
	s, err := loadSettings(again.Flags(), os.Environ())
	if err == nil {
		d.level.Set(s.level)
	}
	return err
}

// announce says in one screen what is served, once it is.
func (d *daemon) announce(ctx context.Context) {
	for d.node.Ready() != nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
	notify("READY=1")
	d.banner(os.Stdout)
}

func (d *daemon) banner(w io.Writer) {
	meta, _ := d.node.Meta()
	self := d.node.Self()
	name := d.name
	for _, n := range meta.GetNodes() {
		if n.GetNode().GetNode() == uint64(self.Node) {
			name = n.GetNode().GetName()
		}
	}
	tls, http := "no TLS: for this machine only", "none"
	if d.secure() {
		tls = "TLS"
	} else if d.exposed() {
		tls = "NO TLS"
	}
	if d.http != "" {
		http = d.http + "  (/livez /readyz /metrics)"
	}
	_, _ = fmt.Fprintf(w, `
kvd %s serves
  node      %d (%s) of cluster %v (%s, %s)
  clients   %s  (gRPC: kvd.v1.KV, kvd.v1.Admin, health, reflection; %s)
  http      %s
  data      %s
  memory    %d MiB

Try it:
%s`, buildVersion(), self.Node, name, self.Cluster, count(len(meta.GetNodes()), "node"), count(len(meta.GetDescriptors()), "shard"), d.advertise, tls,
		http, d.absolute(), d.memory>>20, d.examples())
}

// count says how many there are of something.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// examples are commands that work as they stand.
func (s *settings) examples() string {
	kvcli, grpcurl := "kvcli --endpoints "+s.advertise, "grpcurl -plaintext"
	if s.secure() {
		kvcli, grpcurl = kvcli+" --tls-ca "+s.ca, "grpcurl -cacert "+s.ca
	}
	return fmt.Sprintf("  %[1]s put hello world\n  %[1]s get hello\n  %[2]s -d '{\"key\":\"aGVsbG8=\"}' %[3]s kvd.v1.KV/Get\n", kvcli, grpcurl, s.advertise)
}

// notify tells systemd, if it started us.
func notify(state string) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(state))
}
