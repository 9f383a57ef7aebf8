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
	list = slices.DeleteFunc(list, r.superfluous)
	for _, m := range list {
		told := r.commitTold[m.GetTo()]
		told.sent = max(told.sent, m.GetCommit())
		r.commitTold[m.GetTo()] = told
	}
	return list
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

// commitTold is what another replica was told of the commit: the highest that was sent, and the highest that was left out.
type commitTold struct{ sent, leftOut uint64 }

// superfluous reports whether a message only tells of a commit that the next append or heartbeat tells of early enough: a follower
// gathers what it applies anyway. Of a commit that somebody waits for, that is an append whose entries are on their way. All are told
// during a hand-over.
func (r *Replica) superfluous(m *raftpb.Message) bool {
	if m.GetType() != raftpb.MsgApp || len(m.GetEntries()) > 0 || !r.leader || r.transferring > 0 || uint64(r.last) <= m.GetCommit() && r.awaited(m.GetTo()) {
		return false
	}
	// One with a commit that was told of before asks whether it was heard.
	told := r.commitTold[m.GetTo()]
	if told.leftOut >= m.GetCommit() {
		return false
	}
	// And so does one to a replica that is sent nothing else: its log is looked for, or it has not answered to a window of appends.
	flows := false
	r.raw.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		flows = flows || id == m.GetTo() && pr.State == tracker.StateReplicate && !pr.MsgAppFlowPaused
	})
	if flows {
		told.leftOut = m.GetCommit()
		r.commitTold[m.GetTo()] = told
	}
	return flows
}

// await takes note of entries that this leader appends and whose effects others wait for on other nodes: changes of the shape or the
// configuration, and the first entry of a term, with which a leader before it learns what became of its proposals.
func (r *Replica) await(entries []*raftpb.Entry) {
	for _, e := range entries {
		if len(e.GetData()) == 0 || r.reshapes(e) {
			r.awaitedAt = e.GetIndex()
		}
	}
}

// awaited reports that somebody waits for what another replica has not been told to be committed.
func (r *Replica) awaited(to uint64) bool {
	return r.shard == kv.MetaShard || r.awaitedAt > r.commitTold[to].sent
}
