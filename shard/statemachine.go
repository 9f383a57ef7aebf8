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
	Changes() []kv.Change
	Checksums() []kv.ChecksumRequest
	// Ends reports that the step must end here: it asks for a checksum, or a shape command was carried out.
	Ends() bool
	// Birth is the state of the child that the step's split has made, but for its replica; nil without one.
	Birth() *kvdv1.ShardState
	// Absorbed is the right shard that the step's merge has absorbed, nil without one.
	Absorbed() *kvdv1.Absorbed
	// Intent is the merge that the shard has begun, and Frozen the one that it is frozen by; nil for none.
	Intent() *kvdv1.IntentState
	Frozen() *kvdv1.FrozenState
	// AdmitShape tells why a shape command would be refused if it were applied now.
	AdmitShape(s *kvdv1.Shape) error
	Finish()
	Committed()
	State() *kvdv1.ShardState
	Descriptor() *kv.Descriptor
	Revision() kv.Revision
	// Time is the shard's, in Unix milliseconds.
	Time() int64
	Applied() (kv.Index, kv.Term)
	// Expiring counts the keys with an expiry, and Bytes those of all keys and values.
	Expiring() uint64
	Bytes() uint64
	Check() error
}

var _ StateMachine = (*Machine)(nil)
