package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

const (
	// streamsMax bounds the calls of one connection at the same time.
	streamsMax = 16 << 10
	// windowBytes is how much of a stream may be on its way.
	windowBytes = 4 << 20
	// streamWorkers are the goroutines that calls find waiting, with a stack that has grown already: growing it takes a fifth of
	// the time of a Get. A call that finds none, since so many wait for their writes, gets a goroutine of its own.
	streamWorkers = 256
	// A server that stops looks every idleInterval whether anything is under way, and ends when idleLooks saw nothing.
	idleInterval = 10 * time.Millisecond
	idleLooks    = 5
	// readyInterval is how often the health service looks whether the node serves.
	readyInterval = 100 * time.Millisecond
)

// Config is what a Server is made of.
type Config struct {
	Backend Backend
	// Nodes serves the calls between nodes.
	Nodes kvdv1.NodeServiceServer
	// Certificates are nil without TLS.
	Certificates *Certificates
	// CallsMax bounds the calls of clients and operators under way, pipelines aside; 0 is kv.CallsMax.
	CallsMax int64
	Logger   *slog.Logger
}

// Server serves gRPC, and HTTP.
type Server struct {
	Config
	grpc     *grpc.Server
	health   *health.Server
	registry *prometheus.Registry
	seconds  *prometheus.HistogramVec
	// methods are all there are, by full name; written by New only.
	methods map[string]*method
	get     *method
	api     *service
	// calls counts the awaited ones under way.
	calls atomic.Int64
	gate  *gate
}

// New makes a server with all services.
func New(c Config) *Server {
	s := &Server{Config: c, health: health.NewServer(), registry: prometheus.NewRegistry(), methods: map[string]*method{}}
	s.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "kvd_call_seconds", Help: "Calls by method and code.", Buckets: prometheus.ExponentialBuckets(50e-6, 2, 18),
	}, []string{"method", "code"})
	s.registry.MustRegister(
		s.seconds, collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.GoRuntimeMetricsRule{Matcher: gcCPU})),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), runtimeCollector{}, nodeCollector{c.Backend},
	)
	if s.CallsMax == 0 {
		s.CallsMax = kv.CallsMax
	}
	s.gate = newGate(s.CallsMax, &s.calls, c.Backend, s.registry)
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(wire.ServerCodec()), grpc.MaxRecvMsgSize(kv.MessageBytesMax), grpc.MaxSendMsgSize(kv.MessageBytesMax),
		grpc.MaxConcurrentStreams(streamsMax), grpc.InitialWindowSize(windowBytes), grpc.InitialConnWindowSize(2 * windowBytes),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 500 * time.Millisecond, PermitWithoutStream: true}),
		grpc.NumStreamWorkers(streamWorkers), grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.stream), grpc.WaitForHandlers(true), grpc.InTapHandle(s.tap),
		experimental.BufferPool(wire.Buffers),
	}
	if c.Certificates != nil {
		options = append(options, grpc.Creds(c.Certificates.Server()))
	}
	s.grpc = grpc.NewServer(options...)
	s.api = &service{backend: c.Backend}
	s.grpc.RegisterService(s.kvService(), s.api)
	kvdv1.RegisterAdminServer(s.grpc, s.api)
	if c.Nodes != nil {
		kvdv1.RegisterNodeServiceServer(s.grpc, c.Nodes)
	}
	healthv1.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	s.describeMethods()
	s.get = s.methods[kvdv1.KV_Get_FullMethodName]
	s.setHealth(healthv1.HealthCheckResponse_NOT_SERVING)
	return s
}

// setHealth says for the whole server, and for each service of clients, whether it serves.
func (s *Server) setHealth(state healthv1.HealthCheckResponse_ServingStatus) {
	for _, name := range append([]string{""}, ofClients...) {
		s.health.SetServingStatus(name, state)
	}
}

func (s *Server) unary(ctx context.Context, r any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	m := s.methods[info.FullMethod]
	if m.nodesOnly {
		if err := authorizeNode(ctx); err != nil {
			return nil, err
		}
	}
	if m.awaited {
		s.calls.Add(1)
		defer s.calls.Add(-1)
	}
	began := time.Now()
	resp, err := next(ctx, r)
	m.took(time.Since(began), err)
	return resp, err
}

func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	m := s.methods[info.FullMethod]
	if m.nodesOnly {
		if err := authorizeNode(stream.Context()); err != nil {
			return err
		}
	}
	if m.awaited {
		s.calls.Add(1)
		defer s.calls.Add(-1)
	}
	began := time.Now()
	err := next(srv, stream)
	m.took(time.Since(began), err)
	return err
}

// Serve serves gRPC until Stop.
func (s *Server) Serve(lis net.Listener) error { return s.grpc.Serve(lis) }

// WatchReady keeps the health service honest until the context ends.
func (s *Server) WatchReady(ctx context.Context) {
	ticker := time.NewTicker(readyInterval)
	defer ticker.Stop()
	for {
		state := healthv1.HealthCheckResponse_SERVING
		if s.Backend.Ready() != nil {
			state = healthv1.HealthCheckResponse_NOT_SERVING
		}
		s.setHealth(state)
		select {
		case <-ctx.Done():
			s.health.Shutdown()
			return
		case <-ticker.C:
		}
	}
}

// Stop ends the calls: at once, or when what clients have under way has ended, for at most a time.
func (s *Server) Stop(patience time.Duration) {
	s.health.Shutdown()
	if patience > 0 {
		ticker := time.NewTicker(idleInterval)
		defer ticker.Stop()
		s.drain(ticker.C, time.After(patience))
	}
	s.grpc.Stop()
}

// drain sends the clients away, and looks at every tick whether anything is under way, until there was nothing for a
// moment, in which they may hear of it.
func (s *Server) drain(tick, end <-chan time.Time) {
	go s.grpc.GracefulStop() // Stop ends it.
	for idle := 0; idle < idleLooks; {
		select {
		case <-end:
			return
		case <-tick:
		}
		if idle++; s.calls.Load() > 0 || s.api.piped() {
			idle = 0
		}
	}
}

// HTTP serves /livez, /readyz, /metrics, and to callers on this machine /debug/pprof.
func (s *Server) HTTP() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.Backend.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}))
	for path, handler := range map[string]http.HandlerFunc{
		"/debug/pprof/": pprof.Index, "/debug/pprof/cmdline": pprof.Cmdline, "/debug/pprof/profile": pprof.Profile,
		"/debug/pprof/symbol": pprof.Symbol, "/debug/pprof/trace": pprof.Trace,
	} {
		mux.Handle(path, onLoopback(handler))
	}
	return mux
}

// onLoopback refuses callers from other machines.
func onLoopback(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			http.Error(w, "only from this machine", http.StatusForbidden)
			return
		}
		next(w, r)
	})
}

// ServeHTTP serves HTTP on a listener until the context ends.
func (s *Server) ServeHTTP(ctx context.Context, lis net.Listener) error {
	web := &http.Server{Handler: s.HTTP(), ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = web.Close() })
	defer stop()
	if err := web.Serve(lis); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// nodeCollector gives the node's own counts to Prometheus.
type nodeCollector struct{ backend Backend }

type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func describeMetric(name, help string, kind prometheus.ValueType) metric {
	return metric{prometheus.NewDesc("kvd_"+name, help, nil, nil), kind}
}

var (
	cacheHits    = describeMetric("cache_hits_total", "Reads answered from memory.", prometheus.CounterValue)
	cacheMisses  = describeMetric("cache_misses_total", "Reads that went to the state store.", prometheus.CounterValue)
	cacheStale   = describeMetric("cache_stale_total", "Misses whose entry was no longer current.", prometheus.CounterValue)
	cacheBytes   = describeMetric("cache_bytes", "Memory of the cache in use.", prometheus.GaugeValue)
	queued       = describeMetric("commands_queued", "Commands accepted and not answered yet.", prometheus.GaugeValue)
	queuedBytes  = describeMetric("commands_queued_bytes", "Their size.", prometheus.GaugeValue)
	leadersCount = describeMetric("leaders", "Replicas here that lead.", prometheus.GaugeValue)
	replicaCount = describeMetric("replicas", "Replicas here.", prometheus.GaugeValue)
	diskFree     = describeMetric("disk_free_bytes", "Free room of the data directory's file system.", prometheus.GaugeValue)
	diskFull     = describeMetric("disk_full", "1 while writes are refused for want of room.", prometheus.GaugeValue)
	logBytes     = describeMetric("log_disk_bytes", "Disk use of the log store.", prometheus.GaugeValue)
	logSyncs     = describeMetric("log_syncs_total", "Synced writes of the log store.", prometheus.CounterValue)
	stateBytes   = describeMetric("state_disk_bytes", "Disk use of the state store.", prometheus.GaugeValue)
	stateAmp     = describeMetric("state_read_amplification", "Levels that a read of the state store may touch.", prometheus.GaugeValue)
	memoryBudget = describeMetric("memory_budget_bytes", "What --memory allows.", prometheus.GaugeValue)
)

// Describe says nothing: the collector is unchecked.
func (nodeCollector) Describe(chan<- *prometheus.Desc) {}

// Collect gives the counts of the moment.
func (c nodeCollector) Collect(out chan<- prometheus.Metric) {
	m := c.backend.Metrics()
	full := 0.0
	if m.DiskFull {
		full = 1
	}
	for _, v := range []struct {
		metric
		value float64
	}{
		{cacheHits, float64(m.Cache.Hits)}, {cacheMisses, float64(m.Cache.Misses)}, {cacheStale, float64(m.Cache.Stale)},
		{cacheBytes, float64(m.Cache.Store.Bytes)}, {queued, float64(m.Queued)}, {queuedBytes, float64(m.QueuedBytes)},
		{leadersCount, float64(m.Leaders)}, {replicaCount, float64(m.Replicas)}, {diskFree, float64(m.DiskFree)}, {diskFull, full},
		{logBytes, float64(m.Log.DiskBytes)}, {logSyncs, float64(m.Log.Syncs)}, {stateBytes, float64(m.State.DiskBytes)}, {stateAmp, float64(m.State.ReadAmp)},
		{memoryBudget, float64(m.MemoryBudget)},
	} {
		out <- prometheus.MustNewConstMetric(v.desc, v.kind, v.value)
	}
}
