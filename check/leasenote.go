package check

import (
	"fmt"
	"io"

	"github.com/kvdstore/kvd/kv"
)

// LeaseNote is a line of what a node records of its leases and leaderships: that its process began; that a lease has begun, or goes on
// for longer; that one has ended, if not by itself before; or that a leadership has begun.
type LeaseNote struct {
	Node kv.NodeID `json:"node"`
	// At is a moment of the clock of leases, in nanoseconds.
	At    int64      `json:"at"`
	Began bool       `json:"began,omitempty"`
	Shard kv.ShardID `json:"shard"`
	Ended bool       `json:"ended,omitempty"`
	Lease *Lease     `json:"lease,omitempty"`
	Lead  *Lead      `json:"lead,omitempty"`
}

// ReadLeases gives the leases and leaderships of one node from what it has recorded, in the order in which it did. The last line may
// be cut: the process was killed.
func ReadLeases(r io.Reader) (leases []Lease, leads []Lead, err error) {
	open := map[kv.ShardID]*Lease{}
	var list []*Lease
	end := func(shard kv.ShardID, at int64) {
		if l := open[shard]; l != nil {
			l.Until = min(l.Until, max(at, l.From))
			delete(open, shard)
		}
	}
	err = eachNote(r, func(note LeaseNote) {
		switch {
		case note.Began:
			for shard := range open {
				end(shard, note.At)
			}
		case note.Ended:
			end(note.Shard, note.At)
		case note.Lead != nil:
			leads = append(leads, *note.Lead)
		case note.Lease != nil:
			l := open[note.Shard]
			if l == nil || l.Term != note.Lease.Term || !l.Span.Equal(note.Lease.Span) {
				end(note.Shard, note.Lease.From)
				l = note.Lease
				open[note.Shard], list = l, append(list, l)
			}
			l.Until = note.Lease.Until
		}
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read leases: %w", err)
	}
	leases = make([]Lease, len(list))
	for i, l := range list {
		leases[i] = *l
	}
	return leases, leads, nil
}
