package shard

import (
	"fmt"
	"math"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// Apply applies the next entry of the log; b is nil for one without commands (a new leader's first). There is one result
// a command, the same on every replica. An error is a failed disk, a command that this version does not know, or a
// broken invariant: the replica must stop, and the step must not be committed. The batch is the machine's from then on.
//
// After an error nothing is applied any more: going on with the next entry would skip this one.
func (m *Machine) Apply(index kv.Index, term kv.Term, b *kvdv1.Batch) ([]kv.Result, error) {
	if err := m.next(index, term); err != nil || b == nil {
		return nil, err
	}
	m.stamp(b.StampMs)
	results := make([]kv.Result, len(b.Commands))
	for i, p := range b.Commands {
		var err error
		if results[i], err = m.carryOut(p, len(b.Commands) == 1); err != nil {
			m.failed = fmt.Errorf("shard %d: apply command %d of entry %d: %w", m.descriptor.Shard, i, index, err)
			return nil, m.failed
		}
	}
	return results, nil
}

// next moves on to the entry that follows the last one applied.
func (m *Machine) next(index kv.Index, term kv.Term) error {
	if m.failed != nil {
		return m.failed
	}
	switch {
	case m.ended:
		m.failed = fmt.Errorf("shard %d: entry %d is applied in the step that entry %d has ended", m.descriptor.Shard, index, m.applied.index)
		return m.failed
	case index != m.applied.index+1 || term < m.applied.term:
		m.failed = fmt.Errorf("shard %d: entry %d of term %d is applied after entry %d of term %d",
			m.descriptor.Shard, index, term, m.applied.index, m.applied.term)
		return m.failed
	}
	m.applied = point{index, term}
	m.stepped = true
	return nil
}

// stamp moves the shard's time to that of a batch, never back. The time of a frozen shard stands still (G1).
func (m *Machine) stamp(time int64) {
	if m.frozen != nil && !mutantFrozenPurged {
		return
	}
	if m.time = max(m.time, time); mutantTimeGoesBack {
		m.time = time
	}
}

// carryOut carries one command of an entry out, or refuses it; alone says that it is the only one. It fails on what this
// version does not know.
func (m *Machine) carryOut(p *kvdv1.Command, alone bool) (kv.Result, error) {
	if p.GetOp() == uint32(kv.OpShape) {
		if err := known(p); err != nil {
			return kv.Result{}, err
		}
		return m.shape(p.Shape, alone), nil
	}
	c, err := DecodeCommand(p)
	if err != nil {
		return kv.Result{}, err
	}
	return m.command(&c)
}

// command carries one command out, or refuses it.
func (m *Machine) command(c *kv.Command) (kv.Result, error) {
	if m.frozen != nil && !(mutantFrozenPurged && c.Op == kv.OpExpire) {
		return kv.Result{Status: kv.Frozen}, nil
	}
	if err := CheckCommand(c); err != nil {
		return kv.Result{Status: kv.Refused, Reason: err.Error()}, nil
	}
	if !m.holds(c) && !mutantEpochUnchecked {
		return kv.Result{Status: kv.WrongShard}, nil
	}
	switch c.Op {
	case kv.OpPut:
		return m.put(c)
	case kv.OpDelete:
		return m.delete(c)
	case kv.OpDeleteRange:
		return m.deleteRange(c)
	case kv.OpIncrement:
		return m.increment(c)
	case kv.OpTxn:
		return m.txn(c.Txn)
	case kv.OpExpire:
		return m.expire(c.Due)
	case kv.OpChecksum:
		m.checksums = append(m.checksums, kv.ChecksumRequest{ID: c.ID, Index: m.applied.index})
		return kv.Result{Status: kv.Done}, nil
	}
	return kv.Result{Status: kv.Refused, Reason: "a command of the meta group does nothing in a shard"}, nil
}

// holds reports whether all keys of a command lie in the span: the shard may have been split since the proposal.
func (m *Machine) holds(c *kv.Command) bool {
	all := true
	c.Keys(func(key []byte) bool {
		all = m.descriptor.Span.Contains(key)
		return all
	})
	return all
}

// get reads what is stored under a key as the step has left it, whether or not its time has come.
func (m *Machine) get(key []byte) (found, error) {
	if f, known := m.overlay.get(key); known {
		return f, nil
	}
	rec, ok, err := m.reader.Get(key)
	if err != nil {
		return found{}, fmt.Errorf("read %s: %w", kv.FormatKey(key), err)
	}
	if !ok {
		return found{}, nil
	}
	return stored(rec), nil
}

// head is get without the value.
func (m *Machine) head(key []byte) (found, error) {
	if f, known := m.overlay.get(key); known {
		return f, nil
	}
	h, ok, err := m.reader.Head(key)
	if err != nil {
		return found{}, fmt.Errorf("read %s: %w", kv.FormatKey(key), err)
	}
	return found{kv.Record{Revision: h.Revision, ExpireAt: h.ExpireAt}, h.Bytes, ok}, nil
}

// before reads what a write under a condition must know of what it replaces.
func (m *Machine) before(key []byte, c kv.Condition) (found, error) {
	if c.Kind == kv.IfValue {
		return m.get(key)
	}
	return m.head(key)
}

// live drops what a look-up gave if its time has come.
func (m *Machine) live(f found) found {
	if f.there && f.rec.ExpiredAt(m.time) {
		return found{}
	}
	return f
}

// write counts one more write command and gives the revision of the keys that it writes (R1).
func (m *Machine) write() kv.Revision {
	m.revision++
	return m.nextRevision(0)
}

// nextRevision is the revision that keys get from the write command after the next `ahead` ones.
func (m *Machine) nextRevision(ahead kv.Revision) kv.Revision {
	if mutantRevisionByIndex {
		return kv.Revision(m.applied.index)
	}
	return m.revision + ahead
}

// expireAt gives the expiry of a put: the time to live counts from the shard's time, which has just been raised to
// the batch's stamp (R4).
func (m *Machine) expireAt(ttl, expireAt int64) int64 {
	switch {
	case ttl == 0:
		return expireAt
	case m.time > math.MaxInt64-ttl:
		return math.MaxInt64
	}
	return m.time + ttl
}

// replace stores rec under a key, nil for nothing, where old was stored. A record whose time has come already is not
// stored: the key is gone at once.
func (m *Machine) replace(key []byte, old found, rec *kv.Record) error {
	if rec != nil && rec.ExpiredAt(m.time) {
		rec = nil
	}
	if m.measure != nil {
		m.measure.replaced(key, old, rec)
	}
	if old.there {
		if err := m.uncount(key, old); err != nil {
			return err
		}
	}
	if rec != nil {
		m.keys++
		m.bytes += uint64(len(key) + len(rec.Value))
		if rec.ExpireAt != 0 {
			m.expiring++
		}
	}
	if old.there || rec != nil {
		m.overlay.set(key, old, rec)
	}
	return nil
}

// uncount takes a stored record out of the counters.
func (m *Machine) uncount(key []byte, old found) error {
	size, expiring := uint64(len(key)+old.bytes), uint64(0)
	if old.rec.ExpireAt != 0 {
		expiring = 1
	}
	if m.keys < 1 || m.bytes < size || m.expiring < expiring {
		return fmt.Errorf("%s is stored with %d bytes, but %d keys, %d bytes and %d expiring keys are counted",
			kv.FormatKey(key), size, m.keys, m.bytes, m.expiring)
	}
	m.keys--
	m.bytes -= size
	m.expiring -= expiring
	return nil
}
