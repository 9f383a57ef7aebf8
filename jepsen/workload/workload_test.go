package workload

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/kv"
)

// steps is a driver that does what it is told.
type steps func(ctx context.Context, t *thread)

func (steps) setup(context.Context) error           { return nil }
func (s steps) step(ctx context.Context, t *thread) { s(ctx, t) }
func (steps) readBack(context.Context) error        { return nil }
func takes(d time.Duration) func(context.Context) (any, error) {
	return func(context.Context) (any, error) {
		time.Sleep(d)
		return nil, nil
	}
}

// driven gives the calls of a run.
func driven(t *testing.T, processes int, rate float64, lasts time.Duration, s steps) []check.Call {
	r, err := New(Config{
		Name: "register", Prefix: "p", Processes: processes, Rate: rate, Timeout: time.Second, Clients: []*client.Client{nil}, Recorder: check.NewRecorder(),
	})
	require.NoError(t, err)
	r.driver = s
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	require.NoError(t, r.Drive(ctx))
	calls, err := check.Calls(r.Recorder.Events())
	require.NoError(t, err)
	return calls
}

// TestPace: operations begin evenly, and not in turn with the ends of those before.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := driven(t, 8, 100, time.Second+time.Millisecond, func(ctx context.Context, t *thread) {
			_ = t.read(ctx, "get", &check.Asked{}, takes(35*time.Millisecond))
		})
		require.Len(t, calls, 100)
		for i, c := range calls {
			require.Equal(t, time.Duration(i+1)*10*time.Millisecond, time.Duration(c.Began()))
			latency, ok := c.Latency()
			require.True(t, ok)
			require.Equal(t, 35*time.Millisecond, latency)
		}
	})
}

// TestStall: what could not begin while all processes waited is not left out: it is late by as much as it waited, and failed if
// it waited for longer than an operation may take.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := true
		calls := driven(t, 1, 10, 4*time.Second+time.Millisecond, func(ctx context.Context, t *thread) {
			stall := takes(0)
			if first {
				stall = takes(2 * time.Second)
			}
			first = false
			_ = t.read(ctx, "get", &check.Asked{}, stall)
		})
		require.Len(t, calls, 40)
		for i, c := range calls {
			latency, _ := c.Latency()
			switch {
			case i == 0:
				require.Equal(t, 2*time.Second, latency)
			case i < 10: // Due until 1.0 s, and it is 2.1 s.
				require.Equal(t, dropped, c.Invoke.F)
				require.Equal(t, check.Failed, c.Type())
			case i < 21:
				require.Equal(t, "get", c.Invoke.F)
				require.Equal(t, 2100*time.Millisecond-time.Duration(i+1)*100*time.Millisecond, latency)
			default:
				require.Zero(t, latency)
			}
		}
	})
}

// TestEnds: how an operation has ended is told by its error, and who does not know goes on as another process.
func TestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notDone, unknown := fmt.Errorf("x%w", client.ErrNotDone), fmt.Errorf("x%w", client.ErrUnknown)
		list := []struct {
			err         error
			read, write check.EventType
		}{{nil, check.OK, check.OK}, {notDone, check.Failed, check.Failed}, {errConditions, check.Failed, check.Failed}, {unknown, check.Failed, check.Info}, {errors.New("?"), check.Failed, check.Info}}
		n := 0
		calls := driven(t, 1, 10, time.Second+time.Millisecond, func(ctx context.Context, t *thread) {
			if n == 2*len(list) {
				return
			}
			do := t.read
			if n%2 == 1 {
				do = t.write
			}
			err := list[n/2].err
			n++
			_ = do(ctx, "x", &check.Asked{Key: "k"}, func(context.Context) (any, error) { return "told", err })
		})
		require.Len(t, calls, 2*len(list))
		process := 0
		for i, c := range calls {
			want := list[i/2].read
			if i%2 == 1 {
				want = list[i/2].write
			}
			require.Equal(t, want, c.Type(), i)
			require.Equal(t, want == check.OK, string(c.Done.Value) == `"told"`)
			require.Equal(t, want != check.OK, c.Done.Error != "")
			require.Equal(t, process, c.Invoke.Process)
			if want == check.Info {
				process++
			}
		}
	})
}

func TestClosed(t *testing.T) {
	c, err := client.New(client.Config{Endpoints: []string{"127.0.0.1:1"}})
	require.NoError(t, err)
	require.NoError(t, c.Close())
	r, err := New(Config{Name: "register", Prefix: "p", Processes: 2, Rate: 1000, Timeout: time.Second, Clients: []*client.Client{c}, Recorder: check.NewRecorder()})
	require.NoError(t, err)
	require.ErrorIs(t, r.Drive(t.Context()), client.ErrClosed)
}

func TestConfig(t *testing.T) {
	_, err := New(Config{Name: "casino", Prefix: strings.Repeat("p", 257), Rate: -1, Skew: -1, Timeout: time.Hour})
	for _, field := range []string{"workload: one of [register", "prefix: 1 to 256", "processes: 1 to 1024, is 0", "rate: above 0", "timeout: above 0 and up to 1m0s", "skew: 0 or more", "clients: at least one", "recorder"} {
		require.ErrorContains(t, err, field)
	}
	_, err = Judge("casino", nil)
	require.ErrorAs(t, err, new(*kv.InvalidError))
	_, err = Judge("register", []check.Event{{Type: check.OK, F: "get"}})
	require.ErrorContains(t, err, "judge register: event 0")
	_, err = Judge("bank", []check.Event{{Type: check.Invoked, F: "transfer", Value: []byte("7")}})
	require.ErrorContains(t, err, "judge bank: event 0")
}

// TestCuts: the keys of a run are spread evenly over the shards that the cuts make.
func TestCuts(t *testing.T) {
	cuts := Cuts("p/", 8)
	require.Equal(t, []string{"p/20", "p/40", "p/60", "p/80", "p/a0", "p/c0", "p/e0"}, cuts)
	require.Len(t, Cuts("p/", 1000), 255)
	require.Empty(t, Cuts("p/", 1))
	counts := make([]int, 8)
	for n := range 80 {
		shard := 0
		for shard < len(cuts) && spread("p/", n) >= cuts[shard] {
			shard++
		}
		counts[shard]++
	}
	for _, n := range counts {
		require.InDelta(t, 10, n, 1, "%v", counts)
	}
}

// TestPool: names come and go: after their uses, sooner with operations in doubt.
func TestPool(t *testing.T) {
	r, err := New(Config{Name: "register", Prefix: "p", Processes: 1, Rate: 1, Timeout: 1, Clients: []*client.Client{nil}, Recorder: check.NewRecorder()})
	require.NoError(t, err)
	rng := r.threads[0].rng
	p := newPool("p/", 1, 30)
	for range 30 {
		name, revision := p.pick(rng)
		require.Equal(t, spread("p/", 0), name)
		require.Zero(t, revision)
	}
	name, _ := p.pick(rng)
	require.Equal(t, spread("p/", 1), name)
	p.note(name, check.Told{Revision: 7}, nil)
	p.note(name, check.Told{Revision: 5}, nil)
	_, revision := p.pick(rng)
	require.Equal(t, kv.Revision(7), revision)
	p.judge(name, client.ErrUnknown)
	p.judge(name, &kv.CrossShardError{})
	p.judge(name, client.ErrNotDone)
	for range 8 {
		again, _ := p.pick(rng)
		require.Equal(t, name, again)
	}
	name, _ = p.pick(rng)
	require.Equal(t, spread("p/", 2), name)
	p.retire(name)
	name, _ = p.pick(rng)
	require.Equal(t, spread("p/", 3), name)
	require.Len(t, p.all(), 4)
}

func TestStoredLists(t *testing.T) {
	require.Equal(t, []int64{}, parseList(""))
	require.Equal(t, []int64{1, 20}, parseList(appended(appended("", 1), 20)))
	require.Equal(t, []int64{1, notAnElement}, parseList("1,x"))
}

// TestResults: an answer with other results than were asked for is none.
func TestResults(t *testing.T) {
	resp := &kvdv1.TxnResponse{Succeeded: true, Results: []*kvdv1.TxnOpResult{{Value: []byte("7"), Revision: 3}}}
	told, err := balancesOf(resp, 1)
	require.NoError(t, err)
	require.Equal(t, check.BankTold{Values: []string{"7"}, Revisions: []kv.Revision{3}}, told)
	_, err = balancesOf(resp, 2)
	require.ErrorContains(t, err, "a transaction on 2 accounts has 1 results")
}

// TestNotServed: a cluster without reads of any replica gets a note, and no figures of their age.
func TestNotServed(t *testing.T) {
	v, err := Judge("stale", []check.Event{
		{Index: 0, Type: check.Invoked, F: check.EventualName, Value: []byte(`{"key":"k"}`)},
		{Index: 1, Type: check.Failed, F: check.EventualName, Time: 1, Error: "not supported by this version"},
	})
	require.NoError(t, err)
	require.Equal(t, "EVENTUAL reads were not served, so nothing is known of them: not supported by this version", v.Note)
	require.NotContains(t, v.Figures, "staleness_max_ms")
	require.Equal(t, 1.0, v.Figures["eventual_reads_failed"])
}

// TestAges: how old reads were, as figures and over time.
func TestAges(t *testing.T) {
	j := &judging{verdict: Verdict{Figures: map[string]float64{}, Series: map[string][]Point{}}}
	ms := int64(time.Millisecond)
	j.ages([]check.Age{{At: 230 * ms, Age: 30 * time.Millisecond}, {At: 10 * ms}, {At: 20 * ms, Age: 8 * time.Millisecond}})
	require.Equal(t, []Point{{0, 4}, {200 * ms, 30}}, j.verdict.Series["staleness_mean_ms"])
	require.Equal(t, []Point{{0, 8}, {200 * ms, 30}}, j.verdict.Series["staleness_max_ms"])
	require.Equal(t, map[string]float64{"stale_reads": 2, "staleness_p99_ms": 30, "staleness_max_ms": 30}, j.verdict.Figures)
}

func TestUndecided(t *testing.T) {
	require.False(t, (&Verdict{Valid: true}).Undecided())
	late, lost := check.Violation{Rule: check.TimedOut}, check.Violation{Rule: check.LostWrite}
	require.True(t, (&Verdict{Violations: []check.Violation{late}}).Undecided())
	require.False(t, (&Verdict{Violations: []check.Violation{late, lost}}).Undecided())
}
