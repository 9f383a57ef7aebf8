package replica

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// backlog is what is committed and not applied.
type backlog struct {
	toApply []*raftpb.Entry
	bytes   int
	// due: there was a tick since the last step, or that has begun on what is left.
	due bool
	// prompt: there may be something among it that others wait for.
	prompt bool
}

// entrySize is what an entry counts as.
func entrySize(e *raftpb.Entry) int { return max(len(e.GetData()), 1) }

func (b *backlog) add(e *raftpb.Entry, prompt bool) {
	b.toApply = append(b.toApply, e)
	b.bytes += entrySize(e)
	b.prompt = b.prompt || prompt
}

// drop takes out the first entry.
func (b *backlog) drop() {
	b.bytes -= entrySize(b.toApply[0])
	b.toApply[0] = nil
	b.toApply = b.toApply[1:]
	b.prompt = b.prompt && len(b.toApply) > 0
}

// urgent reports that an entry is to be applied at once also on a replica that does not lead.
func (r *Replica) urgent(e *raftpb.Entry) bool {
	return r.leader || r.reshapes(e)
}

// reshapes reports that an entry changes the configuration, or may change the shape of the shard.
func (r *Replica) reshapes(e *raftpb.Entry) bool {
	return e.GetType() != raftpb.EntryNormal || len(e.GetData()) > 0 && r.codec.Shapes(e.GetData())
}

// gathers reports that what is committed waits for more: one step with many keys costs less than many with few, and few wait for
// what a replica applies that does not lead. It must not wait while callers of an ended leadership do, nor in the meta group, whose
// followers are asked for the map. What has begun goes on: raft hands out no more before it has heard that all of it is applied.
func (r *Replica) gathers() bool {
	return !r.leader && !r.backlog.prompt && !r.due && r.bytes < kv.GatherBytesMax && len(r.doubtful) == 0 && r.shard != kv.MetaShard && !r.Replaying()
}

// Applies reports whether there is something to be applied now.
func (r *Replica) Applies() bool { return len(r.toApply) > 0 && !r.Installing() && !r.gathers() }

// Apply applies committed entries to the machine, one and then others as long as they come to no more than so many
// bytes, but not beyond the one that ends the step; used is how many they were. An error is a failed disk, an
// entry that this version does not know, or a broken invariant: the process must stop.
func (r *Replica) Apply(bytes int) (used int, err error) {
	r.blocked = false
	for len(r.toApply) > 0 && !r.machine.Ends() {
		e := r.toApply[0]
		if used > 0 && used+entrySize(e) > bytes {
			break
		}
		done, err := r.applyEntry(e)
		if err != nil {
			return used, err
		}
		if !done {
			r.blocked = true
			break
		}
		used += entrySize(e)
		r.drop()
	}
	r.due = len(r.toApply) > 0
	return used, nil
}

// applyEntry applies an entry, or with false leaves it for later (T5).
func (r *Replica) applyEntry(e *raftpb.Entry) (done bool, err error) {
	if e.GetType() == raftpb.EntryConfChangeV2 {
		if e.GetIndex() > r.synced && !mutantShapeBeforeCommit {
			return false, nil
		}
		cc, change, err := conf(e)
		if err != nil {
			return false, fmt.Errorf("%v: entry %d: %w", r.Group(), e.GetIndex(), err)
		}
		return true, r.applyConf(e, cc, change)
	}
	b, err := r.payload(e)
	if err != nil {
		return false, err
	}
	shape := shapes(b)
	if shape && (e.GetIndex() > r.synced && !mutantShapeBeforeCommit || r.holds != nil && r.holds(b)) {
		return false, nil
	}
	index := kv.Index(e.GetIndex())
	results, err := r.machine.Apply(index, kv.Term(e.GetTerm()), b)
	if err != nil {
		return false, err
	}
	r.settle(index, b, results)
	if shape {
		r.follow()
	}
	return true, nil
}

// shapes reports that a batch has a command that changes the shape of the shard.
func shapes(b *kvdv1.Batch) bool {
	for _, c := range b.GetCommands() {
		if kv.Op(c.GetOp()) == kv.OpShape {
			return true
		}
	}
	return false
}

// conf decodes a configuration change.
func conf(e *raftpb.Entry) (*raftpb.ConfChangeV2, *kvdv1.ConfChange, error) {
	cc := &raftpb.ConfChangeV2{}
	if err := proto.Unmarshal(e.GetData(), cc); err != nil {
		return nil, nil, fmt.Errorf("decode a configuration change: %w", err)
	}
	change := &kvdv1.ConfChange{}
	if err := change.UnmarshalVT(cc.GetContext()); err != nil {
		return nil, nil, fmt.Errorf("decode the context of a configuration change: %w", err)
	}
	// What raft is told is made of what the machine admits.
	cc, err := rafts(change)
	return cc, change, err
}

// Acknowledgement is a message with which the leader hears at once how far this replica has applied, and not only when it asks
// next; nil when no other replica leads. It leaves like any answer, when the group's writes so far are durable (T3).
func (r *Replica) Acknowledgement() *raftpb.Message {
	if r.leader || r.lead == 0 {
		return nil
	}
	return &raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), From: new(uint64(r.id)), To: new(uint64(r.lead)), Term: new(r.term)}
}

// Synced takes that a hard state with this commit is durable.
func (r *Replica) Synced(commit kv.Index) {
	r.synced = max(r.synced, uint64(commit))
}

// payload gives what an entry holds; nil for one without commands. A leader has what it has proposed. Others keep nothing in memory
// of what is in a shard.
func (r *Replica) payload(e *raftpb.Entry) (*kvdv1.Batch, error) {
	if e.GetType() != raftpb.EntryNormal {
		return nil, fmt.Errorf("%v: entry %d is a %v, which this version does not know", r.Group(), e.GetIndex(), e.GetType())
	}
	if len(e.GetData()) == 0 {
		return nil, nil
	}
	if len(r.proposals) > 0 && r.proposals[0].batch != nil && r.proposals[0].is(e) {
		return r.proposals[0].batch, nil
	}
	decode := r.codec.DecodeBatch
	if !r.leader && r.shard != kv.MetaShard && !r.codec.Shapes(e.GetData()) {
		decode = r.codec.ShareBatch
	}
	b, err := decode(e.GetData())
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
	if applied, _ := r.machine.Applied(); r.log.tailFirst() <= min(applied, r.log.last) {
		r.log.Release(applied, min(applied, r.Wanted()))
	}
	return nil
}

// HasReady reports whether another Ready has work.
func (r *Replica) HasReady() bool {
	return !r.Installing() && (r.Applies() && !r.blocked || r.commitWanted() || r.raw.HasReady() || r.canAsk() && !r.lease.asking && len(r.waiting) > 0)
}

// Stirs reports that a turn has something to do for the replica after a tick: also what only time brings about.
func (r *Replica) Stirs() bool {
	return r.HasReady() || r.Applies() || len(r.answers) > 0 || r.lease.asking && r.askedAt >= retryTicks
}
