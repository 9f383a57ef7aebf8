package shard

import (
	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// StateMachine is what a replica applies entries to: a Machine, or that of the meta group.
//
//	Begin(w) ── Apply ── Apply ── … ── Finish ── w is committed by the owner ── Committed
type StateMachine interface {
	Begin(w Writer)
	Apply(index kv.Index, term kv.Term, b *kvdv1.Batch) ([]kv.Result, error)
	// ApplyConf applies an entry with a configuration change, which apply has raft carry out if it is admitted.
	ApplyConf(index kv.Index, term kv.Term, change *kvdv1.ConfChange, apply func() *raftpb.ConfState) (kv.Result, error)
	// Ends reports that the step must end here: it asks for a checksum, or has changed the shape of the shard.
	Ends() bool
	Changes() []kv.Change
	Checksums() []kv.ChecksumRequest
	Finish()
	Committed()
	State() *kvdv1.ShardState
	Descriptor() *kv.Descriptor
	Revision() kv.Revision
	// Time is the shard's, in Unix milliseconds.
	Time() int64
	Applied() (kv.Index, kv.Term)
	// Expiring counts the keys with an expiry.
	Expiring() uint64
	Check() error
}

var _ StateMachine = (*Machine)(nil)
