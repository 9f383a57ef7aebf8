package check

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/kvdstore/kvd/kv"
)

// LeaseNote is a line of what a node records of its leases: that its process began; that one has begun, or goes on for longer;
// or that one has ended, if not by itself before.
type LeaseNote struct {
	Node kv.NodeID `json:"node"`
	// At is a moment of the clock of leases, in nanoseconds.
	At    int64      `json:"at"`
	Began bool       `json:"began,omitempty"`
	Shard kv.ShardID `json:"shard"`
	Ended bool       `json:"ended,omitempty"`
	Lease *Lease     `json:"lease,omitempty"`
}

// ReadLeases gives the leases of one node from what it has recorded, in the order in which it did. The last line may be cut:
// the process was killed.
func ReadLeases(r io.Reader) ([]Lease, error) {
	open := map[kv.ShardID]*Lease{}
	var list []*Lease
	end := func(shard kv.ShardID, at int64) {
		if l := open[shard]; l != nil {
			l.Until = min(l.Until, max(at, l.From))
			delete(open, shard)
		}
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, LineBytesMax)
	var broken error
	for n := 1; lines.Scan(); n++ {
		if broken != nil {
			return nil, broken
		}
		var note LeaseNote
		if err := json.Unmarshal(bytes.TrimSpace(lines.Bytes()), &note); err != nil {
			broken = fmt.Errorf("read leases: line %d: %w", n, err)
			continue
		}
		switch {
		case note.Began:
			for shard := range open {
				end(shard, note.At)
			}
		case note.Ended:
			end(note.Shard, note.At)
		case note.Lease != nil:
			l := open[note.Shard]
			if l == nil || l.Term != note.Lease.Term || !l.Span.Equal(note.Lease.Span) {
				end(note.Shard, note.Lease.From)
				l = note.Lease
				open[note.Shard], list = l, append(list, l)
			}
			l.Until = note.Lease.Until
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read leases: %w", err)
	}
	leases := make([]Lease, len(list))
	for i, l := range list {
		leases[i] = *l
	}
	return leases, nil
}
