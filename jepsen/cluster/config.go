package cluster

import (
	"errors"
	"fmt"
	"time"

	"github.com/kvdstore/kvd/kv"
)

const (
	// NodesMax bounds the nodes, those that join later included.
	NodesMax = 16
	// readyMax is how long nodes may take until every shard has a leader, and stopMax until a process has stopped.
	readyMax, stopMax = time.Minute, 15 * time.Second
	// lookEvery is the time between two looks at something that is waited for.
	lookEvery = 50 * time.Millisecond
)

// Config is what a cluster is made of.
type Config struct {
	// Nodes is how many found the cluster, 1 to 9.
	Nodes int
	// Dir is for data and logs; it must not hold those of an earlier cluster.
	Dir string
	// Binary is the kvd to run.
	Binary string
	// Namespaces gives each node a network namespace; it needs root, iproute2 and iptables (Available).
	Namespaces bool
	// Proxied puts the proxy between nodes in namespaces too: without it links cannot be slow there.
	Proxied bool
	// Flags are given to every node, after this package's own.
	Flags []string
	// TestBuild says that the kvd was built with the tag kvdtest, and may be tampered with.
	TestBuild bool
	// MemoryBytes caps each process, by a cgroup if there is one to be had, else by killing what is above it; 0 for no cap.
	MemoryBytes int64
	// CPUs caps the processors of each process, if there is a cgroup to be had; 0 for no cap.
	CPUs float64
	// Ended is told when a process ended and nobody had asked for it; nil for nobody. It must not block.
	Ended func(n *Node, why string)
}

func (c *Config) validate() error {
	var errs []error
	if c.Nodes < 1 || c.Nodes > 9 {
		errs = append(errs, &kv.InvalidError{Field: "nodes", Bound: fmt.Sprintf("1 to 9, is %d", c.Nodes)})
	}
	if c.Dir == "" {
		errs = append(errs, &kv.InvalidError{Field: "dir", Bound: "a directory"})
	}
	if c.Binary == "" {
		errs = append(errs, &kv.InvalidError{Field: "binary", Bound: "a file"})
	}
	if c.MemoryBytes < 0 {
		errs = append(errs, &kv.InvalidError{Field: "memory", Bound: fmt.Sprintf("0 or more, is %d", c.MemoryBytes)})
	}
	if c.CPUs < 0 {
		errs = append(errs, &kv.InvalidError{Field: "cpus", Bound: fmt.Sprintf("0 or more, is %v", c.CPUs)})
	}
	return errors.Join(errs...)
}
