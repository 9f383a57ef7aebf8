//go:build !kvdtest

package node

import (
	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/storage"
)

// probe is where a test build (tag kvdtest) looks at what a node does, records it, and can be made to end.
type probe struct{}

func (probe) starts(kv.NodeID, storage.Log, storage.State) error   { return nil }
func (probe) sends(kv.NodeID, []*kvdv1.RaftMessage) (votes int)    { return 0 }
func (probe) sent(int)                                             {}
func (*probe) writes([]storage.LogWrite)                           {}
func (*probe) wrote(storage.Log, []storage.LogWrite, bool) error   { return nil }
func (probe) syncedState()                                         {}
func (probe) installs(kv.NodeID, storage.State, *kvdv1.ShardState) {}
func (probe) installed()                                           {}
