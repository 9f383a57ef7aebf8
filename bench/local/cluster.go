// Package local runs clusters of kvd processes on loopback, for benchmarks.
package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kvdstore/kvd/kv"
)

const (
	// binaryFile is kvd, and cutsFile has the keys at which shards begin.
	binaryFile, cutsFile = "kvd", "cuts"
	// nodeMemory is what each node may use, unless it is told.
	nodeMemory = "512MiB"
	// OwnMemory has kvd choose how much each node may use.
	OwnMemory = "default"
	// readyMax is how long the nodes may take until every shard has a leader, and stopMax until they have stopped.
	readyMax, stopMax = 3 * time.Minute, time.Minute
	// readyEvery is the time between two looks whether they are ready.
	readyEvery = 10 * time.Millisecond
)

// Config is what a cluster is made of.
type Config struct {
	// Name of the program that starts it, in messages and in the name of a temporary directory.
	Name string
	// Nodes is how many there are to be.
	Nodes int
	// Dir is for binary, data and logs; empty for a temporary one.
	Dir string
	// Binary is a kvd that Build has made; without one it is built.
	Binary string
	// Ports are taken from here on, as far as they are free; 0 for any that are.
	Ports int
	// Memory of each node, as kvd's --memory takes it; 512MiB if it is empty, what kvd chooses if it is OwnMemory.
	Memory string
	// Cuts are the keys at which shards begin, besides the first.
	Cuts [][]byte
	// Nice is how the kernel favours the nodes: from -20, before everything else, which needs root, to 19.
	Nice int
}

// Cluster is some processes of kvd on loopback.
type Cluster struct {
	cfg    Config
	nodes  []*node
	starts int // How often they were started.
}

// node is one of them.
type node struct {
	*Process
	name, listen, http string
}

// Start builds kvd, starts nodes and waits until they are ready. What it gives is to be stopped also after an error, unless
// it is nil.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	var err error
	if cfg.Dir == "" {
		cfg.Dir, err = os.MkdirTemp("", "kvd-"+cfg.Name+"-")
	} else {
		err = os.MkdirAll(cfg.Dir, 0o755)
	}
	if err != nil {
		return nil, err
	}
	c := &Cluster{cfg: cfg}
	n, dir := cfg.Nodes, cfg.Dir
	if _, err := os.Stat(filepath.Join(dir, "n1")); err == nil {
		return nil, &kv.InvalidError{Field: "dir", Bound: fmt.Sprintf("a directory without the data of an earlier cluster; %s has some", dir)}
	}
	if cfg.Binary == "" {
		c.cfg.Binary = filepath.Join(dir, binaryFile)
		if err := Build(ctx, c.cfg.Binary); err != nil {
			return c, err
		}
	}
	if err := c.writeCuts(); err != nil {
		return c, err
	}
	ports, err := FreePorts(2*n, cfg.Ports)
	if err != nil {
		return c, err
	}
	for i := range n {
		c.nodes = append(c.nodes, &node{name: fmt.Sprintf("n%d", i+1), listen: ports[2*i], http: ports[2*i+1]})
	}
	return c, c.Up(ctx)
}

// Build builds kvd into a file.
func Build(ctx context.Context, file string) error {
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", file, "github.com/kvdstore/kvd/cmd/kvd").CombinedOutput(); err != nil {
		return fmt.Errorf("build kvd: %w\n%s", err, out)
	}
	return nil
}

// Up starts the nodes, the first time or after Down, and waits until they are ready.
func (c *Cluster) Up(ctx context.Context) error {
	var list []string
	for _, x := range c.nodes {
		list = append(list, x.name+"="+x.listen)
	}
	c.starts++
	for _, x := range c.nodes {
		if err := c.start(x, strings.Join(list, ",")); err != nil {
			return err
		}
	}
	return errors.Join(c.awaitReady(ctx), c.checkNice())
}

// checkNice reports that the kernel does not favour the nodes as it was told to: the program that asks it to goes on all the same.
func (c *Cluster) checkNice() error {
	for _, n := range c.nodes {
		priority, err := unix.Getpriority(unix.PRIO_PROCESS, n.PID())
		if err != nil {
			return err
		}
		if nice := 20 - priority; nice != c.cfg.Nice && c.cfg.Nice != 0 { // The system call counts from the other end.
			return &kv.InvalidError{Field: "nice", Bound: fmt.Sprintf("what this user may ask for; node %s has %d, not %d", n.name, nice, c.cfg.Nice)}
		}
	}
	return nil
}

// Down stops the nodes, which keep what they have. A node that had ended before is an error.
func (c *Cluster) Down() error {
	err := StopAll(c.Processes())
	for _, n := range c.nodes {
		n.Process = nil
	}
	return err
}

// ReadFiles reads the nodes' data once, so that the page cache has of it what fits there.
func (c *Cluster) ReadFiles(ctx context.Context) error {
	return filepath.WalkDir(c.cfg.Dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil && d.Type().IsRegular() {
			err = readFile(path)
		}
		if errors.Is(err, fs.ErrNotExist) { // A compaction has removed it meanwhile.
			return nil
		}
		return err
	})
}

func readFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, f)
	return errors.Join(err, f.Close())
}

// start starts a node.
func (c *Cluster) start(n *node, list string) (err error) {
	dir := c.cfg.Dir
	args := []string{"--name", n.name, "--data-dir", filepath.Join(dir, n.name), "--listen", n.listen, "--http", n.http}
	if memory := cmp.Or(c.cfg.Memory, nodeMemory); memory != OwnMemory {
		args = append(args, "--memory", memory)
	}
	if strings.Contains(list, ",") { // A list of one node is none.
		args = append(args, "--initial-cluster", list)
	}
	if len(c.cfg.Cuts) > 0 {
		args = append(args, "--initial-shards", filepath.Join(dir, cutsFile))
	}
	log := n.name + ".log"
	if c.starts > 1 {
		log = fmt.Sprintf("%s.%d.log", n.name, c.starts)
	}
	binary := c.cfg.Binary
	if c.cfg.Nice != 0 {
		binary, args = "nice", append([]string{"-n", fmt.Sprint(c.cfg.Nice), binary}, args...)
	}
	n.Process, err = StartProcess(n.name, filepath.Join(dir, log), binary, args...)
	return err
}

// writeCuts writes the file of cuts, if there are any.
func (c *Cluster) writeCuts() error {
	if len(c.cfg.Cuts) == 0 {
		return nil
	}
	var text strings.Builder
	for _, key := range c.cfg.Cuts {
		text.WriteString(kv.FormatKey(key) + "\n")
	}
	return os.WriteFile(filepath.Join(c.cfg.Dir, cutsFile), []byte(text.String()), 0o644)
}

// Addresses are those that clients reach the nodes at.
func (c *Cluster) Addresses() []string {
	var list []string
	for _, n := range c.nodes {
		list = append(list, n.listen)
	}
	return list
}

// Processes are the nodes that were started.
func (c *Cluster) Processes() (list []*Process) {
	for _, n := range c.nodes {
		if n.Process != nil {
			list = append(list, n.Process)
		}
	}
	return list
}

// Metrics are the URLs of the nodes' metrics.
func (c *Cluster) Metrics() (list []string) {
	for _, n := range c.nodes {
		list = append(list, "http://"+n.http+"/metrics")
	}
	return list
}

func (c *Cluster) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyMax)
	defer cancel()
	for _, n := range c.nodes {
		for !n.ready(ctx) {
			if err := n.Ended(); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s did not become ready, see %s: %w", n.name, n.log.Name(), ctx.Err())
			case <-time.After(readyEvery):
			}
		}
	}
	return nil
}

func (n *node) ready(ctx context.Context) bool {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.http+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Stop ends the processes, and removes what they leave if that is wanted. A node that had ended before is an error.
func (c *Cluster) Stop(remove bool) error {
	err := StopAll(c.Processes())
	if remove && err == nil {
		return os.RemoveAll(c.cfg.Dir)
	}
	fmt.Fprintln(os.Stderr, c.cfg.Name+": data and logs of the nodes:", c.cfg.Dir)
	return err
}
