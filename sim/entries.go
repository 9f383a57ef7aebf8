package sim

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/shard"
	"github.com/kvdstore/kvd/storage"
)

// ledger knows what was applied anywhere: at an index every replica of a shard applies the same bytes, and no proposal
// is applied at two.
type ledger struct {
	entries   map[entryAt]uint64
	proposals map[proposal]kv.Index
}

func newLedger() ledger {
	return ledger{entries: map[entryAt]uint64{}, proposals: map[proposal]kv.Index{}}
}

type entryAt struct {
	shard kv.ShardID
	index kv.Index
}

// proposal names one, as an entry does.
type proposal struct {
	shard           kv.ShardID
	node, life, seq uint64
}

// add notes that an entry was applied.
func (l *ledger) add(at entryAt, term uint64, data []byte) error {
	h := xxhash.New()
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, term))
	_, _ = h.Write(data)
	if sum, known := l.entries[at]; known && sum != h.Sum64() {
		return fmt.Errorf("shard %d: two replicas have applied different entries at %d", at.shard, at.index)
	}
	l.entries[at] = h.Sum64()
	return nil
}

// addBatch notes that a batch was applied.
func (l *ledger) addBatch(at entryAt, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	b, err := shard.Decode(data)
	if err != nil {
		return fmt.Errorf("shard %d: entry %d: %w", at.shard, at.index, err)
	}
	p := proposal{at.shard, b.Node, b.Life, b.Seq}
	if first, known := l.proposals[p]; known && first != at.index {
		return fmt.Errorf("shard %d: proposal %d of life %d of node %d is applied at %d and at %d", at.shard, b.Seq, b.Life, b.Node, first, at.index)
	}
	l.proposals[p] = at.index
	return nil
}

// appliedState is a process's state store. It looks up in the log what each commit says is applied: it is there, written
// (T5), and the ledger has no other.
type appliedState struct {
	storage.State
	machine *machine
	applied map[kv.Group]kv.Index
}

func newAppliedState(m *machine) (*appliedState, error) {
	s := &appliedState{State: m.state, machine: m, applied: map[kv.Group]kv.Index{}}
	records, err := m.state.Shards()
	for _, r := range records {
		s.applied[kv.Group{Shard: r.Shard, Replica: kv.ReplicaID(r.State.Replica)}] = kv.Index(r.State.AppliedIndex)
	}
	return s, err
}

// appliedBatch remembers what it says of replicas.
type appliedBatch struct {
	storage.Batch
	shards []kv.ShardID
	states []*kvdv1.ShardState
}

func (b *appliedBatch) PutShard(shard kv.ShardID, st *kvdv1.ShardState) {
	b.shards, b.states = append(b.shards, shard), append(b.states, st)
	b.Batch.PutShard(shard, st)
}

func (s *appliedState) NewBatch() storage.Batch { return &appliedBatch{Batch: s.State.NewBatch()} }

func (s *appliedState) Commit(b storage.Batch) (storage.Cut, error) {
	batch := b.(*appliedBatch)
	cut, err := s.State.Commit(batch.Batch)
	for i, shard := range batch.shards {
		if err == nil {
			err = s.look(shard, batch.states[i])
		}
	}
	return cut, err
}

// look adds to the ledger what a replica has applied since the last time. What lies at or below the truncated index was
// added before, or a snapshot jumped over it; at or below its base a replica has applied nothing itself.
func (s *appliedState) look(shard kv.ShardID, st *kvdv1.ShardState) error {
	group := kv.Group{Shard: shard, Replica: kv.ReplicaID(st.Replica)}
	log, _, err := s.machine.log.Load(group)
	if err != nil {
		return err
	}
	first, last := max(s.applied[group], log.Truncated.Index, kv.Index(st.BaseIndex))+1, kv.Index(st.AppliedIndex)
	if first > last {
		return nil
	}
	s.applied[group] = last
	entries, err := s.machine.log.Entries(group, first, last+1, kv.UncommittedBytesMax)
	if err != nil {
		return fmt.Errorf("what is applied is not in the log: %w", err)
	}
	s.machine.at(applied, shard, entries)
	for _, e := range entries {
		at := entryAt{shard, kv.Index(e.GetIndex())}
		err := s.machine.ledger.add(at, e.GetTerm(), e.GetData())
		if err == nil && e.GetType() == raftpb.EntryNormal {
			err = s.machine.ledger.addBatch(at, e.GetData())
		}
		if err != nil {
			return err
		}
	}
	return nil
}
