package node

import (
	"bytes"
	"errors"
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
		if out.unled && g.unled() || !out.unled && g.leadsIn(kv.Term(out.message.GetTerm())) {
			c.sendSnapshot(g, out)
		}
	}
}

// supply queues a snapshot for a member that has no replica and is asked for its vote by one that knows of no leader (S7). One at a
// time; who was not the last one to be sent one comes first.
func (c *Core) supply(g *group, to kv.Replica) {
	if g.supplies || g.machine.Descriptor().NodeOf(to.Replica) != to.Node || to.Node == c.Node {
		return
	}
	if g.outgoing == nil {
		c.outgoing = append(c.outgoing, g)
	} else if !g.outgoing.unled || g.outgoing.to.Replica != g.supplied {
		return
	}
	term, _ := g.replica.Leading()
	g.outgoing = &outgoing{to: to, unled: true, message: &raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), From: new(uint64(g.member.Replica)), To: new(uint64(to.Replica)), Term: new(uint64(term)),
	}}
}

// unled reports that the replica has not heard of a leader for long, and that what it has applied can be sent.
func (g *group) unled() bool {
	return g.lost && !g.gone && g.replica.Leader() == 0 && !g.replica.Installing() && !g.replica.Replaying() && g.incoming == nil && !g.absorbed
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
	message := replica.Encode(g.shard, out.message, 0, 0)
	if message.Unled = out.unled; out.unled {
		g.supplied, g.supplies = out.to.Replica, true
	} else {
		g.pinned[out.to.Replica] = kv.Index(st.AppliedIndex)
	}
	c.sending++
	c.Host.SendSnapshot(&Outgoing{To: out.to, Message: message, State: st, Span: span, View: view, began: c.now.Boot})
}

// sent takes how the sending of a snapshot ended. Raft hears of it if it is still the same leader that asked.
func (c *Core) sent(s SnapshotSent) {
	c.sending--
	out := s.Snapshot
	g := c.groups[kv.ShardID(out.Message.GetShard())]
	switch {
	case g == nil:
		return
	case out.Message.GetUnled():
		g.supplies = false
		c.tellSent(g, s)
		return
	case !g.leadsIn(kv.Term(out.Message.GetTerm())):
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

// errSupplied: raft would take the sender for a leader.
var errSupplied = errors.New("it is of a replica that does not lead, and there is one here")

// offer steps a snapshot that has arrived.
func (c *Core) offer(r *Received) error {
	d := r.State.GetDescriptor_()
	g := c.groups[kv.ShardID(d.GetShard())]
	if g == nil {
		return c.arrive(r)
	}
	switch {
	case r.Life < c.lives[r.From]:
		return fmt.Errorf("its sender has started anew since")
	case g.incoming != nil:
		return fmt.Errorf("another is being installed")
	case g.absorbed:
		return fmt.Errorf("the shard here is being absorbed")
	case kv.ReplicaID(r.State.GetReplica()) != g.member.Replica:
		c.suspect(g)
		return &kv.InvalidError{Field: "replica", Bound: fmt.Sprintf("replica %d", g.member.Replica)}
	case r.Unled:
		return errSupplied
	case !bytes.Equal(g.machine.Descriptor().Span.Start, d.GetStart()):
		return &kv.InvalidError{Field: "span", Bound: "from the shard's start on, which never changes"}
	case (g.shard == kv.MetaShard) != (r.State.GetMeta() != nil):
		return &kv.InvalidError{Field: "meta", Bound: "with the meta group's snapshot, and only there"}
	}
	if err := checkState(r.State, g.member); err != nil {
		return err
	}
	absorbed, err := c.room(r, g)
	if err != nil {
		return err
	}
	if err := c.opens(r.State); err != nil {
		return err
	}
	c.meet(r.From, r.Life)
	stepped, err := g.replica.StepSnapshot(r.From, r.Message)
	if err != nil {
		return err
	}
	if !stepped {
		return fmt.Errorf("it comes at the wrong time")
	}
	g.incoming = r // Raft has it already.
	c.mark(g)
	err = c.replaces(r, g, absorbed)
	c.fail(err)
	return err
}

// expects refuses a snapshot by its header.
func (c *Core) expects(h *kvdv1.SnapshotHeader) error {
	r := &Received{From: kv.NodeID(h.GetFromNode()), Life: kv.Life(h.GetFromLife()), State: h.GetState()}
	g := c.groups[kv.ShardID(h.GetState().GetDescriptor_().GetShard())]
	switch {
	case h.GetState().GetDescriptor_() == nil:
		return &kv.InvalidError{Field: "descriptor", Bound: "must be set"}
	case g == nil:
		if err := c.admitArrival(r.From, r.Life, r.State); err != nil {
			return err
		}
	case kv.ReplicaID(r.State.GetReplica()) != g.member.Replica:
		c.suspect(g)
		return &kv.InvalidError{Field: "replica", Bound: fmt.Sprintf("replica %d", g.member.Replica)}
	case h.GetMessage().GetUnled():
		return errSupplied
	}
	_, err := c.room(r, g)
	return err
}

// arrive begins the installation of a replica that is new on this node.
func (c *Core) arrive(r *Received) error {
	if err := c.admitArrival(r.From, r.Life, r.State); err != nil {
		return err
	}
	if err := checkMessage(r); err != nil {
		return err
	}
	absorbed, err := c.room(r, nil)
	if err != nil {
		return err
	}
	if err := c.opens(r.State); err != nil {
		return err
	}
	if err := c.replaces(r, nil, absorbed); err != nil {
		return err
	}
	c.meet(r.From, r.Life)
	c.arrivals[kv.ShardID(r.State.GetDescriptor_().GetShard())] = r
	c.Host.Install(r)
	return nil
}

// opens refuses a state that no machine is in: what cannot be opened must not replace what can.
func (c *Core) opens(st *kvdv1.ShardState) error {
	machine, err := newMachine(st, c.State)
	if err != nil {
		return err
	}
	return machine.Check()
}

// admitArrival refuses a replica that is new here if it was removed before, or is not for this node (M5).
func (c *Core) admitArrival(from kv.NodeID, life kv.Life, st *kvdv1.ShardState) error {
	shard, id := kv.ShardID(st.GetDescriptor_().GetShard()), kv.ReplicaID(st.GetReplica())
	switch {
	case life < c.lives[from]:
		return fmt.Errorf("its sender has started anew since")
	case c.arrivals[shard] != nil:
		return fmt.Errorf("another is being installed")
	case id == 0 || c.tombstones[shard] >= id && !mutantNoTombstone:
		return fmt.Errorf("replica %d was removed from this node", id)
	case c.leaving(shard):
		return fmt.Errorf("the removal of an earlier replica is not durable yet")
	case (shard == kv.MetaShard) != (st.GetMeta() != nil):
		return &kv.InvalidError{Field: "meta", Bound: "with the meta group's snapshot, and only there"}
	case kv.Index(st.GetAppliedIndex()) < kv.BirthIndex || st.GetAppliedTerm() == 0:
		return &kv.InvalidError{Field: "snapshot", Bound: "a point of a log"}
	}
	return checkState(st, kv.Replica{Node: c.Node, Replica: id})
}

// pointMax bounds the index and the term of a snapshot. No log comes so far, and what counts on from the largest number wraps.
const pointMax = 1 << 62

// checkState refuses a state that could be installed, and then not be opened: at each start again.
func checkState(st *kvdv1.ShardState, here kv.Replica) error {
	switch {
	case max(st.GetAppliedIndex(), st.GetAppliedTerm()) > pointMax:
		return &kv.InvalidError{Field: "snapshot", Bound: fmt.Sprintf("of an index and a term of at most %d", uint64(pointMax))}
	case st.GetBaseIndex() != st.GetAppliedIndex() || st.GetBaseTerm() != st.GetAppliedTerm():
		return &kv.InvalidError{Field: "snapshot", Bound: "of a state that the log goes on from"}
	case !replica.ConfFits(confState(st)):
		return &kv.InvalidError{Field: "snapshot", Bound: "of a configuration that raft can be in"}
	}
	return checkReplicas(st, here)
}

// checkMessage refuses a snapshot whose message does not come from a member to the replica that it makes: no replica here
// looks at it.
func checkMessage(r *Received) error {
	d := wire.ToDescriptor(r.State.GetDescriptor_())
	if d.NodeOf(kv.ReplicaID(r.Message.GetFrom())) != r.From || r.Message.GetTo() != r.State.GetReplica() || r.Message.GetTerm() < r.State.GetAppliedTerm() || r.Message.GetTerm() > pointMax {
		return &kv.InvalidError{Field: "snapshot", Bound: "from a member to a member"}
	}
	return nil
}

// room refuses a snapshot whose span overlaps that of another replica here (D3), which is then asked about: unless the
// snapshot's shard has absorbed it. Those are given. One that has yet to apply again what was committed at its start stays
// until then (T5): a child may be born in that, whose log is here already.
func (c *Core) room(r *Received, g *group) (absorbed []*group, err error) {
	d := wire.ToDescriptor(r.State.GetDescriptor_())
	if d.Shard == kv.MetaShard {
		return nil, nil
	}
	over := d.Span
	if g != nil {
		over = over.Hull(g.machine.Descriptor().Span)
	}
	for _, other := range c.byKey {
		gone := slices.ContainsFunc(r.State.GetAbsorbed(), func(a *kvdv1.Absorbed) bool {
			return kv.ShardID(a.GetShard()) == other.shard
		})
		// The shard may have been split again since it absorbed that one, and hold nothing of it any more.
		if other == g || !gone && !other.machine.Descriptor().Span.Overlaps(over) {
			continue
		}
		if gone && g == nil && !other.machine.Descriptor().Span.Overlaps(d.Span) {
			c.suspect(other) // It goes on the meta group's word, since there is no replica of its absorber here.
			return nil, fmt.Errorf("shard %d here was absorbed and is not gone yet", other.shard)
		}
		if gone && !other.replica.Installing() && !other.replica.Replaying() && other.incoming == nil {
			absorbed, over = append(absorbed, other), over.Hull(other.machine.Descriptor().Span)
			continue
		}
		if mutantSnapshotOverUnsplit {
			continue
		}
		c.suspect(other)
		return nil, fmt.Errorf("shard %d here holds keys of it", other.shard)
	}
	for shard, other := range c.arrivals {
		if wire.ToDescriptor(other.State.GetDescriptor_()).Span.Overlaps(d.Span) {
			return nil, fmt.Errorf("shard %d, which is being installed, holds keys of it", shard)
		}
	}
	for _, other := range c.byKey {
		if in := other.incoming; in != nil && other != g && wire.ToDescriptor(in.State.GetDescriptor_()).Span.Overlaps(d.Span) {
			return nil, fmt.Errorf("shard %d, which is being installed, holds keys of it", other.shard)
		}
	}
	return absorbed, nil
}

// replaces tells the ingest what it takes away beside the shard's data: what the replica here holds beyond the new span,
// and the replicas that the shard has absorbed, in the same step (G3). Those do nothing from here on. One that is behind may
// hold more than was absorbed: what has gone to a child by a split that it has not applied. That goes too.
func (c *Core) replaces(r *Received, old *group, absorbed []*group) error {
	d := wire.ToDescriptor(r.State.GetDescriptor_())
	if d.Shard != kv.MetaShard {
		over := d.Span
		if old != nil {
			over = over.Hull(old.machine.Descriptor().Span)
		}
		for _, g := range absorbed {
			over = over.Hull(g.machine.Descriptor().Span)
		}
		if err := r.Ingest.Replace(over); err != nil {
			return err
		}
	}
	for _, g := range absorbed {
		if err := r.Ingest.Remove(g.replica.Group()); err != nil {
			return err
		}
		g.absorbed = true
		g.publish() // Before the data is another's, beside the loop.
	}
	r.absorbed = absorbed
	return nil
}

// checkReplicas refuses a state whose descriptor does not place the replicas of its configuration, one a node and each in its
// role, with the one here among them.
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
		if d.NodeOf(kv.ReplicaID(id)) == 0 || id > kv.ReplicaIDMax {
			return &kv.InvalidError{Field: "descriptor", Bound: fmt.Sprintf("with all replicas of the configuration, not with %d", id)}
		}
	}
	if as := replica.Reconfigure(d, nil, confState(st)); !slices.Equal(as.Replicas, d.Replicas) {
		return &kv.InvalidError{Field: "descriptor", Bound: "with replicas that vote as in the configuration"}
	}
	if d.NodeOf(here.Replica) != here.Node {
		return &kv.InvalidError{Field: "descriptor", Bound: fmt.Sprintf("with replica %d on node %d", here.Replica, here.Node)}
	}
	return nil
}

// installed goes on after a snapshot's data is in the state store, durable: the log is reset to its point (D2).
func (c *Core) installed(r *Received) {
	c.endAbsorbed(r)
	g := r.group
	if g == nil {
		c.arrived(r)
		return
	}
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
	r.held.commit = index
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
	c.installedMeta(r)
}

// installedMeta takes the metadata that came with a snapshot of the meta group.
func (c *Core) installedMeta(r *Received) {
	if m := r.State.GetMeta(); m.GetVersion() > c.Meta.GetVersion() {
		c.takeMeta(m)
		c.Host.MetaChanged(m)
	}
}

// endAbsorbed ends the replicas that went in the step of the ingest, which is durable.
func (c *Core) endAbsorbed(r *Received) {
	for _, g := range r.absorbed {
		c.tombstones[g.shard] = max(c.tombstones[g.shard], g.member.Replica)
		c.drop(g)
		c.writes = append(c.writes, storage.LogWrite{Group: g.replica.Group(), Remove: true})
	}
}

// arrived opens a replica that is new here: its data is in the state store, durable. Its log begins at the snapshot, in
// the term of the last entry that it has.
func (c *Core) arrived(r *Received) {
	shard := kv.ShardID(r.State.GetDescriptor_().GetShard())
	delete(c.arrivals, shard)
	log, reset, err := c.loadLog(kv.Group{Shard: shard, Replica: kv.ReplicaID(r.State.GetReplica())}, r.State)
	if err != nil {
		c.fail(err)
		return
	}
	g, err := c.open(shard, r.State, log)
	if err != nil {
		c.fail(err)
		return
	}
	if reset != nil {
		c.write(g, *reset)
	}
	c.addGroup(g)
	c.viewsChanged = true
	c.installedMeta(r)
}
