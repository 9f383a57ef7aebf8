package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kvdstore/kvd/internal/wait"
)

// Node is one kvd: a data directory, a log, and a process as long as it runs.
type Node struct {
	c    *Cluster
	name string
	place
	how    []string // Flags of how it came to the cluster.
	groups []string // Its cgroups.
	capped bool     // One of them caps its memory.

	acting sync.Mutex // Held by whoever starts, stops or kills.
	mu     sync.Mutex // Guards the rest.
	run    *process
	paused bool
	fated  bool  // It may end by itself.
	doomed bool  // It may be killed by itself.
	ends   int   // Of its processes, by themselves.
	gone   bool  // It was removed from the cluster, and is not to come back.
	peak   int64 // Of its memory, in bytes.
}

// process is one life of a node.
type process struct {
	command *exec.Cmd
	ended   chan struct{}
	err     error // How it ended, once it has.
	asked   bool  // Its end was asked for.
}

// Name is the node's.
func (n *Node) Name() string { return n.name }

// Address is what the node advertises.
func (n *Node) Address() string { return n.advertise }

// HTTP is where its health and metrics are.
func (n *Node) HTTP() string { return n.http }

// DataDir holds everything that the node keeps.
func (n *Node) DataDir() string { return filepath.Join(n.c.cfg.Dir, n.name) }

// Log is the file with what the node says.
func (n *Node) Log() string { return n.DataDir() + ".log" }

// Alive tells whether the process runs; a paused one does.
func (n *Node) Alive() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.run.lives()
}

func (p *process) lives() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Paused tells whether the process stands still.
func (n *Node) Paused() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.paused
}

// Gone tells whether the node was taken out of the cluster for good.
func (n *Node) Gone() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.gone
}

// MayEnd tells whether it is no surprise if the process ends by itself: its disk is bad, or it is being removed.
func (n *Node) MayEnd(fated bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fated = fated
}

// MayBeKilled tells whether it is no surprise if the process ends as by kill -9 although nobody here has killed it: it was told to.
func (n *Node) MayBeKilled(doomed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.doomed = doomed
}

// Ends counts how often the node's processes have ended by themselves.
func (n *Node) Ends() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ends
}

// EndedByItself tells whether no process runs, and nobody asked for the end of the last one.
func (n *Node) EndedByItself() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.run != nil && !n.run.lives() && !n.run.asked
}

// Leave takes the node out of the cluster's list of those that are to run.
func (n *Node) Leave() {
	n.Kill()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gone = true
}

// PeakMemory is the most that its processes had in memory, in bytes.
func (n *Node) PeakMemory() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.peak
}

// Start starts the process, unless it runs.
func (n *Node) Start() error {
	n.acting.Lock()
	defer n.acting.Unlock()
	if n.Alive() {
		return nil
	}
	log, err := os.OpenFile(n.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close() // The process has its own.
	p := &process{command: capped(n.groups, n.c.cfg.Binary, n.args()), ended: make(chan struct{})}
	p.command.Stdout, p.command.Stderr, p.command.Env = log, log, n.environment()
	if err := spawn(n.c.net, n.name, p.command); err != nil {
		return fmt.Errorf("start %s: %w", n.name, err)
	}
	n.mu.Lock()
	n.run, n.paused = p, false
	n.mu.Unlock()
	go n.await(p)
	return nil
}

func (n *Node) args() []string {
	args := []string{"--name", n.name, "--data-dir", n.DataDir(), "--listen", n.listen, "--advertise", n.advertise, "--http", n.http}
	return slices.Concat(args, n.how, n.c.cfg.Flags)
}

// environment is this program's, without what would change kvd, or gRPC's way to other nodes.
func (n *Node) environment() []string {
	list := slices.DeleteFunc(os.Environ(), func(line string) bool {
		name, _, _ := strings.Cut(strings.ToUpper(line), "=")
		return strings.HasPrefix(name, "KVD_") || strings.HasSuffix(name, "_PROXY") || strings.HasPrefix(name, "GRPC_")
	})
	if n.proxy != "" {
		list = append(list, "HTTPS_PROXY=http://"+n.proxy)
	}
	if n.c.cfg.TestBuild {
		list = append(list, "KVD_TEST_DIR="+n.testDir())
	}
	return list
}

// testDir holds what a kvd of a build for tests is told.
func (n *Node) testDir() string { return n.DataDir() + ".faults" }

// Leases names the files in which kvds of builds for tests record their leases.
func (c *Cluster) Leases() []string { return c.recorded("leases") }

// Bonds names those in which they record what no crash must take back.
func (c *Cluster) Bonds() []string { return c.recorded("bonds") }

// recorded names the files of all nodes' records of a kind.
func (c *Cluster) recorded(kind string) (files []string) {
	for _, n := range c.Nodes() {
		files = append(files, n.testDir()+"."+kind)
	}
	return files
}

// Tamper tells a kvd of a build for tests what is to happen to it: the content of a file, as docs/proof.md has them.
func (n *Node) Tamper(file, content string) error {
	if !n.c.cfg.TestBuild {
		return errors.New("tamper with " + n.name + ": its kvd is not built for tests")
	}
	name := filepath.Join(n.testDir(), file)
	if err := os.WriteFile(name+".new", []byte(content), 0o644); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// Untamper takes back all that Tamper told.
func (n *Node) Untamper() error {
	entries, err := os.ReadDir(n.testDir())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		errs = append(errs, os.Remove(filepath.Join(n.testDir(), e.Name())))
	}
	return errors.Join(errs...)
}

// await waits for a process's end.
func (n *Node) await(p *process) {
	p.err = p.command.Wait()
	n.mu.Lock()
	if !p.asked {
		n.ends++
	}
	surprise := !p.asked && !n.fated && !(n.doomed && killed(p.command.ProcessState))
	n.paused = false
	close(p.ended)
	n.mu.Unlock()
	if surprise {
		n.c.surprised(n, fmt.Sprintf("%s ended by itself (%v), see %s", n.name, cmpErr(p.err), n.Log()))
	}
}

// killed tells whether a process ended as by kill -9.
func killed(s *os.ProcessState) bool {
	status, ok := s.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

func cmpErr(err error) error {
	if err == nil {
		return errors.New("code 0")
	}
	return err
}

// signal sends a signal to the process if it runs; asked tells that its end is wanted.
func (n *Node) signal(s syscall.Signal, asked bool) *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.run.lives() {
		return nil
	}
	n.run.asked = n.run.asked || asked
	_ = n.run.command.Process.Signal(s) // It may be ending now.
	return n.run
}

// Kill ends the process as kill -9 does, and waits for its end.
func (n *Node) Kill() {
	n.acting.Lock()
	defer n.acting.Unlock()
	if p := n.signal(syscall.SIGKILL, true); p != nil {
		<-p.ended
	}
}

// Terminate asks the process to stop, waits for it, and after some time kills it, which is an error.
func (n *Node) Terminate() error {
	n.acting.Lock()
	defer n.acting.Unlock()
	n.signal(syscall.SIGCONT, false)
	p := n.signal(syscall.SIGTERM, true)
	if p == nil {
		return nil
	}
	t := time.NewTimer(stopMax)
	defer t.Stop()
	select {
	case <-p.ended:
		return nil
	case <-t.C:
		n.signal(syscall.SIGKILL, true)
		<-p.ended
		return fmt.Errorf("%s did not stop within %v, see %s", n.name, stopMax, n.Log())
	}
}

// Pause stops the process where it is, and Resume lets it go on.
func (n *Node) Pause() { n.stand(syscall.SIGSTOP, true) }

// Resume lets a paused process go on.
func (n *Node) Resume() { n.stand(syscall.SIGCONT, false) }

func (n *Node) stand(s syscall.Signal, paused bool) {
	if n.signal(s, false) == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.paused = paused
}

// Ready tells whether the node serves: every shard with a replica there has a leader.
func (n *Node) Ready(ctx context.Context) bool {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.http+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := n.c.http.Do(r)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// AwaitReady waits until the node serves; an error tells that it has ended, or did not come so far in time.
func (n *Node) AwaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyMax, fmt.Errorf("it took longer than %v", readyMax))
	defer cancel()
	for {
		if !n.Alive() {
			return fmt.Errorf("%s does not run, see %s", n.name, n.Log())
		}
		if n.Ready(ctx) {
			return nil
		}
		if wait.For(ctx, lookEvery) != nil {
			return fmt.Errorf("%s did not become ready, see %s: %w", n.name, n.Log(), context.Cause(ctx))
		}
	}
}

// measure notes the process's memory. Without a cgroup it is ended when it is above the cap, if there is one.
func (n *Node) measure(bytesMax int64) {
	n.mu.Lock()
	p := n.run
	n.mu.Unlock()
	if !p.lives() {
		return
	}
	now := resident(p.command.Process.Pid)
	n.mu.Lock()
	n.peak = max(n.peak, now)
	n.mu.Unlock()
	if bytesMax > 0 && !n.capped && now > bytesMax {
		n.signal(syscall.SIGKILL, false)
	}
}
