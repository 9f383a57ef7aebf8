package kv

import "slices"

// Epoch says which shape of a shard a message speaks of. Version rises at each split and merge, and when a merge is given
// up or its freeze ended; Config at each membership change.
type Epoch struct {
	Version, Config uint64
}

// Replica is one member of a shard's group.
type Replica struct {
	Node    NodeID
	Replica ReplicaID
	// Learner receives the log and does not vote.
	Learner bool
	// While the configuration is joint: Incoming votes in the new one only; Outgoing votes in the old one only, and is a
	// learner afterwards.
	Incoming, Outgoing bool
}

// Descriptor is what the shard map holds of a shard. It is shared and never changed in place.
type Descriptor struct {
	Shard ShardID
	Span  Span
	Epoch Epoch
	// Replicas are in the order in which the shard would like to be led: the first leads if it can.
	Replicas []Replica
}

// OnNode gives the replica that a node holds.
func (d *Descriptor) OnNode(node NodeID) (Replica, bool) {
	i := slices.IndexFunc(d.Replicas, func(r Replica) bool { return r.Node == node })
	if i < 0 {
		return Replica{}, false
	}
	return d.Replicas[i], true
}

// NodeOf gives the node of a replica, 0 for a stranger.
func (d *Descriptor) NodeOf(id ReplicaID) NodeID {
	for _, r := range d.Replicas {
		if r.Replica == id {
			return r.Node
		}
	}
	return 0
}

// Voters counts the members that vote; of a joint configuration, in the new one.
func (d *Descriptor) Voters() int {
	n := 0
	for _, r := range d.Replicas {
		if !r.Learner && !r.Outgoing {
			n++
		}
	}
	return n
}

// VotersBefore counts the members that vote in the old configuration of a joint one; else it is Voters.
func (d *Descriptor) VotersBefore() int {
	n := 0
	for _, r := range d.Replicas {
		if !r.Learner && !r.Incoming {
			n++
		}
	}
	return n
}

// Joint reports that the group is between two configurations.
func (d *Descriptor) Joint() bool {
	return slices.ContainsFunc(d.Replicas, func(r Replica) bool { return r.Incoming || r.Outgoing })
}

// Newer reports that the epoch is above another: none of its halves is lower, and one is higher.
func (e Epoch) Newer(than Epoch) bool {
	return e != than && e.Version >= than.Version && e.Config >= than.Config
}
