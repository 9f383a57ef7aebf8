package node

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/shard"
)

// seconds lets time pass.
func (l *lone) seconds(n int) {
	for range n * int(time.Second/(50*time.Millisecond)) {
		l.tick()
	}
}

// command adds a command to the next turn.
func (l *lone) command(c *kv.Command) {
	l.in.Submissions = append(l.in.Submissions, Submission{Shard: 1, Command: shard.EncodeCommand(c), Bytes: c.Size()})
}

// TestShardLoad: reads, the items of scans, commands that wrote, and their bytes, a second, over the last ten; what was
// refused wrote nothing.
func TestShardLoad(t *testing.T) {
	r := newReadable(t)
	r.seconds(12)
	require.Equal(t, &kvdv1.ShardLoad{}, r.core.groups[1].shardLoad())
	for i := range 20 {
		r.command(&kv.Command{Op: kv.OpPut, Key: fmt.Appendf(nil, "k%02d", i), Value: make([]byte, 97)})
		r.command(&kv.Command{Op: kv.OpPut, Key: fmt.Appendf(nil, "k%02d", i), Cond: kv.Condition{Kind: kv.IfAbsent}})
	}
	r.command(&kv.Command{Op: kv.OpDelete, Key: []byte("k00")}) // One that was put in the same step.
	r.tick()
	for i := range 30 { // 10 of them of keys that are not there.
		require.True(t, r.get(fmt.Sprintf("k%02d", i), ByNothing(), func() {}).Ok)
	}
	for _, start := range []string{"k10", "x", "y"} {
		_, err := r.reader.Scan(r.view, kv.ScanRequest{Span: kv.Span{Start: []byte(start)}})
		require.NoError(t, err)
	}
	r.seconds(1)
	load := r.core.groups[1].shardLoad()
	require.InDelta(t, (30+10+2)/10., load.Reads, 1e-9)
	require.InDelta(t, 21/10., load.Writes, 1e-9)
	require.InDelta(t, (19*100+3+30*3+19*97+10*100)/10., load.Bytes, 1e-9)
	require.Nil(t, load.HottestKey, "few requests tell nothing of keys")
	described := r.core.Describe()[1]
	require.InDelta(t, 4.2, described.Reads, 1e-9)
	require.InDelta(t, 2.1, described.Writes, 1e-9)
	require.InDelta(t, 6.3, described.Load, 1e-9)
	r.seconds(12)
	require.Equal(t, &kvdv1.ShardLoad{}, r.core.groups[1].shardLoad())
}

// TestRates: the load is that of the last ten seconds. It begins anew with another span, and when there was no reading for
// long.
func TestRates(t *testing.T) {
	span := kv.Span{End: []byte("m")}
	for name, test := range map[string]struct {
		readings []int64 // Seconds and reads by turns; a second below 0 is one of the other span.
		want     float64
	}{
		"none":              {nil, 0},
		"one":               {[]int64{5, 100}, 0},
		"two":               {[]int64{5, 100, 6, 150}, 50},
		"the window":        {[]int64{0, 0, 1, 100, 2, 100, 6, 100, 11, 200, 12, 300}, 20},
		"a span of its own": {[]int64{0, 0, 1, 100, 2, 200, -3, 300, -4, 310}, 10},
		"a long gap":        {[]int64{0, 0, 1, 0, 1000, 7, 1001, 57}, 50},
	} {
		t.Run(name, func(t *testing.T) {
			r := rates{}
			for i := 0; i < len(test.readings); i += 2 {
				at, of := test.readings[i], span
				if at < 0 {
					at, of = -at, kv.Span{Start: []byte("m")}
				}
				r.add(of, reading{time.Duration(at) * time.Second, totals{reads: test.readings[i+1]}})
			}
			reads, _, _ := r.perSecond()
			require.InDelta(t, test.want, reads, 1e-9)
			require.LessOrEqual(t, len(r.list), 12)
		})
	}
}

// TestRatesOfALeader: the load of a new leader is that since it leads.
func TestRatesOfALeader(t *testing.T) {
	r, reads := rates{}, int64(0)
	for second := range 12 {
		if second >= 8 {
			reads += 500
		}
		r.role(second >= 8)
		r.add(kv.Span{}, reading{time.Duration(second) * time.Second, totals{reads: reads}})
	}
	got, _, _ := r.perSecond()
	require.InDelta(t, 500, got, 1e-9)
}

// TestHotKeys: whatever takes most requests is found, however it comes: in rounds with others, read, scanned, or written
// many times in one step. It is forgotten when it is over.
func TestHotKeys(t *testing.T) {
	key := func(i int) []byte { return fmt.Appendf(nil, "k%03d", i) }
	for name, test := range map[string]struct {
		serve func(r *readable)
		key   []byte // nil for anyone.
		share float64
	}{
		"reads in rounds of as many as one is sampled of": {func(r *readable) {
			for range 300 {
				for i := range kv.SampleEvery {
					r.get(string(key(i)), ByNothing(), func() {})
				}
			}
		}, nil, 1. / kv.SampleEvery},
		"every second read": {func(r *readable) {
			for i := range 10_000 {
				r.get(string(key(i%500)), ByNothing(), func() {})
				r.get("hot", ByNothing(), func() {})
			}
		}, []byte("hot"), 0.5},
		"writes of one step": {func(r *readable) {
			for i := range 3000 {
				r.command(&kv.Command{Op: kv.OpIncrement, Key: []byte("hot"), Delta: 1})
				r.command(&kv.Command{Op: kv.OpPut, Key: key(i % 500)})
			}
			r.tick()
		}, []byte("hot"), 0.5},
		"transactions": {func(r *readable) {
			for i := range 6000 {
				r.command(&kv.Command{Op: kv.OpTxn, Txn: &kv.Txn{Then: []kv.TxnOp{
					{Kind: kv.TxnGet, Key: []byte("hot")}, {Kind: kv.TxnPut, Key: key(i % 500)},
				}}})
			}
			r.tick()
		}, []byte("hot"), 0.5},
		"scans": {func(r *readable) {
			for i := range 10 {
				r.command(&kv.Command{Op: kv.OpPut, Key: key(i)})
			}
			r.tick()
			for range 1000 {
				_, err := r.reader.Scan(r.view, kv.ScanRequest{})
				require.NoError(r.t, err)
			}
		}, nil, 0.1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReadable(t)
			test.serve(r)
			hot := r.view.hotKeys(kv.Span{})
			require.Len(t, hot, kv.HotKeysMax)
			require.InDelta(t, test.share, hot[0].Share, test.share/3, "%v", hot)
			if test.key != nil {
				require.Equal(t, test.key, hot[0].Key)
			}
			load := r.core.groups[1].shardLoad()
			require.Equal(t, hot[0].Key, load.HottestKey)
			require.Equal(t, hot[0].Share, load.HottestShare)
			r.seconds(12)
			require.Empty(t, r.view.hotKeys(kv.Span{}), "what was hot is hot still")
		})
	}
}

// TestCutFollowsTheLoad: the cut is where the load is now, in the span that it is asked for.
func TestCutFollowsTheLoad(t *testing.T) {
	r := newReadable(t)
	read := func(prefix string) {
		for i := range 4000 {
			r.get(fmt.Sprintf("%s%03d", prefix, i%1000), ByNothing(), func() {})
		}
	}
	read("a")
	key, reason := r.view.cut(kv.Span{})
	require.Empty(t, reason)
	require.True(t, bytes.HasPrefix(key, []byte("a")), "%s", key)
	key, reason = r.view.cut(kv.Span{Start: []byte("b")})
	require.Nil(t, key)
	require.Contains(t, reason, "too few requests")
	r.seconds(12)
	read("z")
	key, _ = r.view.cut(kv.Span{})
	require.True(t, bytes.HasPrefix(key, []byte("z")), "%s", key)
}

// jumped is a machine whose revision has jumped with a merge.
type jumped struct{ shard.StateMachine }

func (j jumped) Revision() kv.Revision     { return j.StateMachine.Revision() + 1_000_000 }
func (j jumped) Absorbed() *kvdv1.Absorbed { return &kvdv1.Absorbed{} }

// TestMergeIsNoLoad: a merge takes the larger revision of the two, and writes nothing by that.
func TestMergeIsNoLoad(t *testing.T) {
	l := newLone(t)
	g := l.core.groups[1]
	before, writes := g.machine.Revision(), g.view.meter.writes.Load()
	g.machine = jumped{g.machine}
	g.wrote(before)
	require.Equal(t, writes, g.view.meter.writes.Load())
}

// TestScansAreSampled: the items of one chunk are sampled like so many reads.
func TestScansAreSampled(t *testing.T) {
	m := &meter{}
	m.scanned(nil, make([]kv.Item, 10*kv.SampleEvery))
	require.InDelta(t, 10, m.taken.Load(), 2)
}

// TestMeterBeside: many readers count and sample while the loop looks, and keep no more than the bound.
func TestMeterBeside(t *testing.T) {
	const readers, each = 4, 20_000
	m := &meter{}
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			key := fmt.Appendf(nil, "k%d", i)
			for range each {
				m.read(key, 10)
			}
		})
	}
	for m.reads.Load() < readers*each {
		require.LessOrEqual(t, len(m.recent()), kv.SamplesMax)
	}
	wg.Wait()
	require.Equal(t, totals{reads: readers * each, bytes: 10 * readers * each}, m.totals())
	require.InDelta(t, readers*each/kv.SampleEvery, m.taken.Load(), 100)
	require.Len(t, m.recent(), kv.SamplesMax)
	require.Zero(t, testing.AllocsPerRun(10_000, func() { m.read([]byte("k"), 1) }), "reads that are not sampled allocate")
}
