package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
	"github.com/kvdstore/kvd/raftmeta"
)

// settings are the flags, read and checked.
type settings struct {
	name, dataDir, listen, advertise, http, token, region string
	initial                                               []node.FoundNode
	members                                               []string
	cuts                                                  [][]byte
	replicas                                              int
	memory                                                int64
	cert, key, ca                                         string
	level                                                 slog.Level
	format                                                string
	governed                                              bool // --scheduling
	origins                                               []origin
}

// origin tells where a value came from.
type origin struct{ name, value, from string }

// memoryMin is the least that --memory may be.
const memoryMin = 32 << 20

func defineFlags(f *pflag.FlagSet) {
	f.String("name", "", "name of this node (default: the host's name)")
	f.String("data-dir", "./kvd-data", "directory of everything that is kept")
	f.String("listen", "127.0.0.1:7400", "address for clients and nodes (gRPC)")
	f.String("advertise", "", "address that others reach this node at (default: --listen)")
	f.String("http", "127.0.0.1:7480", "address for health, metrics and, from this machine, profiles; empty for none")
	f.String("initial-cluster", "", "nodes of a static cluster: n1=HOST:PORT,n2=HOST:PORT,…")
	f.String("join", "", "nodes of a cluster that this one joins: HOST:PORT,HOST:PORT,…; it may be among them")
	f.String("cluster-token", "", "tells clusters with equal lists apart")
	f.String("initial-shards", "", "shards of a new cluster: a number, geohash1, or a file of keys")
	f.String("region", "", "where this node is")
	f.Int("replicas", 3, "replicas of each shard, at most as many as there are nodes")
	f.String("memory", "", "memory for cache, memtables and queues, for example 2GiB (default: a quarter of the cgroup's limit, else an eighth of the machine's)")
	f.String("scheduling", "auto", "of this process' threads: auto (SCHED_BATCH, unless they wait much longer than they run) or normal (as kvd is started)")
	f.String("tls-cert", "", "certificate of this node (PEM)")
	f.String("tls-key", "", "its key (PEM)")
	f.String("tls-ca", "", "certificates that others must be signed by (PEM)")
	f.String("log-level", "info", "debug, info, warn or error")
	f.String("log-format", "text", "text or json")
	f.String("config", "", "file of the same keys (YAML)")
}

// loadSettings reads defaults, the file, the environment and the flags, the later over the earlier.
func loadSettings(flags *pflag.FlagSet, environ []string) (*settings, error) {
	k, from, err := merge(flags, environ)
	if err != nil {
		return nil, err
	}
	s := &settings{
		dataDir: k.String("data-dir"), listen: k.String("listen"), http: k.String("http"), token: k.String("cluster-token"),
		region: k.String("region"), cert: k.String("tls-cert"), key: k.String("tls-key"), ca: k.String("tls-ca"), format: k.String("log-format"),
	}
	s.advertise = cmp.Or(k.String("advertise"), s.listen)
	if s.name = k.String("name"); s.name == "" {
		if s.name, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("name: %w", err)
		}
	}
	if err := s.check(k); err != nil {
		return nil, err
	}
	flags.VisitAll(func(f *pflag.Flag) {
		value := k.String(f.Name)
		switch f.Name {
		case "memory":
			value = strconv.FormatInt(s.memory, 10)
		case "name":
			value = s.name
		case "advertise":
			value = s.advertise
		}
		if f.Name != "help" {
			s.origins = append(s.origins, origin{f.Name, value, from[f.Name]})
		}
	})
	return s, nil
}

// merge gathers all values, and where each came from.
func merge(flags *pflag.FlagSet, environ []string) (*koanf.Koanf, map[string]string, error) {
	k, from := koanf.New("."), map[string]string{}
	known := map[string]any{}
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" {
			known[f.Name], from[f.Name] = f.DefValue, "default"
		}
	})
	if err := k.Load(confmap.Provider(known, "."), nil); err != nil {
		return nil, nil, err
	}
	take := func(layer *koanf.Koanf, what string) error {
		values := layer.Raw()
		for _, name := range slices.Sorted(maps.Keys(values)) {
			if _, ok := known[name]; !ok {
				return fmt.Errorf("%s: there is no key %s%s", what, written(what, name), nearest(what, name, known))
			}
			text, ok := plain(values[name])
			if !ok {
				return fmt.Errorf("%s: %w", what, &kv.InvalidError{Field: name, Bound: "one value, no list and no map"})
			}
			from[name] = what
			if err := k.Set(name, text); err != nil {
				return fmt.Errorf("%s: %s: %w", what, name, err)
			}
		}
		return nil
	}
	environment, given := koanf.New("."), koanf.New(".")
	err := environment.Load(env.Provider(".", env.Opt{
		Prefix: "KVD_", EnvironFunc: func() []string { return settingsOf(environ) },
		TransformFunc: func(name, value string) (string, any) {
			return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, "KVD_")), "_", "-"), value
		},
	}), nil)
	if err != nil {
		return nil, nil, err
	}
	if err := given.Load(posflag.Provider(flags, ".", koanf.New(".")), nil); err != nil {
		return nil, nil, err
	}
	for _, name := range given.Keys() {
		if !flags.Changed(name) {
			given.Delete(name)
		}
	}
	path := cmp.Or(given.String("config"), environment.String("config"))
	if path != "" {
		layer := koanf.New("\x00")
		if err := layer.Load(textFile(path), yaml.Parser()); err != nil {
			return nil, nil, fmt.Errorf("config: %s: %w", path, err)
		}
		if err := take(layer, "file "+path); err != nil {
			return nil, nil, err
		}
	}
	if err := take(environment, "environment"); err != nil {
		return nil, nil, err
	}
	return k, from, take(given, "flag")
}

// textFile is the name of a file of settings or keys.
type textFile string

// ReadBytes reads it. What has no end, or is longer than anybody writes, is refused.
func (f textFile) ReadBytes() ([]byte, error) {
	r, err := os.Open(string(f))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(r, textBytesMax+1))
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	if len(text) > textBytesMax {
		return nil, &kv.InvalidError{Field: string(f), Bound: fmt.Sprintf("at most %d MiB", textBytesMax>>20)}
	}
	return text, nil
}

// Read is for files that need no parser.
func (textFile) Read() (map[string]any, error) { return nil, errors.ErrUnsupported }

// plain gives a value of the file as one would write it on the command line.
func plain(value any) (string, bool) {
	switch v := value.(type) {
	case nil:
		return "", true
	case []any, map[string]any, map[any]any:
		return "", false
	default:
		return fmt.Sprint(v), true
	}
}

// written is a key as it is written in the environment or elsewhere.
func written(what, name string) string {
	if what == "environment" {
		return "KVD_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
	}
	return strconv.Quote(name)
}

// nearest asks about the known name that is most like another, if any is like it.
func nearest(what, name string, known map[string]any) string {
	best, least := "", max(4, (len(name)+1)/2)
	for candidate := range known {
		if d := distance(name, candidate); d < least || d == least && candidate < best {
			best, least = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + written(what, best) + "?"
}

// distance counts the changes of a character from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := before
			if a[i] != b[j] {
				cost = 1 + min(before, row[j], row[j+1])
			}
			before, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// check reads what is not plain text, and tells everything that is wrong at once.
func (s *settings) check(k *koanf.Koanf) error {
	var problems []error
	bad := func(field, bound string) { problems = append(problems, &kv.InvalidError{Field: field, Bound: bound}) }
	failed := func(err error) {
		if err != nil {
			problems = append(problems, err)
		}
	}
	s.checkPlaces(bad)
	var err error
	s.initial, err = parseCluster(k.String("initial-cluster"))
	failed(err)
	s.members, err = parseMembers(k.String("join"))
	failed(err)
	if len(s.token) > tokenMax {
		bad("cluster-token", fmt.Sprintf("at most %d characters", tokenMax))
	}
	s.cuts, err = raftmeta.InitialCuts(k.String("initial-shards"), func(name string) ([]byte, error) { return textFile(name).ReadBytes() })
	failed(err)
	if !plainName(s.region) {
		bad("region", nameBound)
	}
	if s.replicas, err = strconv.Atoi(k.String("replicas")); err != nil || s.replicas < 1 || s.replicas > raftmeta.ReplicasMax {
		bad("replicas", fmt.Sprintf("from 1 to %d, is %s", raftmeta.ReplicasMax, k.String("replicas")))
	}
	s.memory, err = parseMemory(k.String("memory"))
	failed(err)
	if set := []bool{s.cert != "", s.key != "", s.ca != ""}; slices.Contains(set, true) && slices.Contains(set, false) {
		bad("tls-cert, tls-key, tls-ca", "all three, or none of them")
	}
	if err := s.level.UnmarshalText([]byte(k.String("log-level"))); err != nil {
		bad("log-level", "debug, info, warn or error, is "+k.String("log-level"))
	}
	if s.format != "text" && s.format != "json" {
		bad("log-format", "text or json, is "+s.format)
	}
	scheduling := k.String("scheduling")
	if s.governed = scheduling == "auto"; !s.governed && scheduling != "normal" {
		bad("scheduling", "auto or normal, is "+scheduling)
	}
	return errors.Join(problems...)
}

// checkPlaces checks the name, the directory and the addresses.
func (s *settings) checkPlaces(bad func(field, bound string)) {
	if s.name == "" || !plainName(s.name) {
		bad("name", nameBound)
	}
	if s.dataDir == "" {
		bad("data-dir", "a directory")
	}
	const bound = "HOST:PORT with a port up to 65535, is %q"
	if _, _, ok := address(s.listen); !ok {
		bad("listen", fmt.Sprintf(bound, s.listen))
	}
	if host, port, ok := address(s.advertise); !ok || port == 0 || host == "" || net.ParseIP(host).IsUnspecified() {
		bad("advertise", "an address that others can reach, is "+s.advertise)
	}
	if _, _, ok := address(s.http); !ok && s.http != "" {
		bad("http", fmt.Sprintf(bound, s.http))
	}
}

const (
	nameMax  = 64
	tokenMax = 256
	// textBytesMax bounds the files of settings and of keys.
	textBytesMax = 64 << 20
)

var nameBound = fmt.Sprintf("at most %d characters, without =, comma or space", nameMax)

func plainName(name string) bool {
	return len(name) <= nameMax && !strings.ContainsAny(name, "=, \t\r\n")
}

// address takes HOST:PORT apart.
func address(text string) (host string, port uint64, ok bool) {
	host, digits, err := net.SplitHostPort(text)
	if err != nil {
		return "", 0, false
	}
	port, err = strconv.ParseUint(digits, 10, 16)
	return host, port, err == nil
}

// parseCluster reads n1=HOST:PORT,n2=HOST:PORT.
func parseCluster(list string) ([]node.FoundNode, error) {
	const field = "initial-cluster"
	var nodes []node.FoundNode
	seen := map[string]bool{}
	for _, part := range strings.Split(list, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, at, _ := strings.Cut(part, "=")
		if host, port, ok := address(at); !ok || host == "" || port == 0 || name == "" || !plainName(name) {
			return nil, &kv.InvalidError{Field: field, Bound: "NAME=HOST:PORT, …, has " + part}
		}
		for _, x := range []string{"name " + name, "address " + at} {
			if seen[x] {
				_, what, _ := strings.Cut(x, " ")
				return nil, &kv.InvalidError{Field: field, Bound: fmt.Sprintf("each name and each address once, has %s twice", what)}
			}
			seen[x] = true
		}
		nodes = append(nodes, node.FoundNode{Name: name, Address: at})
	}
	if len(nodes) > kv.FoundingNodesMax {
		return nil, &kv.InvalidError{Field: field, Bound: fmt.Sprintf("at most %d nodes, has %d", kv.FoundingNodesMax, len(nodes))}
	}
	return nodes, nil
}

// parseMembers reads HOST:PORT,HOST:PORT.
func parseMembers(list string) (members []string, err error) {
	const field = "join"
	for _, part := range strings.Split(list, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		if host, port, ok := address(part); !ok || host == "" || port == 0 || strings.ContainsAny(host, "= \t") {
			return nil, &kv.InvalidError{Field: field, Bound: "HOST:PORT, …, has " + part}
		}
		if !slices.Contains(members, part) {
			members = append(members, part)
		}
	}
	if len(members) > kv.FoundingNodesMax {
		return nil, &kv.InvalidError{Field: field, Bound: fmt.Sprintf("at most %d addresses, has %d", kv.FoundingNodesMax, len(members))}
	}
	return members, nil
}

// parseMemory reads a size in bytes, with KiB, MiB or GiB; empty is a share of what there is.
func parseMemory(text string) (int64, error) {
	if text == "" {
		return max(defaultMemory(), memoryMin), nil
	}
	number, unit := text, int64(1)
	for suffix, factor := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if n, ok := strings.CutSuffix(text, suffix); ok {
			number, unit = strings.TrimSpace(n), factor
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || n > (1<<50)/unit || n*unit < memoryMin {
		return 0, &kv.InvalidError{Field: "memory", Bound: fmt.Sprintf("at least %d MiB, as a number of bytes or with KiB, MiB or GiB, is %q", memoryMin>>20, text)}
	}
	return n * unit, nil
}

// defaultMemory is a quarter of the cgroup's limit, else an eighth of the machine's memory.
func defaultMemory() int64 {
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if text, err := os.ReadFile(path); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n < 1<<50 {
				return n / 4
			}
		}
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return int64(uint64(info.Totalram)*uint64(info.Unit)) / 8
}

// print lists each value with its origin.
func (s *settings) print(w io.Writer) {
	for _, o := range s.origins {
		_, _ = fmt.Fprintf(w, "%-16s %-40s %s\n", o.name, cmp.Or(o.value, `""`), o.from)
	}
}

// secure tells whether TLS is on.
func (s *settings) secure() bool { return s.cert != "" }

// exposed tells whether others than this machine can connect.
func (s *settings) exposed() bool {
	host, _, _ := net.SplitHostPort(s.listen)
	ip := net.ParseIP(host)
	return host != "localhost" && (ip == nil || !ip.IsLoopback())
}

func (s *settings) logger(w io.Writer, level *slog.LevelVar) *slog.Logger {
	level.Set(s.level)
	options := &slog.HandlerOptions{Level: level}
	if s.format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// absolute makes the data directory's name good for messages.
func (s *settings) absolute() string {
	if path, err := filepath.Abs(s.dataDir); err == nil {
		return path
	}
	return s.dataDir
}

var platform = runtime.GOOS + "/" + runtime.GOARCH
