package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/jepsen/cluster"
	"github.com/kvdstore/kvd/jepsen/nemesis"
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
	missing := 0 // Of the rows with all faults together: those that have no time.
	for _, r := range rows {
		require.NotContains(t, seeds, r.seed)
		seeds[r.seed], dirs[r.dir] = r, true
		if r.name == together {
			require.Equal(t, fitting(5), r.faults)
			seen := map[string]bool{}
			for _, round := range r.schedule() {
				for _, step := range round.Steps {
					seen[step.Fault] = true
				}
			}
			missing += len(fitting(5)) - len(seen)
		} else {
			require.Equal(t, []string{r.name}, r.faults)
		}
	}
	require.Len(t, dirs, len(rows))
	require.LessOrEqual(t, missing, len(workload.Names()))

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

// TestReasons: each of these alone makes a run count as not passed; only some accuse kvd.
func TestReasons(t *testing.T) {
	fine := report.Figures{QuietRate: 500}
	valid := workload.Verdict{Valid: true}
	whole := func() *trial { return &trial{row: row{rate: 1000}, cluster: &cluster.Cluster{}} }
	require.Empty(t, whole().weak(valid, fine))
	require.Empty(t, whole().wrong(valid))
	require.Len(t, whole().weak(valid, report.Figures{QuietRate: 99}), 1)
	require.Len(t, whole().weak(workload.Verdict{Valid: true, Undone: []string{"put"}}, fine), 1)
	broken := whole()
	broken.whole = errors.New("n1 did not become ready")
	require.Equal(t, []string{"n1 did not become ready"}, broken.weak(valid, fine))
	accused := workload.Verdict{Violations: []check.Violation{{Rule: check.TornRead, Key: "k"}}}
	require.Len(t, whole().wrong(accused), 1)
	require.Empty(t, whole().weak(accused, fine))
	undecided := workload.Verdict{Violations: []check.Violation{{Rule: check.TimedOut, Key: "k"}}}
	require.Empty(t, whole().wrong(undecided))
	require.Len(t, whole().weak(undecided, fine), 1)
}

// TestMutantList: the rows that mutants are hunted in are possible ones, and the names are those of mutants that there are.
func TestMutantList(t *testing.T) {
	list, err := mutantList("..")
	require.NoError(t, err)
	known := map[string]bool{}
	for _, m := range list {
		known[m.tag] = true
		require.NotEmpty(t, m.breaks)
		require.NotEmpty(t, m.hunts)
		for _, of := range m.hunts {
			require.Contains(t, workload.Names(), of.workload)
			require.NoError(t, nemesis.Parse(of.faults, 5), m.tag)
		}
	}
	require.Greater(t, len(list), 30)
	for tag := range huntsOf {
		require.True(t, known[tag], "there is no mutant %s", tag)
	}
	_, err = mutantList(t.TempDir())
	require.ErrorContains(t, err, "table of mutants")
}

// TestMissed: a run without the fault that it was to have does not count as passed.
func TestMissed(t *testing.T) {
	r := &trial{row: row{rate: 1000, faults: []string{"kill"}}, cluster: &cluster.Cluster{}, nemesis: nemesis.New(nemesis.Config{})}
	require.Equal(t, []string{"none of the faults was injected: kill"}, r.weak(workload.Verdict{Valid: true}, report.Figures{QuietRate: 500}))
}

// TestBroken: a run that comes to no end because a node has cried out is an invalid one, and no other is begun in its place; one
// of which nothing is known is none.
func TestBroken(t *testing.T) {
	r := &trial{row: row{workload: "set", dir: t.TempDir()}, h: &harness{settings: &settings{}}}
	why := unbegun{errors.New("n1 does not run")}
	require.NoError(t, os.Mkdir(filepath.Join(r.dir, nodesDir), 0o755))
	file := filepath.Join(r.dir, nodesDir, "n1.log")
	require.NoError(t, os.WriteFile(file, []byte("all is well\n"), 0o644))
	got, err := r.broken(t.Context(), why)
	require.Nil(t, got)
	require.ErrorAs(t, err, new(unbegun))
	require.NoError(t, os.WriteFile(file, []byte("all is well\npanic: it is not\n"), 0o644))
	got, err = r.broken(t.Context(), why)
	require.NoError(t, err)
	require.False(t, got.Valid)
	require.Equal(t, []string{file + ": panic: it is not"}, got.Wrong)
	require.Contains(t, got.Reasons, "n1 does not run")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = r.broken(ctx, why)
	require.ErrorAs(t, err, new(unbegun))
}
