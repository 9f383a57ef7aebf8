package main

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/internal/test"
)

// shortTrial is a trial with a cluster in this process.
func shortTrial(t *testing.T, nodes int, args ...string) (*trial, *bytes.Buffer) {
	s, err := parse(append([]string{"--keys", "400", "--rate", "400", "--run", "1s"}, args...))
	require.NoError(t, err)
	c := test.New(t, nodes)
	c.StartAll()
	s.endpoints = c.Addresses()
	x, err := newTrial(s, "test/")
	require.NoError(t, err)
	t.Cleanup(x.close)
	var told bytes.Buffer
	x.out, x.settle, x.shards = &told, 50*time.Millisecond, 3
	return x, &told
}

// TestChanges: splits, merges, moves and hand-overs under load, of which no client sees anything.
func TestChanges(t *testing.T) {
	x, told := shortTrial(t, 4, "--changes", "9", "--kinds", "split,merge,transfer,move")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(t, x.run(ctx), told)
	sum := x.measure()
	require.NoError(t, x.verdict(ctx), told)

	require.Len(t, sum, 5)
	for i, r := range sum {
		require.Positive(t, r.all.TotalCount(), r.kind)
		if i > 0 {
			require.Len(t, r.took, x.changes/4+[]int{1, 0, 0, 0}[i-1], r.kind)
		}
	}
	require.NotEmpty(t, x.scans)
	var table bytes.Buffer
	sum.print(&table, x)
	for _, kind := range append([]string{"quiet"}, x.kinds...) {
		require.Contains(t, table.String(), kind+" ")
	}
}

// TestWhatDoesNotHoldIsTold: each thing that the trial looks for, made up.
func TestWhatDoesNotHoldIsTold(t *testing.T) {
	x, told := shortTrial(t, 1)
	ctx := t.Context()
	require.NoError(t, x.load(ctx))
	require.NoError(t, x.verdict(ctx), told)

	// A key that a scan lacks.
	x.scanOnce(x.clients[2])
	require.Zero(t, x.wrong, told)
	x.added("test/zzz")
	x.scanOnce(x.clients[2])
	require.Equal(t, 1, x.wrong)
	require.Contains(t, told.String(), "lacks test/zzz")
	require.ErrorContains(t, x.verdict(ctx), "1 problems")

	// A write that is lost, a read that is stale, an increment that counts twice.
	writer, counter, reader := x.workers[0], x.workers[writers-1], x.workers[writers]
	for name, spoil := range map[string]func() check.Operation{
		"acknowledged write lost": func() check.Operation {
			o := writer.put([]byte("test/lost"))
			_, err := writer.client.Delete(ctx, []byte("test/lost"))
			require.NoError(t, err)
			return o
		},
		"revision went back": func() check.Operation {
			x.workers[1].history = append(x.workers[1].history, writer.put([]byte("test/stale")))
			old := reader.get([]byte("test/stale"))
			x.workers[1].history = append(x.workers[1].history, writer.put([]byte("test/stale")))
			old.Call, old.Return = x.now(), x.now()
			return old
		},
		"value that nobody wrote": func() check.Operation {
			o := counter.increment([]byte("test/count"))
			_, _, err := counter.client.Increment(ctx, []byte("test/count"), o.Delta)
			require.NoError(t, err)
			return o
		},
	} {
		told.Reset()
		loaded := writer.history
		writer.history = append(writer.history[:len(loaded):len(loaded)], spoil())
		require.ErrorContains(t, x.verdict(ctx), "does not hold", name)
		require.Contains(t, told.String(), name)
		writer.history = loaded
	}

	// A change that nobody could make, and one that was too slow.
	x.wrong = 0
	for _, key := range []string{"test/lost", "test/stale", "test/count"} {
		_, err := writer.client.Delete(ctx, []byte(key))
		require.NoError(t, err)
	}
	x.workers[1].history = x.workers[1].history[:len(x.workers[1].history)-2]
	require.NoError(t, x.verdict(ctx), told)
	s, err := x.serial(ctx, split, 1, time.Millisecond)
	require.NoError(t, err)
	s.changes[0].err = context.DeadlineExceeded
	x.series = append(x.series, s)
	require.ErrorContains(t, x.verdict(ctx), "1 of 1 changes of the kind split were not made")
	slow := &row{kind: split, all: newLatencies(), near: newLatencies()}
	slow.all.add(&check.Operation{Return: int64(90 * time.Millisecond)}, 0)
	require.NoError(t, summary{slow}.tooSlow())
	slow.all.add(&check.Operation{Return: int64(110 * time.Millisecond)}, 0)
	require.ErrorContains(t, summary{slow}.tooSlow(), "split: the 99th percentile is 110")
}

// TestHiddenOperations: of a thread that waited, also what it would have asked meanwhile counts.
func TestHiddenOperations(t *testing.T) {
	l := newLatencies()
	l.add(&check.Operation{Return: int64(100 * time.Millisecond)}, 10*time.Millisecond)
	require.Equal(t, int64(10), l.TotalCount())
	require.InDelta(t, 50*time.Millisecond, l.at(50), 1e6)
}

func TestFlags(t *testing.T) {
	for _, c := range []struct{ flag, field string }{
		{"--nodes=0", "nodes"}, {"--changes=2", "changes"}, {"--keys=1", "keys"}, {"--rate=5001", "rate"}, {"--at-once=17", "at-once"},
		{"--run=1ms", "run"}, {"--kinds=split,jump", "kinds"}, {"--kinds=", "kinds"}, {"more", "flags only"},
	} {
		_, err := parse([]string{c.flag})
		require.ErrorContains(t, err, c.field, c.flag)
	}
}
