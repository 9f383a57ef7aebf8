package node

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/replica"
	"github.com/kvdstore/kvd/shard"
	"github.com/kvdstore/kvd/storage"
)

// trio are three nodes with a network that is fast and loses nothing. What one asks of the world is done at once.
type trio struct {
	t     testing.TB
	now   time.Duration
	nodes [3]*third
	// crossed are the envelopes that were sent.
	crossed []*kvdv1.Envelope
}

// third is one of them.
type third struct {
	*trio
	id    kv.NodeID
	core  *Core
	in    Input
	again bool
	fatal error
	// snapshots counts those that were to be sent.
	snapshots int
	// carry, if set, sends them.
	carry func(o *Outgoing)
}

const trioShard = 1

func newTrio(t testing.TB) *trio {
	meta := foundingOf(t, 3)
	meta.NextShard, meta.NextReplica = 1000, 1000 // As if those were given that tests give to children.
	w := &trio{t: t}
	for i := range w.nodes {
		log, state := storage.NewMemLog(), storage.NewMemState()
		id := kv.NodeID(i + 1)
		require.NoError(t, Found(meta, id, log, state))
		m := &third{trio: w, id: id}
		var err error
		m.core, err = NewCore(coreConfig(m, id, 1, log, state, meta), Now{})
		require.NoError(t, err)
		w.nodes[i] = m
	}
	return w
}

func (m *third) Send(to kv.NodeID, messages []*kvdv1.RaftMessage) {
	e := &kvdv1.Envelope{ClusterId: 7, FromNode: uint64(m.id), ToNode: uint64(to), FromLife: 1, Messages: messages}
	m.crossed = append(m.crossed, e)
	if to > kv.NodeID(len(m.nodes)) {
		return // There is no such node.
	}
	other := m.nodes[to-1]
	other.in.Envelopes = append(other.in.Envelopes, e)
}

func (m *third) WriteLog(id uint64, writes []storage.LogWrite, sync bool) {
	require.NoError(m.t, m.core.Log.Write(writes, sync))
	m.in.Written = id
}

func (m *third) SendSnapshot(o *Outgoing) {
	m.snapshots++
	if m.carry != nil {
		m.carry(o)
		return
	}
	require.NoError(m.t, o.View.Close())
	m.in.Sent = append(m.in.Sent, SnapshotSent{Snapshot: o})
}

func (m *third) Install(r *Received) {
	if err := r.Ingest.Commit(r.State); err != nil {
		m.fatal = err
		return
	}
	m.in.Installed = append(m.in.Installed, r)
}

func (m *third) Checksum(c *ChecksumWork) {
	require.NoError(m.t, c.View.Close())
	m.in.Sums = append(m.in.Sums, Sum{Shard: c.Shard, ID: c.ID, Index: c.Index, Value: 5})
}

func (m *third) SyncState() {
	_, err := m.core.State.Sync()
	require.NoError(m.t, err)
	m.in.StateSynced = true
}

func (m *third) MetaChanged(*kvdv1.MetaState) {}
func (m *third) Survey(s *SurveyWork) {
	m.in.Surveys = append(m.in.Surveys, s.Walk(context.Background()))
}
func (m *third) Happened([]*kvdv1.Event) {}
func (m *third) ViewsChanged([]*View)    {}
func (m *third) Fatal(err error)         { m.fatal = err }

// turn does a turn if there is something to do.
func (m *third) turn() bool {
	in := m.in
	if m.fatal != nil {
		return false // It has stopped.
	}
	if !m.again && len(in.Envelopes) == 0 && len(in.Submissions) == 0 && in.Written == 0 && in.Received == nil && in.Installed == nil &&
		in.Sent == nil && in.Sums == nil && in.Surveys == nil && in.Calls == nil && !in.StateSynced && m.core.Deadline() > m.now {
		return false
	}
	m.in = Input{}
	in.Now = Now{Boot: m.now, Wall: 1000 + m.now.Milliseconds()}
	m.again = m.core.Turn(in)
	return true
}

// settle does turns until nothing is left to do.
func (w *trio) settle(nodes ...*third) {
	for left := 1000; ; left-- {
		busy := false
		for _, m := range nodes {
			busy = m.turn() || busy
		}
		if !busy {
			return
		}
		require.Positive(w.t, left, "the nodes find no rest")
	}
}

// tick lets a tick pass.
func (w *trio) tick(nodes ...*third) {
	w.now += 50 * time.Millisecond
	w.settle(nodes...)
}

// elected has a leader of the shard on the first node, and some entries.
func (w *trio) elected() {
	all := w.nodes[:]
	first := w.nodes[0].core.groups[trioShard]
	for range 200 {
		w.tick(all...)
		if _, leads := first.replica.Leading(); leads {
			break
		}
		for _, m := range all {
			m.core.groups[trioShard].replica.HandOver(1, nil)
		}
	}
	_, leads := first.replica.Leading()
	require.True(w.t, leads)
	for i := range 3 {
		c := &kv.Command{Op: kv.OpPut, Key: fmt.Append(nil, "k", i), Value: []byte("v")}
		a := &answer{}
		w.nodes[0].in.Submissions = append(w.nodes[0].in.Submissions, Submission{Shard: trioShard, Command: shard.EncodeCommand(c), Bytes: c.Size(), Waiter: a})
		w.tick(all...)
		require.NoError(w.t, a.err)
	}
	w.tick(all...)
}

// condition is all of a node that its neighbours may change.
func (m *third) condition() string {
	text := ""
	for _, g := range m.core.order {
		term, leads := g.replica.Leading()
		last, err := g.replica.Log().LastIndex()
		require.NoError(m.t, err)
		applied, _ := g.machine.Applied()
		text += fmt.Sprintf("shard %d: term %d, leads %v, leader %d, last %d, committed %d, applied %d, lease %v, incoming %v\n",
			g.shard, term, leads, g.replica.Leader(), last, g.replica.Committed(), applied, g.replica.LeaseUntil(), g.incoming != nil)
	}
	for _, store := range []any{m.core.Log, m.core.State} {
		sum, err := store.(storage.Crasher).Hash()
		require.NoError(m.t, err)
		text += fmt.Sprintf("%T: %x\n", store, sum)
	}
	return text
}

// stranger reports whether an envelope's message cannot be of a member of the shard to this node, nor of a node of the
// cluster, which may tell another of its conduct.
func (m *third) stranger(e *kvdv1.Envelope, r *kvdv1.RaftMessage) bool {
	if e.ClusterId != 7 || e.ToNode != uint64(m.id) || e.FromLife < 1 {
		return true
	}
	if r.Presides != 0 || r.Report != nil || r.Order != nil || r.Question != nil || r.Word != nil {
		return e.FromNode < 1 || e.FromNode > uint64(len(m.nodes))
	}
	g := m.core.groups[kv.ShardID(r.Shard)]
	if g == nil || r.To != uint64(g.member.Replica) || r.From == r.To {
		return true
	}
	d := g.machine.Descriptor()
	if node := d.NodeOf(kv.ReplicaID(r.From)); node != 0 {
		return uint64(node) != e.FromNode
	}
	// One that was added since has a higher id than all that this node knows of.
	return slices.ContainsFunc(d.Replicas, func(known kv.Replica) bool { return uint64(known.Replica) >= r.From })
}

// crafted gives a node, the leader or not, an envelope that somebody has made up. Nothing panics, and what no member
// has said changes nothing and is not answered.
func (w *trio) crafted(e *kvdv1.Envelope, leads bool) {
	m := w.nodes[1]
	if leads {
		m = w.nodes[0]
	}
	strange, entries := true, false
	for _, r := range e.Messages {
		if r == nil {
			return
		}
		strange = strange && m.stranger(e, r)
		entries = entries || len(r.Entries) > 0
	}
	before, crossed := m.condition(), len(w.crossed)
	m.in.Envelopes = append(m.in.Envelopes, e)
	w.settle(m)
	if strange {
		require.Equal(w.t, before, m.condition())
		for _, answer := range w.crossed[crossed:] {
			require.True(w.t, answer.Messages[0].GetAbsent(), "%v", answer)
		}
	}
	for range 25 {
		w.tick(m)
	}
	if !entries {
		// A leader decides what is in the log; nobody else stops a node.
		require.NoError(w.t, m.fatal)
	}
	if m.fatal == nil {
		require.NoError(w.t, m.core.Check())
	}
}

// at gives a number that is so far from another; the ends of the range stand for 0 and for the largest.
func at(base uint64, by int8) uint64 {
	switch by {
	case -128:
		return 0
	case 127:
		return 1<<64 - 1
	case 126:
		return 1 << 63
	}
	return base + uint64(int64(by))
}

// FuzzMessage: one message of raft, of any kind, whose numbers are near those of the replica, or far off; a lie tells
// which of the names in it is another's.
func FuzzMessage(f *testing.F) {
	for kind := range raftpb.MessageType_name {
		for _, leads := range []bool{false, true} {
			for lie := range uint8(7) {
				f.Add(leads, lie, uint8(kind), int8(0), int8(0), int8(0), int8(0), int8(0), false, uint8(1), uint8(0), []byte(nil), []byte("CampaignTransfer"))
			}
		}
	}
	// A later leader that replaces what is committed, one that begins far behind, one at the end of all terms.
	f.Add(false, uint8(0), uint8(raftpb.MsgApp), int8(1), int8(0), int8(-1), int8(0), int8(0), false, uint8(129), uint8(0), []byte(nil), []byte(nil))
	f.Add(false, uint8(0), uint8(raftpb.MsgApp), int8(1), int8(0), int8(-128), int8(0), int8(0), false, uint8(129), uint8(0), []byte(nil), []byte(nil))
	f.Add(false, uint8(0), uint8(raftpb.MsgApp), int8(127), int8(0), int8(0), int8(0), int8(0), false, uint8(129), uint8(0), []byte(nil), []byte(nil))
	f.Add(false, uint8(0), uint8(raftpb.MsgHeartbeat), int8(127), int8(0), int8(0), int8(0), int8(0), false, uint8(0), uint8(0), []byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, leads bool, lie, kind uint8, term, logTerm, index, commit, hint int8, reject bool, entries, entryType uint8, data, context []byte) {
		w := newTrio(t)
		w.elected()
		from, to := uint64(1), uint64(2)
		if leads {
			from, to = 2, 1
		}
		g := w.nodes[to-1].core.groups[trioShard]
		replicaOn := func(node uint64) uint64 {
			r, ok := g.machine.Descriptor().OnNode(kv.NodeID(node))
			require.True(t, ok)
			return uint64(r.Replica)
		}
		now, _ := g.replica.Leading()
		last, err := g.replica.Log().LastIndex()
		require.NoError(t, err)
		r := &kvdv1.RaftMessage{
			Shard: trioShard, From: replicaOn(from), To: replicaOn(to), Type: uint32(kind), Term: at(uint64(now), term), LogTerm: at(uint64(now), logTerm),
			Index: at(last, index), Commit: at(last, commit), RejectHint: at(last, hint), Reject: reject, Context: context, ToLife: 1,
		}
		entryTerm := r.LogTerm
		if entries >= 128 {
			entryTerm = r.Term
		}
		for i := range uint64(entries % 4) {
			r.Entries = append(r.Entries, &kvdv1.RaftEntry{Index: r.Index + 1 + i, Term: entryTerm, Type: uint32(entryType), Data: data})
		}
		e := &kvdv1.Envelope{ClusterId: 7, FromNode: from, ToNode: to, FromLife: 1, Messages: []*kvdv1.RaftMessage{r}}
		switch lie % 8 {
		case 1:
			e.ClusterId++
		case 2:
			e.FromNode = 3
		case 3:
			e.ToNode = 3
		case 4:
			r.From = replicaOn(3)
		case 5:
			r.To = replicaOn(3)
		case 6:
			r.Shard += 6
		case 7:
			e.FromNode, r.From = to, r.To
		}
		w.crafted(e, leads)
	})
}

// FuzzEnvelope: whatever comes as an envelope.
func FuzzEnvelope(f *testing.F) {
	w := newTrio(f)
	w.elected()
	for i, e := range w.crossed {
		if i%5 == 0 {
			b, err := e.MarshalVT()
			require.NoError(f, err)
			f.Add(i%2 == 0, b)
		}
	}
	first := w.nodes[0].core.groups[trioShard].machine.Descriptor()
	sum := &kvdv1.Envelope{ClusterId: 7, FromNode: 1, ToNode: 2, FromLife: 1, Messages: []*kvdv1.RaftMessage{{
		Shard: trioShard, From: uint64(first.Replicas[0].Replica), To: uint64(first.Replicas[1].Replica), Checksum: &kvdv1.Checksum{Id: 1, Index: 2, Sum: 3},
	}}}
	b, err := sum.MarshalVT()
	require.NoError(f, err)
	f.Add(false, b)
	// A node that leads the meta group says so, of a later term than any; one that nobody knows says it too.
	for _, from := range []uint64{3, 4} {
		presides := &kvdv1.Envelope{ClusterId: 7, FromNode: from, ToNode: 2, FromLife: 1, Messages: []*kvdv1.RaftMessage{{Presides: 1 << 40}}}
		b, err := presides.MarshalVT()
		require.NoError(f, err)
		f.Add(false, b)
	}
	f.Fuzz(func(t *testing.T, leads bool, b []byte) {
		e := &kvdv1.Envelope{}
		if e.UnmarshalVT(b) == nil {
			w := newTrio(t)
			w.elected()
			w.crafted(e, leads)
		}
	})
}

// FuzzSnapshotHeader: what begins a snapshot's stream, once its data has come.
func FuzzSnapshotHeader(f *testing.F) {
	w := newTrio(f)
	w.elected()
	for id := range kv.ShardID(2) {
		g := w.nodes[0].core.groups[id]
		term, _ := g.replica.Leading()
		st := g.machine.State()
		to, ok := g.machine.Descriptor().OnNode(2)
		require.True(f, ok)
		st.Replica, st.BaseIndex, st.BaseTerm = uint64(to.Replica), st.AppliedIndex, st.AppliedTerm
		for ahead := range uint64(2) {
			st.AppliedIndex += ahead * 10
			r := replica.Encode(id, &raftpb.Message{
				Type: raftpb.MsgSnap.Enum(), From: new(uint64(g.member.Replica)), To: new(st.Replica), Term: new(uint64(term)),
			}, 0, 0)
			for _, meta := range []*kvdv1.MetaState{st.Meta, nil, w.nodes[0].core.Meta} {
				st.Meta = meta
				b, err := (&kvdv1.SnapshotHeader{ClusterId: 7, FromNode: 1, ToNode: 2, FromLife: 1, Message: r, State: st}).MarshalVT()
				require.NoError(f, err)
				f.Add(b)
			}
		}
	}
	// What splits and merges leave in a state, and what they do not.
	d := wire.FromDescriptor(w.nodes[0].core.groups[trioShard].machine.Descriptor(), 0)
	term, _ := w.nodes[0].core.groups[trioShard].replica.Leading()
	for _, change := range []func(st *kvdv1.ShardState){
		func(*kvdv1.ShardState) {},
		func(st *kvdv1.ShardState) { st.Birth = &kvdv1.SplitPair{} },
		func(st *kvdv1.ShardState) { st.Intent = &kvdv1.IntentState{Id: 3} },
		func(st *kvdv1.ShardState) { st.Intent = &kvdv1.IntentState{Id: 3, Aborted: true} },
		func(st *kvdv1.ShardState) { st.Frozen = &kvdv1.FrozenState{} },
		func(st *kvdv1.ShardState) { st.Frozen = &kvdv1.FrozenState{Id: 3, Left: trioShard, Index: 1 << 60} },
		func(st *kvdv1.ShardState) { st.Measure = &kvdv1.MeasureState{} },
		func(st *kvdv1.ShardState) { st.Measure = &kvdv1.MeasureState{Id: 3, Key: []byte("k"), Keys: -9} },
		func(st *kvdv1.ShardState) { st.Absorbed = []*kvdv1.Absorbed{{}, {Shard: trioShard}, {Shard: 50}} },
		func(st *kvdv1.ShardState) { st.Absorbed = make([]*kvdv1.Absorbed, 0); st.SinceMs = 1 << 62 },
		func(st *kvdv1.ShardState) { st.Keys, st.Bytes, st.Expiring = 1<<63, 5, 7 },
		func(st *kvdv1.ShardState) { st.Descriptor_.End = []byte("a") },
		func(st *kvdv1.ShardState) { st.Descriptor_.Epoch = nil },
		func(st *kvdv1.ShardState) { st.TimeMs = -1 },
	} {
		st := w.nodes[0].core.groups[trioShard].machine.State()
		st.Descriptor_ = proto.CloneOf(d)
		st.Replica, st.AppliedIndex = d.Replicas[1].Replica, st.AppliedIndex+10
		st.BaseIndex, st.BaseTerm = st.AppliedIndex, st.AppliedTerm
		change(st)
		r := replica.Encode(trioShard, &raftpb.Message{
			Type: raftpb.MsgSnap.Enum(), From: new(d.Replicas[0].Replica), To: new(st.Replica), Term: new(uint64(term)),
		}, 0, 0)
		b, err := (&kvdv1.SnapshotHeader{ClusterId: 7, FromNode: 1, ToNode: 2, FromLife: 1, Message: r, State: st}).MarshalVT()
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h := &kvdv1.SnapshotHeader{}
		if h.UnmarshalVT(b) != nil || h.Message == nil || h.State.GetDescriptor_() == nil {
			return // The transport refuses these.
		}
		w := newTrio(t)
		w.elected()
		m := w.nodes[1]
		d := h.State.Descriptor_
		ingest, err := m.core.State.NewIngest(kv.ShardID(d.Shard), kv.Span{Start: d.Start, End: d.End})
		if err != nil {
			return
		}
		m.in.Received = append(m.in.Received, &Received{
			From: kv.NodeID(h.FromNode), Life: kv.Life(h.FromLife), State: h.State, Ingest: ingest, Message: SnapshotMessage(h.Message, h.State), Unled: h.Message.GetUnled(),
		})
		w.settle(m)
		for range 25 {
			w.tick(m)
		}
		require.NoError(t, m.fatal)
		require.NoError(t, m.core.Check())
	})
}

// FuzzConduct: whatever a node says of the conduct of the cluster, to the one that leads the meta group and a shard, and to another.
// Orders do what they do; nothing panics, and no node stops.
func FuzzConduct(f *testing.F) {
	w := newTrio(f)
	w.elected()
	d := wire.FromDescriptor(w.nodes[0].core.groups[trioShard].machine.Descriptor(), 0)
	far := proto.Clone(d).(*kvdv1.Descriptor)
	far.Epoch = &kvdv1.Epoch{Version: 9, Config: 9}
	right := &kvdv1.Descriptor{Shard: 50, Start: []byte("k1"), Epoch: far.Epoch, Replicas: []*kvdv1.Replica{{Node: 1, Replica: 90}}}
	orders := []*kvdv1.Order{
		{}, {Step: &kvdv1.Order_Conf{Conf: &kvdv1.ConfChange{}}},
		{Step: &kvdv1.Order_Conf{Conf: &kvdv1.ConfChange{Add: []*kvdv1.Replica{{Node: 9, Replica: 99}}}}},
		{Step: &kvdv1.Order_Conf{Conf: &kvdv1.ConfChange{Add: []*kvdv1.Replica{{Node: 9, Replica: 1<<64 - 1}}}}},
		{Step: &kvdv1.Order_Conf{Conf: &kvdv1.ConfChange{Add: []*kvdv1.Replica{{Node: 9, Replica: 1<<64 - 2}}}}},
		{Step: &kvdv1.Order_Conf{Conf: &kvdv1.ConfChange{Demote: []uint64{d.Replicas[0].Replica, d.Replicas[1].Replica}}}},
		{Step: &kvdv1.Order_Split{Split: &kvdv1.SplitGoal{}}},
		{Step: &kvdv1.Order_Split{Split: &kvdv1.SplitGoal{Key: []byte("k1"), Child: 50}}},
		{Step: &kvdv1.Order_Split{Split: &kvdv1.SplitGoal{Key: []byte("k1"), Child: 50, Replicas: []*kvdv1.Replica{
			{Node: 1, Replica: 1<<64 - 1}, {Node: 2, Replica: 1<<64 - 2}, {Node: 3, Replica: 1<<64 - 3}}}}},
		{Step: &kvdv1.Order_Merge{Merge: &kvdv1.Descriptor{}}}, {Step: &kvdv1.Order_Merge{Merge: right}},
		{Step: &kvdv1.Order_Unfreeze{Unfreeze: &kvdv1.Unfreeze{Id: 3}}}, {Step: &kvdv1.Order_Transfer{Transfer: 2}},
	}
	var seeds []*kvdv1.RaftMessage
	for _, o := range orders {
		for id := range uint64(2) {
			x := proto.Clone(o).(*kvdv1.Order)
			x.Shard, x.Goal, x.Epoch = id, 7, d.Epoch
			seeds = append(seeds, &kvdv1.RaftMessage{Order: x})
		}
	}
	for _, s := range []*kvdv1.ShardReport{
		{}, {Descriptor_: d}, {Descriptor_: far}, {Descriptor_: d, Birth: &kvdv1.SplitPair{}},
		{Descriptor_: d, Birth: &kvdv1.SplitPair{Left: far}}, {Descriptor_: d, Birth: &kvdv1.SplitPair{Left: far, Right: right}},
		{Descriptor_: d, Birth: &kvdv1.SplitPair{Right: right}},
	} {
		seeds = append(seeds, &kvdv1.RaftMessage{Report: &kvdv1.NodeReport{Term: 1, Shards: []*kvdv1.ShardReport{s}, Refusals: []*kvdv1.Refusal{{Goal: 7}}}})
	}
	for _, word := range []*kvdv1.Word{
		{}, {Shard: trioShard, Replica: d.Replicas[1].Replica, Descriptor_: &kvdv1.Descriptor{}},
		{Shard: trioShard, Replica: d.Replicas[1].Replica, Descriptor_: right}, {Shard: trioShard, Replica: d.Replicas[0].Replica, Absorber: 9, Descriptor_: d},
	} {
		seeds = append(seeds, &kvdv1.RaftMessage{Word: word})
	}
	seeds = append(seeds, &kvdv1.RaftMessage{Question: &kvdv1.Question{Shard: 9}}, &kvdv1.RaftMessage{Presides: 1<<64 - 1},
		&kvdv1.RaftMessage{Shard: trioShard, From: d.Replicas[0].Replica, To: d.Replicas[1].Replica, Term: 1, Index: 5, Sleep: true},
		&kvdv1.RaftMessage{Shard: trioShard, From: d.Replicas[0].Replica, To: d.Replicas[1].Replica, Term: 1, Absent: true})
	for _, m := range seeds {
		b, err := m.MarshalVT()
		require.NoError(f, err)
		f.Add(true, b)
		f.Add(false, b)
	}
	f.Fuzz(func(t *testing.T, leads bool, b []byte) {
		r := &kvdv1.RaftMessage{}
		if r.UnmarshalVT(b) != nil || len(r.Entries) > 0 {
			return
		}
		w := newTrio(t)
		w.elected()
		all, to := w.nodes[:], w.nodes[0]
		for left := 200; to.core.conduct == nil; left-- {
			require.Positive(t, left)
			for _, m := range all {
				m.core.groups[kv.MetaShard].replica.HandOver(1, nil)
			}
			w.tick(all...)
		}
		if !leads {
			to = w.nodes[1]
		}
		if report := r.GetReport(); report != nil && to.core.conduct != nil && report.Term == 1 {
			report.Term = uint64(to.core.conduct.term)
		}
		from := all[to.id%3].id
		to.in.Envelopes = append(to.in.Envelopes, &kvdv1.Envelope{ClusterId: 7, FromNode: uint64(from), ToNode: uint64(to.id), FromLife: 1, Messages: []*kvdv1.RaftMessage{r}})
		for range 45 {
			w.tick(all...)
		}
		for _, m := range all {
			require.NoError(t, m.fatal)
			require.NoError(t, m.core.Check())
		}
	})
}
