package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/bench/measure"
)

// fieldsAfter gives the fields of the first line, from a heading on, that begins with some.
func fieldsAfter(t *testing.T, text, heading string, prefix ...string) []string {
	at := strings.Index(text, heading)
	require.GreaterOrEqual(t, at, 0, heading)
	for line := range strings.Lines(text[at:]) {
		if f := strings.Fields(line); len(f) > len(prefix) && strings.Join(f[:len(prefix)], " ") == strings.Join(prefix, " ") {
			return f[len(prefix):]
		}
	}
	require.Fail(t, "no line", "%v in\n%s", prefix, text)
	return nil
}

// grown is a machine that is twice as fast in the second round; more shards make it slower by a half and a third.
func grown() (list []*Run) {
	for round, drift := range []float64{1, 2} {
		for _, x := range []struct {
			system   string
			rate     float64
			standing *Standing
		}{
			{"1", 300, &Standing{Shards: 1, Start: 1, Cores: 0.1, Asleep: 1, Resident: 100 << 20}},
			{"9", 200, &Standing{Shards: 9, Start: 2 * drift, Cores: 0.5, Asleep: 8, Resident: 108 << 20, Disk: 5 << 20, Cached: 7 << 20}},
			{"1 of 9", 150, nil},
		} {
			r := runOf("put", x.system, round+1, drift*x.rate, 1)
			r.Standing, r.Errors = x.standing, map[string]uint64{measure.Unknown: 1}
			list = append(list, r)
		}
	}
	return list
}

// TestTellGrowth: shares are of runs in the same round; what a shard adds is of those beyond the smallest cluster's; a goal that
// is missed is named, one that nothing was measured of is not.
func TestTellGrowth(t *testing.T) {
	var b bytes.Buffer
	missed, err := TellGrowth(&b, grown(), []Goal{{"1 of 9", "1", 0.5}, {"9", "1", 0.7}, {"9", "none", 1}})
	require.NoError(t, err)
	require.Equal(t, []string{"put: 9 is at 0.67 of 1, wanted 0.70"}, missed)
	text := b.String()
	require.Equal(t, []string{"300", "200", "to", "400", "0.67"}, fieldsAfter(t, text, "case", "put", "9")[:5])
	require.Equal(t, "2", fieldsAfter(t, text, "case", "put", "9")[8], "errors of both rounds")
	idle := text[strings.Index(text, "idle"):strings.Index(text, "as a share")]
	require.Equal(t, "9 8 3.00 2.00 to 4.00 0.500 0.500 to 0.500 108 5 7 50000.0 1024.0", strings.Join(fieldsAfter(t, idle, "system", "9"), " "))
	require.Equal(t, "1 1 1.00 1.00 to 1.00 0.100 0.100 to 0.100 100 0 0", strings.Join(fieldsAfter(t, idle, "system", "1"), " "), "it is what others are compared with")
	require.NotContains(t, idle, "1 of 9", "nobody looked")
	require.Equal(t, "met", fieldsAfter(t, text, "as a share", "put", "1", "of", "9")[6])

	b.Reset()
	plain := []*Run{runOf("get", "1", 1, 1, 1)}
	missed, err = TellGrowth(&b, plain, nil)
	require.NoError(t, err)
	require.Empty(t, missed)
	require.NotContains(t, b.String(), "idle")
	require.NotContains(t, b.String(), "as a share")
}

// TestTellGC: what counts is the worst round; a millisecond is no longer below one.
func TestTellGC(t *testing.T) {
	var runs []*Run
	for round, tail := range []float64{0.5, 0.9, 1} {
		r := runOf("full", "many", round+1, 100, 1)
		r.Standing = &Standing{Cached: 3000}
		r.GC = &measure.GC{Share: 0.25, Idle: 0.1, Pauses: 40, LongPauses: 2, PauseP50: 0.1, PauseP999: tail, PauseMost: 2 * tail, WaitP999: 3, GetP999: 4, PutP999: 5}
		few := runOf("full", "few", round+1, 100, 1)
		few.GC = &measure.GC{PauseP999: 0.99}
		runs = append(runs, few, r)
	}
	var b bytes.Buffer
	missed, err := TellGC(&b, runs, 300, 1)
	require.NoError(t, err)
	require.Equal(t, []string{"full: the 99.9th percentile of the pauses with many is up to 1.000 ms, wanted less than 1"}, missed)
	require.Equal(t, []string{"10", "0", "100"}, fieldsAfter(t, b.String(), "case", "full", "many")[:3])
	require.Equal(t, []string{"4.000", "5.000"}, fieldsAfter(t, b.String(), "case", "full", "many")[7:9])
	require.Equal(t, "25.00 10.00 40 0.100 0.900 1.800 1.000 2.000 2 3.000 missed", strings.Join(fieldsAfter(t, b.String(), "pauses of", "full", "many"), " "))
	require.Equal(t, "met", fieldsAfter(t, b.String(), "pauses of", "full", "few")[10])
}
