package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

// TestMissingReplicas: what the map names and its node does not hold is told, and nothing of a node that has not answered.
func TestMissingReplicas(t *testing.T) {
	shards := []*kvdv1.Descriptor{{Shard: 1, Replicas: []*kvdv1.Replica{{Node: 1, Replica: 11}, {Node: 2, Replica: 12}, {Node: 3, Replica: 13}}}}
	node := func(id uint64, name string, replica uint64) *kvdv1.StatusResponse {
		return &kvdv1.StatusResponse{Node: &kvdv1.Node{Node: id, Name: name}, Local: []*kvdv1.ReplicaInfo{{Shard: 1, Replica: replica}}}
	}
	require.Empty(t, missingReplicas(shards, []*kvdv1.StatusResponse{node(1, "a", 11), node(2, "b", 12), node(3, "c", 13)}))
	require.Empty(t, missingReplicas(shards, []*kvdv1.StatusResponse{node(1, "a", 11)}))
	require.Equal(t, []string{"long after everything healed: b does not hold replica 12 of shard 1"},
		missingReplicas(shards, []*kvdv1.StatusResponse{node(1, "a", 11), node(2, "b", 7)}))
}
