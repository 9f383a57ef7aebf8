package replica

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// A change of a group's configuration.
//
// A replica is replaced in small steps: a learner is added and catches up; one joint change makes it a voter and the
// other a learner; the joint configuration is left; the learner is removed (M3). Each step is an entry of its own whose
// context is a ConfChange with the epoch that it was computed from. When the entry is applied the machine admits it or not,
// on every replica alike; raft hears only of those that were admitted. A leader never demotes or removes itself: what
// would do so is refused at apply, and never proposed.

// AdmitConf refuses a change that was computed from another epoch, or does not fit the group: exactly one of its parts is
// set, it adds one learner on a node that has no replica, makes voters of learners and learners of voters so that an odd
// number vote, leaves a joint configuration, or removes one learner.
func AdmitConf(d *kv.Descriptor, change *kvdv1.ConfChange) error {
	if wire.ToEpoch(change.GetEpoch()) != d.Epoch && !mutantEpochUnchecked {
		return &kv.InvalidError{Field: "epoch", Bound: fmt.Sprintf("version %d and configuration %d", d.Epoch.Version, d.Epoch.Config)}
	}
	swaps := len(change.GetPromote())+len(change.GetDemote()) > 0
	parts := 0
	for _, set := range []bool{len(change.GetAdd()) > 0, swaps, change.GetLeave(), len(change.GetRemove()) > 0} {
		if set {
			parts++
		}
	}
	switch {
	case parts != 1:
		return &kv.InvalidError{Field: "configuration change", Bound: fmt.Sprintf("one kind of change, has %d", parts)}
	case change.GetLeave() && !d.Joint():
		return &kv.InvalidError{Field: "leave", Bound: "only from a joint configuration"}
	case !change.GetLeave() && d.Joint():
		return &kv.InvalidError{Field: "configuration change", Bound: "nothing but leaving the joint configuration"}
	case len(change.GetAdd()) > 0:
		return admitAdd(d, change.GetAdd())
	case swaps:
		return admitSwap(d, change.GetPromote(), change.GetDemote())
	case len(change.GetRemove()) > 0:
		return admitRemove(d, change.GetRemove())
	}
	return nil
}

func admitAdd(d *kv.Descriptor, add []*kvdv1.Replica) error {
	if len(add) != 1 {
		return &kv.InvalidError{Field: "add", Bound: fmt.Sprintf("one learner at a time, has %d", len(add))}
	}
	r := add[0]
	if r.GetReplica() > kv.ReplicaIDMax {
		return &kv.InvalidError{Field: "add", Bound: fmt.Sprintf("a replica with an id of at most %d, is %d", uint64(kv.ReplicaIDMax), r.GetReplica())}
	}
	for _, known := range d.Replicas {
		// Ids rise: who lags knows by that that a stranger has become a member since.
		if r.GetNode() == 0 || kv.ReplicaID(r.GetReplica()) <= known.Replica {
			return &kv.InvalidError{Field: "add", Bound: fmt.Sprintf("a replica with an id above %d on a node, is %d on node %d", known.Replica, r.GetReplica(), r.GetNode())}
		}
	}
	if _, there := d.OnNode(kv.NodeID(r.GetNode())); there {
		return &kv.InvalidError{Field: "add", Bound: fmt.Sprintf("on a node without a replica, node %d has one", r.GetNode())}
	}
	return nil
}

func admitSwap(d *kv.Descriptor, promote, demote []uint64) error {
	seen := map[uint64]bool{}
	for i, id := range slices.Concat(promote, demote) {
		r, ok := memberOf(d, id)
		if !ok || r.Learner != (i < len(promote)) || seen[id] {
			return &kv.InvalidError{Field: "promote, demote", Bound: fmt.Sprintf("learners, and voters, once each, has %d", id)}
		}
		seen[id] = true
	}
	if n := d.Voters() + len(promote) - len(demote); n < 1 || n%2 == 0 {
		return &kv.InvalidError{Field: "promote, demote", Bound: fmt.Sprintf("an odd number of voters, would be %d", n)}
	}
	return nil
}

func admitRemove(d *kv.Descriptor, remove []uint64) error {
	if len(remove) != 1 {
		return &kv.InvalidError{Field: "remove", Bound: fmt.Sprintf("one learner at a time, has %d", len(remove))}
	}
	if r, ok := memberOf(d, remove[0]); !ok || !r.Learner {
		return &kv.InvalidError{Field: "remove", Bound: fmt.Sprintf("a learner, is %d", remove[0])}
	}
	return nil
}

func memberOf(d *kv.Descriptor, id uint64) (kv.Replica, bool) {
	i := slices.IndexFunc(d.Replicas, func(r kv.Replica) bool { return uint64(r.Replica) == id })
	if i < 0 {
		return kv.Replica{}, false
	}
	return d.Replicas[i], true
}

// Reconfigure gives the descriptor after an admitted change with raft's outcome.
func Reconfigure(d *kv.Descriptor, change *kvdv1.ConfChange, conf *raftpb.ConfState) *kv.Descriptor {
	next := *d
	next.Epoch.Config++
	next.Replicas = nil
	all := slices.Clone(d.Replicas)
	for _, r := range change.GetAdd() {
		all = append(all, kv.Replica{Node: kv.NodeID(r.GetNode()), Replica: kv.ReplicaID(r.GetReplica())})
	}
	joint := len(conf.GetVotersOutgoing()) > 0
	for _, r := range all {
		id := uint64(r.Replica)
		votes := slices.Contains(conf.GetVoters(), id)
		voted := slices.Contains(conf.GetVotersOutgoing(), id)
		r.Learner = slices.Contains(conf.GetLearners(), id)
		r.Incoming, r.Outgoing = joint && votes && !voted, joint && voted && !votes
		if votes || voted || r.Learner {
			next.Replicas = append(next.Replicas, r)
		}
	}
	return &next
}

// rafts turns a change into raft's.
func rafts(change *kvdv1.ConfChange) (*raftpb.ConfChangeV2, error) {
	context, err := change.MarshalVT()
	if err != nil {
		return nil, fmt.Errorf("encode a configuration change: %w", err)
	}
	cc := &raftpb.ConfChangeV2{Context: context}
	add := func(kind raftpb.ConfChangeType, id uint64) {
		cc.Changes = append(cc.Changes, &raftpb.ConfChangeSingle{Type: kind.Enum(), NodeId: &id})
	}
	for _, r := range change.GetAdd() {
		add(raftpb.ConfChangeAddLearnerNode, r.GetReplica())
	}
	for _, id := range change.GetPromote() {
		add(raftpb.ConfChangeAddNode, id)
	}
	for _, id := range change.GetDemote() {
		add(raftpb.ConfChangeAddLearnerNode, id)
	}
	for _, id := range change.GetRemove() {
		add(raftpb.ConfChangeRemoveNode, id)
	}
	if len(change.GetPromote())+len(change.GetDemote()) > 0 {
		cc.Transition = raftpb.ConfChangeTransitionJointExplicit.Enum()
	}
	return cc, nil
}

// ProposeConf proposes a change. Its end shows in the descriptor: nobody is told.
func (r *Replica) ProposeConf(change *kvdv1.ConfChange) error {
	if !r.leader {
		return r.notLeader()
	}
	if err := AdmitConf(r.descriptor, change); err != nil {
		return err
	}
	if slices.Contains(change.GetDemote(), uint64(r.id)) && len(change.GetPromote()) == 0 || change.GetLeave() && r.outgoing() {
		return &kv.InvalidError{Field: "configuration change", Bound: "none by which the leader demotes itself: hand the leadership over first"}
	}
	cc, err := rafts(change)
	if err != nil {
		return err
	}
	if err := r.raw.ProposeConfChange(cc); errors.Is(err, raft.ErrProposalDropped) {
		return &kv.OverloadError{What: "the log of the shard", RetryAfter: kv.RetryAfter}
	} else if err != nil {
		return fmt.Errorf("%v: propose a configuration change: %w", r.Group(), err)
	}
	return nil
}

// outgoing reports that this replica will not vote once the joint configuration is left.
func (r *Replica) outgoing() bool {
	self, _ := memberOf(r.descriptor, uint64(r.id))
	return self.Outgoing
}

// applyConf applies an entry with a configuration change.
func (r *Replica) applyConf(e *raftpb.Entry, cc *raftpb.ConfChangeV2, change *kvdv1.ConfChange) error {
	_, err := r.machine.ApplyConf(kv.Index(e.GetIndex()), kv.Term(e.GetTerm()), change, func() *raftpb.ConfState {
		r.conf = r.raw.ApplyConfChange(cc)
		return r.conf
	})
	if err != nil {
		return err
	}
	r.follow()
	return nil
}

// follow takes over what the machine has applied of the group's shape.
func (r *Replica) follow() {
	if d := r.machine.Descriptor(); d != r.descriptor {
		r.descriptor = d
		clear(r.strangers)
	}
	r.alone = alone(r.conf, r.id)
}

// alone reports that a replica is the only voter.
func alone(conf *raftpb.ConfState, id kv.ReplicaID) bool {
	return len(conf.GetVoters()) == 1 && conf.GetVoters()[0] == uint64(id) && len(conf.GetVotersOutgoing()) == 0
}

// strangersMax bounds the replicas that this one hears of before its own log tells of them.
const strangersMax = 16

// NodeOf gives the node of a replica: a member, or one that was heard of and must have become one since.
func (r *Replica) NodeOf(id kv.ReplicaID) kv.NodeID {
	if node := r.descriptor.NodeOf(id); node != 0 {
		return node
	}
	return r.strangers[id]
}

// meet accepts a sender that the own log does not tell of yet: a replica that was added since has a higher id than all
// before. One that lags and refused it would never hear from a leader that it does not know.
func (r *Replica) meet(id kv.ReplicaID, from kv.NodeID) bool {
	if from == 0 || r.strangers[id] != 0 || len(r.strangers) >= strangersMax {
		return false
	}
	for _, known := range r.descriptor.Replicas {
		if known.Replica >= id {
			return false
		}
	}
	r.strangers[id] = from
	return true
}

// Absent takes that there is no replica of a member's on its node yet: it is sent a snapshot. Raft would wait for its
// answer for ever, so it hears of a rejection of everything.
func (r *Replica) Absent(id kv.ReplicaID, term kv.Term) error {
	match, next, probing := uint64(0), uint64(0), false
	r.raw.WithProgress(func(of uint64, _ raft.ProgressType, p tracker.Progress) {
		if of == uint64(id) {
			match, next, probing = p.Match, p.Next, p.State == tracker.StateProbe
		}
	})
	if !r.leader || uint64(term) != r.term || match != 0 || next == 0 || !probing || r.Installing() {
		return nil
	}
	answer := &raftpb.Message{From: new(uint64(id)), To: new(uint64(r.id)), Term: new(r.term)}
	if next == 1 {
		// A snapshot was sent and lost. Any answer makes raft try again.
		answer.Type = raftpb.MsgHeartbeatResp.Enum()
		return r.step(answer)
	}
	answer.Type, answer.Index, answer.Reject, answer.RejectHint = raftpb.MsgAppResp.Enum(), new(next-1), new(true), new(uint64(0))
	return r.step(answer)
}

// Stand makes the replica stand for election at once, as if the leadership were handed to it: it is the heir of the
// parent's leader, which has narrowed (S5). Its votes carry the mark of a hand-over, which passes the promise that the
// others made at their birth.
func (r *Replica) Stand() error {
	r.stood = mutantExemptionKept
	if r.alone {
		return ignoreDropped(r.raw.Campaign())
	}
	return r.step(&raftpb.Message{
		Type: raftpb.MsgTimeoutNow.Enum(), From: new(uint64(r.id)), To: new(uint64(r.id)),
	})
}

func ignoreDropped(err error) error {
	if errors.Is(err, raft.ErrProposalDropped) {
		return nil
	}
	return err
}
