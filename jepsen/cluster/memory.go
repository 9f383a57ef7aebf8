package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kvdstore/kvd/internal/wait"
)

// Where cgroups of the first version are, which is what containers often let one write to.
const (
	memoryDir = "/sys/fs/cgroup/memory"
	cpuDir    = "/sys/fs/cgroup/cpu"
)

// cpuPeriod is short: a process that has used up its share stands still for less than it.
const cpuPeriod = 10 * time.Millisecond

// watchEvery is the time between two looks at a process's memory.
const watchEvery = 100 * time.Millisecond

// groups makes the cgroups that cap a node of a cluster, as far as there are any to be had.
func (c *Cluster) groups(node string) (dirs []string, memory bool) {
	if c.cfg.MemoryBytes > 0 {
		dir, err := group(memoryDir, c.id, node, "memory.limit_in_bytes", c.cfg.MemoryBytes)
		if memory = err == nil; memory {
			dirs = append(dirs, dir)
		}
	}
	if c.cfg.CPUs > 0 {
		dir, err := group(cpuDir, c.id, node, "cpu.cfs_period_us", cpuPeriod.Microseconds())
		if err == nil {
			dir, err = group(cpuDir, c.id, node, "cpu.cfs_quota_us", int64(c.cfg.CPUs*float64(cpuPeriod.Microseconds())))
		}
		if err == nil {
			dirs = append(dirs, dir)
		}
	}
	return dirs, memory
}

// group makes a node's cgroup if there is none yet, and sets a value of it.
func group(of, id, node, name string, value int64) (string, error) {
	dir := filepath.Join(of, groupPrefix+id, node)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, name), []byte(strconv.FormatInt(value, 10)), 0o644)
}

// capped is a command whose process is in its cgroups before the program begins: Go's runtime asks once, at its start, how many
// processors it may use, and one that takes four for its own has used up its share of a period in a quarter of the time.
func capped(dirs []string, binary string, args []string) *exec.Cmd {
	if len(dirs) == 0 {
		return exec.Command(binary, args...)
	}
	const script = `while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit 1; shift; done; shift; exec "$0" "$@"`
	return exec.Command("sh", slices.Concat([]string{"-c", script, binary}, dirs, []string{"--"}, args)...)
}

// removeGroups removes the cgroups of a cluster, or of one that is dead; what ran there must have ended.
func removeGroups(name string) error {
	return errors.Join(removeGroup(filepath.Join(memoryDir, name)), removeGroup(filepath.Join(cpuDir, name)))
}

// removeGroup removes a cgroup and those in it.
func removeGroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		if e.IsDir() {
			errs = append(errs, removeGroup(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(append(errs, syscall.Rmdir(dir))...)
}

// resident is the memory that a process has now, in bytes; 0 if it has ended.
func resident(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kilobytes, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kilobytes << 10
		}
	}
	return 0
}

// watch keeps an eye on the nodes' memory: it notes the peaks, and where no cgroup does it, ends who is above the cap.
func (c *Cluster) watch(ctx context.Context) {
	for wait.For(ctx, watchEvery) == nil {
		for _, n := range c.Nodes() {
			n.measure(c.cfg.MemoryBytes)
		}
	}
}
