package raftmeta

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
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
// broken invariant.
func (m *Machine) Apply(index kv.Index, term kv.Term, b *kvdv1.Batch) ([]kv.Result, error) {
	if index != kv.Index(m.state.AppliedIndex)+1 || uint64(term) < m.state.AppliedTerm {
		return nil, fmt.Errorf("meta group: entry %d of term %d is applied after entry %d of term %d",
			index, term, m.state.AppliedIndex, m.state.AppliedTerm)
	}
	m.state.AppliedIndex, m.state.AppliedTerm = uint64(index), uint64(term)
	m.stepped = true
	if b == nil {
		return nil, nil
	}
	m.state.TimeMs = max(m.state.TimeMs, b.StampMs)
	results := make([]kv.Result, len(b.Commands))
	for i, c := range b.Commands {
		if kv.Op(c.Op) != kv.OpMeta {
			results[i] = kv.Result{Status: kv.Refused, Reason: "the meta group takes no other commands than its own"}
			continue
		}
		command := &kvdv1.MetaCommand{}
		if err := command.UnmarshalVT(c.Value); err != nil {
			return nil, fmt.Errorf("meta group: command %d of entry %d: %w", i, index, err)
		}
		result, err := m.command(command)
		if err != nil {
			return nil, fmt.Errorf("meta group: command %d of entry %d: %w", i, index, err)
		}
		results[i] = result
	}
	return results, nil
}

func (m *Machine) command(c *kvdv1.MetaCommand) (kv.Result, error) {
	meta := proto.Clone(m.state.Meta).(*kvdv1.MetaState)
	switch c := c.Command.(type) {
	case *kvdv1.MetaCommand_SetSetting:
		if err := CheckSetting(c.SetSetting.GetName(), c.SetSetting.GetValue()); err != nil {
			return kv.Result{Status: kv.Refused, Reason: err.Error()}, nil
		}
		setSetting(meta, c.SetSetting)
	case *kvdv1.MetaCommand_UpdateNode:
		if reason := updateNode(meta, c.UpdateNode); reason != "" {
			return kv.Result{Status: kv.Refused, Reason: reason}, nil
		}
	default:
		return kv.Result{}, fmt.Errorf("this version does not know it: install a newer one")
	}
	meta.Version++
	m.state.Meta = meta
	m.state.Revision++
	return kv.Result{Status: kv.Done, Revision: kv.Revision(m.state.Revision)}, nil
}

func setSetting(meta *kvdv1.MetaState, v *kvdv1.SettingValue) {
	meta.Settings = slices.DeleteFunc(meta.Settings, func(s *kvdv1.SettingValue) bool { return s.Name == v.Name })
	if v.Value != "" {
		meta.Settings = append(meta.Settings, v)
	}
}

// updateNode takes a node's new address or region, from the store that the node was registered with.
func updateNode(meta *kvdv1.MetaState, n *kvdv1.MetaNode) (refused string) {
	for _, known := range meta.Nodes {
		if known.Node.Node != n.GetNode().GetNode() {
			continue
		}
		if known.StoreId != n.GetStoreId() {
			return fmt.Sprintf("node %d has another store", known.Node.Node)
		}
		if n.GetNode().GetAddress() == "" {
			return "address: must be HOST:PORT"
		}
		known.Node.Address, known.Node.Region = n.GetNode().GetAddress(), n.GetNode().GetRegion()
		return ""
	}
	return fmt.Sprintf("node %d is not known", n.GetNode().GetNode())
}

// Changes is empty: the meta group holds no keys.
func (m *Machine) Changes() []kv.Change { return nil }

// Checksums is empty: the metadata is compared by its version.
func (m *Machine) Checksums() []kv.ChecksumRequest { return nil }

// Finish gives the step's effects to the writer, if anything was applied.
func (m *Machine) Finish() {
	if m.stepped {
		m.writer.PutShard(kv.MetaShard, m.State())
	}
}

// Committed ends the step.
func (m *Machine) Committed() { m.writer, m.stepped = nil, false }

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

// Check reports a broken invariant.
func (m *Machine) Check() error { return Check(m.state.Meta) }
