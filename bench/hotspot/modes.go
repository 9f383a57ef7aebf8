package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

const (
	// settleWithin is how soon a map settles that one shard under a full load began with.
	settleWithin = time.Minute
	// hopeless is in what kvd says of a shard that a split would not help.
	hopeless = "a split would not help"
)

// runMoving moves the hot spot from place to place.
func (t *trial) runMoving(ctx context.Context) error {
	var names []string
	var kinds []traffic
	for i, c := range t.cells {
		names = append(names, fmt.Sprintf("phase %d: %d keys of the cell %s (%s)", i+1, len(c.keys), c.hash, c.name))
		kinds = append(kinds, on(c.keys))
	}
	gauges, err := t.drive(ctx, t.every, names, kinds)
	if err != nil {
		return err
	}
	events, err := t.settled(ctx)
	if err != nil {
		return err
	}
	if err := t.explain(ctx, t.chart.hottest(done(events, "split"))); err != nil {
		return err
	}
	errs := []error{t.load.failed()}
	t.say("\nplace        even after  worst after %v  shards in the cell  p50      p99", evenWithin)
	for i, g := range gauges {
		c := t.cells[i]
		after, ok := g.even()
		text := after.String()
		if !ok {
			text = "never"
		}
		t.say("%-12s %10s %16.2f %19d  %.1fms  %.1fms", c.name, text, g.worst(evenWithin), t.chart.within(c.hash),
			ms(g.typical(func(s second) time.Duration { return s.p50 })), ms(g.typical(func(s second) time.Duration { return s.p99 })))
		if !ok || after > evenWithin {
			errs = append(errs, fmt.Errorf("at %s the busiest node carried more than %.1f times the mean load for longer than %v", c.name, evenUpTo, evenWithin))
		}
	}
	t.sum(events)
	return errors.Join(errs...)
}

// runCity loads one cell.
func (t *trial) runCity(ctx context.Context) error {
	city := t.cells[0]
	name := fmt.Sprintf("%.0f %% of the writes on %d keys of the cell %s (%s)", 100*cityShare, len(city.keys), city.hash, city.name)
	gauges, err := t.drive(ctx, t.length, []string{name}, []traffic{cityTraffic(city, t.world)})
	if err != nil {
		return err
	}
	events, err := t.settled(ctx)
	if err != nil {
		return err
	}
	if err := t.explain(ctx, t.chart.hottest(done(events, "split"))); err != nil {
		return err
	}
	parts := t.chart.within(city.hash)
	after, ok := gauges[0].even()
	t.say("\nthe cell %s lies in %d shards; the longest key that one begins at is %s; even after %v", city.hash, parts,
		kv.FormatKey([]byte(t.chart.deepest(city.hash))), after)
	t.sum(events)
	errs := []error{t.load.failed()}
	if parts < 2 {
		errs = append(errs, fmt.Errorf("the cell %s was not divided", city.hash))
	}
	if !ok || after > evenWithin {
		errs = append(errs, fmt.Errorf("the busiest node carried more than %.1f times the mean load for longer than %v", evenUpTo, evenWithin))
	}
	return errors.Join(errs...)
}

// runOneKey asks for one key only.
func (t *trial) runOneKey(ctx context.Context) error {
	key := t.cells[0].keys[0]
	if _, err := t.drive(ctx, t.length, []string{"all requests for " + kv.FormatKey(key)}, []traffic{on([][]byte{key})}); err != nil {
		return err
	}
	why, err := t.why(ctx, &kvdv1.WhyRequest{Key: key})
	if err != nil {
		return err
	}
	t.print(why)
	events, err := t.settled(ctx)
	if err != nil {
		return err
	}
	t.sum(events)
	errs := []error{t.load.failed()}
	if n := len(done(events, "split")); n > 0 {
		errs = append(errs, fmt.Errorf("%d splits were made for one key", n))
	}
	if !slices.ContainsFunc(why.GetVerdicts(), func(v string) bool { return strings.Contains(v, hopeless) }) {
		errs = append(errs, fmt.Errorf("kvd does not say that %s", hopeless))
	}
	return errors.Join(errs...)
}

// runZipf loads all keys, from one shard.
func (t *trial) runZipf(ctx context.Context) error {
	gauges, err := t.drive(ctx, t.length, []string{fmt.Sprintf("a zipfian load on %d keys", len(t.world))}, []traffic{on(t.world)})
	if err != nil {
		return err
	}
	events, err := t.settled(ctx)
	if err != nil {
		return err
	}
	t.say("\nevents:")
	for _, e := range events {
		t.event(e)
	}
	after, _ := gauges[0].even()
	t.say("\nthe map last changed at %v; the busiest node carried at most %.2f times the mean after %v (and is even after %v)",
		t.chart.changed.Round(time.Second), gauges[0].worst(settleWithin), settleWithin, after)
	t.sum(events)
	errs := []error{t.load.failed()}
	if t.chart.changed > settleWithin {
		errs = append(errs, fmt.Errorf("the map changed at %v, and should be settled after %v", t.chart.changed.Round(time.Second), settleWithin))
	}
	for _, text := range append(undone(events), t.chart.returns(settleWithin)...) {
		errs = append(errs, errors.New(text))
	}
	return errors.Join(errs...)
}

// sum tells how much has changed.
func (t *trial) sum(events []*kvdv1.Event) {
	t.say("%d splits, %d merges, %d moves, %d changes of leaders; %d shards", len(done(events, "split")), len(done(events, "merge")),
		len(done(events, "move")), t.chart.moves, len(t.chart.shards))
	for _, text := range t.chart.returns(0) {
		t.say("  %s", text)
	}
}
