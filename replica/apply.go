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
	toApply []committed
	bytes   int
	// prompt: there is something among it that others wait for. ticked: there was a tick since the last step.
	prompt, ticked bool
}

// committed is an entry with what it holds: a batch, or a configuration change, or what is wrong with it.
type committed struct {
	*raftpb.Entry
	batch  *kvdv1.Batch
	shapes bool
	err    error
}

func (c *committed) size() int { return max(len(c.GetData()), 1) }

func (b *backlog) add(c committed) {
	b.toApply = append(b.toApply, c)
	b.bytes += c.size()
	b.prompt = b.prompt || c.shapes || c.err != nil || c.GetType() != raftpb.EntryNormal
}

// drop takes out the first entry.
func (b *backlog) drop() {
	b.bytes -= b.toApply[0].size()
	b.toApply[0] = committed{}
	b.toApply = b.toApply[1:]
	b.prompt = b.prompt && len(b.toApply) > 0
}

func (r *Replica) decode(e *raftpb.Entry) committed {
	c := committed{Entry: e}
	if e.GetType() != raftpb.EntryConfChangeV2 {
		c.batch, c.err = r.payload(e)
		c.shapes = shapes(c.batch)
	}
	return c
}

// gathers reports that what is committed waits for more: nobody waits for what a replica applies that does not lead, and one
// step with many keys costs less than many with few. A change of the shape or the configuration does not wait, and nothing
// waits for longer than until the next tick.
func (r *Replica) gathers() bool {
	return !r.leader && !r.prompt && !r.ticked && r.bytes < kv.GatherBytesMax && !r.Replaying()
}

// Applies reports whether there is something to be applied now.
func (r *Replica) Applies() bool { return len(r.toApply) > 0 && !r.Installing() && !r.gathers() }

// Apply applies committed entries to the machine, one and then others as long as they come to no more than so many
// bytes, but not beyond the one that ends the step; used is how many they were. An error is a failed disk, an
// entry that this version does not know, or a broken invariant: the process must stop.
func (r *Replica) Apply(bytes int) (used int, err error) {
	r.blocked = false
	for len(r.toApply) > 0 && !r.machine.Ends() {
		c := &r.toApply[0]
		if used > 0 && used+c.size() > bytes {
			break
		}
		done, err := r.applyEntry(c)
		if err != nil {
			return used, err
		}
		if !done {
			r.blocked = true
			break
		}
		used += c.size()
		r.drop()
	}
	r.ticked = r.ticked && len(r.toApply) > 0
	return used, nil
}

// applyEntry applies an entry, or with false leaves it for later (T5).
func (r *Replica) applyEntry(c *committed) (done bool, err error) {
	if c.err != nil {
		return false, c.err
	}
	unsynced := c.GetIndex() > r.synced && !mutantShapeBeforeCommit
	if c.GetType() == raftpb.EntryConfChangeV2 {
		if unsynced {
			return false, nil
		}
		cc, change, err := conf(c.Entry)
		if err != nil {
			return false, fmt.Errorf("%v: entry %d: %w", r.Group(), c.GetIndex(), err)
		}
		return true, r.applyConf(c.Entry, cc, change)
	}
	if c.shapes && (unsynced || r.holds != nil && r.holds(c.batch)) {
		return false, nil
	}
	index := kv.Index(c.GetIndex())
	results, err := r.machine.Apply(index, kv.Term(c.GetTerm()), c.batch)
	if err != nil {
		return false, err
	}
	r.settle(index, c.batch, results)
	if c.shapes {
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
	return !r.Installing() && (r.Applies() && !r.blocked || r.commitWanted() || r.raw.HasReady() || r.canAsk() && !r.lease.asking && len(r.waiting) > 0)
}
