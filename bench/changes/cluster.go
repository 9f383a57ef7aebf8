package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// nodeMemory is what each node may use.
	nodeMemory = "512MiB"
	// readyMax is how long the nodes may take until every shard has a leader, and stopMax until they have stopped.
	readyMax, stopMax = time.Minute, 15 * time.Second
)

// cluster is some processes of kvd on loopback.
type cluster struct {
	dir   string
	nodes []*process
}

// process is one of them.
type process struct {
	name, listen, http string
	log                *os.File
	command            *exec.Cmd
	ended              chan error
}

// startCluster builds kvd, starts nodes and waits until they are ready. What it gives is to be stopped also after an error.
func startCluster(ctx context.Context, n int, dir string) (*cluster, error) {
	var err error
	if dir == "" {
		dir, err = os.MkdirTemp("", "kvd-changes-")
	} else {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return nil, err
	}
	c := &cluster{dir: dir}
	binary := filepath.Join(dir, "kvd")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/kvdstore/kvd/cmd/kvd").CombinedOutput(); err != nil {
		return c, fmt.Errorf("build kvd: %w\n%s", err, out)
	}
	ports, err := freePorts(2 * n)
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

// freePorts gives addresses that were free a moment ago.
func freePorts(n int) ([]string, error) {
	var list []string
	for range n {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
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

func (c *cluster) addresses() []string {
	var list []string
	for _, p := range c.nodes {
		list = append(list, p.listen)
	}
	return list
}

func (c *cluster) awaitReady(ctx context.Context) error {
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

// stop ends the processes, and removes what they leave if that is wanted. A node that had ended before is an error.
func (c *cluster) stop(remove bool) error {
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
		return os.RemoveAll(c.dir)
	}
	fmt.Fprintln(os.Stderr, "changes: data and logs of the nodes:", c.dir)
	return errors.Join(errs...)
}
