package node

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
	"github.com/kvdstore/kvd/replica"
	"github.com/kvdstore/kvd/shard"
	"github.com/kvdstore/kvd/storage"
)

// NewCore opens every replica that the stores hold, at the turn that begins at now.
func NewCore(cfg CoreConfig, now Now) (*Core, error) {
	c := &Core{
		CoreConfig: cfg, settings: raftmeta.SettingsOf(cfg.Meta), groups: map[kv.ShardID]*group{},
		lives: map[kv.NodeID]kv.Life{}, full: fullNodes{}, now: now, nextTick: now.Boot + cfg.Tick,
		arrivals: map[kv.ShardID]*Received{}, orphans: map[kv.Group]bool{},
	}
	records, err := cfg.State.Shards()
	if err != nil {
		return nil, fmt.Errorf("read the replicas of the state store: %w", err)
	}
	if c.tombstones, err = cfg.State.Tombstones(); err != nil {
		return nil, fmt.Errorf("read the tombstones of the state store: %w", err)
	}
	logs, err := cfg.Log.Groups()
	if err != nil {
		return nil, fmt.Errorf("read the groups of the log store: %w", err)
	}
	for _, record := range records {
		g, err := c.openFirst(record)
		if err != nil {
			return nil, err
		}
		c.addGroup(g)
		logs = slices.DeleteFunc(logs, func(l kv.Group) bool { return l == g.replica.Group() })
	}
	if err := c.openOrphans(logs); err != nil {
		return nil, err
	}
	return c, c.settled()
}

// openOrphans looks at the logs whose replicas the state store does not have: those of removed replicas go, the others
// must be born again by the replay of a split (M5).
func (c *Core) openOrphans(logs []kv.Group) error {
	var remove []storage.LogWrite
	for _, l := range logs {
		if c.tombstones[l.Shard] >= l.Replica {
			remove = append(remove, storage.LogWrite{Group: l, Remove: true})
		} else {
			c.orphans[l] = true
		}
	}
	if len(remove) == 0 {
		return nil
	}
	if err := c.Log.Write(remove, true); err != nil {
		return fmt.Errorf("remove the logs of removed replicas: %w", err)
	}
	return nil
}

// orphaned reports that there is a log of a shard whose replica a replay must bring back.
func (c *Core) orphaned(shard kv.ShardID) bool {
	for l := range c.orphans {
		if l.Shard == shard {
			return true
		}
	}
	return false
}

// settled fails if a log is left without a replica after every replica has applied again what was committed at
// the start (M5).
func (c *Core) settled() error {
	if len(c.orphans) == 0 || slices.ContainsFunc(c.order, func(g *group) bool { return g.replica.Replaying() }) {
		return nil
	}
	var logs []kv.Group
	for l := range c.orphans {
		logs = append(logs, l)
	}
	slices.SortFunc(logs, func(a, b kv.Group) int {
		return cmp.Or(cmp.Compare(a.Shard, b.Shard), cmp.Compare(a.Replica, b.Replica))
	})
	return fmt.Errorf("the log store holds %v, of which the state store knows nothing: the data directory is damaged; restore both stores together", logs)
}

// openFirst opens a replica at the start.
func (c *Core) openFirst(record *storage.ShardRecord) (*group, error) {
	log, reset, err := c.loadLog(kv.Group{Shard: record.Shard, Replica: kv.ReplicaID(record.State.Replica)}, record.State)
	if err != nil {
		return nil, err
	}
	if reset != nil {
		if err := c.Log.Write([]storage.LogWrite{*reset}, true); err != nil {
			return nil, fmt.Errorf("reset the log of %v: %w", reset.Group, err)
		}
	}
	return c.open(record.Shard, record.State, log)
}

// open opens one replica.
func (c *Core) open(id kv.ShardID, st *kvdv1.ShardState, log storage.LogState) (*group, error) {
	machine, err := newMachine(st, c.State)
	if err != nil {
		return nil, err
	}
	member := kv.Replica{Node: c.Node, Replica: kv.ReplicaID(st.Replica)}
	var g *group
	c.incarnations++
	r, err := replica.New(replica.Config{
		Node: c.Node, Life: c.Life, Incarnation: c.incarnations, Replica: member.Replica, Descriptor: machine.Descriptor(), Conf: confState(st),
		Machine: machine, Codec: codec{}, Store: c.Log,
		Hard: &raftpb.HardState{
			Term: new(uint64(log.Hard.Term)), Vote: new(uint64(log.Hard.Vote)), Commit: new(uint64(log.Hard.Commit)),
		},
		Truncated: log.Truncated.Index, TruncatedTerm: log.Truncated.Term, Last: log.Last,
		Tick: c.Tick, ElectionTicks: c.ElectionTicks, HeartbeatTicks: HeartbeatTicks, Logger: raftLogger{c.Logger},
		Holds: func(b *kvdv1.Batch) bool { return c.holdsBack(g, b) },
	})
	if err != nil {
		return nil, err
	}
	g = &group{
		shard: id, member: member, replica: r, machine: machine, view: &View{shard: id},
		unsent: map[kv.ReplicaID]kv.Term{}, pinned: pins{},
	}
	g.view.state.Store(&readState{descriptor: machine.Descriptor(), incarnation: c.incarnations})
	g.view.mayBeVisible.Store(uint64(machine.Revision()))
	g.view.applied.Store(uint64(machine.Revision()))
	g.view.time.Store(machine.Time())
	return g, nil
}

// loadLog reads a group's log as it is after reset, which is nil if nothing is to be written: it is reset if the state's
// base (a snapshot, or the birth) has overtaken it (D2).
func (c *Core) loadLog(id kv.Group, st *kvdv1.ShardState) (log storage.LogState, reset *storage.LogWrite, err error) {
	log, ok, err := c.Log.Load(id)
	if err != nil {
		return storage.LogState{}, nil, fmt.Errorf("read the log of %v: %w", id, err)
	}
	base := storage.Point{Index: kv.Index(st.BaseIndex), Term: kv.Term(st.BaseTerm)}
	if !ok && base.Index != kv.Index(st.AppliedIndex) {
		return storage.LogState{}, nil, fmt.Errorf("the log of %v is missing: the data directory is damaged; remove it and add the node anew", id)
	}
	if ok && (log.Truncated.Index >= base.Index && !mutantGoodLogReset || c.holds(id, log, base)) {
		return log, nil, nil
	}
	hard := log.Hard
	if hard.Term < base.Term {
		hard.Term, hard.Vote = base.Term, 0
	}
	hard.Commit = base.Index
	reset = &storage.LogWrite{Group: id, Reset: &base, Hard: &hard}
	return storage.LogState{Hard: hard, Truncated: base, Last: base.Index}, reset, nil
}

// holds reports whether a log has the entry at a point.
func (c *Core) holds(id kv.Group, log storage.LogState, p storage.Point) bool {
	if p.Index <= log.Truncated.Index || p.Index > log.Last {
		return false
	}
	entries, err := c.Log.Entries(id, p.Index, p.Index+1, 0)
	return err == nil && len(entries) == 1 && kv.Term(entries[0].GetTerm()) == p.Term
}

// newMachine makes the state machine of a replica.
func newMachine(st *kvdv1.ShardState, r storage.State) (shard.StateMachine, error) {
	if st.GetMeta() != nil {
		return raftmeta.New(st)
	}
	return shard.New(st, scanner{r}), nil
}

// scanner reads for a state machine.
type scanner struct{ storage.State }

// Scan calls f for the keys of a span in order until f returns false. Key and record are lent for the call.
func (s scanner) Scan(span kv.Span, f func(key []byte, rec kv.Record) bool) error {
	it, err := s.Iter(span)
	if err != nil {
		return err
	}
	for it.Next() {
		rec, err := it.Record()
		if err != nil {
			return errors.Join(err, it.Close())
		}
		if !f(it.Key(), rec) {
			break
		}
	}
	return it.Close()
}

// codec is the encoding of entries.
type codec struct{}

func (codec) EncodeBatch(b *kvdv1.Batch) ([]byte, error)       { return shard.Encode(b) }
func (codec) DecodeBatch(payload []byte) (*kvdv1.Batch, error) { return shard.Decode(payload) }
func (codec) ShareBatch(payload []byte) (*kvdv1.Batch, error)  { return shard.DecodeShared(payload) }
func (codec) Shapes(payload []byte) bool                       { return shard.Shapes(payload) }

// byKey finds groups by the keys that they hold.
type byKey []*group

func (l byKey) find(key []byte) *group {
	i, ok := slices.BinarySearchFunc(l, key, func(g *group, key []byte) int {
		return bytes.Compare(g.machine.Descriptor().Span.Start, key)
	})
	if !ok {
		i--
	}
	if i < 0 || !l[i].machine.Descriptor().Span.Contains(key) {
		return nil
	}
	return l[i]
}

// Found writes what the replicas of a node begin with (B1). Done again after a crash in the middle it does the same.
func Found(m *kvdv1.MetaState, id kv.NodeID, log storage.Log, state storage.State) error {
	batch := state.NewBatch()
	var writes []storage.LogWrite
	for _, st := range raftmeta.Birth(m, id) {
		shard := kv.ShardID(st.GetDescriptor_().GetShard())
		batch.PutShard(shard, st)
		writes = append(writes, storage.LogWrite{
			Group: kv.Group{Shard: shard, Replica: kv.ReplicaID(st.Replica)},
			Reset: &storage.Point{Index: kv.BirthIndex, Term: kv.BirthTerm},
			Hard:  &storage.HardState{Term: kv.BirthTerm, Commit: kv.BirthIndex},
		})
	}
	if _, err := state.Commit(batch); err != nil {
		return fmt.Errorf("write the first replicas: %w", err)
	}
	if _, err := state.Sync(); err != nil {
		return fmt.Errorf("write the first replicas: %w", err)
	}
	if err := log.Write(writes, true); err != nil {
		return fmt.Errorf("write the first logs: %w", err)
	}
	return nil
}
