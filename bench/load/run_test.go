package load

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// fakeStore takes a time for each operation, and none from a moment to another.
type fakeStore struct {
	takes       time.Duration
	began       time.Time
	stuck, back time.Duration
	fail        func(Op) error

	mu    sync.Mutex
	store map[string]int
	kinds []Kind
}

func (s *fakeStore) Session(int) (Session, error) { return s, nil }

func (s *fakeStore) Do(_ context.Context, ops []Op, results []Result) {
	if at := time.Since(s.began); s.stuck > 0 && at >= s.stuck && at < s.back {
		time.Sleep(s.back - at)
	}
	time.Sleep(s.takes)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, op := range ops {
		s.kinds = append(s.kinds, op.Kind)
		if s.fail != nil {
			results[i].Err = s.fail(op)
		}
		if op.Kind.Writes() && results[i].Err == nil {
			s.store[string(op.Key)]++
		}
	}
}

// fakeRecorder keeps everything.
type fakeRecorder struct {
	mu     sync.Mutex
	took   []time.Duration
	failed []string
	kinds  map[string]int
}

func (r *fakeRecorder) Done(_ int, kind string, took time.Duration, _ bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.took = append(r.took, took)
	if r.kinds == nil {
		r.kinds = map[string]int{}
	}
	r.kinds[kind]++
}

func (r *fakeRecorder) Failed(_ int, kind string, _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, kind)
}

func trial(t *testing.T, name string, s *fakeStore, change func(*Config)) (*fakeRecorder, Outcome) {
	t.Helper()
	s.began, s.store = time.Now(), map[string]int{}
	r := &fakeRecorder{}
	c := Config{
		Workload: prepared(t, Workload{Name: name, ReadPercent: -1}), Target: s, Recorder: r, Clients: 1, Depth: 1, Length: 10 * time.Second,
		Judge: func(_ Op, err error) string { return err.Error() },
	}
	change(&c)
	o, err := Run(t.Context(), c)
	require.NoError(t, err)
	return r, o
}

// TestClosedLoop: each caller sends its next request when the last has ended.
func TestClosedLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, o := trial(t, "get", &fakeStore{takes: 10 * time.Millisecond}, func(c *Config) { c.Clients = 3 })
		require.Len(t, r.took, 3000)
		for _, d := range r.took {
			require.Equal(t, 10*time.Millisecond, d)
		}
		require.Zero(t, o.Unsent)
		require.Equal(t, 10*time.Millisecond, o.Gap)
	})
}

// TestOpenLoop: requests leave at their time, whatever the number of callers.
func TestOpenLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, o := trial(t, "get", &fakeStore{takes: 10 * time.Millisecond}, func(c *Config) { c.Clients, c.Rate = 8, 200 })
		require.Len(t, r.took, 2000)
		for _, d := range r.took {
			require.Equal(t, 10*time.Millisecond, d)
		}
		require.Zero(t, o.Unsent)
	})
}

// TestNoOmission: while a store stands still for 2 s, requests are due all the same, and the latency of each counts from
// there: with a rate of 100 those of 200 requests lie between 0 and 2 s. A closed loop would tell of one.
func TestNoOmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStore{takes: time.Millisecond, stuck: 4 * time.Second, back: 6 * time.Second}
		r, o := trial(t, "get", s, func(c *Config) { c.Rate = 100 })
		require.Len(t, r.took, 1000)
		slow, sum := 0, time.Duration(0)
		for _, d := range r.took {
			if d > 20*time.Millisecond {
				slow++
				sum += d
			}
		}
		require.InDelta(t, 220, slow, 15, "200 and those that waited while the others caught up")
		require.InDelta(t, 1.0, (sum / time.Duration(slow)).Seconds(), 0.1)
		require.Zero(t, o.Unsent)
		require.InDelta(t, 2.0, o.Gap.Seconds(), 0.02)
	})
}

// TestUnsent: what was due and did not leave is told.
func TestUnsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, o := trial(t, "get", &fakeStore{takes: 100 * time.Millisecond}, func(c *Config) { c.Rate, c.Clients = 50, 2 })
		require.Len(t, r.took, 200, "two callers can do twenty a second")
		require.EqualValues(t, 300, o.Unsent)
		require.Greater(t, r.took[199], 5*time.Second)
	})
}

// TestDepth: a turn sends several at a time, and the rate counts operations.
func TestDepth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, o := trial(t, "get", &fakeStore{takes: 10 * time.Millisecond}, func(c *Config) { c.Depth, c.Rate, c.Clients = 16, 320, 4 })
		require.Len(t, r.took, 3200)
		require.Zero(t, o.Unsent)
	})
}

// TestReadModifyWrite: the read comes before the write, which is left out when the read failed; both are one operation.
func TestReadModifyWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStore{takes: time.Millisecond}
		r, _ := trial(t, "f", s, func(*Config) {})
		require.Equal(t, len(r.took), r.kinds["read"]+r.kinds["read-modify-write"])
		reads, writes := 0, 0
		for _, k := range s.kinds {
			if k == Read {
				reads++
			} else {
				require.Equal(t, Update, k)
				writes++
			}
		}
		require.Equal(t, len(r.took), reads)
		require.Equal(t, r.kinds["read-modify-write"], writes)

		s = &fakeStore{takes: time.Millisecond, fail: func(Op) error { return errors.New("not done") }}
		r, o := trial(t, "f", s, func(*Config) {})
		require.NotContains(t, s.kinds, Update)
		require.Empty(t, r.took)
		require.Contains(t, r.failed, "not done")
		require.InDelta(t, 10.0, o.Gap.Seconds(), 0.01)
	})
}

// TestFill: every record is put, also when puts fail now and then.
func TestFill(t *testing.T) {
	n := 0
	s := &fakeStore{store: map[string]int{}, fail: func(Op) error {
		if n++; n%3 == 0 {
			return errors.New("busy")
		}
		return nil
	}}
	w := prepared(t, Workload{Name: "a", Keys: 1001})
	require.NoError(t, Fill(t.Context(), w, s, 4, 16))
	require.Len(t, s.store, w.Keys)

	s.fail = func(Op) error { return errors.New("broken") }
	require.ErrorContains(t, Fill(t.Context(), w, s, 4, 16), "fill: broken")
}

// TestRefusedRuns: everything that is wrong is told at once, with field and bound.
func TestRefusedRuns(t *testing.T) {
	_, err := Run(t.Context(), Config{Clients: 0, Depth: 1000, Rate: -1})
	for _, want := range []string{"clients: 1 to 10000, is 0", "depth: 1 to 512, is 1000", "rate: 0 (a closed loop) to 10000000, is -1", "time: above 0 to 24h0m0s, is 0s"} {
		require.ErrorContains(t, err, want)
	}
}
