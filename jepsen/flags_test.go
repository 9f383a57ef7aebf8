package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFlags(t *testing.T) {
	s, err := parse([]string{"--workload", "register", "--faults", "kill,pause", "--nodes", "3", "--time", "90s", "--rate", "500", "--seed", "7", "--tags", "mutant_x"})
	require.NoError(t, err)
	require.Equal(t, []string{"kill", "pause"}, s.faults)
	require.Equal(t, 90*time.Second, s.length)
	require.Equal(t, uint64(7), s.seed)
	require.Equal(t, []string{"mutant_x"}, s.tags)

	s, err = parse([]string{"--faults", "all", "--nodes", "3"})
	require.NoError(t, err)
	require.Contains(t, s.faults, "kill")
	require.NotContains(t, s.faults, "move", "three nodes with three replicas have nowhere to move one")
	require.NotContains(t, s.faults, "partition:one", "it is one of those that partition stands for")

	for field, args := range map[string][]string{
		"workload":   {"--workload", "mining"},
		"faults":     {"--faults", "meteor"},
		"nodes":      {"--nodes", "10"},
		"time":       {"--time", "10ms"},
		"rate":       {"--rate", "0"},
		"processes":  {"--processes", "0"},
		"shards":     {"--shards", "257"},
		"idle":       {"--idle-shards", "-1"},
		"namespaces": {"--namespaces", "perhaps"},
		"flags only": {"now"},
	} {
		_, err := parse(args)
		require.ErrorContains(t, err, field)
	}
}
