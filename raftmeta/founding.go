package raftmeta

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

const (
	// ReplicasMax is the largest number of replicas of a shard, and of voters of the meta group.
	ReplicasMax = 5
	// InitialShardsMax bounds the shards that a cluster is founded with.
	InitialShardsMax = 16 << 10
	// ClusterVersion is the newest version of commands that this program knows.
	ClusterVersion = 1
)

// FoundingNode is a node of the founding.
type FoundingNode struct {
	Name, Address, Region string
	Store                 kv.StoreID
}

// FoundingSpec is what a cluster begins with.
type FoundingSpec struct {
	Cluster kv.ClusterID
	// Nodes get the ids 1, 2, … in this order.
	Nodes []FoundingNode
	// Cuts are the first keys of all shards but the first.
	Cuts [][]byte
	// Replicas is the wish; a shard has the largest odd number not above it and the number of nodes. It becomes the setting.
	Replicas              int
	TickMs, ElectionTicks uint32
}

// Founding makes the metadata of a new cluster.
func Founding(s FoundingSpec) (*kvdv1.MetaState, error) {
	switch {
	case len(s.Nodes) < 1 || len(s.Nodes) > kv.FoundingNodesMax:
		return nil, &kv.InvalidError{Field: "nodes", Bound: fmt.Sprintf("from 1 to %d, are %d", kv.FoundingNodesMax, len(s.Nodes))}
	case s.Replicas < 1 || s.Replicas > ReplicasMax:
		return nil, &kv.InvalidError{Field: "replicas", Bound: fmt.Sprintf("from 1 to %d, is %d", ReplicasMax, s.Replicas)}
	case len(s.Cuts) >= InitialShardsMax:
		return nil, &kv.InvalidError{Field: "initial shards", Bound: fmt.Sprintf("at most %d", InitialShardsMax)}
	case s.Cluster == 0:
		return nil, &kv.InvalidError{Field: "cluster", Bound: "an id"}
	case s.TickMs == 0 || s.ElectionTicks < 2:
		return nil, &kv.InvalidError{Field: "tick", Bound: "a tick of at least 1 ms and an election timeout of at least 2"}
	}
	m := &kvdv1.MetaState{
		ClusterId: uint64(s.Cluster), Version: 1, NextNode: uint64(len(s.Nodes)) + 1, NextShard: uint64(len(s.Cuts)) + 2,
		ClusterVersion: ClusterVersion, TickMs: s.TickMs, ElectionTicks: s.ElectionTicks, NextReplica: 1, NextGoal: 1,
	}
	for i, n := range s.Nodes {
		m.Nodes = append(m.Nodes, &kvdv1.MetaNode{
			Node:    &kvdv1.Node{Node: uint64(i) + 1, Name: n.Name, Address: n.Address, Region: n.Region},
			StoreId: uint64(n.Store),
		})
	}
	m.Meta = describe(m, kv.MetaShard, nil, nil, 0, ReplicasMax)
	var start []byte
	for i := range len(s.Cuts) + 1 {
		var end []byte
		if i < len(s.Cuts) {
			end = s.Cuts[i]
			if err := kv.CheckKey(fmt.Sprintf("initial shards[%d]", i), end); err != nil {
				return nil, err
			}
			if bytes.Compare(start, end) >= 0 {
				return nil, &kv.InvalidError{Field: fmt.Sprintf("initial shards[%d]", i), Bound: "above the key before it, is " + kv.FormatKey(end)}
			}
		}
		m.Descriptors = append(m.Descriptors, describe(m, kv.ShardID(i+1), start, end, i, s.Replicas))
		start = end
	}
	if wish := s.Replicas - 1 + s.Replicas%2; wish != replicasDefault { // Nodes that join raise it to this.
		m.Settings = append(m.Settings, &kvdv1.SettingValue{Name: Replicas, Value: strconv.Itoa(wish)})
	}
	return m, Check(m)
}

// describe makes the descriptor of a new shard, with replicas on successive nodes from the one at `first` on.
func describe(m *kvdv1.MetaState, shard kv.ShardID, start, end []byte, first, wish int) *kvdv1.Descriptor {
	d := &kvdv1.Descriptor{Shard: uint64(shard), Start: start, End: end, Epoch: &kvdv1.Epoch{Version: 1, Config: 1}}
	n := min(wish, len(m.Nodes))
	n -= 1 - n%2
	for i := range n {
		d.Replicas = append(d.Replicas, &kvdv1.Replica{
			Node: m.Nodes[(first+i)%len(m.Nodes)].Node.Node, Replica: m.NextReplica,
		})
		m.NextReplica++
	}
	return d
}

// InitialCuts reads --initial-shards: a number of shards (cut evenly by the first two bytes of keys), geohash1 (a
// shard each for geo/0 to geo/z), or the name of a file of keys, one a line. Empty is one shard.
func InitialCuts(spec string, readFile func(name string) ([]byte, error)) ([][]byte, error) {
	const field = "initial-shards"
	switch n, err := strconv.Atoi(spec); {
	case spec == "":
		return nil, nil
	case spec == "geohash1":
		var cuts [][]byte
		for _, c := range "123456789bcdefghjkmnpqrstuvwxyz" {
			cuts = append(cuts, []byte("geo/"+string(c)))
		}
		return cuts, nil
	case err == nil:
		if n < 1 || n > InitialShardsMax {
			return nil, &kv.InvalidError{Field: field, Bound: fmt.Sprintf("from 1 to %d shards, is %d", InitialShardsMax, n)}
		}
		var cuts [][]byte
		for i := 1; i < n; i++ {
			at := i * (1 << 16) / n
			cuts = append(cuts, []byte{byte(at >> 8), byte(at)})
		}
		return cuts, nil
	}
	text, err := readFile(spec)
	if err != nil {
		return nil, fmt.Errorf("%s: neither a number, nor geohash1, nor a file: %w", field, err)
	}
	var cuts [][]byte
	for i, line := range strings.Split(strings.TrimRight(string(text), "\n"), "\n") {
		if line = strings.TrimSuffix(line, "\r"); line == "" {
			continue
		}
		key, err := kv.ParseKey(line)
		if err == nil {
			err = kv.CheckKey(field, key)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %s line %d: %w", field, spec, i+1, err)
		}
		cuts = append(cuts, key)
	}
	slices.SortFunc(cuts, bytes.Compare)
	cuts = slices.CompactFunc(cuts, bytes.Equal)
	if len(cuts) >= InitialShardsMax {
		return nil, &kv.InvalidError{Field: field, Bound: fmt.Sprintf("from 1 to %d shards, is %d", InitialShardsMax, len(cuts)+1)}
	}
	return cuts, nil
}

// Birth gives what the replicas on a node begin with, the meta group's among them, in shard order.
func Birth(m *kvdv1.MetaState, node kv.NodeID) []*kvdv1.ShardState {
	var list []*kvdv1.ShardState
	for _, d := range append([]*kvdv1.Descriptor{m.Meta}, m.Descriptors...) {
		var own *kvdv1.Replica
		st := &kvdv1.ShardState{
			Descriptor_: d, AppliedIndex: uint64(kv.BirthIndex), AppliedTerm: uint64(kv.BirthTerm),
			BaseIndex: uint64(kv.BirthIndex), BaseTerm: uint64(kv.BirthTerm),
		}
		for _, r := range d.Replicas {
			if r.Learner {
				st.Learners = append(st.Learners, r.Replica)
			} else {
				st.Voters = append(st.Voters, r.Replica)
			}
			if kv.NodeID(r.Node) == node {
				own = r
			}
		}
		if own == nil {
			continue
		}
		st.Replica = own.Replica
		if kv.ShardID(d.Shard) == kv.MetaShard {
			st.Meta = m
		}
		list = append(list, st)
	}
	return list
}
