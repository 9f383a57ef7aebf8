package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestConfig(t *testing.T) {
	for field, c := range map[string]Config{
		"nodes":  {Nodes: 10, Dir: "x", Binary: "kvd"},
		"dir":    {Nodes: 1, Binary: "kvd"},
		"binary": {Nodes: 1, Dir: "x"},
		"memory": {Nodes: 1, Dir: "x", Binary: "kvd", MemoryBytes: -1},
		"cpus":   {Nodes: 1, Dir: "x", Binary: "kvd", CPUs: -1},
	} {
		_, err := Start(t.Context(), c)
		require.ErrorContains(t, err, field)
	}
}

// TestUsedDirectory: nodes of an earlier cluster would look for each other at other addresses.
func TestUsedDirectory(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "n1"), 0o755))
	_, err := Start(t.Context(), Config{Nodes: 3, Dir: dir, Binary: "kvd"})
	require.ErrorContains(t, err, "a directory without the data of an earlier cluster")
}

// ended gives the id of a process that has ended.
func ended(t *testing.T) int {
	c := exec.Command("true")
	require.NoError(t, c.Run())
	return c.Process.Pid
}

// TestLeftovers: what a process left that is dead is found, and what one has that lives is let alone.
func TestLeftovers(t *testing.T) {
	dir := t.TempDir()
	dead := fmt.Sprintf("%s%d-1-n1", namespacePrefix, ended(t))
	for _, name := range []string{dead, fmt.Sprintf("%s%d-1-n1", namespacePrefix, os.Getpid()), "somebody-elses", namespacePrefix + "1"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
	require.Equal(t, []string{dead}, left(dir, namespaceName))
	require.Empty(t, left(filepath.Join(dir, "missing"), namespaceName))
}

// TestCleanNamespaces: namespaces, with what runs in them, and bridges of dead processes go.
func TestCleanNamespaces(t *testing.T) {
	if err := Available(t.Context()); err != nil {
		t.Skip(err)
	}
	pid := ended(t)
	namespace, bridge := fmt.Sprintf("%s%d-1-n1", namespacePrefix, pid), fmt.Sprintf("%s%dx1", bridgePrefix, pid)
	require.NoError(t, ip("netns", "add", namespace))
	require.NoError(t, ip("link", "add", bridge, "type", "bridge"))
	inside := exec.Command("sleep", "600")
	require.NoError(t, within(namespace, inside.Start))
	over := make(chan error, 1)
	go func() { over <- inside.Wait() }()
	removed, err := Clean()
	require.NoError(t, err)
	require.Contains(t, removed, namespace)
	require.Contains(t, removed, bridge)
	require.ErrorContains(t, <-over, "killed")
	require.NoFileExists(t, filepath.Join(namespaceDir, namespace))
	require.NoDirExists(t, "/sys/class/net/"+bridge)
}

// TestEnvironment: what is in this program's environment does not configure the nodes, nor lead their connections elsewhere.
func TestEnvironment(t *testing.T) {
	t.Setenv("KVD_MEMORY", "1GiB")
	t.Setenv("https_proxy", "http://elsewhere")
	t.Setenv("NO_PROXY", "*")
	n := &Node{c: &Cluster{cfg: Config{Dir: "/d", TestBuild: true}}, name: "n1", place: place{proxy: "127.0.0.1:1"}}
	all := strings.Join(n.environment(), "\n") + "\n"
	require.NotContains(t, all, "KVD_MEMORY")
	require.NotContains(t, all, "elsewhere")
	require.NotContains(t, all, "NO_PROXY")
	require.Contains(t, all, "HTTPS_PROXY=http://127.0.0.1:1\n")
	require.Contains(t, all, "KVD_TEST_DIR=/d/n1.faults\n")
}

// TestTamper: what a node is told is there whole, and taken back; a kvd that would not listen is not told.
func TestTamper(t *testing.T) {
	n := &Node{c: &Cluster{cfg: Config{Dir: t.TempDir(), TestBuild: true}}, name: "n1"}
	require.NoError(t, n.Untamper(), "there may be no directory")
	require.NoError(t, os.Mkdir(n.testDir(), 0o755))
	require.NoError(t, n.Tamper("clock", "1s"))
	require.NoError(t, n.Tamper("clock", "2s"))
	text, err := os.ReadFile(filepath.Join(n.testDir(), "clock"))
	require.NoError(t, err)
	require.Equal(t, "2s", string(text))
	require.NoError(t, n.Untamper())
	left, err := os.ReadDir(n.testDir())
	require.NoError(t, err)
	require.Empty(t, left)
	n.c.cfg.TestBuild = false
	require.ErrorContains(t, n.Tamper("clock", "1s"), "not built for tests")
}

// TestCaps: a node's process is in cgroups with its caps, which go with the cluster.
func TestCaps(t *testing.T) {
	c := &Cluster{id: fmt.Sprintf("%d-%d", os.Getpid(), networks.Add(1)), cfg: Config{MemoryBytes: 64 << 20, CPUs: 0.5}}
	dirs, memory := c.groups("n1")
	if len(dirs) < 2 {
		t.Skip("no cgroups of the first version can be made here")
	}
	require.True(t, memory)
	for name, want := range map[string]string{filepath.Join(dirs[0], "memory.limit_in_bytes"): "67108864", filepath.Join(dirs[1], "cpu.cfs_quota_us"): "5000"} {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		require.Equal(t, want, strings.TrimSpace(string(text)))
	}
	// The process is in them when its program begins, and the program has its own arguments.
	text, err := capped(dirs, "grep", []string{"-c", "-e", groupPrefix + c.id + "/n1", "--", "/proc/self/cgroup"}).Output()
	require.NoError(t, err)
	require.Equal(t, "2", strings.TrimSpace(string(text)))
	require.NoError(t, removeGroups(groupPrefix+c.id))
	require.NoDirExists(t, filepath.Dir(dirs[0]))
	require.NoDirExists(t, filepath.Dir(dirs[1]))
	require.NoError(t, removeGroups(groupPrefix+c.id), "it may be called twice")
}
