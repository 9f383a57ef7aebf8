//go:build mutant_overwritten_is_not_done

package replica

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kvdstore/kvd/kv"
)

// mutantOverwrittenIsNotDone breaks the end of a proposal on purpose: it counts as not done once its entry is replaced in
// this log, though another replica may still have it.
const mutantOverwrittenIsNotDone = true

// settleEarly answers the proposals of ended leaderships that entries replace.
func (r *Replica) settleEarly(entries []*raftpb.Entry) {
	r.doubtful = slices.DeleteFunc(r.doubtful, func(p *proposed) bool {
		lost := len(entries) > 0 && p.index >= kv.Index(entries[0].GetIndex())
		if lost {
			r.answerAll(p, r.notLeader())
		}
		return lost
	})
}
