// Package peers starts what is compared: kvd, what a user would take instead of it, and the ceilings. Every process is
// bound to loopback, and is ended by its own number.
package peers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kvdstore/kvd/bench/load"
	"github.com/kvdstore/kvd/bench/local"
	"github.com/kvdstore/kvd/bench/target"
	"github.com/kvdstore/kvd/kv"
)

// servingMax is how long a store may take until it answers.
const servingMax = time.Minute

// Config says how stores are started.
type Config struct {
	// Dir is for data and logs, Binaries for what is built.
	Dir, Binaries string
	// Self is this program, which serves the ceiling when its first argument is echo.
	Self string
	// Cuts are the keys at which kvd's shards begin, besides the first.
	Cuts [][]byte
	// Memory of each kvd, as its --memory takes it.
	Memory string
}

// Store is one that was started.
type Store struct {
	// Name is one of Names, Kind one of target's.
	Name, Kind string
	// Endpoints are those of target.Config, Metrics the URLs of kvd's metrics.
	Endpoints, Metrics []string

	processes []*local.Process
	cluster   *local.Cluster
}

// MissingError tells that a program is not installed.
type MissingError struct{ Program, Package string }

func (e *MissingError) Error() string {
	return fmt.Sprintf("%s is not installed; on Debian: apt-get install %s", e.Program, e.Package)
}

// recipe is how a store is started.
type recipe struct {
	name, kind string
	servers    int
	start      func(ctx context.Context, c Config, s *Store, servers int) error
}

// recipes are all there are, kvd's own first.
var recipes = []recipe{
	{"kvd-3", "kvd", 3, startKVD},
	{"kvd-1", "kvd", 1, startKVD},
	{"etcd-3", "etcd", 3, etcd("go.mod")},
	{"etcd-1", "etcd", 1, etcd("go.mod")},
	{"etcd36-3", "etcd", 3, etcd("etcd36.mod")},
	{"etcd36-1", "etcd", 1, etcd("etcd36.mod")},
	{"redis", "redis", 1, redis("no")},
	{"redis-always", "redis", 1, redis("always")},
	{"memcached", "memcached", 1, startMemcached},
	{"echo-3", "echo", 3, startEcho},
	{"echo-1", "echo", 1, startEcho},
	{"pebble", "pebble", 1, startPebble},
}

// Names gives the names of all.
func Names() (list []string) {
	for _, r := range recipes {
		list = append(list, r.name)
	}
	return list
}

// KindOf gives the kind of one.
func KindOf(name string) string {
	for _, r := range recipes {
		if r.name == name {
			return r.kind
		}
	}
	return ""
}

// Start starts a store and waits until it answers. What it gives is to be stopped also after an error, unless it is nil.
func Start(ctx context.Context, c Config, name string) (*Store, error) {
	i := slices.IndexFunc(recipes, func(r recipe) bool { return r.name == name })
	if i < 0 {
		return nil, &kv.InvalidError{Field: "only", Bound: fmt.Sprintf("some of %v, one is %q", Names(), name)}
	}
	r := recipes[i]
	s := &Store{Name: r.name, Kind: r.kind}
	if err := os.MkdirAll(filepath.Join(c.Dir, name), 0o755); err != nil {
		return nil, err
	}
	if err := r.start(ctx, c, s, r.servers); err != nil {
		return s, fmt.Errorf("start %s: %w", name, err)
	}
	if err := s.awaitServing(ctx); err != nil {
		return s, fmt.Errorf("start %s: %w", name, err)
	}
	return s, nil
}

// Processes are those of the store, in the order of its endpoints; none of one that lives in this process.
func (s *Store) Processes() []*local.Process {
	if s.cluster != nil {
		return s.cluster.Processes()
	}
	return s.processes
}

// PIDs are the numbers of its processes.
func (s *Store) PIDs() (list []int) {
	for _, p := range s.Processes() {
		list = append(list, p.PID())
	}
	return list
}

// Stop ends the processes. One that had ended before is an error.
func (s *Store) Stop() error { return local.StopAll(s.Processes()) }

// awaitServing asks each server until it answers.
func (s *Store) awaitServing(ctx context.Context) error {
	if len(s.Processes()) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, servingMax)
	defer cancel()
	for _, e := range s.Endpoints {
		if err := s.answers(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// answers asks one server alone: of several, who is asked may be chosen by the key.
func (s *Store) answers(ctx context.Context, endpoint string) error {
	t, err := target.Open(target.Config{Kind: s.Kind, Endpoints: []string{endpoint}})
	if err != nil {
		return err
	}
	defer func() { _ = t.Close() }()
	for {
		x, err := t.Session(0)
		if err != nil {
			return err
		}
		results := make([]load.Result, 1)
		if x.Do(ctx, []load.Op{{Kind: load.Read, Key: []byte("ready")}}, results); results[0].Err == nil {
			return nil
		}
		for _, p := range s.Processes() {
			if err := p.Ended(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no answer of %s: %w", endpoint, errors.Join(results[0].Err, ctx.Err()))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// process starts one of the store's.
func (s *Store) process(c Config, binary string, args ...string) error {
	name := fmt.Sprintf("%s.%d", s.Name, len(s.processes)+1)
	p, err := local.StartProcess(name, filepath.Join(c.Dir, s.Name, name+".log"), binary, args...)
	if err == nil {
		s.processes = append(s.processes, p)
	}
	return err
}

func startKVD(ctx context.Context, c Config, s *Store, servers int) (err error) {
	s.cluster, err = local.Start(ctx, local.Config{
		Name: s.Name, Nodes: servers, Dir: filepath.Join(c.Dir, s.Name), Cuts: c.Cuts, Memory: c.Memory,
	})
	if s.cluster != nil {
		s.Endpoints, s.Metrics = s.cluster.Addresses(), s.cluster.Metrics()
	}
	return err
}

// etcd starts the version that a module file of bench/etcdsrv names.
func etcd(modfile string) func(context.Context, Config, *Store, int) error {
	return func(ctx context.Context, c Config, s *Store, servers int) error {
		binary := filepath.Join(c.Binaries, "etcdsrv-"+strings.TrimSuffix(modfile, ".mod"))
		if err := buildEtcd(ctx, binary, modfile); err != nil {
			return err
		}
		ports, err := local.FreePorts(2*servers, 0)
		if err != nil {
			return err
		}
		var list []string
		for i := range servers {
			list = append(list, fmt.Sprintf("e%d=%s", i+1, ports[servers+i]))
		}
		for i := range servers {
			name := fmt.Sprintf("e%d", i+1)
			s.Endpoints = append(s.Endpoints, ports[i])
			if err := s.process(c, binary, "-name", name, "-dir", filepath.Join(c.Dir, s.Name, name), "-client", ports[i], "-peer", ports[servers+i],
				"-cluster", strings.Join(list, ",")); err != nil {
				return err
			}
		}
		return nil
	}
}

// buildEtcd builds the server of the module beside this one, unless that is done.
func buildEtcd(ctx context.Context, binary, modfile string) error {
	if _, err := os.Stat(binary); err == nil {
		return nil
	}
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/kvdstore/kvd").Output()
	if err != nil {
		return fmt.Errorf("find the module: %w", err)
	}
	build := exec.CommandContext(ctx, "go", "build", "-modfile", modfile, "-o", binary, ".")
	build.Dir = filepath.Join(strings.TrimSpace(string(root)), "bench", "etcdsrv")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build etcd: %w\n%s", err, out)
	}
	return nil
}

// redis starts one with its log synced as it is told; without snapshots, which kvd does not make either.
func redis(sync string) func(context.Context, Config, *Store, int) error {
	return func(_ context.Context, c Config, s *Store, _ int) error {
		appendOnly := "yes"
		if sync == "no" {
			appendOnly, sync = "no", "everysec"
		}
		return s.alone(c, "redis-server", "redis-server", func(host, port string) []string {
			return []string{
				"--bind", host, "--port", port, "--dir", filepath.Join(c.Dir, s.Name), "--save", "", "--appendonly", appendOnly, "--appendfsync", sync,
			}
		})
	}
}

func startMemcached(_ context.Context, c Config, s *Store, _ int) error {
	return s.alone(c, "memcached", "memcached", func(host, port string) []string {
		args := []string{"-l", host, "-p", port, "-m", "1024", "-c", "20000", "-t", "4"}
		if os.Geteuid() == 0 {
			args = append(args, "-u", "root") // It refuses to run as root unless it is told so.
		}
		return args
	})
}

// alone starts a program of a Debian package.
func (s *Store) alone(c Config, program, debian string, args func(host, port string) []string) error {
	binary, err := exec.LookPath(program)
	if err != nil {
		return &MissingError{program, debian}
	}
	ports, err := local.FreePorts(1, 0)
	if err != nil {
		return err
	}
	s.Endpoints = ports
	host, port, _ := strings.Cut(ports[0], ":")
	return s.process(c, binary, args(host, port)...)
}

func startEcho(_ context.Context, c Config, s *Store, servers int) error {
	ports, err := local.FreePorts(servers, 0)
	if err != nil {
		return err
	}
	s.Endpoints = ports
	for _, port := range ports {
		if err := s.process(c, c.Self, "echo", "--listen", port); err != nil {
			return err
		}
	}
	return nil
}

// startPebble starts nothing: it lives in the process that measures it.
func startPebble(_ context.Context, c Config, s *Store, _ int) error {
	s.Endpoints = []string{filepath.Join(c.Dir, s.Name, "data")}
	return nil
}
