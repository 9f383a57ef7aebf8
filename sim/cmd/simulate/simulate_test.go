package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// asWorker in the environment makes the test's binary a worker that obeys a script, by seed.
const asWorker = "KVD_SIMULATE_TEST_WORKER"

// The script: what becomes of some seeds of a worker that is not the real one.
const (
	deadSeed  = 3
	wrongSeed = 10
	hungSeed  = 11
	// laterWrongSeed has no hung one after it.
	laterWrongSeed = 210
)

func TestMain(m *testing.M) {
	if os.Getenv(asWorker) != "" {
		scripted(os.Stdin, os.Stdout)
		return
	}
	os.Exit(m.Run())
}

func scripted(in io.Reader, out io.Writer) {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		seed, _ := strconv.ParseUint(lines.Text(), 10, 64)
		r := result{Seed: seed}
		r.Stats.Turns = 1
		switch seed {
		case wrongSeed, laterWrongSeed:
			r.Error = "two leaders in a term\nmore of it"
		case deadSeed:
			fmt.Fprintln(os.Stderr, "fatal error: concurrent map writes")
			os.Exit(3)
		case hungSeed:
			_, _ = io.Copy(io.Discard, in) // Until it is killed.
			return
		}
		_ = json.NewEncoder(out).Encode(r)
	}
}

func scriptedFarm(t *testing.T, workers int, limit time.Duration) *farm {
	self, err := os.Executable()
	require.NoError(t, err)
	return &farm{workers: workers, limit: limit, worker: func(ctx context.Context) *exec.Cmd {
		c := exec.CommandContext(ctx, self)
		c.Env = append(os.Environ(), asWorker+"=1")
		return c
	}}
}

// TestSeedsAreHandedOutOnce: each, whoever asks, and no more than there are.
func TestSeedsAreHandedOutOnce(t *testing.T) {
	s := newSeeds(t.Context(), 100, 1000)
	var mu sync.Mutex
	var all []uint64
	var takers sync.WaitGroup
	for range 8 {
		takers.Go(func() {
			for seed, ok := s.take(); ok; seed, ok = s.take() {
				mu.Lock()
				all = append(all, seed)
				mu.Unlock()
			}
		})
	}
	takers.Wait()
	slices.Sort(all)
	require.Len(t, slices.Compact(all), 1000)
	require.EqualValues(t, 100, all[0])
	require.EqualValues(t, 1099, all[999])
}

// TestSeedsEnd: with the last number there is, and when they are stopped.
func TestSeedsEnd(t *testing.T) {
	s := newSeeds(t.Context(), math.MaxUint64-1, 0)
	for _, want := range []uint64{math.MaxUint64 - 1, math.MaxUint64} {
		seed, ok := s.take()
		require.True(t, ok)
		require.Equal(t, want, seed)
	}
	_, ok := s.take()
	require.False(t, ok)

	s = newSeeds(t.Context(), 1, 0)
	s.stop()
	_, ok = s.take()
	require.False(t, ok)
}

// TestADeadWorkerCostsItsSeed: the others go on, each seed is judged, and failing ones are kept in a line each.
func TestADeadWorkerCostsItsSeed(t *testing.T) {
	var out, keep bytes.Buffer
	tally := &tally{out: &out, keep: &keep, failuresMax: 10, build: build{commit: "0123456789abcdef", tags: "mutant_x"}}
	require.NoError(t, scriptedFarm(t, 3, time.Minute).run(t.Context(), newSeeds(t.Context(), 1, 10), tally))
	tally.summary()
	require.NoError(t, tally.err)
	require.Equal(t, 10, tally.seeds)
	require.Equal(t, 9, tally.total.Turns)
	require.Len(t, tally.failed, 2)

	lines := strings.Split(strings.TrimSpace(keep.String()), "\n")
	slices.Sort(lines)
	require.Len(t, lines, 2, "%s", keep.String())
	require.Equal(t, "10\t0123456789ab tags mutant_x\ttwo leaders in a term", lines[0])
	require.Regexp(t, `^3\t.*\tthe worker died: exit status 3: fatal error: concurrent map writes$`, lines[1])
	for _, want := range []string{
		"more of it",
		"go run -tags mutant_x ./sim/cmd/simulate --replay 10", "go run -tags mutant_x ./sim/cmd/simulate --replay 3", "10 seeds", "2 failed",
	} {
		require.Contains(t, out.String(), want)
	}
}

// TestASeedWithoutEndFails: its worker is killed, and the next seed has another.
func TestASeedWithoutEndFails(t *testing.T) {
	tally := &tally{out: io.Discard, failuresMax: 10}
	require.NoError(t, scriptedFarm(t, 1, time.Millisecond).run(t.Context(), newSeeds(t.Context(), hungSeed, 1), tally))
	require.Len(t, tally.failed, 1)
	require.Equal(t, "no end within 1ms", tally.failed[0].Error)
}

// TestEnoughFailuresEndARun: nothing is handed out any more, though nothing bounds the seeds.
func TestEnoughFailuresEndARun(t *testing.T) {
	tally := &tally{out: io.Discard, failuresMax: 1}
	require.NoError(t, scriptedFarm(t, 1, time.Minute).run(t.Context(), newSeeds(t.Context(), laterWrongSeed-2, 0), tally))
	require.EqualValues(t, laterWrongSeed, tally.failed[0].Seed)
}

// TestAnInterruptGivesUpSeedsUnderWay: one that was not done is no failure, and the run ends.
func TestAnInterruptGivesUpSeedsUnderWay(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	tally := &tally{out: called(interrupt), failuresMax: 10} // It comes with the failing seed, while the other hangs.
	require.NoError(t, scriptedFarm(t, 2, time.Hour).run(ctx, newSeeds(ctx, wrongSeed, 2), tally))
	require.Len(t, tally.failed, 1)
	require.EqualValues(t, wrongSeed, tally.failed[0].Seed)
}

// called is called at each write.
type called func()

func (c called) Write(text []byte) (int, error) {
	c()
	return len(text), nil
}

// TestAWorkerThatCannotStart is what the exit code 2 is for.
func TestAWorkerThatCannotStart(t *testing.T) {
	f := &farm{workers: 2, limit: time.Minute, worker: func(ctx context.Context) *exec.Cmd {
		return exec.CommandContext(ctx, filepath.Join(t.TempDir(), "missing"))
	}}
	require.ErrorIs(t, f.run(t.Context(), newSeeds(t.Context(), 1, 0), &tally{out: io.Discard}), os.ErrNotExist)
}

func TestFlags(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--workers 0", "workers"}, {"--failures 0", "failures"}, {"--for 0s", "for"}, {"--limit 1ms", "limit"}, {"now", "now"}, {"--seeds x", "seeds"},
	} {
		var log bytes.Buffer
		require.Equal(t, exitUnable, command(t.Context(), strings.Fields(c.args), nil, io.Discard, &log), c.args)
		require.Contains(t, log.String(), c.want)
	}
}

// TestAMutantIsFoundAndKept runs the command as it is built: without a mutant it fails no seed, with one it does, keeps
// it, and replays it to the same error.
func TestAMutantIsFoundAndKept(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the simulator twice")
	}
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("there is no go command here: ", err)
	}
	dir := t.TempDir()
	built := func(name string, flags ...string) string {
		path := filepath.Join(dir, name)
		out, err := exec.CommandContext(t.Context(), tool, append(append([]string{"build"}, flags...), "-o", path, ".")...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		return path
	}
	out, err := exec.CommandContext(t.Context(), built("sound"), "--seeds", "20", "--workers", "2").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "20 seeds")

	mutant, keep := built("mutant", "-tags", "mutant_sync_skipped"), filepath.Join(dir, "keep")
	out, err = exec.CommandContext(t.Context(), mutant, "--seeds", "500", "--workers", "2", "--failures", "1", "--keep", keep).CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, "%s", out)
	require.Equal(t, exitFailed, exit.ExitCode(), "%s", out)
	kept, err := os.ReadFile(keep)
	require.NoError(t, err)
	line, _, _ := strings.Cut(string(kept), "\n")
	columns := strings.Split(line, "\t")
	require.Len(t, columns, 3, "%s", kept)
	require.Contains(t, columns[1], "tags mutant_sync_skipped")

	out, err = exec.CommandContext(t.Context(), mutant, "--replay", columns[0]).CombinedOutput()
	require.ErrorAs(t, err, &exit, "%s", out)
	require.Equal(t, exitFailed, exit.ExitCode(), "%s", out)
	require.Contains(t, string(out), columns[2])
	require.NotContains(t, string(out), "a second run differed")
}
