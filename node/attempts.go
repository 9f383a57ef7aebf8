package node

import (
	"context"
	"errors"
	"time"

	"github.com/kvdstore/kvd/kv"
)

// A request whose shard has no leader for a moment (an election, a hand-over, a merge) is tried again. It does not poll for
// that: the replica here, which it was given to, tells when something has changed of who leads the shard or what it holds.
// Pauses are for what no replica here hears of.

const (
	// leaderlessMax is how long a request waits for a leader here. There may be one that this node cannot reach, and
	// another can.
	leaderlessMax = 3 * time.Second
	// leaderlessRoutedMax is the same of a request whose client has a map: it asks another replica itself.
	leaderlessRoutedMax = 200 * time.Millisecond
	// answerReserve is left of a deadline for an answer that says "not done": at the deadline itself a caller hears
	// nothing more, and must take a write for unknown.
	answerReserve = 50 * time.Millisecond
	// redirectsMax bounds the attempts that follow at once where an answer has named another node.
	redirectsMax = 3
)

// patience is until when a request that comes now waits for a leader.
func patience(r kv.Route) time.Time {
	if r.Version != 0 {
		return time.Now().Add(leaderlessRoutedMax)
	}
	return time.Now().Add(leaderlessMax)
}

// attempts are those of one request.
type attempts struct {
	n     *Node
	until time.Time
	count int
	last  error
	to    kv.NodeID
	// view is the replica here of the shard that was asked for, nil if there is none, and seen how often it had changed
	// before the attempt.
	view *View
	seen uint64
}

// next picks the node for the next attempt: by what is known of the shard, or that of the leader which the last error names,
// if it is of another shard than is asked for, which was split off or has absorbed that one since, or if it was not asked
// yet. Where the node that led is asked in vain, every second attempt is at another replica: the one here may follow a leader
// for long that is none any more, when it sleeps, or was removed and has not heard of it.
func (a *attempts) next(d *kv.Descriptor) kv.NodeID {
	if a.view = a.n.view(d.Shard); a.view != nil {
		a.seen = a.view.changes.Load()
	}
	before := a.to
	a.to = a.n.route(d, a.count)
	if a.to == before && a.to != a.n.self.Node && a.count%2 == 1 {
		a.to = another(d, a.count, a.to)
	}
	if named, ok := errors.AsType[*kv.NotLeaderError](a.last); ok && named.Leader != 0 &&
		(named.Shard != d.Shard || named.Leader != before && a.count <= redirectsMax) {
		if _, member := a.n.Address(named.Leader); member {
			a.to = named.Leader
		}
	}
	return a.to
}

// another picks a replica on another node, one after the other: a voter, if there is one.
func another(d *kv.Descriptor, attempt int, than kv.NodeID) kv.NodeID {
	for i := range d.Replicas {
		if r := d.Replicas[(attempt/2+i)%len(d.Replicas)]; !r.Learner && r.Node != than {
			return r.Node
		}
	}
	return than
}

// again tells whether an attempt that failed is worth another, remembers what was learned, and waits until there is reason
// for it.
func (a *attempts) again(ctx context.Context, err error) bool {
	notLeader, ok := errors.AsType[*kv.NotLeaderError](err)
	if ok {
		a.n.learn(notLeader.Shard, notLeader.Leader)
	} else if !errors.As(err, new(*kv.StaleEpochError)) {
		return false
	}
	count := a.count
	a.count, a.last = a.count+1, err
	base := min(5*time.Millisecond<<min(count, 4), 50*time.Millisecond)
	pause := base + randomJitter(base)
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < pause+answerReserve || time.Now().After(a.until) {
		return false
	}
	if ok && notLeader.Leader != 0 && notLeader.Leader != a.to && count < redirectsMax {
		return !a.n.stopping.Load()
	}
	var changed <-chan struct{} // Without a replica here it never comes.
	if a.view != nil {
		changed = a.view.changed(a.seen)
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-changed:
	case <-timer.C:
	}
	return !a.n.stopping.Load()
}
