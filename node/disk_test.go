package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
	"github.com/kvdstore/kvd/shard"
	"github.com/kvdstore/kvd/storage"
)

func watching(t *testing.T) *Node {
	meta := foundingOf(t, 1)
	n := &Node{Config: Config{DataDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}, inbox: newInbox(), self: Self{Node: 1}}
	n.publishMeta(meta)
	return n
}

// TestNearlyFullDisk: writes end at the reserve, and begin again when there is a little more than that. When even the
// reserve is nearly gone the ballast makes room for what must be written, and no write is taken for that room, not by
// the next process either; when there is room again the ballast is made anew.
func TestNearlyFullDisk(t *testing.T) {
	const mib, total = 1 << 20, 2000 << 20 // So that the reserve is 100 MiB.
	n := watching(t)
	path := filepath.Join(n.DataDir, "BALLAST")
	for _, step := range []struct {
		free    uint64
		full    bool
		ballast int64 // -1: there is none.
		restart bool
	}{
		{free: 200 * mib, ballast: -1},
		{free: 300 * mib, ballast: ballastBytes},
		{free: 100 * mib, ballast: ballastBytes},
		{free: 100*mib - 1, full: true, ballast: ballastBytes},
		{free: 125*mib - 1, full: true, ballast: ballastBytes},
		{free: 125 * mib, ballast: ballastBytes},
		{free: 0, full: true, ballast: 0},
		{free: 64 * mib, full: true, ballast: 0},
		{free: 125 * mib, full: true, ballast: 0},
		{free: 125 * mib, full: true, ballast: 0, restart: true},
		{free: 189*mib - 1, full: true, ballast: 0},
		{free: 189 * mib, ballast: ballastBytes},
		{free: 125 * mib, ballast: ballastBytes},
		{free: 110 * mib, ballast: ballastBytes, restart: true},
	} {
		if step.restart {
			n.disk = diskWatch{}
		}
		require.NoError(t, n.judgeDisk(step.free, total))
		require.Equal(t, step.full, n.disk.full.Load(), "%+v", step)
		if d := n.inbox.take().Disk; step.full {
			require.NotNil(t, d)
			require.Equal(t, step.free, d.FreeBytes, "what a refusal says is as of now")
			require.Greater(t, d.NeedBytes, step.free)
		}
		require.Equal(t, !step.full && step.free > 100*mib, n.room(0), "%+v", step)
		info, err := os.Stat(path)
		if step.ballast < 0 {
			require.ErrorIs(t, err, os.ErrNotExist)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, step.ballast, info.Size(), "%+v", step)
	}
	require.ErrorAs(t, n.noRoom(), new(*kv.DiskFullError))
}

// TestReserveOfADisk: the reserve is the setting's, and on a small disk a twentieth.
func TestReserveOfADisk(t *testing.T) {
	n := watching(t)
	require.NoError(t, n.judgeDisk(1<<30, 1<<40))
	require.False(t, n.disk.full.Load())
	require.NoError(t, n.judgeDisk(1<<30-1, 1<<40))
	require.True(t, n.disk.full.Load())
	require.NoError(t, n.judgeDisk(1<<30-1, 1<<34))
	require.False(t, n.disk.full.Load())
}

// TestTurnThatDoesNotEnd: a turn that waits for the state store waits for the disk, and past the limit the process stops.
// Turns that end are none of that.
func TestTurnThatDoesNotEnd(t *testing.T) {
	l := newLone(t)
	synctest.Test(t, func(t *testing.T) {
		n := watching(t)
		ctx, cancel := context.WithCancel(t.Context())
		fatal := make(chan error, 1)
		n.Config.Fatal = func(err error) { fatal <- err }
		stuck := &stuckState{State: l.state, end: make(chan struct{})}
		n.core, l.core.Host, l.core.State = l.core, n, stuck
		n.loops.Go(func() { n.loop(ctx) })
		n.loops.Go(func() { n.watchTurns(ctx) })
		for began := time.Now(); time.Since(began) < 10*limitOf(n); time.Sleep(turnInterval) {
			before := n.turns.Load()
			n.inbox.signal()
			synctest.Wait()
			require.NotEqual(t, before, n.turns.Load())
		}
		require.Empty(t, fatal)

		began := time.Now()
		stuck.stuck = true
		n.inbox.add(func(in *Input) {
			in.Calls = append(in.Calls, func(c *Core) { _, _ = c.State.Commit(c.State.NewBatch()) })
		})
		err := <-fatal
		require.ErrorContains(t, err, "the disk of the data directory is stuck; mend or replace it and start kvd again")
		require.GreaterOrEqual(t, time.Since(began), limitOf(n))
		require.LessOrEqual(t, time.Since(began), limitOf(n)+3*turnInterval)
		cancel()
		close(stuck.end)
		n.loops.Wait()
	})
}

// TestBusyTurns: a loop that is in a turn whenever it is looked at, but never in the same, is no stuck disk.
func TestBusyTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := watching(t)
		n.Config.Fatal = func(err error) { t.Error(err) }
		ctx, cancel := context.WithCancel(t.Context())
		n.loops.Go(func() { n.watchTurns(ctx) })
		for n.turns.Store(1); n.turns.Load() < 4*uint64(limitOf(n)/turnInterval); n.turns.Add(2) {
			time.Sleep(turnInterval)
			synctest.Wait()
		}
		cancel()
		n.loops.Wait()
	})
}

func limitOf(n *Node) time.Duration {
	return n.meta.Load().setting.Duration(raftmeta.DiskStallExit)
}

// stuckState is a state store that takes no commit any more.
type stuckState struct {
	storage.State
	stuck bool
	end   chan struct{}
}

func (s *stuckState) Commit(b storage.Batch) (storage.Cut, error) {
	if s.stuck {
		<-s.end
		return 0, errors.New("it is over")
	}
	return s.State.Commit(b)
}

// broken is a state store whose disk has failed.
type broken struct{ storage.State }

func (broken) Commit(storage.Batch) (storage.Cut, error) { return 0, errors.New("input/output error") }

// TestNothingIsAnsweredAfterAFailedWrite (T7): what the state store did not take is not there to be read, so no write is
// acknowledged, and nothing is published.
func TestNothingIsAnsweredAfterAFailedWrite(t *testing.T) {
	l := newLone(t)
	l.core.State = broken{l.core.State}
	before := *l.core.groups[1].view.state.Load()
	c := &kv.Command{Op: kv.OpPut, Key: []byte("k"), Value: []byte("v")}
	put := &answer{}
	in := Input{Submissions: []Submission{{Shard: 1, Command: shard.EncodeCommand(c), Bytes: c.Size(), Waiter: put}}}
	for range 8 {
		l.now += 50 * time.Millisecond
		in.Now, in.Written = Now{Boot: l.now, Wall: 1000 + l.now.Milliseconds()}, l.last
		l.core.Turn(in)
		in = Input{}
	}
	require.Error(t, l.fatal)
	require.False(t, put.done)
	require.Equal(t, before, *l.core.groups[1].view.state.Load())
}
