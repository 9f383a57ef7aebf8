//go:build kvdtest

package faults

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/kv"
)

// What a test build writes of what it knows of itself lies beside the directory of faults, a line each: its leases, and what no crash
// must take back.
var (
	leases = sync.OnceValue(func() *os.File { return record("leases") })
	bonds  = sync.OnceValue(func() *os.File { return record("bonds") })
)

// record opens a file that is added to; nil without a directory.
func record(suffix string) *os.File {
	dir := os.Getenv(Env)
	if dir == "" {
		return nil
	}
	f, err := appendTo(dir + "." + suffix)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "kvdtest:", err)
		return nil
	}
	return f
}

// appendTo opens a file of lines, without the end of a line that the process before was killed at.
func appendTo(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(f)
	if err == nil {
		err = f.Truncate(int64(bytes.LastIndexByte(text, '\n') + 1))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Records tells whether there is somebody who reads what is recorded.
func Records() bool { return leases() != nil }

// Began records that the process of a node began, at a moment of the clock of leases.
func Began(node kv.NodeID, at time.Duration) {
	put(leases(), check.LeaseNote{Node: node, Began: true, At: int64(at)})
}

// Leased records a lease that has begun, or goes on for longer.
func Leased(l check.Lease) {
	put(leases(), check.LeaseNote{Node: l.Node, Shard: l.Shard, At: l.From, Lease: &l})
}

// Ended records that a lease has ended, if not by itself before.
func Ended(node kv.NodeID, shard kv.ShardID, at time.Duration) {
	put(leases(), check.LeaseNote{Node: node, Shard: shard, At: int64(at), Ended: true})
}

// Led records that a leadership has begun.
func Led(d check.Lead) {
	put(leases(), check.LeaseNote{Node: d.Node, Shard: d.Shard, At: d.At, Lead: &d})
}

// Bound records what no crash must take back, or what one has left.
func Bound(b check.Bond) { put(bonds(), b) }

// put adds a line, which outlives a kill.
func put(f *os.File, note any) {
	if f == nil {
		return
	}
	if line, err := json.Marshal(note); err == nil {
		_, _ = f.Write(append(line, '\n'))
	}
}

// What is recorded.
type (
	Lease   = check.Lease
	Lead    = check.Lead
	Bond    = check.Bond
	Vote    = check.Vote
	Applied = check.Applied
)
