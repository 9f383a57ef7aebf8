//go:build kvdtest

package node

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/internal/faults"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/storage"
)

// probe looks at what a node does, records what no crash must take back, and ends the process where that was asked for.
type probe struct {
	// unsynced are the points of what was written to the log store since its last sync.
	unsynced map[string]bool
}

// starts records what a process finds in its stores.
func (probe) starts(node kv.NodeID, log storage.Log, state storage.State) error {
	if !faults.Records() {
		return nil
	}
	found, err := applied(state)
	if err != nil {
		return err
	}
	faults.Bound(faults.Bond{Node: node, Starts: true, Found: found})
	groups, err := log.Groups()
	if err != nil {
		return err
	}
	seen := map[kv.Group]bool{}
	for _, g := range groups {
		seen[g] = true
		if err := termsRise(log, g); err != nil {
			return err
		}
		opened(node, log, g)
	}
	for _, a := range found {
		if !seen[a.Group] {
			opened(node, log, a.Group)
		}
	}
	return nil
}

// opened records with which vote a replica goes on.
func opened(node kv.NodeID, log storage.Log, g kv.Group) {
	st, _, err := log.Load(g)
	if err == nil {
		faults.Bound(faults.Bond{Node: node, Group: g, Opened: &faults.Vote{Term: st.Hard.Term, Candidate: st.Hard.Vote}})
	}
}

// applied reads how far the replicas of a node have applied their logs.
func applied(state storage.State) (list []faults.Applied, err error) {
	records, err := state.Shards()
	for _, r := range records {
		list = append(list, faults.Applied{
			Group: kv.Group{Shard: r.Shard, Replica: kv.ReplicaID(r.State.GetReplica())}, Index: kv.Index(r.State.GetAppliedIndex()),
		})
	}
	return list, err
}

// vote gives the vote that a message tells: that of a candidate is for itself.
func vote(m *kvdv1.RaftMessage) (v faults.Vote, ok bool) {
	switch raftpb.MessageType(m.GetType()) {
	case raftpb.MsgVote:
		return faults.Vote{Term: kv.Term(m.GetTerm()), Candidate: kv.ReplicaID(m.GetFrom())}, true
	case raftpb.MsgVoteResp:
		return faults.Vote{Term: kv.Term(m.GetTerm()), Candidate: kv.ReplicaID(m.GetTo())}, !m.GetReject()
	}
	return v, false
}

// sends records the votes among messages that are about to leave, and counts those for others.
func (probe) sends(node kv.NodeID, messages []*kvdv1.RaftMessage) (votes int) {
	for _, m := range messages {
		if v, ok := vote(m); ok {
			if uint64(v.Candidate) != m.GetFrom() {
				votes++
			}
			faults.Bound(faults.Bond{Node: node, Group: kv.Group{Shard: kv.ShardID(m.GetShard()), Replica: kv.ReplicaID(m.GetFrom())}, Gave: &v})
		}
	}
	return votes
}

func (probe) sent(votes int) {
	for range votes {
		faults.Reached(faults.VoteSent)
	}
}

func (p *probe) writes(writes []storage.LogWrite) {
	faults.Reached(faults.LogUnsynced)
	if p.unsynced == nil {
		p.unsynced = map[string]bool{}
	}
	for _, w := range writes {
		switch {
		case w.Remove:
			p.unsynced[faults.RemovalSynced] = true
		case w.Reset != nil && w.Reset.Index == kv.BirthIndex:
			p.unsynced[faults.BirthSynced] = true
		case w.Reset != nil:
			p.unsynced[faults.ResetSynced] = true
		}
	}
}

// wrote looks at logs that have begun anew.
func (p *probe) wrote(log storage.Log, writes []storage.LogWrite, sync bool) error {
	for _, w := range writes {
		if w.Reset == nil || w.Remove {
			continue
		}
		if err := termsRise(log, w.Group); err != nil {
			return err
		}
	}
	if !sync {
		return nil
	}
	faults.Reached(faults.LogSynced)
	for point := range p.unsynced {
		faults.Reached(point)
	}
	clear(p.unsynced)
	return nil
}

// termsRise fails if a log ends in an earlier term than it begins in: what others have in its place may be committed, and a candidate
// without that would look as good (D2).
func termsRise(log storage.Log, g kv.Group) error {
	st, ok, err := log.Load(g)
	if err != nil || !ok || st.Last == st.Truncated.Index {
		return err
	}
	last, err := log.Entries(g, st.Last, st.Last+1, 0)
	if err != nil {
		return err
	}
	if term := kv.Term(last[0].GetTerm()); term < st.Truncated.Term {
		return fmt.Errorf("%v: the log begins after index %d of term %d and ends with index %d of term %d", g, st.Truncated.Index, st.Truncated.Term, st.Last, term)
	}
	return nil
}

func (probe) syncedState() { faults.Reached(faults.StateSynced) }

// installs records what an ingest must not overtake.
func (probe) installs(node kv.NodeID, state storage.State, st *kvdv1.ShardState) {
	if !faults.Records() {
		return
	}
	if before, err := applied(state); err == nil {
		faults.Bound(faults.Bond{
			Node: node, Group: kv.Group{Shard: kv.ShardID(st.GetDescriptor_().GetShard()), Replica: kv.ReplicaID(st.GetReplica())},
			Installs: kv.Index(st.GetAppliedIndex()), Before: before,
		})
	}
}

func (probe) installed() { faults.Reached(faults.Installed) }
