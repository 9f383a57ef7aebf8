package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kvdstore/kvd/kv"
)

// The keys of the log store, numbers big-endian:
//
//	'l' | shard 8 | replica 8 | 0                  hard state and truncated point
//	'l' | shard 8 | replica 8 | 1 | index 8        an entry
const (
	logPrefix  = 'l'
	kindState  = 0
	kindEntry  = 1
	groupBytes = 1 + 8 + 8
)

func logKey(id kv.Group, kind byte) []byte {
	key := make([]byte, 0, groupBytes+1+8)
	key = append(key, logPrefix)
	key = binary.BigEndian.AppendUint64(key, uint64(id.Shard))
	key = binary.BigEndian.AppendUint64(key, uint64(id.Replica))
	return append(key, kind)
}

func entryKey(id kv.Group, index kv.Index) []byte {
	return binary.BigEndian.AppendUint64(logKey(id, kindEntry), uint64(index))
}

// appendEntry encodes what is stored of an entry: format, type, term, payload.
func appendEntry(dst []byte, e *raftpb.Entry) []byte {
	dst = append(dst, format, byte(e.GetType()))
	dst = binary.AppendUvarint(dst, e.GetTerm())
	return append(dst, e.GetData()...)
}

// decodeEntry reads a stored entry; its payload is copied.
func decodeEntry(index kv.Index, value []byte) (*raftpb.Entry, error) {
	if len(value) < 3 || value[0] != format {
		return nil, ErrFormat
	}
	kind := raftpb.EntryType(value[1])
	term, n := binary.Uvarint(value[2:])
	if n <= 0 || raftpb.EntryType_name[int32(kind)] == "" {
		return nil, ErrFormat
	}
	e := &raftpb.Entry{Type: kind.Enum(), Index: new(uint64(index)), Term: &term}
	if data := value[2+n:]; len(data) > 0 {
		e.Data = slices.Clone(data)
	}
	return e, nil
}

// appendLogState encodes a group's record: format, and five numbers.
func appendLogState(b []byte, st LogState) []byte {
	b = append(b, format)
	for _, n := range []uint64{
		uint64(st.Hard.Term), uint64(st.Hard.Vote), uint64(st.Hard.Commit), uint64(st.Truncated.Index), uint64(st.Truncated.Term),
	} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

func decodeLogState(b []byte) (LogState, error) {
	if len(b) != 1+5*8 || b[0] != format {
		return LogState{}, ErrFormat
	}
	var n [5]uint64
	for i := range n {
		n[i] = binary.BigEndian.Uint64(b[1+8*i:])
	}
	return LogState{
		Hard:      HardState{Term: kv.Term(n[0]), Vote: kv.ReplicaID(n[1]), Commit: kv.Index(n[2])},
		Truncated: Point{Index: kv.Index(n[3]), Term: kv.Term(n[4])}, Last: kv.Index(n[3]),
	}, nil
}

// PebbleLog is the log store on disk.
type PebbleLog struct {
	db    *pebble.DB
	fatal *fatalLogger
	close func() error
	// Of the batch that is made, the writer's: what is stored under a key, what becomes of the groups, and their places in that.
	value   []byte
	changes []logChange
	changed map[kv.Group]int
	// written counts the writes of this life, and synced says how many of them are durable: for their marks. They are the
	// writer's.
	written, synced uint64

	mu     sync.Mutex
	groups map[kv.Group]LogState // As written.
}

var _ Log = (*PebbleLog)(nil)

// OpenLog opens the log store of a directory.
func OpenLog(o Options) (*PebbleLog, error) {
	o.brief = true
	db, opts, err := openPebble(&o)
	if err != nil {
		return nil, err
	}
	l := &PebbleLog{db: db, fatal: opts.Logger.(*fatalLogger), groups: map[kv.Group]LogState{}, changed: map[kv.Group]int{}}
	l.close = sync.OnceValue(func() error { return errors.Join(seal(db, l.written), db.Close()) })
	if err := l.scan(); err != nil {
		return nil, errors.Join(explain(o.Dir, err), db.Close())
	}
	return l, nil
}

// scan reads the groups: their records, and where their entries end. An entry without a record before it, and a gap
// above the truncated point, is damage.
func (l *PebbleLog) scan() error {
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: []byte{logPrefix}, UpperBound: []byte{logPrefix + 1}})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; {
		id, st, err := readGroup(it)
		if err != nil {
			return errors.Join(err, it.Close())
		}
		l.groups[id] = st
		ok = it.SeekGE(logKey(id, kindEntry+1))
	}
	return it.Close()
}

// readGroup reads a group's record, where the iterator is, and where its entries begin and end.
func readGroup(it *pebble.Iterator) (id kv.Group, st LogState, err error) {
	key := it.Key()
	if len(key) != groupBytes+1 || key[groupBytes] != kindState {
		return id, st, fmt.Errorf("%w: the key %x of the log store has no record of its group before it", ErrDamaged, key)
	}
	id = kv.Group{Shard: kv.ShardID(binary.BigEndian.Uint64(key[1:])), Replica: kv.ReplicaID(binary.BigEndian.Uint64(key[9:]))}
	value, err := it.ValueAndErr()
	if err == nil {
		st, err = decodeLogState(value)
	}
	if err != nil {
		return id, st, fmt.Errorf("%v: its record: %w", id, err)
	}
	end := logKey(id, kindEntry+1)
	if !it.SeekGE(logKey(id, kindEntry)) || bytes.Compare(it.Key(), end) >= 0 {
		return id, st, it.Error()
	}
	first, err := indexOf(id, it.Key())
	if err != nil {
		return id, st, err
	}
	if first != st.Truncated.Index+1 {
		return id, st, fmt.Errorf("%v: %w: its entries begin at %d, and it was truncated at %d", id, ErrDamaged, first, st.Truncated.Index)
	}
	if !it.SeekLT(end) {
		return id, st, it.Error()
	}
	st.Last, err = indexOf(id, it.Key())
	return id, st, err
}

// indexOf reads the index of an entry from its key.
func indexOf(id kv.Group, key []byte) (kv.Index, error) {
	if len(key) != groupBytes+1+8 {
		return 0, fmt.Errorf("%v: %w: %x is no key of an entry", id, ErrDamaged, key)
	}
	return kv.Index(binary.BigEndian.Uint64(key[groupBytes+1:])), nil
}

// Groups lists the groups that the store holds anything of, in order.
func (l *PebbleLog) Groups() ([]kv.Group, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.SortedFunc(maps.Keys(l.groups), compareGroups), nil
}

// Load reads a group's state.
func (l *PebbleLog) Load(id kv.Group) (LogState, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	st, ok := l.groups[id]
	return st, ok, nil
}

// Entries reads the entries [lo, hi) as far as they fit in maxBytes of payload, at least one.
func (l *PebbleLog) Entries(id kv.Group, lo, hi kv.Index, maxBytes uint64) ([]*raftpb.Entry, error) {
	defer l.fatal.guard()
	if st, _, _ := l.Load(id); lo <= st.Truncated.Index || hi > st.Last+1 || lo >= hi {
		return nil, missingEntries(id, lo, hi)
	}
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: entryKey(id, lo), UpperBound: entryKey(id, hi)})
	if err != nil {
		return nil, err
	}
	var entries []*raftpb.Entry
	size := uint64(0)
	next := lo
	for ok := it.First(); ok; ok = it.Next() {
		e, err := readEntry(it, id, next)
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		if size += uint64(len(e.GetData())); len(entries) > 0 && size > maxBytes {
			return entries, it.Close()
		}
		entries, next = append(entries, e), next+1
	}
	if err := it.Close(); err != nil {
		return nil, fmt.Errorf("%v: read entry %d: %w", id, next, err)
	}
	if next != hi {
		return nil, missingEntries(id, lo, hi)
	}
	return entries, nil
}

// readEntry reads the entry where the iterator is, which must be this one.
func readEntry(it *pebble.Iterator, id kv.Group, index kv.Index) (*raftpb.Entry, error) {
	at, err := indexOf(id, it.Key())
	if err != nil {
		return nil, err
	}
	if at != index {
		return nil, fmt.Errorf("%v: the log store does not hold entry %d, before entry %d", id, index, at)
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return nil, fmt.Errorf("%v: read entry %d: %w", id, index, err)
	}
	e, err := decodeEntry(index, value)
	if err != nil {
		return nil, fmt.Errorf("%v: entry %d: %w", id, index, err)
	}
	return e, nil
}

// Write makes all of it take effect atomically.
func (l *PebbleLog) Write(writes []LogWrite, sync bool) error {
	b, err := l.prepare(writes)
	if err != nil {
		return err
	}
	return l.commit(b, sync)
}

// logChange is what the writes of a batch make of a group.
type logChange struct {
	id kv.Group
	// state is what the group will be, and stored what its record says by now, nil when there is none.
	state, stored *LogState
}

// prepare makes the batch of writes, and notes in changes what the groups will be. A refused one leaves nothing behind. The writes of
// several turns wait for one sync: a group's record is put once for all of them.
func (l *PebbleLog) prepare(writes []LogWrite) (*pebble.Batch, error) {
	b := newBatch(l.db)
	l.changes = l.changes[:0]
	clear(l.changed)
	err := l.gather(b, writes)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func (l *PebbleLog) gather(b *pebble.Batch, writes []LogWrite) error {
	for i := range writes {
		if err := l.add(b, &writes[i]); err != nil {
			return err
		}
	}
	for _, c := range l.changes {
		if st := c.state; st != nil && (c.stored == nil || st.Hard != c.stored.Hard || st.Truncated != c.stored.Truncated) {
			l.value = appendLogState(l.value[:0], *st)
			if err := b.Set(logKey(c.id, kindState), l.value, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *PebbleLog) commit(b *pebble.Batch, sync bool) error {
	opts := pebble.NoSync
	if sync {
		opts = pebble.Sync
	}
	l.written++
	if err := errors.Join(addMark(b, l.written, l.synced), b.Commit(opts), b.Close()); err != nil {
		return fmt.Errorf("write to the log store: %w", err)
	}
	if sync {
		l.synced = l.written
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.changes {
		if c.state == nil {
			delete(l.groups, c.id)
		} else {
			l.groups[c.id] = *c.state
		}
	}
	return nil
}

// change gives what the batch has made of a group so far.
func (l *PebbleLog) change(id kv.Group) *logChange {
	if i, ok := l.changed[id]; ok {
		return &l.changes[i]
	}
	c := logChange{id: id}
	if st, ok, _ := l.Load(id); ok {
		c.state, c.stored = &st, &st
	}
	l.changed[id] = len(l.changes)
	l.changes = append(l.changes, c)
	return &l.changes[len(l.changes)-1]
}

// add puts one group's write into a batch, without its record.
func (l *PebbleLog) add(b *pebble.Batch, w *LogWrite) error {
	c := l.change(w.Group)
	if w.Remove {
		c.state, c.stored = nil, nil
		if err := b.DeleteRange(logKey(w.Group, kindState), logKey(w.Group, kindEntry+1), nil); err != nil {
			return err
		}
	}
	if w.onlyRemoves() {
		return nil
	}
	var st LogState
	if c.state != nil {
		st = *c.state
	}
	next, err := st.after(w)
	if err != nil {
		return err
	}
	c.state = &next
	return l.putEntries(b, w, st)
}

// putEntries deletes the entries that a write deletes, and puts in those that it has.
func (l *PebbleLog) putEntries(b *pebble.Batch, w *LogWrite, st LogState) error {
	id := w.Group
	if w.Reset != nil {
		end := logKey(id, kindEntry+1)
		if mutantOldTailKept {
			end = entryKey(id, w.Reset.Index+1)
		}
		if err := b.DeleteRange(logKey(id, kindEntry), end, nil); err != nil {
			return err
		}
		st = st.resetTo(*w.Reset)
	}
	if t := w.Truncate; t != nil && t.Index > st.Truncated.Index {
		if err := b.DeleteRange(entryKey(id, st.Truncated.Index), entryKey(id, t.Index+1), nil); err != nil {
			return err
		}
	}
	if len(w.Entries) == 0 {
		return nil
	}
	key := entryKey(id, 0)
	for _, e := range w.Entries {
		value := appendEntry(l.value[:0], e)
		if cap(value) <= batchKeptBytes {
			l.value = value
		}
		binary.BigEndian.PutUint64(key[groupBytes+1:], e.GetIndex())
		if err := b.Set(key, value, nil); err != nil {
			return err
		}
	}
	if last := kv.Index(w.Entries[len(w.Entries)-1].GetIndex()); last < st.Last {
		return b.DeleteRange(entryKey(id, last+1), entryKey(id, st.Last+1), nil)
	}
	return nil
}

// Metrics describes the store for operators.
func (l *PebbleLog) Metrics() Metrics { return metricsOf(l.db) }

// Close makes everything durable and closes the store.
func (l *PebbleLog) Close() error { return l.close() }
