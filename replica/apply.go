package replica

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// Applies reports whether committed entries wait to be applied.
func (r *Replica) Applies() bool { return len(r.toApply) > 0 && !r.Installing() }

// Apply applies committed entries to the machine, one and then others as long as they come to no more than so many
// bytes, but not beyond the first that asks for a checksum; used is how many they were. An error is a failed disk, an
// entry that this version does not know, or a broken invariant: the process must stop.
func (r *Replica) Apply(bytes int) (used int, err error) {
	for len(r.toApply) > 0 && len(r.machine.Checksums()) == 0 {
		e := r.toApply[0]
		size := max(len(e.GetData()), 1)
		if used > 0 && used+size > bytes {
			break
		}
		used += size
		b, err := r.payload(e)
		if err != nil {
			return used, err
		}
		index := kv.Index(e.GetIndex())
		results, err := r.machine.Apply(index, kv.Term(e.GetTerm()), b)
		if err != nil {
			return used, err
		}
		r.toApply[0] = nil
		r.toApply = r.toApply[1:]
		r.settle(index, b, results)
	}
	return used, nil
}

// payload decodes an entry; nil for one without commands.
func (r *Replica) payload(e *raftpb.Entry) (*kvdv1.Batch, error) {
	if e.GetType() != raftpb.EntryNormal {
		return nil, fmt.Errorf("%v: entry %d is a %v, which this version does not know", r.Group(), e.GetIndex(), e.GetType())
	}
	if len(e.GetData()) == 0 {
		return nil, nil
	}
	b, err := r.codec.DecodeBatch(e.GetData())
	if err != nil {
		return nil, fmt.Errorf("%v: entry %d: %w", r.Group(), e.GetIndex(), err)
	}
	return b, nil
}

// Applied tells raft, and the reads that wait, that the effects of Apply are visible.
func (r *Replica) Applied() error {
	if len(r.toApply) == 0 && len(r.applyAnswers) > 0 {
		answers := r.applyAnswers
		r.applyAnswers = nil
		if err := r.Local(answers); err != nil {
			return err
		}
	}
	r.confirmReads()
	applied, _ := r.machine.Applied()
	r.log.Release(applied, min(applied, r.Wanted()))
	return nil
}

// HasReady reports whether another Ready has work.
func (r *Replica) HasReady() bool {
	return !r.Installing() && (len(r.toApply) > 0 || r.raw.HasReady() || r.canAsk() && !r.lease.asking && len(r.waiting) > 0)
}
