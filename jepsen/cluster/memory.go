package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// memoryDir is where cgroups of the first version for memory are, which is what containers often let one write to.
const memoryDir = "/sys/fs/cgroup/memory"

// watchEvery is the time between two looks at a process's memory.
const watchEvery = 100 * time.Millisecond

// group makes a cgroup with a cap for a cluster's node; it gives an error where that cannot be.
func group(id, node string, bytes int64) (string, error) {
	dir := filepath.Join(memoryDir, groupPrefix+id, node)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "memory.limit_in_bytes"), []byte(strconv.FormatInt(bytes, 10)), 0o644)
}

// removeGroup removes a cgroup and those in it; what ran there must have ended.
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
	for wait(ctx, watchEvery) == nil {
		for _, n := range c.Nodes() {
			n.measure(c.cfg.MemoryBytes)
		}
	}
}
