package node

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

// The joining of a node (B2).
//
//	   a random store id          a member has given the node id          the stores are made
//	──────────────────▶ JOINING ─────────────────────────────▶ JOINED ─────────────────────▶ READY
//
// Before every arrow's end the record is synced. The store id is synced before the first question, and the meta group
// gives a store the same node id however often it is asked: so a crash at any moment is harmless, and whatever answer
// comes first will do. A store that is JOINING may be registered already, and so founds no cluster of its own any more.

// ErrJoinRefused: the cluster does not take this node, and asking again does not help.
var ErrJoinRefused = errors.New("the cluster does not take this node")

// JoinerConfig is what a Joiner needs.
type JoinerConfig struct {
	Name, Address, Region string
	// Members are addresses to ask, at least one. That of this node may be among them.
	Members []string
	// Record is what the store holds, synced; nil on the first start.
	Record *kvdv1.StoreRecord
	// Rand gives the store id; it must differ from process to process.
	Rand *rand.Rand
}

// Joiner takes one node through the joining. It does no I/O. After every call the driver looks at Unsynced, and if there
// is a record, syncs it and calls Synced, before anything else; then it sends what Ask gives.
type Joiner struct {
	JoinerConfig
	record  *kvdv1.StoreRecord // As synced. Never changed in place.
	pending *kvdv1.StoreRecord // Waits for the driver's sync.
	next    int                // Of Members.
	reasons []string           // Why each of Members has not let this node in.
	refused error
}

// mayJoin reports whether a store belongs to no cluster yet. A founding that only this node can know of does not count.
func mayJoin(r *kvdv1.StoreRecord) bool {
	switch r.GetPhase() {
	case kvdv1.StoreRecord_EMPTY, kvdv1.StoreRecord_JOINING:
		return true
	case kvdv1.StoreRecord_PREPARED:
		return len(r.GetFounding().GetMeta().GetNodes()) == 1
	}
	return false
}

// hasJoined reports whether a store is that of a node which has joined.
func hasJoined(r *kvdv1.StoreRecord) bool {
	return r.GetPhase() == kvdv1.StoreRecord_JOINED || r.GetPhase() == kvdv1.StoreRecord_READY && r.GetFounding() == nil
}

// NewJoiner gives a Joiner that goes on from the record: one that may join, or has.
func NewJoiner(c JoinerConfig) *Joiner {
	j := &Joiner{JoinerConfig: c, record: proto.CloneOf(c.Record), reasons: slices.Repeat([]string{"has not answered"}, len(c.Members))}
	if j.record == nil {
		j.record = &kvdv1.StoreRecord{}
	}
	if hasJoined(j.record) || j.record.Phase == kvdv1.StoreRecord_JOINING {
		return j
	}
	store := j.record.StoreId
	for store == 0 {
		store = c.Rand.Uint64()
	}
	j.pending = &kvdv1.StoreRecord{StoreId: store, Phase: kvdv1.StoreRecord_JOINING}
	return j
}

// Unsynced gives the record that is to be synced before anything else is done; nil when there is none.
func (j *Joiner) Unsynced() *kvdv1.StoreRecord { return j.pending }

// Synced says that the record that Unsynced gave is durable.
func (j *Joiner) Synced() { j.record, j.pending = j.pending, nil }

// Ask gives the next question, and the address to send it to. Every one is to be answered with Answer.
func (j *Joiner) Ask() (address string, r *kvdv1.JoinRequest) {
	return j.Members[j.next], &kvdv1.JoinRequest{Name: j.Name, Address: j.Address, Region: j.Region, StoreId: j.record.StoreId}
}

// Answer takes the answer to the question that Ask gave last, or why there is none. The next one is for the next address.
func (j *Joiner) Answer(resp *kvdv1.JoinResponse, err error) {
	asked := j.next
	j.next = (asked + 1) % len(j.Members)
	if err == nil {
		err = j.take(resp, j.Members[asked])
	}
	if err != nil {
		j.reasons[asked] = err.Error()
	}
}

// take takes an answer, unless it cannot be right.
func (j *Joiner) take(resp *kvdv1.JoinResponse, from string) error {
	meta := resp.GetMeta()
	if resp.GetRefusal() != "" {
		j.refused = fmt.Errorf("%w: %s (said %s)", ErrJoinRefused, resp.Refusal, from)
		return nil
	}
	if err := raftmeta.Check(meta); err != nil {
		return fmt.Errorf("gave an answer that cannot be right: %w", err)
	}
	i := slices.IndexFunc(meta.Nodes, func(n *kvdv1.MetaNode) bool { return n.GetNode().GetNode() == resp.NodeId })
	switch {
	case resp.ClusterId != meta.ClusterId || i < 0 || meta.Nodes[i].StoreId != j.record.StoreId:
		return errors.New("gave an answer that cannot be right: this store is not in the metadata with that node id")
	case meta.ClusterVersion > raftmeta.ClusterVersion:
		j.refused = fmt.Errorf("%w: cluster %v has commands of version %d, and this kvd knows them up to %d: install a newer one",
			ErrJoinRefused, kv.ClusterID(meta.ClusterId), meta.ClusterVersion, raftmeta.ClusterVersion)
		return nil
	}
	j.pending = &kvdv1.StoreRecord{
		StoreId: j.record.StoreId, Phase: kvdv1.StoreRecord_JOINED, ClusterId: resp.ClusterId, NodeId: resp.NodeId, Meta: meta,
	}
	return nil
}

// Done gives the synced record when this node has joined, else nil.
func (j *Joiner) Done() *kvdv1.StoreRecord {
	if j.pending == nil && hasJoined(j.record) {
		return j.record
	}
	return nil
}

// Err tells why this node can never join; nil while it may.
func (j *Joiner) Err() error { return j.refused }

// Record is what the store holds, synced. It is shared and not to be changed.
func (j *Joiner) Record() *kvdv1.StoreRecord { return j.record }

// Missing tells what the joining waits for, a phrase an address.
func (j *Joiner) Missing() (list []string) {
	for i, address := range j.Members {
		list = append(list, address+": "+j.reasons[i])
	}
	return list
}
