package node

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/shard"
	"github.com/kvdstore/kvd/snapshot"
	"github.com/kvdstore/kvd/storage"
)

// follower is node 2 of three, whose disks do what the test says.
type follower struct {
	*lone
	writes   []storage.LogWrite // Handed out and not written.
	last     uint64
	sent     []*kvdv1.RaftMessage
	installs []*Received
}

func (f *follower) WriteLog(id uint64, writes []storage.LogWrite, _ bool) {
	f.writes, f.last = append(f.writes, writes...), id
}
func (f *follower) Send(_ kv.NodeID, messages []*kvdv1.RaftMessage) {
	f.sent = append(f.sent, messages...)
}
func (f *follower) Install(r *Received) { f.installs = append(f.installs, r) }
func (f *follower) Fatal(err error)     { require.NoError(f.t, err) }

func newFollower(t *testing.T) *follower {
	f := &follower{lone: &lone{t: t, log: storage.NewMemLog(), state: storage.NewMemState()}}
	meta := foundingOf(t, 3)
	require.NoError(t, Found(meta, 2, f.log, f.state))
	require.NoError(t, f.open(meta))
	return f
}

// open starts the process.
func (f *follower) open(meta *kvdv1.MetaState) (err error) {
	life := kv.Life(1)
	if f.core != nil {
		life += f.core.Life
	}
	f.writes, f.installs, f.in = nil, nil, Input{}
	f.core, err = NewCore(coreConfig(f, 2, life, f.log, f.state, meta), Now{})
	return err
}

// crash loses what was not synced, but for a beginning that keep gives, and starts the process again.
func (f *follower) crash(keep func(int) int) {
	require.NoError(f.t, f.log.Crash(keep))
	require.NoError(f.t, f.state.Crash(keep))
	require.NoError(f.t, f.open(f.core.Meta))
}

// turn does a turn, and those that follow from it.
func (f *follower) turn(in Input) {
	for again := true; again; in = (Input{}) {
		again = f.core.Turn(in)
	}
	require.NoError(f.t, f.core.Check())
}

// written writes what was handed out, durably, and tells so, until there is no more.
func (f *follower) written() {
	for len(f.writes) > 0 {
		require.NoError(f.t, f.log.Write(f.writes, true))
		f.writes = nil
		f.turn(Input{Written: f.last})
	}
}

// replicaOn is the replica of shard 1 on a node.
func (f *follower) replicaOn(node kv.NodeID) uint64 {
	member, ok := f.core.groups[1].machine.Descriptor().OnNode(node)
	require.True(f.t, ok)
	return uint64(member.Replica)
}

// appended makes it hear an append of the leader on a node: entries of its term from the index after `after` to `last`.
func (f *follower) appended(leader kv.NodeID, term, after, afterTerm, last, commit uint64) {
	m := &kvdv1.RaftMessage{
		Shard: 1, From: f.replicaOn(leader), To: f.replicaOn(2), Type: uint32(raftpb.MsgApp), Term: term, Index: after, LogTerm: afterTerm, Commit: commit,
	}
	for i := after + 1; i <= last; i++ {
		m.Entries = append(m.Entries, &kvdv1.RaftEntry{Index: i, Term: term})
	}
	f.turn(Input{Envelopes: []*kvdv1.Envelope{{ClusterId: 7, FromNode: uint64(leader), FromLife: 1, ToNode: 2, Messages: []*kvdv1.RaftMessage{m}}}})
}

// offer offers a snapshot of node 3, which leads in term 7, at index 50.
func (f *follower) offer() {
	st := f.core.groups[1].machine.State()
	st.AppliedIndex, st.AppliedTerm, st.BaseIndex, st.BaseTerm, st.Revision, st.Keys, st.Bytes = 50, 7, 50, 7, 9, 1, 2
	in, err := f.state.NewIngest(1, kv.Span{})
	require.NoError(f.t, err)
	require.NoError(f.t, in.Put([]byte("k"), kv.Record{Value: []byte("v"), Revision: 9}))
	f.turn(Input{Received: []*Received{{
		From: 3, Life: 1, State: st, Ingest: in,
		Message: SnapshotMessage(&kvdv1.RaftMessage{From: f.replicaOn(3), To: f.replicaOn(2), Term: 7}, st),
	}}})
	require.Len(f.t, f.installs, 1, "it was refused")
}

// answered reports whether the follower has told that it has the log up to an index.
func (f *follower) answered(index uint64) bool {
	for _, m := range f.sent {
		if m.Type == uint32(raftpb.MsgAppResp) && m.Index == index && !m.Reject {
			return true
		}
	}
	return false
}

func (f *follower) loaded() storage.LogState {
	st, ok, err := f.log.Load(f.core.groups[1].replica.Group())
	require.NoError(f.t, err)
	require.True(f.t, ok)
	return st
}

// TestCrashInAnInstall crashes at every step of the installation of a snapshot, on a follower whose log has an end that
// was never committed, above the snapshot's index. The snapshot is there whole or not at all; where it is, nothing of the
// old log is, for it could win votes that it should not (D2); and the snapshot can be installed again.
func TestCrashInAnInstall(t *testing.T) {
	none, all := func(int) int { return 0 }, func(n int) int { return n }
	for _, c := range []struct {
		name      string
		steps     int
		keep      func(int) int
		installed bool
	}{
		{"before it came", 0, none, false},
		{"with its data beside the store", 1, none, false},
		{"with its data in the store", 2, none, true},
		{"with the reset of the log handed out", 3, none, true},
		{"with the reset written and lost", 4, none, true},
		{"with the reset written and kept", 4, all, true},
		{"at its end", 5, none, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFollower(t)
			f.appended(1, 6, uint64(kv.BirthIndex), uint64(kv.BirthTerm), 60, 12)
			f.written()
			require.True(t, f.answered(60))
			steps := []func(){
				f.offer,
				func() { require.NoError(t, f.installs[0].Ingest.Commit(f.installs[0].State)) },
				func() {
					f.turn(Input{Installed: f.installs})
					require.NotEmpty(t, f.writes)
					require.False(t, f.answered(50), "the answer waits for the reset")
				},
				func() { require.NoError(t, f.log.Write(f.writes, false)) },
				func() {
					f.written()
					require.True(t, f.answered(50))
				},
			}
			for _, step := range steps[:c.steps] {
				step()
			}
			f.crash(c.keep)

			log, applied := f.loaded(), f.core.groups[1].machine.State().AppliedIndex
			_, found, err := f.state.Get([]byte("k"))
			require.NoError(t, err)
			require.Equal(t, c.installed, found)
			if !c.installed {
				require.Equal(t, kv.Index(60), log.Last)
				require.LessOrEqual(t, applied, uint64(12))
				f.turn(Input{})
				f.offer()
				steps[1]()
				f.turn(Input{Installed: f.installs})
				f.written()
				log, applied = f.loaded(), f.core.groups[1].machine.State().AppliedIndex
			}
			require.EqualValues(t, 50, applied)
			require.Equal(t, storage.Point{Index: 50, Term: 7}, log.Truncated)
			require.Equal(t, kv.Index(50), log.Last)
			require.EqualValues(t, 7, log.Hard.Term)
			require.EqualValues(t, 50, log.Hard.Commit)

			f.appended(3, 7, 50, 7, 51, 51)
			f.written()
			f.turn(Input{Now: Now{Boot: f.core.Deadline()}})
			require.EqualValues(t, 51, f.core.groups[1].machine.State().AppliedIndex)
			rec, found, err := f.state.Get([]byte("k"))
			require.NoError(t, err)
			require.True(t, found)
			require.Equal(t, "v", string(rec.Value))
		})
	}
}

// TestLogAtStart (D2): a log is reset to the state's base only if that has overtaken it: not for having been truncated above
// it, nor while it holds the base's entry. What is reset keeps its vote in its term, and is durable.
func TestLogAtStart(t *testing.T) {
	point := func(index kv.Index, term kv.Term) storage.Point { return storage.Point{Index: index, Term: term} }
	hard := func(term kv.Term, vote kv.ReplicaID, commit kv.Index) storage.HardState {
		return storage.HardState{Term: term, Vote: vote, Commit: commit}
	}
	id := kv.Group{Shard: 1, Replica: 2}
	entries := func(first, last, term uint64) (list []*raftpb.Entry) {
		for i := first; i <= last; i++ {
			list = append(list, &raftpb.Entry{Type: raftpb.EntryNormal.Enum(), Index: new(i), Term: new(term)})
		}
		return list
	}
	log := func(truncated storage.Point, hard storage.HardState, entries []*raftpb.Entry) *storage.LogWrite {
		return &storage.LogWrite{Group: id, Reset: &truncated, Entries: entries, Hard: &hard}
	}
	for name, c := range map[string]struct {
		log     *storage.LogWrite // nil: there is none.
		base    storage.Point
		applied kv.Index
		want    storage.LogState
		refused string
	}{
		"holds the base": {log(point(10, 5), hard(7, 3, 20), entries(11, 60, 6)), point(50, 6), 50,
			storage.LogState{Hard: hard(7, 3, 20), Truncated: point(10, 5), Last: 60}, ""},
		"begins at the base": {log(point(50, 7), hard(7, 3, 55), entries(51, 60, 7)), point(50, 7), 52,
			storage.LogState{Hard: hard(7, 3, 55), Truncated: point(50, 7), Last: 60}, ""},
		"truncated above the base": {log(point(55, 7), hard(8, 3, 58), entries(56, 60, 7)), point(50, 7), 57,
			storage.LogState{Hard: hard(8, 3, 58), Truncated: point(55, 7), Last: 60}, ""},
		"another entry at the base": {log(point(10, 5), hard(7, 3, 20), entries(11, 60, 6)), point(50, 7), 50,
			storage.LogState{Hard: hard(7, 3, 50), Truncated: point(50, 7), Last: 50}, ""},
		"ends below the base": {log(point(10, 5), hard(9, 3, 20), entries(11, 40, 6)), point(50, 7), 50,
			storage.LogState{Hard: hard(9, 3, 50), Truncated: point(50, 7), Last: 50}, ""},
		"ends below the base, of a later term": {log(point(10, 5), hard(6, 3, 20), entries(11, 40, 6)), point(50, 7), 50,
			storage.LogState{Hard: hard(7, 0, 50), Truncated: point(50, 7), Last: 50}, ""},
		"there is none, of a birth": {nil, point(10, 5), 10,
			storage.LogState{Hard: hard(5, 0, 10), Truncated: point(10, 5), Last: 10}, ""},
		"there is none any more": {nil, point(10, 5), 11, storage.LogState{}, "missing"},
	} {
		t.Run(name, func(t *testing.T) {
			l := storage.NewMemLog()
			if c.log != nil {
				require.NoError(t, l.Write([]storage.LogWrite{*c.log}, true))
			}
			core := &Core{CoreConfig: CoreConfig{Log: l}}
			st := &kvdv1.ShardState{
				BaseIndex: uint64(c.base.Index), BaseTerm: uint64(c.base.Term), AppliedIndex: uint64(c.applied), AppliedTerm: 7,
			}
			got, reset, err := core.loadLog(id, st)
			if reset != nil {
				require.NoError(t, l.Write([]storage.LogWrite{*reset}, true))
			}
			if c.refused != "" {
				require.ErrorContains(t, err, c.refused)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, got)
			require.NoError(t, l.Crash(func(int) int { return 0 }))
			got, ok, err := l.Load(id)
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, c.want, got)
		})
	}
}

// TestApplyInParts: a node that replays long logs applies a part of them in every turn, of one group after the other,
// so that no turn takes long; a write to a group that it leads already is not kept by that.
func TestApplyInParts(t *testing.T) {
	const groups, puts, size = 8, 40, 100 << 10
	l := &lone{t: t, log: storage.NewMemLog(), state: storage.NewMemState()}
	cuts := [][]byte{}
	for i := range groups - 1 {
		cuts = append(cuts, []byte{byte('b' + i)})
	}
	meta := foundingOf(t, 1, cuts...)
	require.NoError(t, Found(meta, 1, l.log, l.state))
	config := coreConfig(l, 1, 1, l.log, l.state, meta)
	var err error
	l.core, err = NewCore(config, Now{})
	require.NoError(t, err)
	for range 5 {
		l.tick()
	}
	put := func(group, i int) *answer {
		a := &answer{}
		c := &kv.Command{Op: kv.OpPut, Key: fmt.Appendf(nil, "%c%d", 'a'+group, i), Value: make([]byte, size)}
		l.in.Submissions = append(l.in.Submissions, Submission{Shard: kv.ShardID(group + 1), Command: shard.EncodeCommand(c), Bytes: c.Size(), Waiter: a})
		return a
	}
	l.unsaved = true // So that the logs are kept.
	for i := range puts {
		for group := 1; group < groups; group++ { // The first group's log stays short.
			put(group, i)
		}
		l.tick()
	}
	require.NoError(t, l.state.Crash(func(int) int { return 0 }))
	l.unsaved = false
	config.Life++
	l.core, err = NewCore(config, Now{Boot: l.now})
	require.NoError(t, err)
	applied := func() (keys [groups]int) {
		for i := range keys {
			keys[i] = int(l.core.groups[kv.ShardID(i+1)].machine.State().GetKeys())
		}
		return keys
	}
	turn := func() bool {
		l.now += 20 * time.Millisecond
		in := l.in
		l.in = Input{}
		in.Now, in.Written = Now{Boot: l.now}, l.last
		return l.core.Turn(in)
	}
	behind := func(keys [groups]int) bool { return slices.Min(keys[1:]) < puts }
	require.Zero(t, applied())
	var first *answer
	turns, answered := 0, 0
	for before := applied(); behind(before); turns++ {
		if _, leads := l.core.groups[1].replica.Leading(); leads && first == nil {
			first, answered = put(0, 0), turns
		}
		turn()
		after := applied()
		bytes := 0
		for i := 1; i < groups; i++ {
			if _, leads := l.core.groups[kv.ShardID(i+1)].replica.Leading(); !leads {
				bytes += (after[i] - before[i]) * size
			}
		}
		require.LessOrEqual(t, bytes, kv.FollowBytesMax+size+1000)
		require.LessOrEqual(t, slices.Max(after[1:])-slices.Min(after[1:]), 3*kv.FollowBytesMax/size, "one group waits for another")
		if before = after; first != nil && first.done {
			require.NoError(t, first.err)
			require.LessOrEqual(t, turns-answered, 3, "a write waits for those who replay")
			first, answered = put(0, 0), turns
		}
	}
	require.NotNil(t, first)
	require.GreaterOrEqual(t, turns, (groups-1)*puts*size/(kv.FollowBytesMax+size))
	for turn() {
	}
	require.NoError(t, l.core.Check())
}

// TestFollowerWithoutRoom: a follower whose disk is nearly full takes no entries with commands, and takes them when there is
// room again. The entry of a new leader, without commands, it takes.
func TestFollowerWithoutRoom(t *testing.T) {
	f := newFollower(t)
	f.turn(Input{Disk: &Disk{Full: true}})
	birth := uint64(kv.BirthIndex)
	f.appended(1, 6, birth, uint64(kv.BirthTerm), birth+1, birth)
	f.written()
	require.True(t, f.answered(birth+1))
	command := func() {
		f.turn(Input{Envelopes: []*kvdv1.Envelope{{ClusterId: 7, FromNode: 1, FromLife: 1, ToNode: 2, Messages: []*kvdv1.RaftMessage{{
			Shard: 1, From: f.replicaOn(1), To: f.replicaOn(2), Type: uint32(raftpb.MsgApp), Term: 6, Index: birth + 1, LogTerm: 6, Commit: birth,
			Entries: []*kvdv1.RaftEntry{{Index: birth + 2, Term: 6, Data: []byte("a command")}},
		}}}}})
		f.written()
	}
	command()
	require.False(t, f.answered(birth+2))
	require.Equal(t, kv.Index(birth+1), f.loaded().Last)
	f.turn(Input{Disk: &Disk{}})
	command()
	require.True(t, f.answered(birth+2))
}

// TestPlaceOnFullDisks: what stands before the entry of a new leader in its log, and a shard's time after it, are taken while
// half of the reserve is left; of an append with more, its beginning is.
func TestPlaceOnFullDisks(t *testing.T) {
	birth := uint64(kv.BirthIndex)
	batch := func(c *kv.Command) []byte {
		b, err := shard.Encode(&kvdv1.Batch{Node: 1, Life: 1 << 40, Seq: 1 << 40, StampMs: 1 << 41, Commands: []*kvdv1.Command{shard.EncodeCommand(c)}})
		require.NoError(t, err)
		return b
	}
	put := batch(&kv.Command{Op: kv.OpPut, Key: []byte("k")})
	hours, purge := batch(&kv.Command{Op: kv.OpExpire}), batch(&kv.Command{Op: kv.OpExpire, Due: []kv.Due{{ExpireAt: 5, Key: []byte("k")}}})
	for _, c := range []struct {
		free, last uint64
		after      []byte
	}{{5, birth + 3, put}, {5, birth + 3, purge}, {5, birth + 4, hours}, {5, birth + 4, nil}, {4, birth, put}, {4, birth, nil}} {
		f := newFollower(t)
		f.turn(Input{Disk: &Disk{Full: true, FreeBytes: c.free, NeedBytes: 10}})
		f.turn(Input{Envelopes: []*kvdv1.Envelope{{ClusterId: 7, FromNode: 1, FromLife: 1, ToNode: 2, Messages: []*kvdv1.RaftMessage{{
			Shard: 1, From: f.replicaOn(1), To: f.replicaOn(2), Type: uint32(raftpb.MsgApp), Term: 6, Index: birth, LogTerm: uint64(kv.BirthTerm), Commit: birth,
			Entries: []*kvdv1.RaftEntry{
				{Index: birth + 1, Term: 5, Data: put}, {Index: birth + 2, Term: 6}, {Index: birth + 3, Term: 6, Data: hours}, {Index: birth + 4, Term: 6, Data: c.after},
			},
		}}}}})
		f.written()
		require.Equal(t, kv.Index(c.last), f.loaded().Last, "%+v", c)
		require.Equal(t, c.last > birth, f.answered(c.last), "%+v", c)
	}
}

// TestSnapshotWithoutRoom: a snapshot for which there is no room is refused before any of it is read, and one during which
// the disk becomes full is given up; it leaves nothing beside the store.
func TestSnapshotWithoutRoom(t *testing.T) {
	blocks := pebble.NewCache(8 << 20)
	defer blocks.Unref()
	dir := t.TempDir()
	state, err := storage.OpenState(storage.Options{
		Dir: dir, Cache: blocks, Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) },
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, state.Close()) }()
	f := newFollower(t)
	g := f.core.groups[1]
	n := &Node{self: Self{Node: 2}, state: state, inbox: newInbox(), ctx: t.Context()}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		for {
			select {
			case <-t.Context().Done():
				return
			case <-n.inbox.wake:
				for _, call := range n.inbox.take().Calls {
					call(f.core)
				}
			}
		}
	}()
	t.Cleanup(func() { <-answered })
	b := f.state.NewBatch()
	b.Put([]byte("k"), kv.Record{Value: []byte("v"), Revision: 1})
	_, err = f.state.Commit(b)
	require.NoError(t, err)
	view, err := f.state.View(1, kv.Span{})
	require.NoError(t, err)
	w, err := snapshot.NewWriter(view, kv.Span{}, kv.SnapshotChunkBytes)
	require.NoError(t, err)
	chunk, _, err := w.Next()
	require.NoError(t, err)
	require.NotNil(t, chunk.GetData())
	require.NoError(t, errors.Join(w.Close(), view.Close()))

	header := &kvdv1.SnapshotHeader{Message: &kvdv1.RaftMessage{}, State: g.machine.State()}
	header.State.Keys, header.State.Bytes = 9, 50<<20
	for name, c := range map[string]struct {
		full       bool
		free       uint64
		fullMidway bool
		chunks     int
	}{
		"the disk is full":         {true, 1 << 40, false, 0},
		"it would fill the disk":   {false, 149 << 20, false, 0},
		"others fill it meanwhile": {false, 151 << 20, true, 2},
	} {
		t.Run(name, func(t *testing.T) {
			n.disk.full.Store(c.full)
			n.disk.free.Store(c.free)
			n.disk.need.Store(100 << 20)
			chunks := 0
			err := n.Snapshot(t.Context(), header, func() (*kvdv1.SnapshotChunk, error) {
				if chunks++; chunks == 2 {
					n.disk.full.Store(c.fullMidway)
				}
				return chunk, nil
			})
			require.ErrorAs(t, err, new(*kv.DiskFullError))
			require.Equal(t, c.chunks, chunks)
			left, err := filepath.Glob(filepath.Join(dir, "*.ingest"))
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

// TestLearnerThatNobodyHears: raft has a learner follow its last leader for ever. One of the meta group that was removed, and
// missed that and where the group has moved to since, tells its node that it has no leader, so that metadata comes from
// other nodes, and asks also the one that is known to lead now.
func TestLearnerThatNobodyHears(t *testing.T) {
	f := &follower{lone: &lone{t: t, log: storage.NewMemLog(), state: storage.NewMemState()}}
	meta := foundingOf(t, 3)
	meta.Meta.Replicas = append(meta.Meta.Replicas[:1:1], &kvdv1.Replica{Node: 2, Replica: meta.Meta.Replicas[1].Replica, Learner: true})
	require.NoError(t, Found(meta, 2, f.log, f.state))
	require.NoError(t, f.open(meta))
	g := f.core.groups[kv.MetaShard]
	f.turn(Input{Envelopes: []*kvdv1.Envelope{{ClusterId: 7, FromNode: 1, ToNode: 2, FromLife: 1, Messages: []*kvdv1.RaftMessage{
		{Type: uint32(raftpb.MsgHeartbeat), Term: uint64(kv.BirthTerm + 1), From: meta.Meta.Replicas[0].Replica, To: uint64(g.member.Replica)},
	}}}})
	f.written()
	f.turn(Input{Envelopes: []*kvdv1.Envelope{{ClusterId: 7, FromNode: 3, ToNode: 2, FromLife: 1, Messages: []*kvdv1.RaftMessage{{Presides: 9}}}}})
	require.Equal(t, kv.NodeID(1), g.view.state.Load().lead)
	asked := 0
	for range 2 + (doubtTimeouts+1)*f.core.ElectionTicks {
		f.now += f.core.Tick
		f.sent = nil
		f.turn(Input{Now: Now{Boot: f.now}})
		for _, m := range f.sent {
			if q := m.GetQuestion(); q != nil && q.Shard == uint64(kv.MetaShard) {
				asked++
			}
		}
	}
	require.Equal(t, kv.NodeID(1), g.replica.Leader())
	require.Zero(t, g.view.state.Load().lead)
	require.Equal(t, 2, asked, "nodes 1 and 3")
}
