package raftmeta

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/replica"
)

// Writer gathers the effects of one step; of it the meta group needs only the place for its state.
type Writer = interface {
	Put(key []byte, rec kv.Record)
	Delete(key []byte)
	PutDue(d kv.Due)
	DeleteDue(d kv.Due)
	PutShard(shard kv.ShardID, st *kvdv1.ShardState)
}

// Machine is the state machine of the meta group's replica. It has the methods of a shard's. The metadata that it
// gives out is never changed in place.
type Machine struct {
	state      *kvdv1.ShardState // Its fields are replaced, what they refer to is not changed.
	descriptor *kv.Descriptor
	writer     Writer
	stepped    bool
	failed     error          // Of an Apply: nothing is applied any more, and no step finished.
	events     []*kvdv1.Event // Of this step.
}

// New makes the machine from its stored state.
func New(st *kvdv1.ShardState) (*Machine, error) {
	if err := Check(st.GetMeta()); err != nil {
		return nil, err
	}
	m := &Machine{state: st, descriptor: wire.ToDescriptor(st.Descriptor_)}
	m.state = m.State()
	return m, nil
}

// Begin starts a step whose effects go to w.
func (m *Machine) Begin(w Writer) { m.writer = w }

// Apply applies the next entry of the log. An error stops the replica: a command that this version does not know, or a
// broken invariant. After one nothing is applied any more: going on with the next entry would skip this one.
func (m *Machine) Apply(index kv.Index, term kv.Term, b *kvdv1.Batch) ([]kv.Result, error) {
	if err := m.next(index, term); err != nil || b == nil {
		return nil, err
	}
	m.state.TimeMs = max(m.state.TimeMs, b.StampMs)
	results := make([]kv.Result, len(b.Commands))
	for i, p := range b.Commands {
		c, err := decode(p)
		if err != nil {
			m.failed = fmt.Errorf("meta group: command %d of entry %d: %w", i, index, err)
			return nil, m.failed
		}
		results[i] = m.command(c)
	}
	return results, nil
}

// ApplyConf applies the next entry of the log, a configuration change, which apply has raft carry out if it is admitted;
// it is stored in the entry's step, and the map's descriptor of the group with it (T5). An outcome without voters is a
// broken invariant.
func (m *Machine) ApplyConf(index kv.Index, term kv.Term, change *kvdv1.ConfChange, apply func() *raftpb.ConfState) (kv.Result, error) {
	if err := m.next(index, term); err != nil {
		return kv.Result{}, err
	}
	if err := m.admitConf(change); err != nil {
		return kv.Result{Status: kv.Refused, Reason: err.Error()}, nil
	}
	conf := apply()
	if len(conf.GetVoters()) == 0 {
		m.failed = fmt.Errorf("meta group: after the configuration of entry %d nobody would vote", index)
		return kv.Result{}, m.failed
	}
	m.descriptor = replica.Reconfigure(m.descriptor, change, conf)
	m.state.Descriptor_ = wire.FromDescriptor(m.descriptor, 0)
	m.follow(m.state.Descriptor_)
	st := m.state
	st.Voters, st.Learners = conf.GetVoters(), conf.GetLearners()
	st.VotersOutgoing, st.LearnersNext, st.AutoLeave = conf.GetVotersOutgoing(), conf.GetLearnersNext(), conf.GetAutoLeave()
	return kv.Result{Status: kv.Done}, nil
}

// admitConf refuses a change after which the metadata could not be read: that would stop every node, at each start again.
// A node that was removed is let through, as in a report.
func (m *Machine) admitConf(change *kvdv1.ConfChange) error {
	if err := replica.AdmitConf(m.descriptor, change); err != nil {
		return err
	}
	meta := m.state.Meta
	for _, r := range change.GetAdd() {
		if r.GetReplica() >= meta.GetNextReplica() || r.GetNode() >= meta.GetNextNode() {
			return &kv.InvalidError{Field: "add", Bound: fmt.Sprintf("ids that were given, below %d, on a node below %d, is %d on node %d",
				meta.GetNextReplica(), meta.GetNextNode(), r.GetReplica(), r.GetNode())}
		}
		if taken(meta, r) {
			return &kv.InvalidError{Field: "add", Bound: fmt.Sprintf("a replica of the meta group's own, %d is another's", r.GetReplica())}
		}
	}
	members, voters := len(m.descriptor.Replicas)+len(change.GetAdd()), m.descriptor.Voters()+len(change.GetPromote())-len(change.GetDemote())
	if members > MembersMax || voters > ReplicasMax {
		return &kv.InvalidError{Field: "configuration change", Bound: fmt.Sprintf("at most %d replicas, of which %d vote, would be %d and %d",
			MembersMax, ReplicasMax, members, voters)}
	}
	return nil
}

// next moves on to the entry that follows the last one applied.
func (m *Machine) next(index kv.Index, term kv.Term) error {
	if m.failed != nil {
		return m.failed
	}
	if index != kv.Index(m.state.AppliedIndex)+1 || uint64(term) < m.state.AppliedTerm {
		m.failed = fmt.Errorf("meta group: entry %d of term %d is applied after entry %d of term %d",
			index, term, m.state.AppliedIndex, m.state.AppliedTerm)
		return m.failed
	}
	m.state.AppliedIndex, m.state.AppliedTerm = uint64(index), uint64(term)
	m.stepped = true
	return nil
}

// outcome is what a command does: new metadata, or none if it is as the command wants it already.
type outcome struct {
	next    *kvdv1.MetaState
	counter uint64         // For the result: the id that was given.
	events  []*kvdv1.Event // Without their time and version.
}

// command carries one command out, or refuses it; nil is one of a shard.
func (m *Machine) command(c *kvdv1.MetaCommand) kv.Result {
	out, reason := m.carryOut(c)
	if reason != "" {
		return kv.Result{Status: kv.Refused, Reason: reason}
	}
	if out.next != nil {
		m.become(out.next, out.events)
		m.state.Revision++
	}
	return kv.Result{Status: kv.Done, Revision: kv.Revision(m.state.Revision), Counter: int64(out.counter)}
}

func (m *Machine) carryOut(c *kvdv1.MetaCommand) (out outcome, refused string) {
	meta := m.state.Meta
	switch c := c.GetCommand().(type) {
	case *kvdv1.MetaCommand_SetSetting:
		return setSetting(meta, c.SetSetting)
	case *kvdv1.MetaCommand_UpdateNode:
		return updateNode(meta, c.UpdateNode)
	case *kvdv1.MetaCommand_Join:
		return join(meta, c.Join)
	case *kvdv1.MetaCommand_SetDraining:
		return setDraining(meta, c.SetDraining)
	case *kvdv1.MetaCommand_RemoveNode:
		return removeNode(meta, c.RemoveNode)
	case *kvdv1.MetaCommand_Report:
		return report(meta, c.Report)
	case *kvdv1.MetaCommand_SetGoal:
		return setGoal(meta, c.SetGoal, m.state.TimeMs)
	case *kvdv1.MetaCommand_DropGoal:
		return dropGoal(meta, c.DropGoal)
	case *kvdv1.MetaCommand_SetRule:
		return setRule(meta, c.SetRule)
	}
	return outcome{}, "the meta group takes no other commands than its own"
}

// become takes new metadata.
func (m *Machine) become(next *kvdv1.MetaState, events []*kvdv1.Event) {
	next.Version = m.state.Meta.Version + 1
	m.state.Meta = next
	m.note(events)
}

// successor gives metadata that is equal, to be changed by replacing its fields. A copy of everything takes 8 ms of the
// loop with 16,384 shards.
func successor(m *kvdv1.MetaState) *kvdv1.MetaState {
	return &kvdv1.MetaState{
		ClusterId: m.ClusterId, Version: m.Version, Nodes: m.Nodes, Descriptors: m.Descriptors, Meta: m.Meta,
		Settings: m.Settings, NextNode: m.NextNode, NextShard: m.NextShard, NextReplica: m.NextReplica,
		ClusterVersion: m.ClusterVersion, TickMs: m.TickMs, ElectionTicks: m.ElectionTicks,
		Goals: m.Goals, NextGoal: m.NextGoal, Rules: m.Rules, Absorbed: m.Absorbed, Removed: m.Removed,
	}
}

// Changes is empty: the meta group holds no keys.
func (m *Machine) Changes() []kv.Change { return nil }

// Checksums is empty: the metadata is compared by its version.
func (m *Machine) Checksums() []kv.ChecksumRequest { return nil }

// Ends is false: no command of the meta group ends a step.
func (m *Machine) Ends() bool { return false }

// Birth, Absorbed, Intent and Frozen are nil: the meta group is neither split nor merged.
func (m *Machine) Birth() *kvdv1.ShardState   { return nil }
func (m *Machine) Absorbed() *kvdv1.Absorbed  { return nil }
func (m *Machine) Intent() *kvdv1.IntentState { return nil }
func (m *Machine) Frozen() *kvdv1.FrozenState { return nil }

// AdmitShape refuses every command.
func (m *Machine) AdmitShape(*kvdv1.Shape) error {
	return &kv.InvalidError{Field: "shape", Bound: "none: the meta group is neither split nor merged"}
}

// Finish gives the step's effects to the writer, if anything was applied.
func (m *Machine) Finish() {
	if m.stepped && m.failed == nil {
		m.writer.PutShard(kv.MetaShard, m.State())
	}
}

// Committed ends the step.
func (m *Machine) Committed() { m.writer, m.stepped, m.events = nil, false, nil }

// State is what the replica keeps of itself. It shares what no entry changes.
func (m *Machine) State() *kvdv1.ShardState {
	o := m.state
	return &kvdv1.ShardState{
		Replica: o.Replica, Descriptor_: o.Descriptor_, AppliedIndex: o.AppliedIndex, AppliedTerm: o.AppliedTerm,
		BaseIndex: o.BaseIndex, BaseTerm: o.BaseTerm, Voters: o.Voters, Learners: o.Learners,
		VotersOutgoing: o.VotersOutgoing, LearnersNext: o.LearnersNext, AutoLeave: o.AutoLeave,
		Revision: o.Revision, TimeMs: o.TimeMs, Meta: o.Meta,
	}
}

// Descriptor is the group's, shared and read-only.
func (m *Machine) Descriptor() *kv.Descriptor { return m.descriptor }

// Revision counts the commands that were carried out.
func (m *Machine) Revision() kv.Revision { return kv.Revision(m.state.Revision) }

// Time is the group's time in Unix milliseconds.
func (m *Machine) Time() int64 { return m.state.TimeMs }

// Applied is the position of the last entry applied.
func (m *Machine) Applied() (kv.Index, kv.Term) {
	return kv.Index(m.state.AppliedIndex), kv.Term(m.state.AppliedTerm)
}

// Expiring is 0: the meta group holds no keys.
func (m *Machine) Expiring() uint64 { return 0 }

// Bytes is 0 likewise.
func (m *Machine) Bytes() uint64 { return 0 }

// Check reports a broken invariant.
func (m *Machine) Check() error {
	switch {
	case m.failed != nil:
		return m.failed
	case len(m.state.Voters) == 0:
		return errors.New("meta group: nobody votes")
	}
	return Check(m.state.Meta)
}
