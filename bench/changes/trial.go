package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/internal/wait"
	"github.com/kvdstore/kvd/kv"
)

const (
	// shardsBefore is into how many shards the keys are cut before anything is measured.
	shardsBefore = 8
	// settleTime is before the quiet run, and after each series.
	settleTime = time.Second
	// searchMax bounds the search for an order of the operations.
	searchMax = 3 * time.Minute
)

// ownSettings keep the plan from changing shards in between.
var ownSettings = map[string]string{"auto-split": "false", "auto-merge": "false", "balance": "false", "leader-balance": "false"}

// trial is one run against a cluster.
type trial struct {
	*settings
	prefix string
	keys   *keyspace
	rng    *rand.Rand // For keys and changes, not for workers.
	began  time.Time
	settle time.Duration
	shards int // Before the quiet run.
	out    io.Writer

	// clients: of the writers, of the readers, of the scanner, and of the operator.
	clients [4]*client.Client
	before  map[string]string // The settings that were there.
	workers []*worker
	scans   []scanned
	known   known

	quiet  window
	series []*series

	mu       sync.Mutex // Guards what follows.
	problems map[string]int
	wrong    int
}

// window is a time of the run, in nanoseconds since its beginning.
type window struct{ from, to int64 }

func newTrial(s *settings, prefix string) (*trial, error) {
	rng := rand.New(rand.NewPCG(s.seed, 0))
	t := &trial{
		settings: s, prefix: prefix, rng: rng, keys: newKeyspace(rng, prefix, s.keys), began: time.Now(), settle: settleTime, shards: shardsBefore, out: os.Stderr,
		before: map[string]string{}, problems: map[string]int{}, known: known{next: 1 << 24},
	}
	for i := range t.clients {
		c, err := client.New(client.Config{Endpoints: s.endpoints})
		if err != nil {
			t.close()
			return nil, err
		}
		t.clients[i] = c
	}
	for i := range writers + readers {
		w := &worker{
			t: t, process: i, client: t.clients[i/writers], rng: rand.New(rand.NewPCG(s.seed, uint64(i+1))),
			known: map[string]kv.Revision{}, there: map[string]bool{}, step: (*worker).read,
		}
		switch {
		case i < writers-counting:
			w.step = (*worker).change
		case i < writers:
			w.step = (*worker).count
		}
		t.workers = append(t.workers, w)
	}
	return t, nil
}

func (t *trial) close() {
	for _, c := range t.clients {
		if c != nil {
			_ = c.Close()
		}
	}
}

func (t *trial) operator() *client.Client { return t.clients[3] }

// now is a moment of the history.
func (t *trial) now() int64 { return int64(time.Since(t.began)) }

// problem notes something that must not be, and tells the first of its kind.
func (t *trial) problem(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wrong++
	if t.problems[format]++; t.problems[format] <= shownMost {
		fmt.Fprintf(t.out, "changes: "+format+"\n", args...)
	}
}

func (t *trial) say(format string, args ...any) {
	fmt.Fprintf(t.out, "changes: %7.3f s: "+format+"\n", append([]any{float64(t.now()) / 1e9}, args...)...)
}

// run loads the keys, and does both runs.
func (t *trial) run(ctx context.Context) error {
	if err := t.use(ctx, ownSettings); err != nil {
		return err
	}
	defer func() { _ = t.use(context.WithoutCancel(ctx), t.before) }()
	if err := t.load(ctx); err != nil {
		return err
	}
	if err := t.cut(ctx, t.shards); err != nil {
		return err
	}
	t.say("%d keys are loaded, in %d shards; the quiet run begins, %v", len(t.keys.all), t.shards, t.settings.run)
	working, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	for _, w := range t.workers {
		all.Go(func() { w.run(working) })
	}
	all.Go(func() { t.scan(working, t.clients[2]) })
	err := t.runs(ctx)
	stop()
	all.Wait()
	return err
}

// runs are the quiet one and the one with changes.
func (t *trial) runs(ctx context.Context) error {
	if err := wait.For(ctx, t.settle); err != nil {
		return err
	}
	t.quiet.from = t.now()
	if err := wait.For(ctx, t.settings.run); err != nil {
		return err
	}
	t.quiet.to = t.now()
	for i, kind := range t.kinds {
		n := t.changes / len(t.kinds)
		if i < t.changes%len(t.kinds) {
			n++
		}
		t.say("a series of %d changes, each a %s", n, kind)
		s, err := t.serial(ctx, kind, n, t.settings.run/time.Duration(t.changes))
		if err != nil {
			return err
		}
		t.series = append(t.series, s)
		if err := wait.For(ctx, t.settle); err != nil {
			return err
		}
	}
	return nil
}

// use sets settings, and notes what was there.
func (t *trial) use(ctx context.Context, list map[string]string) error {
	there, err := t.operator().Settings(ctx)
	if err != nil {
		return err
	}
	for _, s := range there {
		want, ok := list[s.GetName()]
		if !ok || want == s.GetValue() {
			continue
		}
		if _, known := t.before[s.GetName()]; !known {
			t.before[s.GetName()] = s.GetValue()
		}
		if _, err := t.operator().SetSetting(ctx, s.GetName(), want); err != nil {
			return fmt.Errorf("setting %s: %w", s.GetName(), err)
		}
	}
	return nil
}

// load writes every key, the counters too, which begin at 1.
func (t *trial) load(ctx context.Context) error {
	padding := strings.Repeat("x", 100)
	var all sync.WaitGroup
	for n, w := range t.workers {
		all.Go(func() {
			for i := n; i < len(t.keys.all) && ctx.Err() == nil; i += len(t.workers) {
				key := t.keys.all[i]
				o := w.begin(check.Put, key)
				o.Value = padding
				if i < len(t.keys.counters) {
					o.Value = "1"
				}
				r, err := w.client.Put(ctx, key, []byte(o.Value))
				o.Revision = r.Revision
				w.done(&o, err)
				w.history = append(w.history, o)
				t.added(o.Key)
			}
		})
	}
	all.Wait()
	return ctx.Err()
}

// verdict judges the history against what is left at the end.
func (t *trial) verdict(ctx context.Context) error {
	var all []check.History
	for _, w := range t.workers {
		all = append(all, w.history)
	}
	h := slices.Concat(all...)
	final := map[string]check.Final{}
	for item, err := range t.clients[2].Scan(ctx, client.ScanOptions{Span: t.keys.span}) {
		if err != nil {
			return fmt.Errorf("the scan at the end: %w", err)
		}
		final[string(item.Key)] = check.Final{Value: string(item.Record.Value), Revision: item.Record.Revision}
	}
	found := check.Revisions(h)
	found = append(found, check.NoLostWrites(h, final)...)
	found = append(found, check.Linearizable(h.Ended(t.now(), final), searchMax)...)
	for i, v := range found {
		if i == shownMost {
			fmt.Fprintf(t.out, "changes: … and %d more\n", len(found)-i)
			break
		}
		fmt.Fprintf(t.out, "changes: %v\n", v)
	}
	var errs []error
	if len(found) > 0 {
		errs = append(errs, fmt.Errorf("the history of %d operations does not hold: %d violations", len(h), len(found)))
	}
	if t.wrong > 0 {
		errs = append(errs, fmt.Errorf("%d problems, the first of each kind were told", t.wrong))
	}
	for _, s := range t.series {
		if bad := slices.DeleteFunc(slices.Clone(s.changes), func(c *change) bool { return c.err == nil }); len(bad) > 0 {
			errs = append(errs, fmt.Errorf("%d of %d changes of the kind %s were not made; the first: %w", len(bad), len(s.changes), s.kind, bad[0].err))
		}
	}
	if len(errs) == 0 {
		fmt.Fprintf(t.out, "changes: %d operations hold: no error, nothing lost, stale or doubled; %d keys at the end, %d scans\n", len(h), len(final), len(t.scans))
	}
	return errors.Join(errs...)
}
