package node

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/replica"
	"github.com/kvdstore/kvd/storage"
)

// snapshotWanted notes that raft wants a follower to be sent a snapshot.
func (c *Core) snapshotWanted(g *group, m *raftpb.Message) {
	if g.outgoing == nil {
		c.outgoing = append(c.outgoing, g)
	}
	to := kv.ReplicaID(m.GetTo())
	g.outgoing = &outgoing{
		to: kv.Replica{Node: g.machine.Descriptor().NodeOf(to), Replica: to}, message: m,
	}
}

// sendSnapshots begins to send what waits for it, as many as may be on their way (D4). The turn's step is visible.
func (c *Core) sendSnapshots() {
	for len(c.outgoing) > 0 && c.sending < kv.SnapshotsOutgoingMax {
		g := c.outgoing[0]
		c.outgoing = slices.Delete(c.outgoing, 0, 1)
		out := g.outgoing
		g.outgoing = nil
		if g.leadsIn(kv.Term(out.message.GetTerm())) {
			c.sendSnapshot(g, out)
		}
	}
}

// leadsIn reports whether the replica leads in a term.
func (g *group) leadsIn(term kv.Term) bool {
	now, leader := g.replica.Leading()
	return leader && now == term
}

// sendSnapshot begins to send a snapshot of the state as it is visible now: its index replaces the one that raft gave.
func (c *Core) sendSnapshot(g *group, out *outgoing) {
	span := g.machine.Descriptor().Span
	view, err := c.State.View(g.shard, span)
	if err != nil {
		c.fail(fmt.Errorf("open a view: %w", err))
		return
	}
	st := proto.Clone(view.State()).(*kvdv1.ShardState)
	st.Replica, st.BaseIndex, st.BaseTerm = uint64(out.to.Replica), st.AppliedIndex, st.AppliedTerm
	g.pinned[out.to.Replica] = kv.Index(st.AppliedIndex)
	c.sending++
	c.Host.SendSnapshot(&Outgoing{
		To: out.to, Message: replica.Encode(g.shard, out.message, 0, 0), State: st, Span: span, View: view, began: c.now.Boot,
	})
}

// sent takes how the sending of a snapshot ended. Raft hears of it if it is still the same leader that asked.
func (c *Core) sent(s SnapshotSent) {
	c.sending--
	out := s.Snapshot
	g := c.groups[kv.ShardID(out.Message.GetShard())]
	if g == nil || !g.leadsIn(kv.Term(out.Message.GetTerm())) {
		return
	}
	c.tellSent(g, s)
	g.replica.SnapshotSent(out.To.Replica, s.Err == nil)
	if s.Err != nil {
		delete(g.pinned, out.To.Replica)
	}
	c.mark(g)
}

// tellSent logs how the sending of a snapshot ended: of those that fail one after the other, the first of a leadership.
func (c *Core) tellSent(g *group, s SnapshotSent) {
	to, term := s.Snapshot.To, kv.Term(s.Snapshot.Message.GetTerm())
	switch {
	case s.Err == nil:
		delete(g.unsent, to.Replica)
		c.Logger.Info("a snapshot was sent", "shard", g.shard, "to", to.Node, "keys", s.Snapshot.State.GetKeys(), "took", c.now.Boot-s.Snapshot.began)
	case g.unsent[to.Replica] != term:
		g.unsent[to.Replica] = term
		c.Logger.Warn("a snapshot was not sent; it is tried again", "shard", g.shard, "to", to.Node, "error", s.Err)
	}
}

// SnapshotMessage makes raft's message from the header of a snapshot's stream.
func SnapshotMessage(w *kvdv1.RaftMessage, st *kvdv1.ShardState) *raftpb.Message {
	return &raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), From: &w.From, To: &w.To, Term: &w.Term,
		Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
			Index: new(st.GetAppliedIndex()), Term: new(st.GetAppliedTerm()), ConfState: confState(st),
		}},
	}
}

func confState(st *kvdv1.ShardState) *raftpb.ConfState {
	return &raftpb.ConfState{
		Voters: st.GetVoters(), Learners: st.GetLearners(), VotersOutgoing: st.GetVotersOutgoing(),
		LearnersNext: st.GetLearnersNext(), AutoLeave: new(st.GetAutoLeave()),
	}
}

// snapshots takes in what became of snapshots: received ones, installed ones, sent ones.
func (c *Core) snapshots(in *Input) {
	for _, r := range in.Received {
		if err := c.offer(r); err != nil {
			r.Ingest.Abort()
			c.Logger.Info("a snapshot was refused", "from", r.From, "shard", r.State.GetDescriptor_().GetShard(), "error", err)
		}
	}
	for _, r := range in.Installed {
		c.installed(r)
	}
	for _, s := range in.Sent {
		c.sent(s)
	}
}

// offer steps a snapshot that has arrived.
func (c *Core) offer(r *Received) error {
	d := r.State.GetDescriptor_()
	g := c.groups[kv.ShardID(d.GetShard())]
	switch {
	case g == nil:
		return fmt.Errorf("there is no such replica here")
	case r.Life < c.lives[r.From]:
		return fmt.Errorf("its sender has started anew since")
	case g.incoming != nil:
		return fmt.Errorf("another is being installed")
	case kv.ReplicaID(r.State.GetReplica()) != g.member.Replica:
		return &kv.InvalidError{Field: "replica", Bound: fmt.Sprintf("replica %d", g.member.Replica)}
	case !g.machine.Descriptor().Span.Equal(kv.Span{Start: d.GetStart(), End: d.GetEnd()}):
		return &kv.InvalidError{Field: "span", Bound: g.machine.Descriptor().Span.String()}
	case (g.shard == kv.MetaShard) != (r.State.GetMeta() != nil):
		return &kv.InvalidError{Field: "meta", Bound: "with the meta group's snapshot, and only there"}
	}
	if err := checkReplicas(r.State, g.member); err != nil {
		return err
	}
	// What cannot be opened must not replace what can.
	if _, err := newMachine(r.State, c.State); err != nil {
		return err
	}
	c.lives[r.From] = r.Life
	stepped, err := g.replica.StepSnapshot(r.From, r.Message)
	if err != nil {
		return err
	}
	if !stepped {
		return fmt.Errorf("it comes at the wrong time")
	}
	g.incoming = r
	c.mark(g)
	return nil
}

// checkReplicas refuses a state whose descriptor does not place the replicas of its configuration, one a node, with the
// one here among them.
func checkReplicas(st *kvdv1.ShardState, here kv.Replica) error {
	d := wire.ToDescriptor(st.GetDescriptor_())
	ids := slices.Concat(st.GetVoters(), st.GetLearners(), st.GetVotersOutgoing())
	nodes := map[kv.NodeID]bool{0: true}
	for _, r := range d.Replicas {
		if nodes[r.Node] || d.NodeOf(r.Replica) != r.Node || !slices.Contains(ids, uint64(r.Replica)) {
			return &kv.InvalidError{Field: "descriptor", Bound: fmt.Sprintf("a replica of the configuration a node, has %d on node %d", r.Replica, r.Node)}
		}
		nodes[r.Node] = true
	}
	for _, id := range ids {
		if d.NodeOf(kv.ReplicaID(id)) == 0 {
			return &kv.InvalidError{Field: "descriptor", Bound: fmt.Sprintf("with all replicas of the configuration, lacks %d", id)}
		}
	}
	if d.NodeOf(here.Replica) != here.Node {
		return &kv.InvalidError{Field: "descriptor", Bound: fmt.Sprintf("with replica %d on node %d", here.Replica, here.Node)}
	}
	return nil
}

// installed goes on after a snapshot's data is in the state store, durable: the log is reset to its point (D2).
func (c *Core) installed(r *Received) {
	g := r.group
	g.incoming = nil
	machine, err := newMachine(r.State, c.State)
	if err != nil {
		c.fail(err)
		return
	}
	index, term, hard, err := g.replica.Install(machine)
	if err != nil {
		c.fail(err)
		return
	}
	g.machine, g.marks, g.truncate, g.checking = machine, marks{}, truncation{}, checking{}
	c.write(g, storage.LogWrite{
		Group: g.replica.Group(), Reset: &storage.Point{Index: index, Term: term}, Hard: hardState(hard),
	})
	c.hold(g, r.held)
	c.incarnations++
	g.view.mayBeVisible.Store(uint64(machine.Revision()))
	g.view.applied.Store(uint64(machine.Revision()))
	g.view.time.Store(machine.Time())
	next := *g.view.state.Load()
	next.incarnation = c.incarnations
	next.descriptor = machine.Descriptor()
	g.view.state.Store(&next)
	c.mark(g)
	if g.shard == kv.MetaShard && r.State.GetMeta().GetVersion() > c.Meta.GetVersion() {
		c.takeMeta(r.State.GetMeta())
		c.Host.MetaChanged(r.State.GetMeta())
	}
}
