package replica

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/kvdstore/kvd/kv"
)

// Raft makes an append for each proposal, and for each step that the commit takes another one without entries. Under load most
// of them say what the next one says too, and each costs the network, a turn of the follower and an answer. Any message
// may be lost (Raft, section 5.1), so what is left out here can break nothing: heartbeats bring the commit, and find out what is missing.

// thin makes one append of those to one replica that follow one another, and leaves those out that only tell of a commit which
// a later one will tell of soon.
func (r *Replica) thin(early []*raftpb.Message) []*raftpb.Message {
	list := early[:0]
	for _, m := range early {
		if i := slices.IndexFunc(list, func(before *raftpb.Message) bool { return before.GetTo() == m.GetTo() && joins(before, m) }); i >= 0 {
			list[i] = joined(list[i], m)
			continue
		}
		list = append(list, m)
	}
	return slices.DeleteFunc(list, r.superfluous)
}

// joins reports whether an append goes on where another to the same replica ends.
func joins(a, b *raftpb.Message) bool {
	return a.GetType() == raftpb.MsgApp && b.GetType() == raftpb.MsgApp && a.GetTerm() == b.GetTerm() &&
		a.GetIndex()+uint64(len(a.GetEntries())) == b.GetIndex() && size(a)+size(b) <= kv.AppendBytesMax
}

func size(m *raftpb.Message) (bytes int) {
	for _, e := range m.GetEntries() {
		bytes += len(e.GetData())
	}
	return bytes
}

// joined is both appends in one.
func joined(a, b *raftpb.Message) *raftpb.Message {
	return &raftpb.Message{
		Type: a.Type, To: a.To, From: a.From, Term: a.Term, Index: a.Index, LogTerm: a.LogTerm,
		Entries: slices.Concat(a.GetEntries(), b.GetEntries()), Commit: new(max(a.GetCommit(), b.GetCommit())),
	}
}

// superfluous reports whether a message only tells of a commit that can wait for the next append or heartbeat: a follower gathers
// what it applies anyway. Those that change the group's shape, all of the meta group, and those before a hand-over are waited
// for; of them only what an entry on its way will tell of is left out.
func (r *Replica) superfluous(m *raftpb.Message) bool {
	if m.GetType() != raftpb.MsgApp || len(m.GetEntries()) > 0 || !r.leader || r.transferring > 0 || uint64(r.last) <= m.GetCommit() && r.awaited() {
		return false
	}
	// One with a commit that was told of before asks whether it was heard.
	if r.toldOf[m.GetTo()] >= m.GetCommit() {
		return false
	}
	r.toldOf[m.GetTo()] = m.GetCommit()
	replicates := false
	r.raw.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		replicates = replicates || id == m.GetTo() && pr.State == tracker.StateReplicate
	})
	return replicates
}

// awaited reports that somebody waits for the followers to apply what is committed.
func (r *Replica) awaited() bool {
	applied, _ := r.machine.Applied()
	return r.shard == kv.MetaShard || r.confAt > applied || r.Shaping()
}
