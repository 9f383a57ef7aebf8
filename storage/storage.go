// Package storage keeps a node's two stores on disk.
//
// The log store holds Raft entries, hard states and truncated points, and is synced. The state store holds data,
// applied indexes, descriptors and counters; it is written in the order of applying and never synced in a turn.
// After a crash the log store has everything that it synced, and the state store is at some earlier consistent
// cut: a prefix, in commit order, of the batches that were committed to it (T2). So nothing may be deleted from
// the log until what replaces it is durable in the state store (T6): ask State.Durable.
//
// Both have two engines with the same semantics, held to one test suite: Pebble for production, and memory for
// the simulator. The file system of the Pebble engines is passed in.
package storage

import (
	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// Point is a position in a log with its term.
type Point struct {
	Index kv.Index
	Term  kv.Term
}

// HardState is Raft's hard state.
type HardState struct {
	Term   kv.Term
	Vote   kv.ReplicaID
	Commit kv.Index
}

// LogState is what the log store holds of a group besides its entries.
type LogState struct {
	Hard HardState
	// Truncated is the point at or below which there are no entries.
	Truncated Point
	// Last is the index of the last entry, or Truncated.Index when there is none.
	Last kv.Index
}

// LogWrite is what one group has for the log store. The parts take effect in the order of the fields.
type LogWrite struct {
	Group kv.Group
	// Remove deletes everything of the group.
	Remove bool
	// Reset deletes all entries and makes this the truncated point; the hard state is kept unless Hard is set (D2).
	Reset *Point
	// Truncate deletes the entries at or below the point and makes it the truncated point. A point at or below
	// the current one does nothing.
	Truncate *Point
	// Entries replace whatever is stored at or after the index of their first. They are consecutive, and follow
	// what is stored without a gap.
	Entries []*raftpb.Entry
	// Hard replaces the hard state.
	Hard *HardState
}

// Log is the log store. Write is called by one goroutine at a time; the readers by any.
type Log interface {
	// Groups lists the groups that the store holds anything of, in order.
	Groups() ([]kv.Group, error)
	// Load reads a group's state; ok is false when the store holds nothing of it.
	Load(g kv.Group) (st LogState, ok bool, err error)
	// Entries reads the entries [lo, hi) as far as they fit in maxBytes of payload, at least one. It fails when
	// one of them is missing. The entries are the caller's.
	Entries(g kv.Group, lo, hi kv.Index, maxBytes uint64) ([]*raftpb.Entry, error)
	// Write makes all of it take effect atomically; with sync it and all earlier writes are durable when it returns.
	Write(writes []LogWrite, sync bool) error
	Close() error
}

// Cut numbers the commits of a state store in one life of the process: 1 is the first batch.
type Cut uint64

// Reader reads user data as of now, or, for a View, as of a moment.
type Reader interface {
	// Get reads a key. The record's value is the caller's.
	Get(key []byte) (rec kv.Record, ok bool, err error)
	// Iter walks a span in key order from before its first key. The caller closes it.
	Iter(span kv.Span) (Iterator, error)
}

// Iterator walks keys in order. Key and Record are valid until the next call; the record's value and the key are
// not the caller's.
type Iterator interface {
	// Next moves on and reports whether there is a key.
	Next() bool
	// Seek moves to the first key at or after key, so that Next moves past it, and reports whether there is one.
	Seek(key []byte) bool
	Key() []byte
	// Record decodes what is stored under the key.
	Record() (kv.Record, error)
	// Close ends the walk and returns what went wrong in it.
	Close() error
}

// Batch gathers the effects of one step, which take effect in the order of the calls. Reads do not see it before it is
// committed.
type Batch interface {
	Put(key []byte, rec kv.Record)
	Delete(key []byte)
	// PutDue and DeleteDue keep the node's index of expiries: a hint, checked against the data by its readers.
	PutDue(d kv.Due)
	DeleteDue(d kv.Due)
	// DeleteSpan deletes all user data in a span, in a step whose cost does not grow with it. It takes away what was put
	// into the batch before it, and not what is put in after. The index of expiries stays: a hint.
	DeleteSpan(span kv.Span)
	// PutShard replaces what a replica keeps of itself.
	PutShard(shard kv.ShardID, st *kvdv1.ShardState)
	// RemoveShard deletes what a replica keeps of itself. Its data is DeleteSpan's.
	RemoveShard(shard kv.ShardID)
	// PutTombstone notes that a replica was removed from this store (M5). Of each shard the highest one is kept.
	PutTombstone(shard kv.ShardID, replica kv.ReplicaID)
	// Bytes is about how much the batch holds.
	Bytes() int
	// Empty reports whether nothing was put in.
	Empty() bool
}

// State is the state store. Commit, Sync and Ingest may be called by any goroutine; commits are ordered as they
// are called.
type State interface {
	Reader
	// Head is Get without the value: what a write must know of the record that it replaces.
	Head(key []byte) (h kv.Head, ok bool, err error)
	NewBatch() Batch
	// Commit makes a batch visible, atomically. It is not durable; the batch is used up.
	Commit(b Batch) (Cut, error)
	// Sync makes every commit before the call durable, and returns the last of them.
	Sync() (Cut, error)
	// Durable is the last commit that is known to be durable, at no cost.
	Durable() Cut
	// Shards reads what the replicas on this store keep of themselves, in shard order.
	Shards() ([]*ShardRecord, error)
	// Tombstones reads the highest replica of each shard that was removed from this store.
	Tombstones() (map[kv.ShardID]kv.ReplicaID, error)
	// Due calls f with the expiries at or before time (Unix milliseconds), from the first one after `from`, in
	// order, until f returns false or n were seen. It reports where it stopped and whether it saw all.
	Due(from kv.Due, time int64, n int, f func(kv.Due) bool) (last kv.Due, all bool, err error)
	// View is a consistent view of a shard's state and of the data in a span as of now, whatever becomes of both. The
	// caller closes it.
	View(shard kv.ShardID, span kv.Span) (View, error)
	// NewIngest starts to gather the data that replaces a shard's in a span (D).
	NewIngest(shard kv.ShardID, span kv.Span) (Ingest, error)
	// Metrics describes the store for operators.
	Metrics() Metrics
	Close() error
}

// ShardRecord is a shard and what its replica here keeps of itself.
type ShardRecord struct {
	Shard kv.ShardID
	State *kvdv1.ShardState
}

// View is a consistent view of one shard.
type View interface {
	Reader
	State() *kvdv1.ShardState
	Close() error
}

// Ingest gathers a shard's data on the disk, in key order, beside the store. The meta group's replaces its state alone:
// it holds no user keys, and what is put in all the same is left out.
type Ingest interface {
	Put(key []byte, rec kv.Record) error
	// Replace widens the span whose data Commit takes away: to what the shard's old replica holds beyond the new data, and
	// what absorbed shards do. It fails with a *kv.InvalidError unless the span contains the one so far.
	Replace(span kv.Span) error
	// Remove has Commit delete the state of another shard, which the ingest's has absorbed, and put the tombstone of its
	// replica here, all in the same step. Its data is Replace's. It fails with a *kv.InvalidError for the shard itself and
	// the meta group's.
	Remove(absorbed kv.Group) error
	// Commit makes all earlier commits of the store durable (D1), then replaces the span's data and the shard's
	// state in one atomic and durable step.
	Commit(st *kvdv1.ShardState) error
	// Abort drops what was gathered; after Commit it does nothing.
	Abort()
}

// Metrics describes a store.
type Metrics struct {
	DiskBytes      uint64
	MemtableBytes  uint64
	ReadAmp        int
	Compactions    int64
	FlushedBytes   uint64
	CompactedBytes uint64
	WALBytes       uint64
	// Syncs counts those of its write-ahead log since it was opened.
	Syncs uint64
}
