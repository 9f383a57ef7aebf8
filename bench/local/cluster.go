// Package local runs clusters of kvd processes on loopback, for benchmarks.
package local

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/kvdstore/kvd/kv"
)

const (
	// nodeMemory is what each node may use.
	nodeMemory = "512MiB"
	// readyMax is how long the nodes may take until every shard has a leader, and stopMax until they have stopped.
	readyMax, stopMax = time.Minute, 15 * time.Second
)

// Config is what a cluster is made of.
type Config struct {
	// Name of the program that starts it, in messages and in the name of a temporary directory.
	Name string
	// Nodes is how many there are to be.
	Nodes int
	// Dir is for binary, data and logs; empty for a temporary one.
	Dir string
	// Ports are taken from here on, as far as they are free; 0 for any that are.
	Ports int
}

// Cluster is some processes of kvd on loopback.
type Cluster struct {
	cfg   Config
	nodes []*process
}

// process is one of them.
type process struct {
	name, listen, http string
	log                *os.File
	command            *exec.Cmd
	ended              chan error
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
	binary := filepath.Join(dir, "kvd")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/kvdstore/kvd/cmd/kvd").CombinedOutput(); err != nil {
		return c, fmt.Errorf("build kvd: %w\n%s", err, out)
	}
	ports, err := freePorts(2*n, cfg.Ports)
	if err != nil {
		return c, err
	}
	var list []string
	for i := range n {
		p := &process{
			name: fmt.Sprintf("n%d", i+1), listen: ports[2*i], http: ports[2*i+1], ended: make(chan error, 1),
		}
		c.nodes = append(c.nodes, p)
		list = append(list, p.name+"="+p.listen)
	}
	for _, p := range c.nodes {
		if err := p.start(binary, dir, strings.Join(list, ",")); err != nil {
			return c, err
		}
	}
	return c, c.awaitReady(ctx)
}

// freePorts gives addresses that were free a moment ago, from a port on; 0 for any.
func freePorts(n, from int) ([]string, error) {
	var list []string
	for port := from; len(list) < n; port++ {
		if from == 0 {
			port = 0
		}
		lis, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if from > 0 && errors.Is(err, syscall.EADDRINUSE) && port < math.MaxUint16 {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer func() { _ = lis.Close() }() // All at the end, so that they differ.
		list = append(list, lis.Addr().String())
	}
	return list, nil
}

func (p *process) start(binary, dir, list string) error {
	var err error
	if p.log, err = os.Create(filepath.Join(dir, p.name+".log")); err != nil {
		return err
	}
	// A list of one node is none.
	args := []string{"--name", p.name, "--data-dir", filepath.Join(dir, p.name), "--listen", p.listen, "--http", p.http, "--memory", nodeMemory}
	if strings.Contains(list, ",") {
		args = append(args, "--initial-cluster", list)
	}
	p.command = exec.Command(binary, args...)
	p.command.Stdout, p.command.Stderr = p.log, p.log
	p.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for this program alone.
	if err := p.command.Start(); err != nil {
		return err
	}
	go func() { p.ended <- p.command.Wait() }()
	return nil
}

// Addresses are those that clients reach the nodes at.
func (c *Cluster) Addresses() []string {
	var list []string
	for _, p := range c.nodes {
		list = append(list, p.listen)
	}
	return list
}

func (c *Cluster) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyMax)
	defer cancel()
	for _, p := range c.nodes {
		for !p.ready(ctx) {
			if ctx.Err() != nil {
				return fmt.Errorf("%s did not become ready, see %s: %w", p.name, p.log.Name(), ctx.Err())
			}
			select {
			case err := <-p.ended:
				p.ended <- err
				return fmt.Errorf("%s has ended, see %s: %w", p.name, p.log.Name(), errors.Join(err))
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

func (p *process) ready(ctx context.Context) bool {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.http+"/readyz", nil)
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
	var errs []error
	for _, p := range c.nodes {
		if p.command == nil || p.command.Process == nil {
			continue
		}
		select {
		case err := <-p.ended:
			errs = append(errs, fmt.Errorf("%s had ended before it was stopped, see %s: %w", p.name, p.log.Name(), errors.Join(err)))
			p.ended <- err
		default:
			_ = p.command.Process.Signal(syscall.SIGTERM)
		}
	}
	for _, p := range c.nodes {
		if p.command == nil || p.command.Process == nil {
			continue
		}
		select {
		case <-p.ended:
		case <-time.After(stopMax):
			errs = append(errs, fmt.Errorf("%s did not stop, see %s", p.name, p.log.Name()))
			_ = p.command.Process.Kill()
			<-p.ended
		}
		_ = p.log.Close()
	}
	if remove && len(errs) == 0 {
		return os.RemoveAll(c.cfg.Dir)
	}
	fmt.Fprintln(os.Stderr, c.cfg.Name+": data and logs of the nodes:", c.cfg.Dir)
	return errors.Join(errs...)
}
