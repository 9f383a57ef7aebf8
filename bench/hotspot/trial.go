package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/internal/wait"
)

const (
	// loadersMax bounds the puts under way while keys are loaded.
	loadersMax = 256
	// autoSplit is the setting that is off while keys are loaded: what that does to the map is not what is measured.
	autoSplit = "auto-split"
	// askMax bounds a question to the cluster.
	askMax = 10 * time.Second
)

// trial is one run.
type trial struct {
	*settings
	out   io.Writer
	load  *load
	admin *client.Client
	nodes []uint64
	world [][]byte
	cells []*cell

	began time.Time
	chart chart
}

func newTrial(s *settings, out io.Writer) (*trial, error) {
	rng := rand.New(rand.NewPCG(s.seed, 0))
	t := &trial{settings: s, out: out, world: worldKeys(rng, s.background)}
	n := 1
	if !s.city && !s.oneKey && !s.zipf {
		n = s.phases
	}
	for i := range n {
		at := places[i%len(places)]
		at.lat -= 0.05 * float64(i/len(places)) // A cell further south each time it comes round.
		t.cells = append(t.cells, newCell(rng, at, s.keys))
	}
	var err error
	if t.load, err = newLoad(s.endpoints, s.rate, s.seed); err != nil {
		return nil, err
	}
	t.admin = t.load.clients[0]
	return t, nil
}

func (t *trial) close() { t.load.close() }

func (t *trial) say(format string, args ...any) { _, _ = fmt.Fprintf(t.out, format+"\n", args...) }

// run loads the keys, drives the mode's load and judges.
func (t *trial) run(ctx context.Context) error {
	nodes, err := t.admin.Nodes(ctx)
	if err != nil {
		return err
	}
	for _, n := range nodes.GetNodes() {
		t.nodes = append(t.nodes, n.GetNode().GetNode())
	}
	if err := t.fill(ctx); err != nil {
		return fmt.Errorf("load the keys: %w", err)
	}
	t.began = time.Now()
	switch {
	case t.city:
		return t.runCity(ctx)
	case t.oneKey:
		return t.runOneKey(ctx)
	case t.zipf:
		return t.runZipf(ctx)
	}
	return t.runMoving(ctx)
}

// fill puts all keys, and waits until the load of that has faded.
func (t *trial) fill(ctx context.Context) (err error) {
	list, err := t.admin.Settings(ctx)
	if err != nil {
		return err
	}
	for _, s := range list {
		if s.GetName() != autoSplit || s.GetValue() == "false" {
			continue
		}
		if _, err := t.admin.SetSetting(ctx, autoSplit, "false"); err != nil {
			return err
		}
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askMax)
			defer cancel()
			_, back := t.admin.SetSetting(ctx, autoSplit, s.GetValue())
			err = errors.Join(err, back)
		}()
	}
	keys := append([][]byte{}, t.world...)
	for _, c := range t.cells {
		keys = append(keys, c.keys...)
	}
	t.say("loading %d keys", len(keys))
	p := t.admin.Pipeline()
	var mu sync.Mutex
	var errs []error
	slots := make(chan struct{}, loadersMax)
	value := make([]byte, valueBytes)
	for _, key := range keys {
		slots <- struct{}{}
		p.GoPut(ctx, key, value, func(_ client.PutResult, err error) {
			<-slots
			if mu.Lock(); err != nil && len(errs) < shownMost {
				errs = append(errs, err)
			}
			mu.Unlock()
		})
	}
	for range loadersMax {
		slots <- struct{}{}
	}
	return errors.Join(append(errs, wait.For(ctx, t.quiet))...)
}

// drive sends a kind of traffic after another, each for a time, and gives what was seen of each.
func (t *trial) drive(ctx context.Context, each time.Duration, names []string, kinds []traffic) ([]*gauge, error) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	t.load.what.Store(&kinds[0])
	all.Go(func() { t.load.run(ctx, t.clients) })
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	var gauges []*gauge
	for i := range kinds {
		t.load.what.Store(&kinds[i])
		t.say("%s", names[i])
		t.say("   time       ops/s  busiest/mean  shards     p50      p99  of each node")
		g := &gauge{nodes: t.nodes}
		gauges = append(gauges, g)
		for range int(each / time.Second) {
			select {
			case <-ctx.Done():
				return gauges, ctx.Err()
			case <-ticker.C:
			}
			g.seconds = append(g.seconds, t.load.take())
			t.look(ctx)
			t.tell(g)
		}
	}
	return gauges, nil
}

// look looks at the shards. One that cannot be had in time is had a second later.
func (t *trial) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if resp, err := t.admin.Shards(ctx); err == nil {
		t.chart.take(time.Since(t.began), resp.GetShards())
	}
}

// tell prints the last second.
func (t *trial) tell(g *gauge) {
	at := len(g.seconds) - 1
	s, late := g.seconds[at], ""
	if s.waived > 0 {
		late = fmt.Sprintf("  %d not sent: too many wait", s.waived)
	}
	t.say("%7v  %10d  %12.2f  %6d  %6.1fms  %6.1fms  %v%s", time.Since(t.began).Round(time.Second), s.all, g.ratio(at), len(t.chart.shards),
		ms(s.p50), ms(s.p99), g.counts(s), late)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// settled gives the events since the load began, after those of the last second have come to every node.
func (t *trial) settled(ctx context.Context) ([]*kvdv1.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	return eventsSince(ctx, t.admin, t.began)
}

// explain prints what kvd says of shards.
func (t *trial) explain(ctx context.Context, shards []uint64) error {
	for _, id := range shards[:min(len(shards), t.reasons)] {
		why, err := t.why(ctx, &kvdv1.WhyRequest{Shard: id})
		if err != nil {
			return err
		}
		t.print(why)
	}
	return nil
}

func (t *trial) why(ctx context.Context, r *kvdv1.WhyRequest) (*kvdv1.WhyResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	return t.admin.Why(ctx, r)
}

func (t *trial) print(why *kvdv1.WhyResponse) {
	t.say("why shard %d, which node %d leads, with %.0f operations a second:", why.GetShard().GetDescriptor_().GetShard(),
		why.GetShard().GetDescriptor_().GetLeader(), why.GetShard().GetLoad())
	for _, e := range why.GetEvents() {
		t.event(e)
	}
	for _, v := range why.GetVerdicts() {
		t.say("    now: %s", v)
	}
}

func (t *trial) event(e *kvdv1.Event) {
	t.say("    %7v  %s %s: %s", time.UnixMilli(e.GetTimeMs()).Sub(t.began).Round(100*time.Millisecond), e.GetKind(), e.GetState(), e.GetText())
}
