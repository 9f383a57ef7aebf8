package node

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
)

// divided is a lone node with keys k00 to k19 in shard 1, which is ordered to be split.
type divided struct {
	*lone
	g     *group
	order *kvdv1.Order
	goal  *kvdv1.SplitGoal
}

func newDivided(t *testing.T) *divided {
	l := newLone(t)
	for i := range 20 {
		require.NoError(t, l.put(fmt.Sprintf("k%02d", i)).err)
	}
	d := &divided{lone: l, g: l.core.groups[1], goal: &kvdv1.SplitGoal{
		Child: 9, Replicas: []*kvdv1.Replica{{Node: 1, Replica: 77}},
	}}
	d.order = &kvdv1.Order{Shard: 1, Goal: 5, Epoch: wire.FromEpoch(d.g.machine.Descriptor().Epoch), Step: &kvdv1.Order_Split{Split: d.goal}}
	return d
}

func (d *divided) end() string { return string(d.g.machine.Descriptor().Span.End) }

// walk does the oldest survey that waits.
func (d *divided) walk() Survey {
	require.NotEmpty(d.t, d.surveys)
	work := d.surveys[0]
	d.surveys = d.surveys[1:]
	found := work.Walk(d.t.Context())
	require.NoError(d.t, found.Err)
	return found
}

func (d *divided) take(s Survey) {
	d.in.Surveys = append(d.in.Surveys, s)
	d.tick()
	d.tick()
}

// TestSplitBySurveys: the leader finds the middle, or the neighbours of the key that halves the load, and then counts as of
// the Measure. Both halves have the counts of what they hold.
func TestSplitBySurveys(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(d *divided)
		end     string
	}{
		"the middle": {func(*divided) {}, "k1"},
		"by load": {func(d *divided) {
			d.goal.ByLoad = true
			for i := range 4000 {
				d.g.view.meter.read(fmt.Appendf(nil, "k%02dx", 14+i%2), 1) // Of keys that are not there.
			}
		}, "k15"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDivided(t)
			test.prepare(d)
			d.core.beginSplit(d.g, d.order, d.goal)
			d.take(d.walk())
			require.Empty(t, d.end(), "split before it was counted")
			require.NoError(t, d.put("k20").err)
			counted := d.walk()
			require.NoError(t, d.put("k21").err)
			d.take(counted)
			require.Equal(t, test.end, d.end())
			require.Zero(t, d.core.surveys)
			child := d.core.groups[9]
			require.NotNil(t, child)
			for _, g := range []*group{d.g, child} {
				v, err := d.state.View(g.shard, g.machine.Descriptor().Span)
				require.NoError(t, err)
				work := SurveyWork{Kind: CountFrom, Key: g.machine.Descriptor().Span.Start, Span: g.machine.Descriptor().Span, View: v}
				is := work.Walk(t.Context())
				require.NoError(t, is.Err)
				st := g.machine.State()
				require.Equal(t, []uint64{is.Keys, is.Bytes, is.Expiring}, []uint64{st.Keys, st.Bytes, st.Expiring})
			}
		})
	}
}

// TestCountsOfAnotherMeasure: what was counted as of a Measure that another has replaced is not taken: what changed between
// the two would be counted nowhere. The split goes on with the count of the one in force.
func TestCountsOfAnotherMeasure(t *testing.T) {
	d := newDivided(t)
	d.goal.Key = []byte("k10")
	d.core.beginSplit(d.g, d.order, d.goal)
	d.tick()
	stale := d.walk()
	require.NoError(t, d.put("k20").err)
	d.g.splitting = nil // The leadership was lost, and won again.
	d.core.beginSplit(d.g, d.order, d.goal)
	d.tick()
	d.take(stale)
	require.Empty(t, d.end())
	require.NotNil(t, d.g.splitting, "the split was given up")
	d.take(d.walk())
	require.Equal(t, "k10", d.end())
}

// TestSurveysAreBounded: one walk at a time for a split, however long it takes and however often it is ordered; and of all
// splits of a node no more than the bound.
func TestSurveysAreBounded(t *testing.T) {
	d := newDivided(t)
	d.core.surveys = kv.SurveysMax
	d.core.beginSplit(d.g, d.order, d.goal)
	require.Empty(t, d.surveys)
	require.Nil(t, d.g.splitting)
	require.Len(t, d.core.refusals, 1)
	require.False(t, d.core.refusals[0].GetFinal(), "it is given up for good")
	d.core.surveys = kv.SurveysMax - 1
	d.core.beginSplit(d.g, d.order, d.goal)
	require.Len(t, d.surveys, 1)
	d.now += 2 * splitMax
	d.tick()
	d.core.beginSplit(d.g, d.order, d.goal)
	require.Len(t, d.surveys, 1, "another walk for the same split")
	d.take(d.walk())
	require.NotEmpty(t, d.surveys, "the walk was for nothing")
}

// TestNoKeyNoSplit: where no key has data on both sides of it there is no split, and the reason is told (S6).
func TestNoKeyNoSplit(t *testing.T) {
	l := newLone(t)
	d := &divided{lone: l, g: l.core.groups[1], goal: &kvdv1.SplitGoal{Child: 9}}
	d.order = &kvdv1.Order{Shard: 1, Goal: 5, Step: &kvdv1.Order_Split{Split: d.goal}}
	require.NoError(t, l.put("k").err)
	d.core.beginSplit(d.g, d.order, d.goal)
	d.core.takeSurvey(d.walk())
	require.Nil(t, d.g.splitting)
	require.Len(t, d.core.refusals, 1)
	require.True(t, d.core.refusals[0].GetFinal())
	require.Contains(t, d.core.refusals[0].GetReason(), "no key has data on both sides")
}
