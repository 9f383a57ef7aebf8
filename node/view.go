package node

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/kvdstore/kvd/cache"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/storage"
)

// readState is what a replica has published for readers. It is immutable; the loop replaces it (T4).
type readState struct {
	descriptor  *kv.Descriptor
	incarnation kv.Incarnation
	term        kv.Term
	// leader tells that this replica leads in term; lead is the node that does, as far as it knows, 0 when unknown.
	leader bool
	lead   kv.NodeID
	// leaseUntil is the end of the lease in time since the machine's boot; 0 when there is none.
	leaseUntil time.Duration
	// installing: a snapshot is replacing the data, nothing may be read.
	installing bool
}

// View is what readers in other goroutines see of a replica.
type View struct {
	shard kv.ShardID
	state atomic.Pointer[readState]
	// mayBeVisible and applied are revisions: before and after a step is visible (R2).
	mayBeVisible, applied atomic.Uint64
	// time is the shard's, in Unix milliseconds.
	time atomic.Int64
	// wanted is set by readers that used or missed the lease; the loop clears it.
	wanted atomic.Bool
	// late is set by readers that found a record past its time (R5); the loop clears it where the shard is led.
	late atomic.Bool
	// waiting counts the commands that were accepted and not answered, and queued is their size in bytes.
	waiting, queued atomic.Int64
	meter           meter
	// changes counts how often something changed that requests wait for; awaited is closed at the next change, and nil
	// while nobody waits.
	changes atomic.Uint64
	awaited atomic.Pointer[chan struct{}]
}

// wake tells those that wait that the leader, the span or the data has changed, or that the replica has gone.
func (v *View) wake() {
	v.changes.Add(1)
	if c := v.awaited.Swap(nil); c != nil {
		close(*c)
	}
}

// changed gives what is closed when something has changed since so many changes.
func (v *View) changed(seen uint64) <-chan struct{} {
	c := v.awaited.Load()
	for c == nil {
		made := make(chan struct{})
		if v.awaited.CompareAndSwap(nil, &made) {
			c = &made
		} else {
			c = v.awaited.Load()
		}
	}
	if v.changes.Load() == seen {
		return *c // A change that comes now finds the channel.
	}
	over := make(chan struct{})
	close(over)
	return over
}

// Shard is the id of the view's shard.
func (v *View) Shard() kv.ShardID { return v.shard }

// Descriptor is the shard's as readers see it. It is shared and read-only.
func (v *View) Descriptor() *kv.Descriptor { return v.state.Load().descriptor }

// Lead tells which node leads the shard, 0 when unknown, in which term, and, if it is this one, until when its lease
// runs (time since the machine's boot, 0 for none).
func (v *View) Lead() (node kv.NodeID, term kv.Term, leaseUntil time.Duration) {
	s := v.state.Load()
	if s.installing { // Frozen for a merge, it may lead on while its keys are served elsewhere (G1).
		return s.lead, s.term, 0
	}
	return s.lead, s.term, s.leaseUntil
}

// Reader reads from the replicas of this node, in the callers' goroutines.
type Reader struct {
	Node  kv.NodeID
	Guard *cache.Guard
	State storage.Reader
	// Wall is a clock, in Unix milliseconds.
	Wall func() int64
}

// late reports that a record is long past its time and the shard's time does not say so yet: no leader could move it, or
// only now one can. Then nothing is told rather than what should be gone (R5), and the loop hears of it.
func (r *Reader) late(v *View, rec kv.Record) bool {
	if mutantLateReads || rec.ExpireAt == 0 || r.Wall()-int64(kv.ExpiryLateMax/time.Millisecond) <= rec.ExpireAt {
		return false
	}
	v.late.Store(true)
	return true
}

// Proof is what makes a read of a replica good enough.
type Proof struct {
	kind proofKind
	at   time.Duration
}

type proofKind uint8

const (
	byNothing proofKind = iota
	byReadIndex
	byLease
)

// ByNothing: an eventual read.
func ByNothing() Proof { return Proof{} }

// ByReadIndex: a ReadIndex that began after the read was confirmed and applied here.
func ByReadIndex() Proof { return Proof{kind: byReadIndex} }

// ByLease: the replica leads, and its lease holds at a moment after the request for the read has come (L3), in time since the
// machine's boot with the time that it slept, above 0.
func ByLease(at time.Duration) Proof { return Proof{kind: byLease, at: at} }

// Lease gives the moment of ByLease; with ok false the proof is another.
func (p Proof) Lease() (at time.Duration, ok bool) { return p.at, p.kind == byLease }

// Get is one read of one key in three steps. Between them the loop may run, and each step looks again at what matters.
//
//	Look ── hit ──────────────────────────────> Ok
//	  └──── miss ──> Load ──> Finish ──────────> Ok
//
// With Ok false the read tells nothing: there is no lease, the replica's data was replaced in between (L8), or what it
// found should have expired (R5).
type Get struct {
	Ok     bool
	Found  bool
	Record kv.Record
	Header kv.Header

	view   *View
	state  *readState
	word   cache.Word
	loaded bool
}

// Look checks the proof and looks into the cache. With done, the answer is in g.
func (r *Reader) Look(v *View, key []byte, proof Proof) (g Get, done bool) {
	if g = r.begin(v, key, proof); g.view == nil {
		return Get{}, true
	}
	rec, word, hit := r.Guard.Get(g.state.incarnation, key, v.time.Load())
	g.word = word
	if !hit {
		return g, false
	}
	r.hit(&g, key, rec)
	return g, true
}

// hit takes what was in the cache.
func (r *Reader) hit(g *Get, key []byte, rec kv.Record) {
	if r.late(g.view, rec) {
		*g = Get{}
		return
	}
	g.Record, g.Found = rec, true
	r.check(g, key)
}

// Read is one of many reads from the cache: a key, and what Look would tell of it. Where it is not done, nothing is told.
type Read struct {
	Key []byte
	Get
}

// together is how many reads are looked up together: what one step brings near must still be there in the next.
const together = 32

// LookAll does what Look does for each of some reads, of the replicas that hold their keys, with the same proof.
func (r *Reader) LookAll(l *locals, reads []Read, proof Proof) {
	for some := range slices.Chunk(reads, together) {
		var keys [together]cache.Sought
		for i := range some {
			x := &some[i]
			x.Get = Get{}
			if v := l.find(x.Key); v != nil {
				if x.Get = r.begin(v, x.Key, proof); x.view != nil {
					keys[i].Key = x.Key
				}
			}
		}
		r.Guard.Seek(keys[:len(some)])
		for i := range some {
			x := &some[i]
			if x.view == nil {
				continue
			}
			if rec, _, hit := r.Guard.Take(&keys[i], x.state.incarnation, x.view.time.Load()); hit {
				r.hit(&x.Get, x.Key, rec)
			} else {
				x.Get = Get{}
			}
		}
	}
}

// Missed is Look by who knows that the key is not in the cache: it looks there for nothing, and counts no miss again.
func (r *Reader) Missed(v *View, key []byte, proof Proof) (g Get, done bool) {
	if g = r.begin(v, key, proof); g.view == nil {
		return Get{}, true
	}
	g.word = r.Guard.Word(key)
	return g, false
}

// Peek gives the head of a record if it is in the cache: what the state store had at some moment within the call, whoever leads. A
// caller that sees there, before and after, whether anything was committed in between knows when.
func (r *Reader) Peek(v *View, key []byte) (kv.Head, bool) {
	g := r.begin(v, key, ByNothing())
	if g.view == nil {
		return kv.Head{}, false
	}
	rec, hit := r.Guard.Peek(g.state.incarnation, key)
	return rec.Head(), hit && g.holds(key)
}

// begin checks the proof of a read; without one there is no view in it.
func (r *Reader) begin(v *View, key []byte, proof Proof) Get {
	s := v.state.Load()
	if s.installing || !s.descriptor.Span.Contains(key) {
		return Get{}
	}
	if at, ok := proof.Lease(); ok {
		if !s.leader || s.leaseUntil == 0 || (at <= 0 || at >= s.leaseUntil) && !mutantClockNotRead {
			return Get{}
		}
		if !v.wanted.Load() {
			v.wanted.Store(true)
		}
	}
	return Get{view: v, state: s}
}

// Load reads the state store after a miss.
func (r *Reader) Load(g *Get, key []byte) error {
	rec, found, err := r.State.Get(key)
	if err != nil {
		return fmt.Errorf("read %s from the state store: %w", kv.FormatKey(key), err)
	}
	g.Record, g.loaded = rec, found
	return nil
}

// Finish offers what was loaded to the cache and checks that it counts.
func (r *Reader) Finish(g *Get, key []byte) {
	if g.Found = g.loaded && !g.Record.ExpiredAt(g.view.time.Load()); g.Found {
		if r.late(g.view, g.Record) {
			*g = Get{}
			return
		}
		r.Guard.Fill(g.state.incarnation, key, g.Record, g.word)
	} else {
		g.Record = kv.Record{}
	}
	r.check(g, key)
}

// holds reports whether the data that was read is still the replica's, and has the key; the read state is then the newest.
func (g *Get) holds(key []byte) bool {
	now := g.view.state.Load()
	if now != g.state && (now.incarnation != g.state.incarnation || now.installing || !now.descriptor.Span.Contains(key)) {
		return false
	}
	g.state = now
	return true
}

// check compares the read state again: data that was replaced or taken away in between tells nothing (L8).
func (r *Reader) check(g *Get, key []byte) {
	if !g.holds(key) {
		*g = Get{}
		return
	}
	g.Ok = true
	g.view.meter.read(key, len(key)+len(g.Record.Value))
	g.Header = kv.Header{
		Shard: g.view.shard, Epoch: g.state.descriptor.Epoch, Revision: kv.Revision(g.view.mayBeVisible.Load()), Node: r.Node,
	}
}

// Scan reads what a replica holds of a span, up to a chunk's bound, at one revision. The caller has made sure that the
// replica is new enough.
func (r *Reader) Scan(v *View, q kv.ScanRequest) (kv.Chunk, error) {
	s := v.state.Load()
	if s.installing || !s.descriptor.Span.Contains(q.Span.Start) {
		return kv.Chunk{}, &kv.NotLeaderError{Shard: v.shard}
	}
	span := q.Span.Intersect(s.descriptor.Span)
	it, err := r.State.Iter(span)
	if err != nil {
		return kv.Chunk{}, fmt.Errorf("read %v: %w", span, err)
	}
	// What the iterator shows is in these, since it was opened before.
	time := v.time.Load()
	chunk := kv.Chunk{Header: kv.Header{
		Shard: v.shard, Epoch: s.descriptor.Epoch, Revision: kv.Revision(v.mayBeVisible.Load()), Node: r.Node,
	}}
	more, err := r.collect(v, it, q, time, &chunk)
	if err := errors.Join(err, it.Close()); err != nil {
		return kv.Chunk{}, fmt.Errorf("read %v: %w", span, err)
	}
	if now := v.state.Load(); now.incarnation != s.incarnation || now.installing || !now.descriptor.Span.Equal(s.descriptor.Span) {
		return kv.Chunk{}, &kv.NotLeaderError{Shard: v.shard}
	}
	v.meter.scanned(q.Span.Start, chunk.Items)
	if !mutantScanEndsWithShard && !more && len(s.descriptor.Span.End) > 0 && (len(q.Span.End) == 0 || bytes.Compare(s.descriptor.Span.End, q.Span.End) < 0) {
		chunk.Resume = s.descriptor.Span.End
	}
	return chunk, nil
}

// collect gathers the items of a chunk. more tells that the bound ended it, with the key to go on from in Resume.
func (r *Reader) collect(v *View, it storage.Iterator, q kv.ScanRequest, time int64, chunk *kv.Chunk) (more bool, err error) {
	size := 0
	for it.Next() {
		rec, err := it.Record()
		if err != nil {
			return false, err
		}
		if rec.ExpiredAt(time) {
			continue
		}
		if r.late(v, rec) {
			return false, &kv.NotLeaderError{Shard: chunk.Header.Shard}
		}
		if q.KeysOnly {
			rec.Value = nil
		}
		size += len(it.Key()) + len(rec.Value) + itemBytes
		if len(chunk.Items) > 0 && (size > q.ChunkBytes() || q.Limit > 0 && len(chunk.Items) == q.Limit) {
			chunk.Resume = bytes.Clone(it.Key())
			return true, nil
		}
		rec.Value = bytes.Clone(rec.Value)
		chunk.Items = append(chunk.Items, kv.Item{Key: bytes.Clone(it.Key()), Record: rec})
	}
	return false, nil
}

// itemBytes is about what an item takes in an answer besides its key and value.
const itemBytes = 24
