//go:build kvdtest

package faults

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/kv"
)

// record is the file, beside the directory of faults, that a test build writes what it knows of itself to, a line each.
var record = sync.OnceValue(func() *os.File {
	dir := os.Getenv(Env)
	if dir == "" {
		return nil
	}
	f, err := os.OpenFile(dir+".leases", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "kvdtest:", err)
		return nil
	}
	return f
})

// Records tells whether there is somebody who reads what is recorded.
func Records() bool { return record() != nil }

// Began records that the process of a node began, at a moment of the clock of leases.
func Began(node kv.NodeID, at time.Duration) {
	put(check.LeaseNote{Node: node, Began: true, At: int64(at)})
}

// Leased records a lease that has begun, or goes on for longer.
func Leased(l check.Lease) {
	put(check.LeaseNote{Node: l.Node, Shard: l.Shard, At: l.From, Lease: &l})
}

// Ended records that a lease has ended, if not by itself before.
func Ended(node kv.NodeID, shard kv.ShardID, at time.Duration) {
	put(check.LeaseNote{Node: node, Shard: shard, At: int64(at), Ended: true})
}

// Led records that a leadership has begun.
func Led(d check.Lead) {
	put(check.LeaseNote{Node: d.Node, Shard: d.Shard, At: d.At, Lead: &d})
}

// put adds a line, which outlives a kill.
func put(n check.LeaseNote) {
	f := record()
	if f == nil {
		return
	}
	if line, err := json.Marshal(n); err == nil {
		_, _ = f.Write(append(line, '\n'))
	}
}

// Lease and Lead are those as they are recorded.
type (
	Lease = check.Lease
	Lead  = check.Lead
)
