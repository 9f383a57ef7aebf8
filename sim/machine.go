package sim

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/cache"
	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
	"github.com/kvdstore/kvd/raftmeta"
	"github.com/kvdstore/kvd/storage"
)

// machine is one node: a computer with a clock and disks, and the process on it, if it runs.
type machine struct {
	*world
	id    kv.NodeID
	given *kvdv1.MetaState // The metadata that it became a node with.
	gone  bool             // The node was removed.
	log   logStore
	state stateStore
	// stepped: the core has committed to the state store since noteStates.
	stepped bool
	noted   map[kv.Group]kv.Index       // The last state that was recorded.
	leased  map[kv.ShardID]*check.Lease // That readers see.
	life    kv.Life

	// epoch counts the processes: what one has begun ends with it. The core is nil while none runs.
	epoch  int
	core   *node.Core
	reader *node.Reader
	views  []*node.View  // By shard, as they were after the last turn.
	shards *raftmeta.Map // What the process knows of all shards.

	pinged  time.Duration // When it was last looked who answers.
	inbox   node.Input
	woken   bool
	paused  time.Duration // Until when.
	stalled time.Duration // Until when the disk does not answer.
	slow    time.Duration // Until when it answers late.
	full    time.Duration // Until when it has no room.

	// The clocks: boot runs at a rate, wall is off by so much.
	rate   float64
	skew   time.Duration
	writes []logWrite
	// sending is how many snapshots the process sends.
	sending int
	led     map[kv.ShardID]kv.Term // In which term it was last seen to lead a shard.

	// voteless: the next write with a vote for another is lost in a crash.
	voteless   bool
	onVoteless func()
	// sentTo are the nodes that this turn has sent something: all shards together one envelope each.
	sentTo map[kv.NodeID]bool
	// onReadIndex is called once, when the next question of a ReadIndex has left.
	onReadIndex func()
}

type logWrite struct {
	id     uint64
	writes []storage.LogWrite
	sync   bool
}

// found begins a cluster as the founding leaves it (B1).
func (w *world) found() {
	replicas := cmp.Or(w.Replicas, w.Nodes)
	replicas -= 1 - replicas%2
	spec := raftmeta.FoundingSpec{
		Cluster: 1, Replicas: replicas, TickMs: uint32(w.Tick.Milliseconds()), ElectionTicks: uint32(w.ElectionTicks),
	}
	for i := range w.Nodes {
		spec.Nodes = append(spec.Nodes, raftmeta.FoundingNode{
			Name: "n" + string(rune('1'+i)), Address: "sim", Store: kv.StoreID(i + 1),
		})
	}
	for i := 1; i < w.Shards; i++ {
		spec.Cuts = append(spec.Cuts, []byte{byte('a' + i)})
	}
	for i := range w.IdleShards {
		spec.Cuts = append(spec.Cuts, fmt.Appendf(nil, "\xff%05d", i))
	}
	var err error
	if w.founding, err = raftmeta.Founding(spec); err != nil {
		w.fail("founding: %v", err)
		return
	}
	w.founding.Settings = []*kvdv1.SettingValue{
		{Name: raftmeta.LogKeep, Value: "16"}, {Name: raftmeta.ChecksumInterval, Value: "2s"}, {Name: raftmeta.SleepAfter, Value: cmp.Or(w.SleepAfter, time.Second).String()},
		{Name: raftmeta.Replicas, Value: strconv.Itoa(replicas)}, {Name: raftmeta.DiskStallHandover, Value: cmp.Or(w.StallHandOver, 500*time.Millisecond).String()},
	}
	w.founding.Settings = append(w.founding.Settings, w.Settings...)
	w.knownMap(w.founding)
	for i := range w.Nodes {
		m := w.newMachine()
		if m == nil {
			return
		}
		m.id, m.given = kv.NodeID(i+1), w.founding
		w.nodes = append(w.nodes, m)
		if err := node.Found(w.founding, m.id, m.log, m.state); err != nil {
			w.fail("founding: %v", err)
			return
		}
		m.start()
	}
}

// newMachine makes a machine with empty stores, which is no node yet; nil when that failed.
func (w *world) newMachine() *machine {
	log, state, err := w.newStores()
	if err != nil {
		w.fail("new stores: %v", err)
		return nil
	}
	m := &machine{
		world: w, log: log, state: state, rate: 1 + (w.fate.Float64()-0.5)*2*w.Drift, skew: between(w.fate, -w.Skew, w.Skew),
		led: map[kv.ShardID]kv.Term{}, noted: map[kv.Group]kv.Index{}, leased: map[kv.ShardID]*check.Lease{}, sentTo: map[kv.NodeID]bool{},
	}
	w.skewMax = max(w.skewMax, m.skew.Abs())
	w.machines = append(w.machines, m)
	return m
}

// boot is the machine's clock since its boot.
func (m *machine) boot() time.Duration {
	return time.Hour + time.Duration(float64(m.now)*m.rate)
}

// wall is its other clock, in Unix milliseconds.
func (m *machine) wall() int64 {
	return epochMs + int64((m.now+m.skew)/time.Millisecond)
}

// start starts the process.
func (m *machine) start() {
	if m.gone {
		return
	}
	m.life++
	m.epoch++
	m.inbox, m.woken, m.writes, m.sending = node.Input{}, false, nil, 0
	state, err := newAppliedState(m)
	if err != nil {
		m.fail("node %d does not start: %v", m.id, err)
		return
	}
	meta, err := m.metaOnDisk()
	if err != nil {
		m.fail("node %d does not start: %v", m.id, err)
		return
	}
	m.shards = m.knownMap(meta)
	guard := cache.New(cache.NewChaotic(m.chance.Uint64()), cmp.Or(m.Stripes, 16))
	core, err := node.NewCore(node.CoreConfig{
		Cluster: 1, Node: m.id, Life: m.life, Tick: m.Tick, ElectionTicks: m.ElectionTicks, Log: m.log, State: watched{state, m},
		Guard: guard, Host: host{m, m.epoch}, Logger: slog.New(slog.DiscardHandler), Meta: meta,
	}, node.Now{Boot: m.boot(), Wall: m.wall()})
	if err != nil {
		m.fail("node %d does not start: %v", m.id, err)
		return
	}
	m.core = core
	m.reader = &node.Reader{Node: m.id, Guard: guard, State: m.state, Wall: m.wall}
	m.views = core.Views()
	m.note('s', m.id, uint64(m.life))
	m.lookAtDisk()
	m.scheduleTick()
}

// crash ends the process, and the machine loses what was not synced, but for a beginning of it.
func (m *machine) crash() { m.crashAt(m.keepSome) }

// keepSome draws how many of n unsynced writes outlive a crash: often none or all.
func (m *machine) keepSome(n int) int {
	switch m.fate.IntN(3) {
	case 0:
		return 0
	case 1:
		return n
	}
	return m.fate.IntN(n + 1)
}

// crashAt crashes at a cut of the state store that keep chooses.
func (m *machine) crashAt(keep func(n int) int) {
	if m.core == nil {
		return
	}
	m.core, m.reader, m.views = nil, nil, nil
	m.epoch++
	m.endLeases()
	m.stats.Crashes++
	if err := m.log.Crash(m.keepSome); err != nil {
		m.fail("crash of node %d: %v", m.id, err)
	}
	if err := m.state.Crash(keep); err != nil {
		m.fail("crash of node %d: %v", m.id, err)
	}
	m.note('c', m.id)
	for _, c := range m.clients {
		c.broken(m)
	}
}

// process makes f happen in the process that runs now, if it still does then; a paused one does it when it goes on.
func (m *machine) process(d time.Duration, f func()) {
	epoch := m.epoch
	var do func()
	do = func() {
		switch {
		case m.epoch != epoch:
		case m.now < m.paused:
			m.after(m.paused-m.now, do)
		default:
			f()
		}
	}
	m.after(d, do)
}

// wake makes a turn happen soon.
func (m *machine) wake() {
	if m.woken || m.core == nil {
		return
	}
	m.woken = true
	m.process(between(m.chance, 10*time.Microsecond, 300*time.Microsecond), m.turn)
}

func (m *machine) scheduleTick() {
	wait := time.Duration(float64(m.core.Deadline()-m.boot())/m.rate) + time.Microsecond
	m.process(wait, func() {
		m.ping()
		m.wake()
		m.scheduleTickAfterTurn()
	})
}

// pingTime is after how long the network finds a node silent, however little is said.
const pingTime = 2 * time.Second

// ping tells of nodes that do not answer, now and then.
func (m *machine) ping() {
	if m.now-m.pinged < pingTime {
		return
	}
	m.pinged = m.now
	for _, other := range m.nodes {
		if other != m && (other.core == nil || m.blocked[link{m.id, other.id}] || m.blocked[link{other.id, m.id}]) {
			m.inbox.Unreachable = append(m.inbox.Unreachable, other.id)
		}
	}
}

// scheduleTickAfterTurn waits for the turn that wake has made likely.
func (m *machine) scheduleTickAfterTurn() {
	m.process(m.Tick/4, func() {
		if m.core.Deadline() <= m.boot() {
			m.scheduleTickAfterTurn()
			return
		}
		m.scheduleTick()
	})
}

func (m *machine) turn() {
	m.woken = false
	in := m.inbox
	m.inbox = node.Input{}
	in.Now = node.Now{Boot: m.boot(), Wall: m.wall()}
	m.note('t', m.id, uint64(len(in.Envelopes)), in.Written, uint64(len(in.Submissions)))
	m.stats.Turns++
	clear(m.sentTo)
	asleep := m.core.Asleep()
	if m.core.Turn(in) {
		m.wake()
	}
	if m.core != nil {
		m.stats.Sleeps += max(0, m.core.Asleep()-asleep)
	}
	if m.core == nil {
		return
	}
	m.views = m.core.Views()
	if err := m.core.Check(); err != nil {
		m.fail("node %d: %v", m.id, err)
	}
	m.checkViews()
	m.checkLeases()
	m.noteLeases()
	m.noteStates()
}

// host is what a core asks of its machine.
type host struct {
	*machine
	process int
}

func (h host) Send(to kv.NodeID, messages []*kvdv1.RaftMessage) {
	e := &kvdv1.Envelope{ClusterId: 1, FromNode: uint64(h.id), ToNode: uint64(to), FromLife: uint64(h.life), Messages: messages}
	data, err := e.MarshalVT()
	if err != nil {
		h.fail("node %d: %v", h.id, err)
		return
	}
	h.note('m', h.id, uint64(to), xxhash.Sum64(data))
	if h.sentTo[to] {
		h.fail("node %d sends node %d a second envelope in one turn", h.id, to)
	}
	h.sentTo[to] = true
	if err := h.core.CheckLeaving(h.boot(), messages); err != nil {
		h.fail("%v", err)
	}
	if h.tapped(to, &e.Messages) {
		if data, err = e.MarshalVT(); err != nil {
			h.fail("node %d: %v", h.id, err)
			return
		}
	}
	h.checkVotes(to, messages)
	h.transmit(to, data)
	if !h.quiet && oneIn(h.chance, h.DuplicateOneIn) {
		h.transmit(to, data)
	}
	h.echo(to, messages)
	if asks := func(m *kvdv1.RaftMessage) bool { return len(m.Context) > 0 }; h.onReadIndex != nil && slices.ContainsFunc(messages, asks) {
		h.onReadIndex()
		h.machine.onReadIndex = nil
	}
}

// tapped lets a story hear the messages, and lose some of them; it reports whether it did.
func (h host) tapped(to kv.NodeID, messages *[]*kvdv1.RaftMessage) bool {
	if h.tap == nil {
		return false
	}
	all := *messages
	*messages = slices.DeleteFunc(slices.Clone(all), func(m *kvdv1.RaftMessage) bool { return h.tap(h.machine, to, m) })
	return len(*messages) < len(all)
}

// echo has what is said of the conduct of the cluster come once more, much later.
func (h host) echo(to kv.NodeID, messages []*kvdv1.RaftMessage) {
	if h.quiet || h.EchoOneIn == 0 {
		return
	}
	again := slices.DeleteFunc(slices.Clone(messages), func(m *kvdv1.RaftMessage) bool {
		return m.GetOrder() == nil && m.GetReport() == nil && m.GetQuestion() == nil && m.GetWord() == nil
	})
	if len(again) == 0 || !oneIn(h.chance, h.EchoOneIn) {
		return
	}
	e := &kvdv1.Envelope{ClusterId: 1, FromNode: uint64(h.id), ToNode: uint64(to), FromLife: uint64(h.life), Messages: again}
	data, err := e.MarshalVT()
	if err != nil {
		h.fail("node %d: %v", h.id, err)
		return
	}
	h.after(between(h.chance, 100*time.Millisecond, 5*time.Second), func() { h.transmit(to, data) })
}

// transmit carries an envelope over the network, or loses it.
func (h host) transmit(to kv.NodeID, data []byte) {
	m := h.machine
	target := m.node(to)
	if target == nil || m.blocked[link{m.id, to}] || !m.quiet && oneIn(m.chance, m.LoseOneIn) {
		if oneIn(m.chance, 2) {
			m.soon(func() { m.inbox.Unreachable = append(m.inbox.Unreachable, to) })
		}
		return
	}
	latency := between(m.chance, 100*time.Microsecond, 2*time.Millisecond)
	if !m.quiet && oneIn(m.chance, m.DelayOneIn) {
		latency = between(m.chance, 10*time.Millisecond, 2*time.Second)
	}
	m.after(latency+m.late[link{m.id, to}], func() {
		if target.core == nil || m.blocked[link{m.id, to}] {
			return
		}
		e := &kvdv1.Envelope{}
		if err := e.UnmarshalVT(data); err != nil {
			m.fail("node %d: %v", to, err)
			return
		}
		target.inbox.Envelopes = append(target.inbox.Envelopes, e)
		target.wake()
	})
}

// soon changes the inbox of the process that runs now, a little later.
func (m *machine) soon(f func()) {
	m.process(between(m.chance, 10*time.Microsecond, 200*time.Microsecond), func() {
		f()
		m.wake()
	})
}

func (h host) WriteLog(id uint64, writes []storage.LogWrite, sync bool) {
	m := h.machine
	for _, w := range writes {
		if w.Truncate != nil {
			m.stats.Truncations++
		}
		if w.Reset != nil && m.onReset != nil {
			m.onReset(m, w.Group.Shard)
		}
		m.at(written, w.Group.Shard, w.Entries)
	}
	m.writes = append(m.writes, logWrite{id, writes, sync})
	if len(m.writes) == 1 {
		m.writeNext()
	}
}

// writeNext writes the oldest log batch after the disk's latency. The machine may crash before, between write and
// sync, and after.
func (m *machine) writeNext() {
	latency := between(m.chance, 100*time.Microsecond, 3*time.Millisecond)
	if m.now < m.slow {
		latency = between(m.chance, 10*time.Millisecond, 200*time.Millisecond)
	}
	if m.now < m.stalled {
		latency += m.stalled - m.now
	}
	m.process(latency, func() {
		w := m.writes[0]
		if m.voteless && votes(w.writes) {
			m.voteless = false
			m.crash()
			m.after(between(m.fate, time.Millisecond, 20*time.Millisecond), func() {
				m.onVoteless()
				if m.core == nil {
					m.start()
				}
			})
			return
		}
		if !m.quiet && oneIn(m.fate, m.CrashAtWriteOneIn) {
			sync := oneIn(m.fate, 2)
			if err := m.log.Write(w.writes, w.sync && sync); err != nil {
				m.fail("node %d: %v", m.id, err)
			}
			m.crash()
			m.restartLater()
			return
		}
		if err := m.log.Write(w.writes, w.sync); err != nil {
			m.fail("node %d: %v", m.id, err)
			return
		}
		m.note('w', m.id, w.id)
		m.inbox.Written = w.id
		m.wake()
		if m.writes = m.writes[1:]; len(m.writes) > 0 {
			m.writeNext()
		}
	})
}

// votes reports whether a vote for another replica is among the writes.
func votes(writes []storage.LogWrite) bool {
	for _, w := range writes {
		if w.Hard != nil && w.Hard.Vote != 0 && w.Hard.Vote != w.Group.Replica {
			return true
		}
	}
	return false
}

func (h host) SyncState() {
	m := h.machine
	m.process(between(m.chance, time.Millisecond, 20*time.Millisecond), func() {
		if _, err := m.state.Sync(); err != nil {
			m.fail("node %d: %v", m.id, err)
		}
		m.inbox.StateSynced = true
		m.wake()
	})
}

var errLost = errors.New("the network lost it")

// SendSnapshot sends all data as it is now, or loses it.
func (h host) SendSnapshot(s *node.Outgoing) {
	m := h.machine
	m.stats.Snapshots++
	if m.sending++; m.sending > kv.SnapshotsOutgoingMax {
		m.fail("node %d sends %d snapshots at the same time", m.id, m.sending)
	}
	data, err := readAll(s.View, s.Span)
	if err != nil {
		m.fail("node %d: %v", m.id, err)
		return
	}
	state, err := s.State.MarshalVT()
	if err != nil {
		m.fail("node %d: %v", m.id, err)
		return
	}
	life, target, shard := m.life, m.node(s.To.Node), s.View.State().GetDescriptor_().GetShard()
	sent := func(err error) {
		m.soon(func() {
			m.sending--
			m.inbox.Sent = append(m.inbox.Sent, node.SnapshotSent{Snapshot: s, Err: err})
		})
	}
	if target == nil || m.blocked[link{m.id, s.To.Node}] || !m.quiet && oneIn(m.chance, m.LoseOneIn) {
		sent(errLost)
		return
	}
	m.process(m.SendTakes+between(m.chance, 5*time.Millisecond, 100*time.Millisecond), func() {
		if target.core == nil || m.blocked[link{m.id, s.To.Node}] || m.blocked[link{s.To.Node, m.id}] {
			sent(errLost)
			return
		}
		st := &kvdv1.ShardState{}
		if err := st.UnmarshalVT(state); err != nil {
			m.fail("snapshot: %v", err)
			return
		}
		ingest, err := target.state.NewIngest(kv.ShardID(shard), s.Span)
		if err != nil {
			m.fail("snapshot: %v", err)
			return
		}
		for _, item := range data {
			if err := ingest.Put(item.Key, item.Record); err != nil {
				m.fail("snapshot: %v", err)
				return
			}
		}
		target.inbox.Received = append(target.inbox.Received, &node.Received{
			From: m.id, Life: life, Message: node.SnapshotMessage(s.Message, st), State: st, Ingest: ingest, Unled: s.Message.GetUnled(),
		})
		target.wake()
		sent(nil)
	})
}

// readAll reads a view and closes it.
func readAll(v storage.View, span kv.Span) ([]kv.Item, error) {
	it, err := v.Iter(span)
	if err != nil {
		return nil, err
	}
	var items []kv.Item
	for it.Next() {
		rec, err := it.Record()
		if err != nil {
			return nil, err
		}
		rec.Value = bytes.Clone(rec.Value)
		items = append(items, kv.Item{Key: bytes.Clone(it.Key()), Record: rec})
	}
	if err := it.Close(); err != nil {
		return nil, err
	}
	return items, v.Close()
}

func (h host) Install(r *node.Received) {
	m := h.machine
	m.process(m.InstallTakes+between(m.chance, time.Millisecond, 50*time.Millisecond), func() {
		if err := r.Ingest.Commit(r.State); err != nil {
			m.fail("node %d: %v", m.id, err)
			return
		}
		m.stats.Installs++
		if r.State.GetMeta() != nil {
			m.stats.MetaInstalls++
		}
		m.note('i', m.id, r.State.GetAppliedIndex())
		if !m.quiet && oneIn(m.fate, m.CrashAtInstallOneIn) {
			m.crash()
			m.restartLater()
			return
		}
		m.inbox.Installed = append(m.inbox.Installed, r)
		m.wake()
	})
}

func (h host) Checksum(c *node.ChecksumWork) {
	m := h.machine
	items, err := readAll(c.View, c.Span)
	if err != nil {
		m.fail("node %d: %v", m.id, err)
		return
	}
	m.stats.Checksums++
	took := between(m.chance, 10*time.Microsecond, 200*time.Microsecond)
	if oneIn(m.chance, 2) {
		took = between(m.chance, time.Millisecond, 500*time.Millisecond)
	}
	m.process(took, func() {
		m.inbox.Sums = append(m.inbox.Sums, node.Sum{Shard: c.Shard, ID: c.ID, Index: c.Index, Value: sumOf(items)})
		m.wake()
	})
}

func (h host) Survey(s *node.SurveyWork) {
	m := h.machine
	found := s.Walk(context.Background())
	if found.Err != nil {
		m.fail("node %d: %v", m.id, found.Err)
		return
	}
	m.process(between(m.chance, 10*time.Microsecond, 300*time.Millisecond), func() {
		m.inbox.Surveys = append(m.inbox.Surveys, found)
		m.wake()
	})
}

func (h host) ViewsChanged([]*node.View) {}

func (h host) Happened(list []*kvdv1.Event) {
	for _, e := range list {
		if e.GetKind() == "transfer" && e.GetState() == raftmeta.Happened {
			h.handedOver++
		}
	}
}

func (h host) MetaChanged(meta *kvdv1.MetaState) { h.machine.shards = h.knownMap(meta) }

func (h host) Fatal(err error) { h.fail("node %d stops: %v", h.id, err) }
