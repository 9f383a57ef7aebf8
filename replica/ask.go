package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// Waiter is told once how a command or a read ended. It must not block.
type Waiter interface {
	Done(kv.Result, error)
}

// Answer is how a command or a read ended. It leaves when the effects of the step are visible.
type Answer struct {
	Waiter Waiter
	Result kv.Result
	Err    error
}

// proposed is an entry of this replica's whose end is not known yet.
type proposed struct {
	seq     uint64
	batch   *kvdv1.Batch // What the entry holds; nil if it changes the shape of the shard.
	payload []byte       // The same, encoded; from when the index is known on the memory of the entry.
	index   kv.Index     // 0 until raft has handed the entry out.
	waiters []Waiter     // One a command.
	shape   bool         // It changes the shape of the shard.
}

// is reports that an entry is the one that was proposed, and not another at its index.
func (p *proposed) is(e *raftpb.Entry) bool {
	data := e.GetData()
	return p.index == kv.Index(e.GetIndex()) && len(data) == len(p.payload) && len(data) > 0 && &data[0] == &p.payload[0]
}

// Answers hands out how commands and reads ended.
func (r *Replica) Answers() []Answer {
	answers := r.answers
	r.answers = nil
	return answers
}

func (r *Replica) answerAll(p *proposed, err error) {
	for _, w := range p.waiters {
		r.answers = append(r.answers, Answer{Waiter: w, Err: err})
	}
}

// Propose proposes commands as one entry, at the proposer's wall clock in Unix milliseconds. There is one waiter a
// command; a waiter may be nil. The commands, with their keys and values, are the machine's from then on.
func (r *Replica) Propose(stamp int64, commands []*kvdv1.Command, waiters []Waiter) error {
	p := &proposed{seq: r.seq + 1, waiters: waiters, shape: len(commands) > 0 && kv.Op(commands[0].GetOp()) == kv.OpShape}
	if !r.leader {
		r.answerAll(p, r.notLeader())
		return nil
	}
	b := &kvdv1.Batch{Node: uint64(r.node), Life: uint64(r.life), Seq: p.seq, StampMs: stamp, Commands: commands}
	payload, err := r.codec.EncodeBatch(b)
	if err != nil {
		return err
	}
	r.seq++
	p.payload = payload
	if !p.shape {
		p.batch = b
	}
	if mutantProposedTwice {
		_ = r.raw.Propose(payload)
	}
	switch err := r.raw.Propose(payload); {
	case errors.Is(err, raft.ErrProposalDropped) && r.transferring > 0:
		r.answerAll(p, &kv.NotLeaderError{Shard: r.shard})
	case errors.Is(err, raft.ErrProposalDropped):
		r.answerAll(p, &kv.OverloadError{What: "the log of the shard", RetryAfter: kv.RetryAfter})
	case err != nil:
		return err
	default:
		r.proposals = append(r.proposals, p)
	}
	return nil
}

// place finds the indexes of proposals among the entries that raft hands out, in the order of proposing. A payload holds
// its node, life and number, so it is like no other.
func (r *Replica) place(entries []*raftpb.Entry) {
	if mutantOverwrittenIsNotDone {
		r.settleEarly(entries)
	}
	next := 0
	for next < len(r.proposals) && r.proposals[next].index != 0 {
		next++
	}
	for _, e := range entries {
		if next == len(r.proposals) {
			break
		}
		if p := r.proposals[next]; bytes.Equal(e.GetData(), p.payload) {
			p.index, p.payload = kv.Index(e.GetIndex()), e.GetData()
			if mutantAnswerBeforeQuorum {
				r.answerEarly(p, e.GetData())
			}
			next++
		}
	}
	for _, lost := range r.proposals[next:] {
		r.answerAll(lost, kv.ErrUnknown)
	}
	clear(r.proposals[next:])
	r.proposals = r.proposals[:next]
}

// doubt moves the proposals of a leadership that has ended aside. Each is known when the entry at its index is applied,
// and not before: also a leader that was elected without it cannot know that no later one will commit it.
func (r *Replica) doubt() {
	for _, p := range r.proposals {
		p.batch, p.payload = nil, nil
	}
	r.doubtful = append(r.doubtful, r.proposals...)
	r.proposals, r.doubted = nil, 0
}

// settle answers the proposals whose end is known now that the entry at an index is applied. Another entry at a
// proposal's index means that the proposal is not done and never will be.
func (r *Replica) settle(index kv.Index, b *kvdv1.Batch, results []kv.Result) {
	own := b != nil && b.Node == uint64(r.node) && b.Life == uint64(r.life)
	end := func(p *proposed) {
		if !own || p.seq != b.Seq {
			r.answerAll(p, r.notLeader())
			return
		}
		r.answers = slices.Grow(r.answers, len(p.waiters))
		for i, w := range p.waiters {
			r.answers = append(r.answers, Answer{Waiter: w, Result: results[i]})
		}
	}
	if len(r.proposals) > 0 && r.proposals[0].index == index {
		end(r.proposals[0])
		r.proposals[0] = nil
		r.proposals = r.proposals[1:]
	}
	r.doubtful = slices.DeleteFunc(r.doubtful, func(p *proposed) bool {
		if p.index == index {
			end(p)
		}
		return p.index == index
	})
}

// age gives up, as unknown, the proposals of an ended leadership of which nothing was heard for half an election
// timeout: a new leader is heard every few ticks, and without one the caller had better ask elsewhere.
func (r *Replica) age() {
	if len(r.doubtful) == 0 {
		return
	}
	if r.doubted++; r.doubted >= (r.election+1)/2 {
		r.giveUp()
	}
}

// giveUp answers that the proposals of ended leaderships are unknown.
func (r *Replica) giveUp() {
	for _, p := range r.doubtful {
		r.answerAll(p, kv.ErrUnknown)
	}
	r.doubtful = nil
}

// Read waits for a ReadIndex that begins after now (L7); the waiter is told without an error when what is applied
// here is new enough for a linearizable read.
func (r *Replica) Read(w Waiter) {
	switch {
	case !r.leader:
		r.answers = append(r.answers, Answer{Waiter: w, Err: r.notLeader()})
	case len(r.waiting) >= kv.ReadsWaitingMax:
		err := &kv.OverloadError{What: "the queue of reads of the shard", RetryAfter: kv.RetryAfter}
		r.answers = append(r.answers, Answer{Waiter: w, Err: err})
	default:
		r.waiting = append(r.waiting, w)
	}
}

// Renew asks for the lease to be renewed if half of it is gone. The owner calls it while there are readers.
func (r *Replica) Renew(now time.Duration) {
	if r.canAsk() && !r.shaping() && r.lease.wants(now) {
		r.begin(now)
	}
}

// ask begins a ReadIndex for the reads that wait, one at a time, or begins it anew when the answer does not come.
func (r *Replica) ask(now time.Duration) {
	switch {
	case !r.canAsk():
	case r.lease.asking && r.askedAt >= retryTicks, !r.lease.asking && len(r.waiting) > 0:
		r.begin(now)
	}
}

// shaping reports that a change of the shape is on its way: until it is applied, raft refuses it, or the term ends, the
// lease is not renewed (L6). Elsewhere it may be applied before it is here.
func (r *Replica) shaping() bool {
	return r.Shaping()
}

// canAsk reports whether the replica leads and has applied an entry of its own term (L4).
func (r *Replica) canAsk() bool {
	_, term := r.machine.Applied()
	return r.leader && uint64(term) == r.term
}

func (r *Replica) begin(now time.Duration) {
	r.asked = append(r.asked, r.waiting...)
	clear(r.waiting)
	r.waiting, r.askedAt = r.waiting[:0], 0
	r.raw.ReadIndex(binary.BigEndian.AppendUint64(nil, r.lease.ask(now)))
}

func contextOf(ctx []byte) uint64 {
	if len(ctx) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(ctx)
}

// confirmReads answers the reads whose ReadIndex is confirmed and applied.
func (r *Replica) confirmReads() {
	applied, _ := r.machine.Applied()
	if !r.lease.settle(uint64(applied), !r.shaping()) {
		return
	}
	for _, w := range r.asked {
		r.answers = append(r.answers, Answer{Waiter: w})
	}
	clear(r.asked)
	r.asked = r.asked[:0]
}

func (r *Replica) failReads(err error) {
	for _, list := range [2][]Waiter{r.asked, r.waiting} {
		for _, w := range list {
			r.answers = append(r.answers, Answer{Waiter: w, Err: err})
		}
	}
	r.asked, r.waiting = nil, nil
}

// Absorbed ends the replica: its left neighbour has absorbed what its log had done up to the freeze, which is applied here. What
// comes after that never takes effect (G1), so who still waits is told, with the error, that it is not done.
func (r *Replica) Absorbed(err error) {
	r.doubt()
	for _, p := range r.doubtful {
		r.answerAll(p, err)
	}
	r.doubtful = nil
	r.failReads(err)
}

// Close ends the replica: it is removed from its node. Who waits for a proposal is told that its end is unknown.
func (r *Replica) Close() {
	r.doubt()
	r.giveUp()
	r.failReads(&kv.NotLeaderError{Shard: r.shard})
}
