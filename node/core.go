package node

import (
	"bytes"
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/cache"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
	"github.com/kvdstore/kvd/replica"
	"github.com/kvdstore/kvd/storage"
)

// HeartbeatTicks is the number of ticks between two heartbeats of a leader.
const HeartbeatTicks = 3

// refusedInterval is how often it is told at most that messages are refused: whoever sends them may send many.
const refusedInterval = 10 * time.Second

// Host is what the core asks of the world. No call blocks; what comes of it arrives with a later turn.
type Host interface {
	// Send sends messages to another node as one envelope, or drops them. They are the host's from then on.
	Send(to kv.NodeID, messages []*kvdv1.RaftMessage)
	// WriteLog writes to the log store, after all earlier calls, durably if sync is set, and answers with
	// Input.Written.
	WriteLog(id uint64, writes []storage.LogWrite, sync bool)
	// SendSnapshot sends the data of a view, closes it, and answers with Input.Sent.
	SendSnapshot(s *Outgoing)
	// Install commits what was received to the state store and answers with Input.Installed.
	Install(r *Received)
	// Checksum computes the checksum of a view, closes it, and answers with Input.Sums.
	Checksum(c *ChecksumWork)
	// Survey walks through a view, closes it, and answers with Input.Surveys.
	Survey(s *SurveyWork)
	// SyncState makes the state store durable and answers with Input.StateSynced.
	SyncState()
	// ViewsChanged tells what readers see of every replica here, by shard: one has come or gone.
	ViewsChanged(views []*View)
	// MetaChanged tells that the metadata, as applied here, is newer.
	MetaChanged(m *kvdv1.MetaState)
	// Happened tells what a step of the meta group, or its leader alone, has decided or brought about.
	Happened(list []*kvdv1.Event)
	// Fatal stops the process: a disk failed, data is damaged, or an invariant is broken.
	Fatal(err error)
}

// Now is what the clocks show at the start of a turn.
type Now struct {
	// Boot is the time since the machine's boot, with the time that it slept.
	Boot time.Duration
	// Wall is in Unix milliseconds.
	Wall int64
}

// Input is what a turn takes in.
type Input struct {
	Now         Now
	Envelopes   []*kvdv1.Envelope
	Unreachable []kv.NodeID
	// Written is the newest log batch that is durable, 0 when there is no news.
	Written     uint64
	Submissions []Submission
	Received    []*Received
	Installed   []*Received
	Sent        []SnapshotSent
	Sums        []Sum
	Surveys     []Survey
	StateSynced bool
	// Meta is newer metadata that came from another node.
	Meta *kvdv1.MetaState
	Disk *Disk
	// Calls look into the core, in the turn.
	Calls []func(*Core)
	// HandOver asks to give every leadership away: the node is going down.
	HandOver bool
}

// Submission is a command to be proposed, or with no command a read that waits for a ReadIndex.
type Submission struct {
	Shard   kv.ShardID
	Command *kvdv1.Command
	Bytes   int
	Waiter  replica.Waiter
}

// Received is a replica's data that has arrived beside the state store.
type Received struct {
	From    kv.NodeID
	Life    kv.Life
	Message *raftpb.Message
	State   *kvdv1.ShardState
	Ingest  storage.Ingest
	// Unled: the sender does not lead, and raft does not hear of it (S7).
	Unled bool

	group    *group
	held     held
	absorbed []*group // Replicas that go in the same step.
}

// Outgoing is a snapshot to be sent.
type Outgoing struct {
	To      kv.Replica
	Message *kvdv1.RaftMessage
	State   *kvdv1.ShardState // As the receiver is to keep it.
	Span    kv.Span
	View    storage.View

	began time.Duration // In time since the machine's boot.
}

// SnapshotSent tells how the sending of a snapshot ended: without an error the receiver has all of it.
type SnapshotSent struct {
	Snapshot *Outgoing
	Err      error
}

// Disk describes the file system of the data directory.
type Disk struct {
	// Full tells that no more may be written than what makes room.
	Full                 bool
	FreeBytes, NeedBytes uint64
}

// CoreConfig is what a Core is made of.
type CoreConfig struct {
	Cluster       kv.ClusterID
	Node          kv.NodeID
	Life          kv.Life
	Tick          time.Duration
	ElectionTicks int
	Log           storage.Log
	State         storage.State
	Guard         *cache.Guard
	Host          Host
	Logger        *slog.Logger
	Meta          *kvdv1.MetaState
}

// Core is the node's event loop without the loop: a turn is one call. One goroutine calls it.
type Core struct {
	CoreConfig
	settings *raftmeta.Settings
	groups   map[kv.ShardID]*group
	order    []*group // By shard.
	awake    []*group // Those of them that tick, in the same order.
	byKey    byKey
	dirty    []*group
	waiting  []*group // With something held.

	// arrivals are replicas that are new here and being installed, births the children of the turn's step, parked the votes for
	// children that are not born yet. orphans are logs whose replicas a replay must bring back (M5); tombstones the highest
	// ids of the replicas that were removed here, and buried those of them whose logs are still there.
	arrivals     map[kv.ShardID]*Received
	births       []birth
	absorbed     []absorption
	parked       []parked
	orphans      map[kv.Group]bool
	tombstones   map[kv.ShardID]kv.ReplicaID
	buried       []burial
	viewsChanged bool

	// Of the conduct of the cluster.
	conduct   *conduct // While this node leads the meta group.
	president president
	mapped    *raftmeta.Map
	refusals  []*kvdv1.Refusal
	surveys   int // Under way, or waiting.
	toSelf    []*kvdv1.RaftMessage
	turn      int        // Of the shards that are reported in turns.
	reported  kv.ShardID // The last whose news were told.
	more      bool       // There is something to be sent.

	outgoing []*group // With a snapshot to be sent, in the order in which they asked.
	sending  int      // Snapshots on their way.

	// surplus is how many bytes of the logs nobody will want any more, as seen in this tick so far, and in the one before.
	surplus, surplusBefore uint64

	now      Now
	nextTick time.Duration
	ticks    uint64
	lives    map[kv.NodeID]kv.Life

	batch       uint64 // The last log batch.
	durable     uint64 // The newest that is durable.
	outstanding []outstandingWrite
	writes      []storage.LogWrite
	sync        bool
	released    []addressed
	early       []addressed
	answers     []replica.Answer
	raised      []cache.Raised
	changes     []change
	// followed is the group that was applied last of those that this node does not lead.
	followed kv.ShardID

	cut          storage.Cut // The last commit to the state store.
	syncing      bool
	disk         Disk
	fullSince    uint64    // The tick at which it became full.
	full         fullNodes // Others.
	due          kv.Due    // Where the search for expired keys goes on.
	incarnations kv.Incarnation
	stalled      bool
	unfitUntil   uint64 // The tick until which this node takes no leadership.
	checksumID   uint64
	failed       bool
	tellRefused  time.Duration // When a refused message is told of again, in time since the machine's boot.
}

type outstandingWrite struct {
	id, tick uint64 // tick: when it was handed over.
}

// change is a key that the turn's step changes.
type change struct {
	group *group
	kv.Change
}

// addGroup takes a replica in.
func (c *Core) addGroup(g *group) {
	c.groups[g.shard] = g
	i, _ := slices.BinarySearchFunc(c.order, g.shard, func(g *group, s kv.ShardID) int { return cmp.Compare(g.shard, s) })
	c.order = slices.Insert(c.order, i, g)
	if g.shard != kv.MetaShard {
		i, _ := slices.BinarySearchFunc(c.byKey, g.machine.Descriptor().Span.Start, func(g *group, key []byte) int {
			return bytes.Compare(g.machine.Descriptor().Span.Start, key)
		})
		c.byKey = slices.Insert(c.byKey, i, g)
	}
	g.usedAt = c.now.Boot
	c.setAwake(g)
	c.mark(g)
}

// Views gives what readers see of every replica, by shard.
func (c *Core) Views() []*View {
	views := make([]*View, len(c.order))
	for i, g := range c.order {
		views[i] = g.view
	}
	return views
}

func (c *Core) mark(g *group) {
	if !g.dirty {
		g.dirty = true
		c.dirty = append(c.dirty, g)
	}
}

// Fail stops the process, once.
func (c *Core) fail(err error) {
	if err != nil && !c.failed {
		c.failed = true
		c.Host.Fatal(err)
	}
}

// Turn takes what has come, steps the groups, hands out what is to be written and sent, applies and answers. It
// reports whether another turn has work already.
func (c *Core) Turn(in Input) (again bool) {
	if c.failed {
		return false
	}
	c.now = in.Now
	if !mutantTicksAfterMessages {
		c.tick()
	}
	c.notices(&in)
	c.envelopes(in.Envelopes)
	if mutantTicksAfterMessages {
		c.tickAll()
	}
	c.written(in.Written)
	c.snapshots(&in)
	c.submissions(in.Submissions)
	c.selfTold()
	c.more = false
	groups := c.takeDirty()
	for _, g := range groups {
		c.ready(g)
	}
	if mutantReadStatePublishedLast {
		c.send()
	}
	for _, g := range groups {
		g.publishLoss()
	}
	c.send()
	c.writeLog()
	c.apply(groups)
	if c.failed {
		return false // What was applied is not there to be read: nobody may hear of it (T7).
	}
	for _, g := range groups {
		if !g.gone {
			c.finish(g)
		}
	}
	c.sendSnapshots()
	c.answer()
	if c.viewsChanged {
		c.viewsChanged = false
		c.Host.ViewsChanged(c.Views())
	}
	return len(c.dirty) > 0 || c.more || len(c.toSelf) > 0
}

// takeDirty takes out the groups that have something to do.
func (c *Core) takeDirty() []*group {
	groups := slices.DeleteFunc(c.dirty, func(g *group) bool { return g.gone })
	c.dirty = nil
	for _, g := range groups {
		g.dirty = false
	}
	return groups
}

// Deadline is when the next tick is due, in time since the machine's boot.
func (c *Core) Deadline() time.Duration { return c.nextTick }

// tick steps at most one due tick; those that were missed are dropped (T1).
func (c *Core) tick() {
	if c.now.Boot < c.nextTick {
		return
	}
	// From now, not from when it was due: two ticks close together would shorten the promises given between them.
	c.nextTick = c.now.Boot + c.Tick
	c.oneTick()
}

// tickAll steps every tick that was missed, as the mutant does it.
func (c *Core) tickAll() {
	for c.nextTick <= c.now.Boot {
		c.nextTick += c.Tick
		c.oneTick()
	}
}

func (c *Core) oneTick() {
	c.ticks++
	c.surplus, c.surplusBefore = 0, c.surplus
	for _, g := range slices.Clone(c.awake) {
		g.replica.Tick()
		if _, leader := g.replica.Leading(); leader && g.view.wanted.Swap(false) {
			g.replica.Renew(c.now.Boot)
		}
		c.upkeep(g)
		if g.replica.Stirs() || g.machine.Frozen() != nil {
			c.mark(g)
		}
	}
	c.readSleepers()
	c.digGraves()
	c.fail(c.settled())
	c.preside()
	c.expire()
	c.watchDisk()
	c.leaveFullDisk()
}

func (c *Core) notices(in *Input) {
	for _, node := range in.Unreachable {
		for _, g := range c.awake {
			g.replica.Unreachable(node)
		}
		c.wakeLedBy(node)
	}
	if in.Meta != nil {
		c.takeMeta(in.Meta)
	}
	if in.Disk != nil {
		c.takeDisk(*in.Disk)
	}
	if in.StateSynced {
		c.syncing = false
	}
	if in.HandOver {
		c.leaveAll()
	}
	for _, s := range in.Sums {
		c.takeSum(s)
	}
	for _, s := range in.Surveys {
		c.takeSurvey(s)
	}
	for _, call := range in.Calls {
		call(c)
	}
}

func (c *Core) takeMeta(m *kvdv1.MetaState) {
	if m.GetVersion() > c.Meta.GetVersion() {
		c.Meta = m
		c.settings = raftmeta.SettingsOf(m)
		c.suspectRemoved()
	}
}

// suspectRemoved has the replicas ask that are here and not in the map.
func (c *Core) suspectRemoved() {
	for _, g := range c.order {
		d, ok := c.shards().Shard(g.shard)
		if !ok {
			if _, absorber := c.lookUp(g.shard); absorber != 0 {
				c.suspect(g)
			}
			continue
		}
		if _, member := d.OnNode(c.Node); !member && d.Epoch.Config > g.machine.Descriptor().Epoch.Config {
			c.suspect(g)
		}
	}
}

// envelopes steps what other nodes say. Within one inbox only the newest life of each neighbour counts, and an answer
// to an earlier life of this process does not (T3).
func (c *Core) envelopes(list []*kvdv1.Envelope) {
	list = slices.DeleteFunc(list, func(e *kvdv1.Envelope) bool {
		return kv.ClusterID(e.GetClusterId()) != c.Cluster || kv.NodeID(e.GetToNode()) != c.Node || !c.knows(kv.NodeID(e.GetFromNode()))
	})
	for _, e := range list {
		c.meet(kv.NodeID(e.GetFromNode()), kv.Life(e.GetFromLife()))
	}
	for _, e := range list {
		from := kv.NodeID(e.GetFromNode())
		if kv.Life(e.GetFromLife()) < c.lives[from] {
			continue
		}
		for _, m := range e.GetMessages() {
			c.message(from, m)
		}
	}
}

// meet takes note of a node's life: what was led by an earlier one has no leader now.
func (c *Core) meet(node kv.NodeID, life kv.Life) {
	if life > c.lives[node] {
		c.lives[node] = life
		c.wakeLedBy(node)
	}
}

// knows reports whether a node is in the metadata, or has a replica of a shard that is here.
func (c *Core) knows(id kv.NodeID) bool {
	if _, ok := c.lives[id]; ok {
		return true
	}
	if slices.ContainsFunc(c.Meta.GetNodes(), func(n *kvdv1.MetaNode) bool { return kv.NodeID(n.GetNode().GetNode()) == id }) {
		return true
	}
	return slices.ContainsFunc(c.order, func(g *group) bool {
		_, ok := g.machine.Descriptor().OnNode(id)
		return ok
	})
}

func (c *Core) message(from kv.NodeID, m *kvdv1.RaftMessage) {
	if c.conducted(from, m) {
		return
	}
	g := c.groups[kv.ShardID(m.GetShard())]
	if g == nil || uint64(g.member.Replica) < m.GetTo() {
		c.stranger(from, m)
		return
	}
	if m.GetSleep() {
		c.full.set(from, m.GetDiskFull())
		c.putToSleep(g, from, m)
		return
	}
	if g.replica.NodeOf(kv.ReplicaID(m.GetFrom())) == from {
		c.wake(g)
	}
	if m.GetAbsent() {
		if g.born != 0 && c.ticks-g.born < uint64(c.ElectionTicks) {
			return // It has not applied the split yet, and is not to be sent what it has.
		}
		if g.unled() {
			c.supply(g, kv.Replica{Node: from, Replica: kv.ReplicaID(m.GetFrom())})
			return
		}
		c.fail(g.replica.Absent(kv.ReplicaID(m.GetFrom()), kv.Term(m.GetTerm())))
		c.mark(g)
		return
	}
	if m.GetChecksum() != nil {
		c.takeChecksum(g, from, m)
		return
	}
	kind := raftpb.MessageType(m.GetType())
	if replica.IsAnswer(kind) && kv.Life(m.GetToLife()) != c.Life {
		return
	}
	c.full.set(from, m.GetDiskFull())
	if kind == raftpb.MsgApp && c.disk.Full && !c.cutToRoom(m) {
		return
	}
	if err := g.replica.Step(from, m); err != nil {
		if c.now.Boot >= c.tellRefused {
			c.tellRefused = c.now.Boot + refusedInterval
			c.Logger.Warn("a message was refused", "from", from, "shard", g.shard, "error", err)
		}
		return
	}
	c.mark(g)
}

// stranger takes a message for a replica that is not here. If it is one of a leader, the leader hears that it has to send a
// snapshot; votes are kept for a while, and who asks whether it could have them hears that there is nobody (S7).
func (c *Core) stranger(from kv.NodeID, m *kvdv1.RaftMessage) {
	shard, to := kv.ShardID(m.GetShard()), kv.ReplicaID(m.GetTo())
	if c.arrivals[shard] != nil || c.leaving(shard) || c.tombstones[shard] >= to {
		return
	}
	kind := raftpb.MessageType(m.GetType())
	switch kind {
	case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgPreVote:
		c.early = append(c.early, addressed{from, &kvdv1.RaftMessage{
			Shard: m.GetShard(), From: m.GetTo(), To: m.GetFrom(), Term: m.GetTerm(), Absent: true,
		}})
	}
	if kind == raftpb.MsgVote || kind == raftpb.MsgPreVote {
		c.park(from, m)
	}
}

// written releases what waited for log batches.
func (c *Core) written(id uint64) {
	if id <= c.durable {
		return
	}
	c.durable = id
	n := 0
	for n < len(c.outstanding) && c.outstanding[n].id <= id {
		n++
	}
	c.outstanding = append(c.outstanding[:0], c.outstanding[n:]...)
	left := c.waiting[:0]
	for _, g := range c.waiting {
		c.release(g)
		if len(g.held) > 0 {
			left = append(left, g)
		}
	}
	clear(c.waiting[len(left):])
	c.waiting = left
}

// release sends and delivers what a group held for batches that are durable.
func (c *Core) release(g *group) {
	n := 0
	for n < len(g.held) && g.held[n].batch <= c.durable {
		c.released = append(c.released, g.held[n].messages...)
		c.fail(g.replica.Local(g.held[n].local))
		g.replica.Synced(g.held[n].commit)
		n++
	}
	if n > 0 {
		g.held = slices.Delete(g.held, 0, n)
		c.mark(g)
	}
}

// submissions proposes the commands of a turn, as one entry a shard, and takes in the reads.
func (c *Core) submissions(list []Submission) {
	var touched []*group
	for _, s := range list {
		g := c.groups[s.Shard]
		if g == nil {
			c.answers = append(c.answers, replica.Answer{Waiter: s.Waiter, Err: &kv.NotLeaderError{Shard: s.Shard}})
			continue
		}
		c.mark(g)
		if g.machine.Frozen() != nil { // It would be refused when it is applied, and be in the log for nothing.
			c.answers = append(c.answers, replica.Answer{Waiter: s.Waiter, Err: &kv.NotLeaderError{Shard: s.Shard}})
			continue
		}
		c.wake(g)
		if s.Command == nil {
			g.replica.Read(s.Waiter)
			continue
		}
		if err := c.roomFor(g); err != nil && kv.Op(s.Command.GetOp()) != kv.OpExpire {
			c.answers = append(c.answers, replica.Answer{Waiter: s.Waiter, Err: err})
			continue
		}
		if len(g.commands) == 0 {
			touched = append(touched, g)
		} else if g.bytes+s.Bytes > kv.EntryBytesMax || len(g.commands) == kv.EntryCommandsMax {
			c.propose(g)
		}
		if _, leader := g.replica.Leading(); leader {
			g.sample(s.Command)
		}
		g.commands, g.waiters, g.bytes = append(g.commands, s.Command), append(g.waiters, s.Waiter), g.bytes+s.Bytes
	}
	for _, g := range touched {
		c.propose(g)
	}
}

// propose proposes what was gathered for a group.
func (c *Core) propose(g *group) {
	commands, waiters := g.commands, g.waiters
	g.commands, g.waiters, g.bytes = nil, nil, 0
	if len(commands) > 0 {
		c.fail(g.replica.Propose(c.now.Wall, commands, waiters))
	}
}

// ready takes the work of a group.
func (c *Core) ready(g *group) {
	w, ok := g.replica.Ready(c.now.Boot)
	if !ok {
		return
	}
	if w.Refused {
		g.incoming.Ingest.Abort()
		for _, other := range g.incoming.absorbed {
			other.absorbed = false
			c.mark(other)
		}
		g.incoming = nil
	}
	c.early = c.address(c.early, g, w.Early)
	h := held{messages: c.address(nil, g, w.Held), local: w.Local, commit: kv.Index(w.Hard.GetCommit())}
	for _, m := range w.Snapshots {
		c.snapshotWanted(g, m)
	}
	if w.Snapshot != nil {
		g.incoming.held = h
		return
	}
	if len(w.Entries) > 0 || w.Hard != nil {
		g.marks.add(w.Entries)
		c.write(g, storage.LogWrite{Group: g.replica.Group(), Entries: w.Entries, Hard: hardState(w.Hard)})
	}
	c.hold(g, h)
}

// write adds to the turn's log batch.
func (c *Core) write(g *group, w storage.LogWrite) {
	c.writes = append(c.writes, w)
	c.sync = true
	g.lastWrite = c.batch + 1
}

// hold keeps what waits for the group's last write, also if that was in an earlier turn (T3).
func (c *Core) hold(g *group, h held) {
	if len(h.messages) == 0 && len(h.local) == 0 && h.commit == 0 {
		return
	}
	h.batch = g.lastWrite
	if len(g.held) == 0 {
		c.waiting = append(c.waiting, g)
	}
	g.held = append(g.held, h)
}

// address encodes messages for the nodes that they go to. An answer goes to the life of the process that asked: the
// lives known in this turn are those that its messages came from (T3).
func (c *Core) address(to []addressed, g *group, messages []*raftpb.Message) []addressed {
	for _, m := range messages {
		node := g.replica.NodeOf(kv.ReplicaID(m.GetTo()))
		if node != 0 {
			applied, _ := g.machine.Applied()
			encoded := replica.Encode(g.shard, m, c.lives[node], applied)
			encoded.DiskFull = c.disk.Full
			if m.GetType() == raftpb.MsgApp || m.GetType() == raftpb.MsgHeartbeat {
				encoded.Level = uint64(g.level)
			}
			to = append(to, addressed{node, encoded})
		}
	}
	return to
}

// send sends what may leave, as one envelope a neighbour: what was released first.
func (c *Core) send() {
	// What needs no sync that is still under way leaves at once.
	for _, g := range c.waitingNow() {
		c.release(g)
	}
	all := append(c.released, c.early...)
	c.released, c.early = c.released[:0:0], c.early[:0:0]
	slices.SortStableFunc(all, func(a, b addressed) int { return cmp.Compare(a.node, b.node) })
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].node == all[0].node {
			n++
		}
		messages := make([]*kvdv1.RaftMessage, n)
		for i, a := range all[:n] {
			messages[i] = a.message
		}
		c.Host.Send(all[0].node, messages)
		all = all[n:]
	}
}

// waitingNow takes out the groups whose oldest held messages wait for nothing any more.
func (c *Core) waitingNow() []*group {
	var now []*group
	left := c.waiting[:0]
	for _, g := range c.waiting {
		if g.held[0].batch <= c.durable {
			now = append(now, g)
			if g.held[len(g.held)-1].batch <= c.durable {
				continue
			}
		}
		left = append(left, g)
	}
	clear(c.waiting[len(left):])
	c.waiting = left
	return now
}

// writeLog hands the turn's log batch over.
func (c *Core) writeLog() {
	if len(c.writes) == 0 {
		return
	}
	c.batch++
	c.outstanding = append(c.outstanding, outstandingWrite{c.batch, c.ticks})
	c.Host.WriteLog(c.batch, c.writes, c.sync && !mutantSyncSkipped)
	c.writes, c.sync = nil, false
}

// finish ends a group's turn.
func (c *Core) finish(g *group) {
	if !g.replica.Installing() {
		c.fail(g.replica.Applied())
	}
	if g.incoming != nil && g.replica.Installing() && g.incoming.group == nil {
		g.incoming.group = g
		c.Host.Install(g.incoming)
	}
	if g.machine.Frozen() != nil {
		c.mergeFrozen(g)
	}
	g.publish()
	c.take(g.replica.Answers())
	if g.replica.HasReady() && !g.absorbed { // That applies nothing more, and would have a turn follow on the other.
		c.mark(g)
	}
}

// take keeps answers for the end of the turn. They are large, and mostly of one shard.
func (c *Core) take(answers []replica.Answer) {
	if len(c.answers) == 0 {
		c.answers = answers
		return
	}
	c.answers = append(c.answers, answers...)
}

// answer tells the callers.
func (c *Core) answer() {
	answers := c.answers
	c.answers = nil
	for _, a := range answers {
		if a.Waiter != nil {
			a.Waiter.Done(a.Result, a.Err)
		}
	}
}

// Check reports a broken invariant of any group: also that two replicas here hold the same key.
func (c *Core) Check() error {
	for i, g := range c.byKey {
		if i > 0 && c.byKey[i-1].machine.Descriptor().Span.Overlaps(g.machine.Descriptor().Span) {
			return fmt.Errorf("node %d: shards %d and %d overlap", c.Node, c.byKey[i-1].shard, g.shard)
		}
	}
	for _, g := range c.order {
		if err := g.replica.Check(); err != nil {
			return err
		}
		if err := g.machine.Check(); err != nil {
			return err
		}
	}
	return nil
}

// CheckLeaving reports a message that takes a lease away while readers still see it, at a time since the machine's boot (T4): once
// it has left, another may lead.
func (c *Core) CheckLeaving(boot time.Duration, messages []*kvdv1.RaftMessage) error {
	for _, m := range messages {
		g := c.groups[kv.ShardID(m.GetShard())]
		if g == nil {
			continue
		}
		kind := raftpb.MessageType(m.GetType())
		if _, term, until := g.view.Lead(); until > boot && (kv.Term(m.GetTerm()) > term || kind == raftpb.MsgTimeoutNow) {
			return fmt.Errorf("shard %d: node %d sends a %v of term %d while readers see its lease of term %d", g.shard, c.Node, kind, m.GetTerm(), term)
		}
	}
	return nil
}

func hardState(h *raftpb.HardState) *storage.HardState {
	if h == nil {
		return nil
	}
	return &storage.HardState{Term: kv.Term(h.GetTerm()), Vote: kv.ReplicaID(h.GetVote()), Commit: kv.Index(h.GetCommit())}
}
