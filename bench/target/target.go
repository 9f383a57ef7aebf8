// Package target has an adapter for each store that can be measured: kvd, its peers, and the ceilings. All do the same
// operations with the same keys and values, each in the way in which its users would.
package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/kvdstore/kvd/bench/load"
	"github.com/kvdstore/kvd/kv"
)

// connections is how many a benchmark has to the servers of a store whose connections carry many requests at a time: in
// all, spread evenly. Four to eight do best, fewer are worse and more are not better.
const connections = 6

// Target is a store under load.
type Target interface {
	load.Target
	// Judge tells the kind of an error: one of measure's.
	Judge(op load.Op, err error) string
	// Close closes all connections.
	Close() error
}

// Config says what is measured.
type Config struct {
	// Kind is one of Kinds.
	Kind string
	// Endpoints are HOST:PORT of its servers; of pebble its directory.
	Endpoints []string
	// Pipelined uses the store's way to send requests without waiting for earlier ones.
	Pipelined bool
	// Ordered is for workloads that scan.
	Ordered bool
	// Callers is how many sessions there will be.
	Callers int
	// Depth is how many operations a session gets at a time.
	Depth int
	// Value is the length of values, in bytes.
	Value int
}

// kind is what a store is made by, and what it can do.
type kind struct {
	open func(Config) (Target, error)
	// pipelined, deep and ordered tell whether it can be asked for that; oneServer that it takes one endpoint; local that
	// this is a directory.
	pipelined, deep, ordered, oneServer, local bool
	// fillDepth is how many puts of a filling are sent at a time; 0 when there is nothing to fill.
	fillDepth int
}

var all = map[string]kind{
	"kvd":       {open: newKVD, pipelined: true, deep: true, ordered: true, fillDepth: 64},
	"etcd":      {open: newEtcd, ordered: true, fillDepth: 64},
	"redis":     {open: newRedis, pipelined: true, deep: true, ordered: true, oneServer: true, fillDepth: 64},
	"memcached": {open: newMemcached, fillDepth: 1},
	"echo":      {open: newEcho, pipelined: true, deep: true},
	"pebble":    {open: newPebble, pipelined: true, deep: true, ordered: true, oneServer: true, local: true, fillDepth: 64},
}

// Kinds gives the names of all kinds.
func Kinds() []string {
	var list []string
	for name := range all {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// Check tells of everything that is wrong at once.
func (c *Config) Check() error {
	k, known := all[c.Kind]
	if !known {
		return &kv.InvalidError{Field: "target", Bound: fmt.Sprintf("one of %v, is %q", Kinds(), c.Kind)}
	}
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, &kv.InvalidError{Field: field, Bound: fmt.Sprintf(format, args...)})
	}
	if len(c.Endpoints) == 0 {
		bad("endpoints", "at least one HOST:PORT")
	}
	if k.oneServer && len(c.Endpoints) > 1 {
		bad("endpoints", "one for %s, are %d", c.Kind, len(c.Endpoints))
	}
	for _, e := range c.Endpoints {
		if _, port, err := net.SplitHostPort(e); !k.local && (err != nil || port == "") {
			bad("endpoints", "HOST:PORT, one is %q", e)
		}
	}
	if c.Pipelined && !k.pipelined {
		bad("workload", "one that %s can do: it has no pipeline", c.Kind)
	}
	if c.Ordered && !k.ordered {
		bad("workload", "one that %s can do: it has no scans", c.Kind)
	}
	if c.Depth > 1 && !(c.Pipelined && k.deep) {
		bad("depth", "1 without a pipeline, is %d", c.Depth)
	}
	return errors.Join(errs...)
}

// Open makes a target. It connects when it is first used.
func Open(c Config) (Target, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	return all[c.Kind].open(c)
}

// OpenToFill makes a target for the puts of a filling by some callers, and tells how many each may send at a time; nil for
// a store that keeps nothing.
func OpenToFill(c Config, callers int) (Target, int, error) {
	c.Depth = 1
	if err := c.Check(); err != nil {
		return nil, 0, err
	}
	k := all[c.Kind]
	if k.fillDepth == 0 {
		return nil, 0, nil
	}
	c.Callers, c.Depth, c.Pipelined = callers, k.fillDepth, k.pipelined
	t, err := k.open(c)
	return t, k.fillDepth, err
}

// perServer is how many connections each of some servers gets.
func perServer(servers int) int { return max(1, (connections+servers-1)/servers) }

// one makes a session of a function that does one operation.
type one func(ctx context.Context, op load.Op) load.Result

// Do does operations one after the other.
func (f one) Do(ctx context.Context, ops []load.Op, results []load.Result) {
	for i, op := range ops {
		results[i] = f(ctx, op)
	}
}

// cannot is the result of an operation that a store does not have.
func cannot(op load.Op, store string) load.Result {
	return load.Result{Err: fmt.Errorf("%s: %v: %w", store, op.Kind, kv.ErrUnsupported)}
}
