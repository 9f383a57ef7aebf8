package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/jepsen/cluster"
	"github.com/kvdstore/kvd/jepsen/report"
	"github.com/kvdstore/kvd/jepsen/workload"
)

// TestMatrix: every workload meets every fault, and all of them together; no two rows have a seed or a directory in common,
// and a row keeps its seed when only some are wanted.
func TestMatrix(t *testing.T) {
	s, err := parse([]string{"--all", "--out", "x"})
	require.NoError(t, err)
	rows := s.matrix()
	require.Len(t, rows, len(workload.Names())*(len(fitting(5))+1))
	seeds, dirs := map[uint64]row{}, map[string]bool{}
	for _, r := range rows {
		require.NotContains(t, seeds, r.seed)
		seeds[r.seed], dirs[r.dir] = r, true
		if r.name == together {
			require.Equal(t, fitting(5), r.faults)
		} else {
			require.Equal(t, []string{r.name}, r.faults)
		}
	}
	require.Len(t, dirs, len(rows))

	s.only = []string{"bank/kill", "/pause"}
	some := s.matrix()
	require.Len(t, some, 1+len(workload.Names()))
	for _, r := range some {
		require.Equal(t, seeds[r.seed], r)
	}
}

func TestShort(t *testing.T) {
	s, err := parse([]string{"--short"})
	require.NoError(t, err)
	require.Equal(t, 3, s.nodes)
	require.Len(t, s.matrix(), len(workload.Names()))
	s, err = parse([]string{"--short", "--nodes", "5"})
	require.NoError(t, err)
	require.Equal(t, 5, s.nodes)
}

// TestCommand: what is printed of a row makes the same row.
func TestCommand(t *testing.T) {
	s, err := parse([]string{"--all", "--only", "bank/all"})
	require.NoError(t, err)
	r := s.matrix()[0]
	again, err := parse(strings.Fields(r.command([]string{"mutant_x"}))[3:])
	require.NoError(t, err)
	require.Equal(t, r.faults, again.faults)
	require.Equal(t, r.seed, again.seed)
	require.Equal(t, r.length, again.length)
	require.Equal(t, r.workload, again.workload)
	require.Equal(t, []string{"mutant_x"}, again.tags)
}

// TestReasons: each of these alone makes a run count as not passed.
func TestReasons(t *testing.T) {
	fine := report.Figures{QuietRate: 500}
	whole := func() *trial { return &trial{row: row{rate: 1000}, cluster: &cluster.Cluster{}} }
	require.Empty(t, whole().reasons(workload.Verdict{Valid: true}, fine))
	require.Len(t, whole().reasons(workload.Verdict{Valid: true}, report.Figures{QuietRate: 99}), 1)
	broken := whole()
	broken.whole = errors.New("n1 did not become ready")
	require.Equal(t, []string{"n1 did not become ready"}, broken.reasons(workload.Verdict{Valid: true}, fine))
	wrong := workload.Verdict{}
	wrong.Violations = append(wrong.Violations, violation)
	require.Len(t, whole().reasons(wrong, fine), 1)
}

var violation = check.Violation{Key: "k", Text: "seen twice"}
