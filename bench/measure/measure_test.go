package measure

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRecorder: what many workers noted comes out once, whole, and by kind; intervals add up to what one would be.
func TestRecorder(t *testing.T) {
	r, whole, sum := NewRecorder(), NewHistogram(), NewInterval()
	for part := range 3 {
		var all sync.WaitGroup
		for worker := range 40 {
			all.Go(func() {
				for i := range 100 {
					kind := "read"
					if i%4 == 0 {
						kind = "update"
					}
					r.Done(worker, kind, time.Duration(1+i+100*worker+part)*time.Microsecond, i%10 == 0)
				}
				r.Failed(worker, Unknown, fmt.Errorf("lost %d", worker%(1+4*part*worker)))
			})
		}
		all.Wait()
		for worker := range 40 {
			for i := range 100 {
				require.NoError(t, whole.RecordValue(int64(1+i+100*worker+part)*1000))
			}
		}
		sum.Merge(r.Take())
	}
	require.EqualValues(t, 9000, sum.Latencies["read"].TotalCount())
	require.EqualValues(t, 3000, sum.Latencies["update"].TotalCount())
	require.EqualValues(t, 1200, sum.Missed)
	require.Equal(t, map[string]uint64{Unknown: 120}, sum.Errors)
	require.EqualValues(t, 120, sum.Failed())
	require.Len(t, sum.Shown, shownMax)
	require.Equal(t, whole.Export(), sum.All().Export())
	require.Zero(t, r.Take().All().TotalCount())
}

// TestBounds: what is outside of a histogram's bounds counts as the bound.
func TestBounds(t *testing.T) {
	r := NewRecorder()
	r.Done(0, "read", 0, false)
	r.Done(0, "read", time.Hour, false)
	h := r.Take().All()
	require.EqualValues(t, 2, h.TotalCount())
	require.InEpsilon(t, float64(latencyMax), float64(h.Max()), 0.001)
	require.LessOrEqual(t, h.Min(), int64(latencyMin))
}

// TestStat: names may hold anything.
func TestStat(t *testing.T) {
	u, err := parseStat([]byte("42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 9 0 100 1000000 300 18446744073709551615 1 1\n"))
	require.NoError(t, err)
	require.Equal(t, "a) b (c)", u.Name)
	require.Equal(t, 4*time.Second, u.CPU)
	require.EqualValues(t, 300*os.Getpagesize(), u.Resident)
	for _, bad := range []string{"", "42 name S 1", "42 (name) S 1 2 3"} {
		_, err := parseStat([]byte(bad))
		require.Error(t, err, bad)
	}
}

func TestWritten(t *testing.T) {
	require.EqualValues(t, 8192, *parseWritten([]byte("rchar: 1\nwchar: 2\nwrite_bytes: 8192\ncancelled_write_bytes: 5\n")))
	require.Nil(t, parseWritten([]byte("rchar: 1\n")))
}

// TestWatch: of this very process, there are figures.
func TestWatch(t *testing.T) {
	w, err := NewWatch(t.Context(), []int{os.Getpid()}, nil)
	require.NoError(t, err)
	list, syncs, err := w.End(t.Context())
	require.NoError(t, err)
	require.Nil(t, syncs)
	require.Len(t, list, 1)
	require.Equal(t, os.Getpid(), list[0].PID)
	require.Greater(t, list[0].ResidentMax, uint64(1<<20))
	require.NotEmpty(t, list[0].Name)

	_, err = NewWatch(t.Context(), []int{1 << 30}, nil)
	require.ErrorContains(t, err, "process 1073741824")
}
