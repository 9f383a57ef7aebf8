package node

import (
	"fmt"
	"log/slog"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/cache"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
	"github.com/kvdstore/kvd/shard"
	"github.com/kvdstore/kvd/storage"
)

// lone is a node of a cluster of one, and its host: log writes end when the test says so.
type lone struct {
	t       *testing.T
	core    *Core
	log     *storage.MemLog
	state   *storage.MemState
	now     time.Duration
	stuck   bool // Log writes do not end.
	unsaved bool // The state store is not made durable.
	last    uint64
	in      Input
	fatal   error
	sums    int
	surveys []*SurveyWork
}

// foundingOf is the metadata of a new cluster of so many nodes.
func foundingOf(t testing.TB, nodes int, cuts ...[]byte) *kvdv1.MetaState {
	spec := raftmeta.FoundingSpec{Cluster: 7, Cuts: cuts, Replicas: 3, TickMs: 50, ElectionTicks: 10}
	for i := range nodes {
		name := fmt.Sprintf("n%d", i+1)
		spec.Nodes = append(spec.Nodes, raftmeta.FoundingNode{Name: name, Address: name, Store: kv.StoreID(i + 1)})
	}
	meta, err := raftmeta.Founding(spec)
	require.NoError(t, err)
	return meta
}

// coreConfig is that of a node of such a cluster.
func coreConfig(h Host, id kv.NodeID, life kv.Life, log storage.Log, state storage.State, meta *kvdv1.MetaState) CoreConfig {
	return CoreConfig{
		Cluster: 7, Node: id, Life: life, Tick: 50 * time.Millisecond, ElectionTicks: 10, Log: log, State: state,
		Guard: cache.New(cache.NewChaotic(1), 16), Host: h, Logger: slog.New(slog.DiscardHandler), Meta: meta,
	}
}

func newLone(t *testing.T, cuts ...[]byte) *lone {
	l := &lone{t: t, log: storage.NewMemLog(), state: storage.NewMemState()}
	meta := foundingOf(t, 1, cuts...)
	require.NoError(t, Found(meta, 1, l.log, l.state))
	var err error
	l.core, err = NewCore(coreConfig(l, 1, 1, l.log, l.state, meta), Now{})
	require.NoError(t, err)
	for range 5 {
		l.tick()
	}
	_, leads := l.core.groups[1].replica.Leading()
	require.True(t, leads)
	return l
}

// tick lets a tick pass, and the turns that follow from it.
func (l *lone) tick() {
	l.now += 50 * time.Millisecond
	for again := true; again; {
		in := l.in
		l.in = Input{}
		in.Now = Now{Boot: l.now, Wall: 1000 + l.now.Milliseconds()}
		if !l.stuck {
			in.Written = l.last
		}
		before := l.last
		again = l.core.Turn(in) || l.last != before && !l.stuck || l.in.StateSynced || l.in.Sums != nil
	}
	require.NoError(l.t, l.core.Check())
}

func (l *lone) Send(kv.NodeID, []*kvdv1.RaftMessage) {}
func (l *lone) WriteLog(id uint64, writes []storage.LogWrite, sync bool) {
	require.NoError(l.t, l.log.Write(writes, sync))
	l.last = id
}
func (l *lone) SendSnapshot(*Outgoing) {}
func (l *lone) Install(*Received)      {}
func (l *lone) Checksum(c *ChecksumWork) {
	l.sums++
	l.in.Sums = append(l.in.Sums, Sum{Shard: c.Shard, ID: c.ID, Index: c.Index, Value: 5})
}
func (l *lone) SyncState() {
	if l.unsaved {
		return
	}
	_, err := l.state.Sync()
	require.NoError(l.t, err)
	l.in.StateSynced = true
}
func (l *lone) MetaChanged(*kvdv1.MetaState) {}
func (l *lone) Survey(s *SurveyWork)         { l.surveys = append(l.surveys, s) }
func (l *lone) ViewsChanged([]*View)         {}
func (l *lone) Happened([]*kvdv1.Event)      {}
func (l *lone) Fatal(err error)              { l.fatal = err }

// answer is how a submission ended.
type answer struct {
	done bool
	r    kv.Result
	err  error
}

func (a *answer) Done(r kv.Result, err error) { a.done, a.r, a.err = true, r, err }

func (l *lone) put(key string) *answer {
	return l.submit(&kv.Command{Op: kv.OpPut, Key: []byte(key), Value: []byte("v")})
}

func (l *lone) submit(c *kv.Command) *answer {
	a := &answer{}
	l.in.Submissions = append(l.in.Submissions, Submission{Shard: 1, Command: shard.EncodeCommand(c), Bytes: c.Size(), Waiter: a})
	l.tick()
	return a
}

func TestCoreWrites(t *testing.T) {
	l := newLone(t)
	a := l.put("k")
	require.True(t, a.done)
	require.NoError(t, a.err)
	require.Equal(t, kv.Revision(1), a.r.Revision)
}

// TestFullDisk: writes are refused with what is wrong, and taken again when there is room.
func TestFullDisk(t *testing.T) {
	l := newLone(t)
	l.in.Disk = &Disk{Full: true, FreeBytes: 1 << 20, NeedBytes: 2 << 20}
	a := l.put("k")
	require.ErrorAs(t, a.err, new(*kv.DiskFullError))
	require.Equal(t, kv.NotDone, kv.OutcomeOf(a.err))
	l.in.Disk = &Disk{}
	require.NoError(t, l.put("k").err)
}

// TestStuckDisk: no write is answered before it is durable, and past a limit the process stops. Time that passes without
// turns, as when the process is stopped, does not count.
func TestStuckDisk(t *testing.T) {
	l := newLone(t)
	l.stuck = true
	a := l.put("k")
	l.now += time.Hour
	for range 20 {
		l.tick()
	}
	require.False(t, a.done)
	require.NoError(t, l.fatal)
	limit := l.core.settings.Duration(raftmeta.DiskStallExit)
	for range limit/(50*time.Millisecond) + 1 {
		l.tick()
	}
	require.ErrorContains(t, l.fatal, "stuck")
	require.False(t, a.done)
}

// TestTruncationWaitsForTheState (T6): the log is cut only when the state that replaces it is durable.
func TestTruncationWaitsForTheState(t *testing.T) {
	l := newLone(t)
	l.set([]*kvdv1.SettingValue{{Name: raftmeta.LogKeep, Value: "8"}}...)
	for range 100 {
		l.put("k")
		st, ok, err := l.log.Load(kv.Group{Shard: 1, Replica: l.core.groups[1].member.Replica})
		require.NoError(t, err)
		require.True(t, ok)
		// What a crash would leave of the state must reach the log that is left.
		require.LessOrEqual(t, st.Truncated.Index, l.durablyApplied())
	}
	st, _, err := l.log.Load(kv.Group{Shard: 1, Replica: l.core.groups[1].member.Replica})
	require.NoError(t, err)
	require.Greater(t, st.Truncated.Index, kv.Index(50))
}

// set takes metadata with settings.
func (l *lone) set(settings ...*kvdv1.SettingValue) {
	m := proto.CloneOf(l.core.Meta)
	m.Version, m.Settings = 9, settings
	l.core.takeMeta(m)
}

// durablyApplied is what is applied in the state as a crash would leave it.
func (l *lone) durablyApplied() kv.Index {
	index, _ := l.core.groups[1].machine.Applied()
	// Every step of this test commits one batch or more, and Durable says how many would be left.
	return index - kv.Index(min(uint64(index), uint64(l.core.cut-l.state.Durable())))
}

// TestChecksums: a leader asks for them, and one that a majority contradicts stops its node.
func TestChecksums(t *testing.T) {
	l := newLone(t)
	l.set([]*kvdv1.SettingValue{{Name: raftmeta.ChecksumInterval, Value: "1s"}}...)
	for range 60 {
		l.tick()
	}
	require.Positive(t, l.sums)
	require.NoError(t, l.fatal)
}

// TestRestart: what was acknowledged is there after a crash that loses everything that was not synced (T2).
func TestRestart(t *testing.T) {
	l := newLone(t)
	require.NoError(t, l.put("a").err)
	require.NoError(t, l.put("b").err)
	none := func(int) int { return 0 }
	require.NoError(t, l.log.Crash(none))
	require.NoError(t, l.state.Crash(none))
	_, ok, err := l.state.Get([]byte("a"))
	require.NoError(t, err)
	require.False(t, ok, "the state store was not to be synced")
	config := l.core.CoreConfig
	config.Life++
	l.core, err = NewCore(config, Now{Boot: l.now})
	require.NoError(t, err)
	for range 5 {
		l.tick()
	}
	for _, key := range []string{"a", "b"} {
		_, ok, err := l.state.Get([]byte(key))
		require.NoError(t, err)
		require.True(t, ok, key)
	}
}

// TestLogWithoutState: a log of which the state store knows nothing stops the start (M5).
func TestLogWithoutState(t *testing.T) {
	l := newLone(t)
	config := l.core.CoreConfig
	config.State = storage.NewMemState()
	_, err := NewCore(config, Now{})
	require.ErrorContains(t, err, "damaged")
	config = l.core.CoreConfig
	require.NoError(t, l.put("k").err)
	config.Log = storage.NewMemLog()
	_, err = NewCore(config, Now{})
	require.ErrorContains(t, err, "missing")
}

// TestTicksKeepTheirDistance (T1): after a late tick the next is a whole tick away, so that a promise that was given
// between two loses one at most; what was missed is dropped.
func TestTicksKeepTheirDistance(t *testing.T) {
	l := newLone(t)
	for _, late := range []time.Duration{0, 49 * time.Millisecond, 51 * time.Millisecond, time.Minute} {
		l.now = l.core.Deadline() + late
		before := l.core.ticks
		l.core.Turn(Input{Now: Now{Boot: l.now}})
		require.Equal(t, before+1, l.core.ticks)
		require.Equal(t, l.now+50*time.Millisecond, l.core.Deadline())
	}
}

// TestTimeWhileDiskIsFull: a leader whose disk is full refuses writes, and yet moves the time of a shard in which keys
// fell due, so that they are gone (R5); what is stored is purged when there is room again.
func TestTimeWhileDiskIsFull(t *testing.T) {
	l := newLone(t)
	c := &kv.Command{Op: kv.OpPut, Key: []byte("k"), Value: []byte("v"), TTL: 100}
	l.in.Submissions = []Submission{{Shard: 1, Command: shard.EncodeCommand(c), Bytes: c.Size()}}
	l.tick()
	rec, there, err := l.state.Get([]byte("k"))
	require.NoError(t, err)
	require.True(t, there)
	l.in.Disk = &Disk{Full: true}
	var full *kv.DiskFullError
	require.ErrorAs(t, l.put("l").err, &full)
	g := l.core.groups[1]
	for range 2 * expireFullTicks {
		l.tick()
	}
	require.True(t, rec.ExpiredAt(g.machine.Time()), "the time stands still")
	require.EqualValues(t, 1, g.machine.(*shard.Machine).Keys(), "purging takes room")
	applied, _ := g.machine.Applied()
	for range 2 * expireFullTicks {
		l.tick()
	}
	again, _ := g.machine.Applied()
	require.Equal(t, applied, again, "what is hidden takes room again and again")
	l.in.Disk = &Disk{}
	for range 2 * expireTicks {
		l.tick()
	}
	require.Zero(t, g.machine.(*shard.Machine).Keys())
}

// TestSnapshotTakesAllOfTheAbsorbed: a replica that was absorbed goes with all that it holds, also what lies beyond the shard
// that has absorbed it: else keys were left behind that are in no replica.
func TestSnapshotTakesAllOfTheAbsorbed(t *testing.T) {
	l := newLone(t, []byte("m"))
	batch := l.state.NewBatch()
	for _, key := range []string{"a", "m", "x"} {
		batch.Put([]byte(key), kv.Record{Revision: 1})
	}
	_, err := l.state.Commit(batch)
	require.NoError(t, err)
	left, right := l.core.groups[1], l.core.groups[2]
	st := left.machine.State()
	st.Descriptor_ = &kvdv1.Descriptor{Shard: 1, End: []byte("t"), Replicas: st.Descriptor_.Replicas}
	r := &Received{State: st}
	r.Ingest, err = l.state.NewIngest(1, kv.Span{End: []byte("t")})
	require.NoError(t, err)
	require.NoError(t, r.Ingest.Put([]byte("b"), kv.Record{Revision: 2}))
	require.NoError(t, l.core.replaces(r, left, []*group{right}))
	require.NoError(t, r.Ingest.Commit(st))
	it, err := l.state.Iter(kv.Span{})
	require.NoError(t, err)
	require.True(t, it.Next())
	require.Equal(t, "b", string(it.Key()))
	require.False(t, it.Next(), "a key is left that no replica holds")
	require.NoError(t, it.Close())
	removed, err := l.state.Tombstones()
	require.NoError(t, err)
	require.Equal(t, map[kv.ShardID]kv.ReplicaID{2: right.member.Replica}, removed)
}

// TestStraysAreForgotten: what the index of expiries holds of a replica that is here no more is deleted when it is met, but
// not while a snapshot is being installed, or the disk is full; what is of others stays.
func TestStraysAreForgotten(t *testing.T) {
	l := newLone(t, []byte("m"))
	batch := l.state.NewBatch()
	for i := range 10 {
		batch.PutDue(kv.Due{ExpireAt: 1, Key: fmt.Appendf(nil, "z%d", i)})
	}
	batch.PutDue(kv.Due{ExpireAt: 1 << 50, Key: []byte("z")})
	_, err := l.state.Commit(batch)
	require.NoError(t, err)
	c := &kv.Command{Op: kv.OpPut, Key: []byte("a"), ExpireAt: 1 << 49}
	l.in.Submissions = []Submission{{Shard: 1, Command: shard.EncodeCommand(c), Bytes: c.Size()}}
	l.tick()
	g := l.core.groups[2]
	l.core.byKey = byKey{l.core.groups[1]}
	l.core.order = slices.DeleteFunc(l.core.order, func(o *group) bool { return o == g })
	delete(l.core.groups, 2)
	left := func(time int64) (n int) {
		_, all, err := l.state.Due(kv.Due{}, time, 100, func(kv.Due) bool { n++; return true })
		require.NoError(t, err)
		require.True(t, all)
		return n
	}
	search := func() {
		for range expireTicks {
			l.tick()
		}
	}

	l.core.disk.Full = true
	for range expireFullTicks {
		l.tick()
	}
	require.Equal(t, 10, left(1))
	l.core.disk.Full = false
	l.core.groups[1].incoming = &Received{}
	search()
	require.Equal(t, 10, left(1), "what is being installed is not in a replica yet")
	l.core.groups[1].incoming = nil
	l.core.arrivals[2] = &Received{}
	search()
	require.Equal(t, 10, left(1), "what is being installed is not in a replica yet")
	delete(l.core.arrivals, 2)
	search()
	require.Zero(t, left(1))
	require.Equal(t, 2, left(math.MaxInt64), "what was not met is deleted")
	last, err := l.state.Sync()
	require.NoError(t, err)
	require.Equal(t, last, l.core.cut)
}

// TestTimeBehindABacklog: a shard in which a key fell due behind very many of another one gets its time when somebody
// asks for the key, not when the search has come to it: until then the key can be neither shown nor denied (R5).
func TestTimeBehindABacklog(t *testing.T) {
	l := newLone(t, []byte("m"))
	for i := range 20 * expireScanMax {
		c := &kv.Command{Op: kv.OpPut, Key: fmt.Appendf(nil, "a%d", i), TTL: 100}
		l.in.Submissions = append(l.in.Submissions, Submission{Shard: 1, Command: shard.EncodeCommand(c), Bytes: c.Size()})
	}
	l.tick()
	c := &kv.Command{Op: kv.OpPut, Key: []byte("n"), TTL: 100}
	l.in.Submissions = []Submission{{Shard: 2, Command: shard.EncodeCommand(c), Bytes: c.Size()}}
	l.tick()
	g := l.core.groups[2]
	reader := &Reader{Node: 1, Guard: l.core.Guard, State: l.state, Wall: func() int64 { return 1000 + l.now.Milliseconds() }}
	get := func() Get {
		got, done := reader.Look(g.view, []byte("n"), ByNothing())
		if !done {
			require.NoError(t, reader.Load(&got, []byte("n")))
			reader.Finish(&got, []byte("n"))
		}
		return got
	}
	require.True(t, get().Found)
	l.now += 2 * time.Second
	l.tick()
	for range expireTicks {
		got := get()
		require.False(t, got.Found)
		if got.Ok {
			return
		}
		l.tick()
	}
	require.True(t, get().Ok, "nothing is told of the key")
}
