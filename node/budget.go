package node

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/replica"
)

var errBusy = &kv.OverloadError{What: "the queue of writes", RetryAfter: kv.RetryAfter}

// budget bounds what the node has accepted and not answered yet.
type budget struct {
	// writes are the commands and the reads that wait for the loop.
	writes *limiter
	bytes  atomic.Int64
	// held is the size of the writes that callers wait for, in bytes.
	held atomic.Int64
	// forwards are the writes on their way to each other node, so that one that is slow does not keep the others'.
	forwards sync.Map // kv.NodeID: *passage
}

func newBudget() *budget {
	return &budget{writes: newLimiter(kv.ProposalsAlways, kv.ProposalsMax, kv.ProposalLatencyMax)}
}

// passage are the writes on their way to one other node, by number and size.
type passage struct {
	*limiter
	bytes atomic.Int64
}

// enter lets a write in. What it takes of bytes is given back by its caller.
func (p *passage) enter(size int64) bool {
	if p.limiter.enter() {
		if p.bytes.Add(size) <= kv.ForwardBytesMax {
			return true
		}
		p.bytes.Add(-size)
		p.leave()
	}
	return false
}

// to is the passage to another node.
func (b *budget) to(id kv.NodeID) *passage {
	p, ok := b.forwards.Load(id)
	if !ok {
		p, _ = b.forwards.LoadOrStore(id, &passage{limiter: newLimiter(kv.ForwardsAlways, kv.ForwardsMax, kv.ForwardLatencyMax)})
	}
	return p.(*passage)
}

// full reports whether a write would be refused now wherever its shard is led.
func (b *budget) full() bool {
	full := b.writes.full()
	b.forwards.Range(func(_, p any) bool {
		full = full && p.(*passage).full()
		return full
	})
	return full
}

// Busy reports whether a write would be refused now wherever its shard is led.
func (n *Node) Busy() bool { return n.budget.full() }

// BusyHere reports whether a write would be refused now if its shard is led here.
func (n *Node) BusyHere() bool { return n.budget.writes.full() }

// now is a clock for how long requests wait.
func (n *Node) now() time.Duration { return time.Since(n.began) }

// admit takes a command in, or refuses it before it has cost anything.
func (n *Node) admit(v *View, size int64) error {
	if n.budget.writes.enter() {
		bytes, queued, waiting := n.budget.bytes.Add(size), v.queued.Add(size), v.waiting.Add(1)
		if bytes <= kv.ProposalBytesMax && queued <= kv.ShardProposalBytesMax && waiting <= n.budget.writes.most() {
			return nil
		}
		n.release(v, size)
		n.budget.writes.leave()
	}
	return errBusy
}

func (n *Node) release(v *View, size int64) {
	n.budget.bytes.Add(-size)
	v.queued.Add(-size)
	v.waiting.Add(-1)
}

// outcome is how a command or a read ended.
type outcome struct {
	result kv.Result
	err    error
}

// waiting is a caller in another goroutine. It gives its place in the budget back when it is told, not when the
// caller has gone.
type waiting struct {
	node *Node
	view *View
	size int64
	// since is when it was let in.
	since time.Duration
	done  func(kv.Result, error)
	// called tells that a goroutine waits for it alone: that of a call, beside which others may be about to submit theirs.
	called bool
	// command is nil of a read, and once the loop has it; before is the one that was submitted before, until then, and number how
	// many those are, with this one.
	command *kvdv1.Command
	before  *waiting
	number  int
}

func (w *waiting) Done(r kv.Result, err error) {
	w.node.release(w.view, w.size)
	if err == nil {
		w.node.budget.writes.answered(w.since, w.node.now())
	} else {
		w.node.budget.writes.leave()
	}
	w.done(r, err)
}

// submit hands a command, or with nil a read, to the loop; called is as of waiting.
func (n *Node) submit(v *View, command *kvdv1.Command, size int, called bool, done func(kv.Result, error)) {
	if n.stopping.Load() {
		done(kv.Result{}, kv.ErrStopping)
		return
	}
	if err := n.admit(v, int64(size)); err != nil {
		done(kv.Result{}, err)
		return
	}
	w := &waiting{node: n, view: v, size: int64(size), since: n.now(), done: done, called: called, command: command}
	n.foresee(v, command)
	n.inbox.submit(w)
}

// foresee brings into memory what a write will have to know of the record that it replaces: in the caller's goroutine, of which there
// are many, while the loop would look up one after the other.
func (n *Node) foresee(v *View, c *kvdv1.Command) {
	key := c.GetKey()
	if len(key) == 0 {
		return
	}
	lacks, asked := n.state.Lacks(key)
	if !lacks {
		return
	}
	if head, ok := n.reader.Peek(v, key); ok {
		n.state.Foreseen(key, asked, head)
	} else {
		n.state.Foresee(key, asked)
	}
}

var _ replica.Waiter = (*waiting)(nil)

// await submits and waits.
func (n *Node) await(ctx context.Context, v *View, command *kvdv1.Command, size int) (kv.Result, error) {
	c := n.callers.caller()
	n.submit(v, command, size, true, c.tell)
	return n.callers.wait(ctx, c)
}
