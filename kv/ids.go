package kv

import "strconv"

// NodeID names one kvd process of a cluster. The meta group gives it, from 1, and never reuses it. 0 is none.
type NodeID uint64

// ShardID names one key range and its Raft group. The meta group gives it, from 1, and never reuses it.
type ShardID uint64

// MetaShard is the meta group: it has a Raft group like a shard's, but holds no user keys.
const MetaShard ShardID = 0

// ReplicaID is a replica's Raft id in its group, from 1, never reused in that group: a replica that left and
// came back is a new one. 0 is none.
type ReplicaID uint64

// Term is a Raft term.
type Term uint64

// Index is a position in a Raft log.
type Index uint64

// Revision counts the write commands that a shard has applied. A key's revision is that count at its last write.
type Revision uint64

// Incarnation is one life of a replica's data on a node. It comes from one counter of the process.
type Incarnation uint64

// Life counts the starts of a node's process on its store. An answer to an earlier life is dropped (T3).
type Life uint64

// ClusterID keeps strangers out: nodes of another cluster are refused.
type ClusterID uint64

// StoreID names one data directory. It is random, and registered with the meta group.
type StoreID uint64

// Birth is where every replica's log begins: nothing lies at or below it, and the state at it is the
// founding (or, for a split's child, the split).
const (
	BirthIndex Index = 10
	BirthTerm  Term  = 5
)

// Group names one replica's place in a store: its shard and its replica id.
type Group struct {
	Shard   ShardID
	Replica ReplicaID
}

func (g Group) String() string {
	return "s" + strconv.FormatUint(uint64(g.Shard), 10) + "/r" + strconv.FormatUint(uint64(g.Replica), 10)
}

// String writes an id as kvcli prints it.
func (c ClusterID) String() string { return hex16(uint64(c)) }

// String writes an id as kvcli prints it.
func (s StoreID) String() string { return hex16(uint64(s)) }

func hex16(v uint64) string {
	s := strconv.FormatUint(v, 16)
	return "0000000000000000"[len(s):] + s
}
